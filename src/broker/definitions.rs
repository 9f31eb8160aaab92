//! The objects on the broker, written for others: as RabbitMQ's definitions, and as resources of its topology operator.

use std::collections::BTreeSet;

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value, json};

use super::settings::BrokerSettings;
use super::topology::{Object, objects};

/// What `rabbitmqctl import_definitions` reads.
pub fn definitions(broker: &BrokerSettings) -> Value {
    let vhost = broker.addresses.first().vhost;
    let mut of = [Vec::new(), Vec::new(), Vec::new()];
    for object in objects(broker) {
        let (kind, definition) = match object {
            Object::Exchange { name, kind, arguments } => (
                0,
                json!({"name": name, "vhost": vhost, "type": type_of(&kind), "durable": true, "auto_delete": false,
                    "internal": false, "arguments": json_of(&arguments)}),
            ),
            Object::Queue { name, arguments } => (
                1,
                json!({"name": name, "vhost": vhost, "durable": true, "auto_delete": false, "arguments": json_of(&arguments)}),
            ),
            Object::Binding { name } => (
                2,
                json!({"source": name, "vhost": vhost, "destination": name, "destination_type": "queue",
                    "routing_key": "", "arguments": {}}),
            ),
        };
        of[kind].push(definition);
    }
    let [exchanges, queues, bindings] = of;
    json!({"vhosts": [{"name": vhost}], "exchanges": exchanges, "queues": queues, "bindings": bindings})
}

/// A list for `kubectl apply`: what the Messaging Topology Operator makes of it are the same objects. `cluster` is the
/// name of the `RabbitmqCluster` in the namespace that the list is applied to.
pub fn custom_resources(broker: &BrokerSettings, cluster: &str) -> Value {
    let vhost = broker.addresses.first().vhost;
    let mut taken = BTreeSet::new();
    let items = objects(broker).into_iter().map(|object| {
        let (kind, name, mut spec) = match object {
            Object::Exchange { name, kind, arguments } => {
                let spec = json!({"name": name, "type": type_of(&kind), "durable": true, "autoDelete": false, "arguments": json_of(&arguments)});
                ("Exchange", name, spec)
            }
            Object::Queue { name, arguments } => {
                let mut arguments = json_of(&arguments);
                // The operator has a field for it, and sets the argument itself.
                let kind = arguments.remove("x-queue-type").unwrap_or_else(|| "quorum".into());
                let spec = json!({"name": name, "type": kind, "durable": true, "autoDelete": false, "arguments": arguments});
                ("Queue", name, spec)
            }
            Object::Binding { name } => {
                let spec = json!({"source": name, "destination": name, "destinationType": "queue", "routingKey": ""});
                ("Binding", name, spec)
            }
        };
        spec["vhost"] = vhost.clone().into();
        spec["rabbitmqClusterReference"] = json!({"name": cluster});
        let name = resource_name(kind, &name, &mut taken);
        json!({"apiVersion": "rabbitmq.com/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    });
    json!({"apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>()})
}

/// Kubernetes allows fewer letters than RabbitMQ. Two objects of a kind never get the same name.
fn resource_name(kind: &'static str, name: &str, taken: &mut BTreeSet<(&'static str, String)>) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let plain: String = name.chars().map(allowed).collect();
    // Each part between dots begins and ends with a letter or digit.
    let parts = plain.split('.').map(|part| part.trim_matches('-')).filter(|part| !part.is_empty());
    let plain = parts.collect::<Vec<_>>().join(".");
    let plain = if plain.is_empty() { "otp".to_owned() } else { plain };
    let mut name = plain.clone();
    let mut count = 1;
    while !taken.insert((kind, name.clone())) {
        count += 1;
        name = format!("{plain}-{count}");
    }
    name
}

fn type_of(kind: &ExchangeKind) -> &str {
    match kind {
        ExchangeKind::Custom(name) => name,
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
        ExchangeKind::Headers => "headers",
        ExchangeKind::Topic => "topic",
    }
}

fn json_of(arguments: &FieldTable) -> Map<String, Value> {
    arguments.inner().iter().map(|(name, value)| (name.to_string(), json_value(value))).collect()
}

/// The arguments of our objects are texts and numbers. Anything else would show as `null`, and a test would fail.
fn json_value(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::LongString(text) => text.to_string().into(),
        AMQPValue::LongInt(number) => (*number).into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(settings: &'static [(&'static str, &'static str)]) -> BrokerSettings {
        let find = |env: &str| settings.iter().find(|(name, _)| *name == env).map(|(_, value)| (*value).to_owned());
        BrokerSettings::read(&|setting| find(setting.env)).unwrap()
    }

    fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
        list.as_array().unwrap().iter().find(|object| object["name"] == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn definitions_have_every_object_once_and_every_argument() {
        let definitions = definitions(&broker(&[("AMQP_URL", "amqp://127.0.0.1/otp")]));
        assert_eq!(definitions["vhosts"], json!([{"name": "otp"}]));
        let lengths = ["exchanges", "queues", "bindings"].map(|kind| definitions[kind].as_array().unwrap().len());
        assert_eq!(lengths, [4, 4, 3]);
        assert_eq!(
            named(&definitions["queues"], "otp.jobs"),
            &json!({"name": "otp.jobs", "vhost": "otp", "durable": true, "auto_delete": false, "arguments": {
                "x-queue-type": "quorum",
                "x-dead-letter-exchange": "otp.dropped",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
                "x-delivery-limit": 20,
            }})
        );
        assert_eq!(
            named(&definitions["exchanges"], "otp.results")["arguments"],
            json!({"alternate-exchange": "otp.results.unrouted"})
        );
        assert!(!definitions.to_string().contains("null"), "{definitions}");
    }

    #[test]
    fn custom_resources_are_the_same_objects() {
        let broker = broker(&[("OTP_QUEUE", "Jobs_of/OTP.")]);
        let list = custom_resources(&broker, "rabbit");
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), objects(&broker).len());
        let jobs = items.iter().find(|item| item["spec"]["name"] == "Jobs_of/OTP.").unwrap();
        assert_eq!(jobs["metadata"]["name"], "jobs-of-otp");
        assert_eq!(jobs["kind"], "Queue");
        assert_eq!(jobs["spec"]["type"], "quorum");
        assert_eq!(jobs["spec"]["arguments"].get("x-queue-type"), None);
        assert_eq!(jobs["spec"]["arguments"]["x-delivery-limit"], 20);
        assert!(items.iter().all(|item| item["spec"]["rabbitmqClusterReference"]["name"] == "rabbit"));
        assert!(items.iter().all(|item| item["spec"]["vhost"] == "/"));
    }

    #[test]
    fn names_that_become_alike_stay_apart() {
        let mut taken = BTreeSet::new();
        let mut name = |kind, name| resource_name(kind, name, &mut taken);
        assert_eq!(name("Queue", "a_b"), "a-b");
        assert_eq!(name("Queue", "a-b"), "a-b-2");
        assert_eq!(name("Queue", "A-B"), "a-b-3");
        assert_eq!(name("Binding", "a-b"), "a-b");
        assert_eq!(name("Queue", "…-.."), "otp");
        assert_eq!(name("Queue", "a-.b"), "a.b");
    }
}
