//! The AsyncAPI 3.0 document: the worker receives jobs and sends results.

use serde_json::{Map, Value, json};

use crate::broker::settings::BrokerSettings;
use crate::job::result::Outcome;
use crate::job::schema;

/// The document, with the names of these settings.
pub(super) fn document(broker: &BrokerSettings) -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "esms-otp-worker",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Jobs that ask for a one-time password to be sent through eSMS.vn, and results that say what became of them.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "rabbitmq.example:5671",
                "protocol": "amqps",
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ 3.10 or later.",
                "security": [{"$ref": "#/components/securitySchemes/user"}],
            }
        },
        "channels": {"jobs": jobs(broker), "results": results(broker), "replies": replies()},
        "operations": {"workJob": work_job(), "publishResult": publish_result()},
        "components": {
            "messages": {"job": job_message(), "result": result_message()},
            "schemas": {"job": bare(schema::job()), "result": bare(schema::result())},
            "securitySchemes": {"user": {"type": "userPassword"}},
        },
    })
}

fn work_job() -> Value {
    json!({
        "action": "receive",
        "summary": "Publish to the default exchange, persistent and mandatory, with publisher confirms.",
        "channel": {"$ref": "#/channels/jobs"},
        "messages": [{"$ref": "#/channels/jobs/messages/job"}],
        "bindings": {"amqp": {"ack": true, "deliveryMode": 2, "bindingVersion": "0.3.0"}},
        "reply": {
            "address": {
                "description": "The property reply_to of the job, where it has one. Direct reply-to works.",
                "location": "$message.header#/reply_to",
            },
            "channel": {"$ref": "#/channels/replies"},
            "messages": [{"$ref": "#/channels/replies/messages/result"}],
        },
    })
}

fn publish_result() -> Value {
    json!({
        "action": "send",
        "summary": "At least once for each job. Bind a queue to the exchange with otp.# or otp.OUTCOME.",
        "channel": {"$ref": "#/channels/results"},
        "messages": [{"$ref": "#/channels/results/messages/result"}],
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": true, "bindingVersion": "0.3.0"}},
    })
}

fn replies() -> Value {
    json!({
        "address": null,
        "description": "The queue that reply_to names.",
        "messages": {"result": {"$ref": "#/components/messages/result"}},
    })
}

fn jobs(broker: &BrokerSettings) -> Value {
    json!({
        "address": broker.queue,
        "description": "The queue of jobs: a quorum queue that the worker declares.",
        "messages": {"job": {"$ref": "#/components/messages/job"}},
        "bindings": {"amqp": {
            "is": "queue",
            "queue": {"name": broker.queue, "durable": true, "exclusive": false, "autoDelete": false},
            "bindingVersion": "0.3.0",
        }},
    })
}

fn results(broker: &BrokerSettings) -> Value {
    json!({
        "address": "otp.{outcome}",
        "description": "The routing keys of results.",
        "parameters": {"outcome": {"enum": Outcome::ALL.map(Outcome::as_str)}},
        "messages": {"result": {"$ref": "#/components/messages/result"}},
        "bindings": {"amqp": {
            "is": "routingKey",
            "exchange": {"name": broker.reply_exchange, "type": "topic", "durable": true, "autoDelete": false},
            "bindingVersion": "0.3.0",
        }},
    })
}

fn job_message() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "name": "job",
        "contentType": "application/json",
        "description": "The properties of AMQP are shown as headers.",
        "headers": {
            "type": "object",
            "properties": {
                "message_id": text("The job's id, at most 200 bytes: what a repeat is recognised by. Derive it from the login attempt."),
                "correlation_id": text("Copied to the result."),
                "reply_to": text("A queue that the result is published to, too."),
                "timestamp": {"type": "integer", "description": "When the job was made, in seconds since 1970. The deadline counts from it."},
                "expiration": {"type": "string", "pattern": "^[0-9]+$", "description": "Milliseconds after which the job must not be sent any more."},
                "traceparent": text("W3C trace context, among the headers of the message."),
            },
        },
        "payload": {"$ref": "#/components/schemas/job"},
        "bindings": {"amqp": {"contentEncoding": "utf-8", "messageType": "job", "bindingVersion": "0.3.0"}},
        "examples": [{
            "name": "job",
            "headers": {"message_id": "5f0c2a4e-3f0e-4b57-9d0c-1a2b3c4d5e6f", "expiration": "120000"},
            "payload": schema::example_job(),
        }],
    })
}

fn result_message() -> Value {
    json!({
        "name": "result",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                "message_id": {"type": "string", "description": "The job's id with :result added; the same for every copy."},
                "correlation_id": {"type": "string", "description": "The job's, or its id."},
            },
        },
        "payload": {"$ref": "#/components/schemas/result"},
        "bindings": {"amqp": {"contentEncoding": "utf-8", "messageType": "result", "bindingVersion": "0.3.0"}},
        "examples": [{"name": "accepted", "payload": schema::example_result()}],
    })
}

/// Without its dialect: the document's own is the default there.
fn bare(schema: Value) -> Value {
    let mut fields: Map<String, Value> = match schema {
        Value::Object(fields) => fields,
        other => return other,
    };
    fields.remove("$schema");
    fields.into()
}
