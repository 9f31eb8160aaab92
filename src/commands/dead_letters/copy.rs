//! The properties of what is published of a letter: a job for the queue of jobs, or the letter itself once more. Pure.

use lapin::BasicProperties;
use lapin::types::{FieldTable, ShortString};

use super::letter::Letter;
use crate::broker::DIRECT_REPLY;
use crate::job::dead;

/// The job as its producer published it, under this id. With `is_fresh` its lifetime begins now.
pub(super) fn of_job(letter: &Letter, id: &str, is_fresh: bool) -> BasicProperties {
    let given = &letter.properties;
    let is_dropped = |name: &str| is_of_death(name) || (is_fresh && name == "timestamp_in_ms");
    let mut job = kept(given, |name| !is_dropped(name)).with_message_id(ShortString::from(id));
    if let Some(queue) = given.reply_to().as_ref().filter(|queue| !queue.as_str().starts_with(DIRECT_REPLY)) {
        job = job.with_reply_to(queue.clone());
    }
    // The producer knows the result of a job that it gave an id by that id.
    let known_by = given.correlation_id().clone().or_else(|| given.message_id().clone());
    if let Some(known_by) = known_by.filter(|known_by| !known_by.as_str().is_empty()) {
        job = job.with_correlation_id(known_by);
    }
    if is_fresh {
        return job;
    }
    if let Some(value) = given.timestamp() {
        job = job.with_timestamp(*value);
    }
    match &letter.expiration {
        Some(value) => job.with_expiration(value.clone()),
        None => job,
    }
}

/// The letter as it is, but for what counts how often it was looked at.
pub(super) fn of_letter(given: &BasicProperties) -> BasicProperties {
    let mut copy = kept(given, |name| !is_count(name));
    if let Some(value) = given.message_id() {
        copy = copy.with_message_id(value.clone());
    }
    if let Some(value) = given.correlation_id() {
        copy = copy.with_correlation_id(value.clone());
    }
    if let Some(value) = given.reply_to().as_ref().filter(|queue| queue.as_str() != DIRECT_REPLY) {
        copy = copy.with_reply_to(value.clone());
    }
    if let Some(value) = given.timestamp() {
        copy = copy.with_timestamp(*value);
    }
    match given.expiration() {
        Some(value) => copy.with_expiration(value.clone()),
        None => copy,
    }
}

/// What both have. The broker refuses a `user_id` of another user, and would route by `CC` and `BCC`.
fn kept(given: &BasicProperties, keeps: impl Fn(&str) -> bool) -> BasicProperties {
    let mut copy = BasicProperties::default().with_delivery_mode(2);
    let mut headers = FieldTable::default();
    for (name, value) in given.headers().iter().flat_map(|headers| headers.inner()) {
        if !matches!(name.as_str(), "CC" | "BCC") && keeps(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    if !headers.inner().is_empty() {
        copy = copy.with_headers(headers);
    }
    if let Some(value) = given.content_type() {
        copy = copy.with_content_type(value.clone());
    }
    if let Some(value) = given.content_encoding() {
        copy = copy.with_content_encoding(value.clone());
    }
    if let Some(value) = given.priority() {
        copy = copy.with_priority(*value);
    }
    if let Some(value) = given.kind() {
        copy = copy.with_type(value.clone());
    }
    match given.app_id() {
        Some(value) => copy.with_app_id(value.clone()),
        None => copy,
    }
}

/// The headers that count how often a queue has delivered a message.
fn is_count(name: &str) -> bool {
    matches!(name, "x-delivery-count" | "x-acquired-count")
}

/// The headers that a message has because it is a dead letter.
fn is_of_death(name: &str) -> bool {
    let by_broker = ["x-first-death-", "x-last-death-"];
    is_count(name)
        || matches!(name, dead::REASON | dead::EXPIRATION | "x-death")
        || by_broker.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests;
