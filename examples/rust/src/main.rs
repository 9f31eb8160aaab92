// One OTP, with lapin: puts a job on the queue, waits for its result, says what to tell the person.
//
//     cargo run -- PHONE TEMPLATE ID
//
// ID belongs to the code that the person asks for, not to the press of the button: login-<session>-<n>. A second
// press has the same ID: it gets the same result, and sends nothing. Only another code has another n.

use std::{env, process::ExitCode, time::Duration, time::SystemTime};

use futures_util::StreamExt as _;
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties, options::*, types::FieldTable};
use serde_json::{Value, json};

// Outcome: what to tell the person, and when the Resend button may be shown.
fn words(outcome: &str) -> (&'static str, &'static str) {
    match outcome {
        "accepted" => ("Enter the code that we have sent to you.", "in 60 s, with a new id"),
        "rejected" | "invalid" => ("We cannot send a code to this number. Is it right?", "no"),
        "failed" => ("No code was sent. Please try again.", "now, with the same id"),
        "expired" => ("No code was sent in time. Please try again.", "now, with the same id"),
        "limited" => ("You have asked for many codes. Please wait.", "no"),
        _unknown => ("A code may be on its way. Enter it when it comes.", "in 60 s, with a new id"),
    }
}

/// The result, or why there is none.
async fn send(phone: &str, template: &str, id: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    // For direct reply-to, the consumer comes first, on the same channel.
    let (answers, no_ack) = ("amq.rabbitmq.reply-to", BasicConsumeOptions { no_ack: true, ..Default::default() });
    let mut results = channel.basic_consume(answers.into(), "".into(), no_ack, FieldTable::default()).await?;
    // The code lives for 5 minutes. It must be sent within 20 s; a call that has begun by then may take longer.
    let job = json!({"Phone": phone, "MultiChannelTempId": template, "TimeAlive": "5"}).to_string();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let properties = BasicProperties::default().with_message_id(id.into()).with_correlation_id(id.into());
    let properties = properties.with_reply_to(answers.into()).with_timestamp(now).with_expiration("20000".into());
    let properties = properties.with_delivery_mode(2).with_content_type("application/json".into());
    let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
    let publish = channel.basic_publish("".into(), "otp.jobs".into(), mandatory, job.as_bytes(), properties);
    let Confirmation::Ack(None) = publish.await?.await? else {
        return Err("not queued: otp.jobs does not exist, or is full. Does a worker run?".into());
    };
    let result = tokio::time::timeout(Duration::from_secs(35), results.next()).await;
    let result = result.map_err(|_| "no result in time. A code may still come: enter it when it does")?;
    Ok(serde_json::from_slice(&result.ok_or("the broker went away")??.data)?)
}

#[tokio::main]
async fn main() -> ExitCode {
    let [phone, template, id] = [1, 2, 3].map(|place| env::args().nth(place).unwrap_or_default());
    let result = send(&phone, &template, &id).await.unwrap_or_else(|why| {
        eprintln!("Without a result: {why}. Resend: now, with the same id");
        std::process::exit(1)
    });
    let (tell, resend) = words(result["Outcome"].as_str().unwrap_or_default());
    let more = if result["MayBeDuplicate"] == true { " One code more may come: enter the newest." } else { "" };
    let resend = result["RetryAfter"].as_u64().map_or(resend.into(), |after| format!("in {after} s, with the same id"));
    println!("{result}\nTell: {tell}{more}\nResend: {resend}");
    ExitCode::from(u8::from(result["Outcome"] != "accepted"))
}
