//! The bare loop: what a competent engineer writes in ten minutes. One connection, one channel, one task for
//! each job; a job is acknowledged after its result is confirmed. It is measured beside the worker
//! (`make bench`), and does nothing that the promises of the worker need: no ledger, no retry, no metric, no log.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde::{Deserialize, Serialize};

/// Any error. It ends the program, or is printed.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Job {
    phone: String,
    multi_channel_temp_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    api_key: &'a str,
    secret_key: &'a str,
    phone: &'a str,
    multi_channel_temp_id: &'a str,
    type_id: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    code_result: String,
    #[serde(rename = "SMSID")]
    sms_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    job_id: &'a str,
    outcome: &'a str,
    code_result: &'a str,
    #[serde(rename = "SMSID")]
    sms_id: Option<&'a str>,
}

struct Settings {
    exchange: String,
    api_key: String,
    secret_key: String,
}

/// A setting from the environment.
pub fn setting(name: &str) -> Result<String, Failed> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

/// Works the queue until the connection ends. `call` posts a JSON body to the endpoint and gives the answer's body.
pub async fn run<C, F>(call: C) -> Result<(), Failed>
where
    C: Fn(Vec<u8>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Bytes, Failed>> + Send,
{
    let settings = Arc::new(Settings {
        exchange: setting("EXCHANGE")?,
        api_key: setting("ESMS_API_KEY")?,
        secret_key: setting("ESMS_SECRET_KEY")?,
    });
    let connection = Connection::connect(&setting("AMQP_URL")?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(setting("PREFETCH")?.parse()?, BasicQosOptions::default()).await?;
    let (queue, options) = (setting("QUEUE")?, BasicConsumeOptions::default());
    let mut consumer = channel.basic_consume(queue.into(), "bare".into(), options, FieldTable::default()).await?;
    while let Some(delivery) = consumer.next().await {
        let (delivery, channel, settings, call) = (delivery?, channel.clone(), Arc::clone(&settings), call.clone());
        tokio::spawn(async move {
            if let Err(error) = work(delivery, &channel, &settings, call).await {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

async fn work<C, F>(delivery: Delivery, channel: &Channel, settings: &Settings, call: C) -> Result<(), Failed>
where
    C: Fn(Vec<u8>) -> F,
    F: Future<Output = Result<Bytes, Failed>>,
{
    let id = delivery.properties.message_id().as_ref().map(|id| id.as_str()).ok_or("no message_id")?;
    let Job { phone, multi_channel_temp_id } = &serde_json::from_slice(&delivery.data)?;
    let (api_key, secret_key) = (&settings.api_key, &settings.secret_key);
    let request = Request { api_key, secret_key, phone, multi_channel_temp_id, type_id: "2" };
    let Answer { code_result, sms_id } = &serde_json::from_slice(&call(serde_json::to_vec(&request)?).await?)?;
    let outcome = if code_result == "100" { "accepted" } else { "rejected" };
    let event = serde_json::to_vec(&Event { job_id: id, outcome, code_result, sms_id: sms_id.as_deref() })?;
    let properties =
        BasicProperties::default().with_delivery_mode(2).with_message_id(format!("{id}:result").try_into()?);
    let (exchange, key) = (settings.exchange.as_str().into(), format!("otp.{outcome}").into());
    let publish = channel.basic_publish(exchange, key, BasicPublishOptions::default(), &event, properties);
    if !publish.await?.await?.is_ack() {
        return Err("the broker did not take the result".into());
    }
    delivery.ack(BasicAckOptions::default()).await?;
    Ok(())
}
