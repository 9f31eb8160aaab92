use super::*;
use crate::broker::consumer::Origin;
use crate::broker::settling::Settle;
use crate::job::envelope::{Envelope, Moment};
use crate::job::request::decode;
use crate::ledger::fingerprint::Fingerprints;
use crate::telemetry::traces::Span;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use std::time::Duration;

/// A delivery without a broker. Its acknowledgement goes nowhere, and then it is no longer live.
fn delivery(redelivered: bool, count: Option<i64>) -> Arc<Receipt> {
    delivery_from(Origin::Jobs, redelivered, count)
}

fn delivery_from(origin: Origin, redelivered: bool, count: Option<i64>) -> Arc<Receipt> {
    let mut properties = BasicProperties::default();
    if let Some(count) = count {
        let mut headers = FieldTable::default();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(count));
        properties = properties.with_headers(headers);
    }
    let received = Moment::now();
    let envelope = Envelope::read(&properties, received, Duration::from_secs(1));
    let acker = Delivery::mock(1, "".into(), "otp.jobs".into(), redelivered, Vec::new()).acker.clone();
    Arc::new(Receipt::new(
        Arc::new(Settle::of_none(acker)),
        origin,
        redelivered,
        &envelope,
        received,
        Span::default(),
        String::new(),
    ))
}

fn first() -> Arc<Receipt> {
    delivery(false, Some(0))
}

const RETURNED: fn(u64) -> DeliveryCount = DeliveryCount::Returned;

fn count_of(in_flight: &InFlight) -> Option<DeliveryCount> {
    in_flight.flights().get("a").and_then(|flight| flight.delivery_count)
}

/// The fingerprints of two jobs.
fn prints() -> (Fingerprint, Fingerprint) {
    let fingerprints = Fingerprints::new("secret");
    let print = |phone: &str| {
        let body = format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1"}}"#);
        fingerprints.of(&decode(body.as_bytes(), None).unwrap())
    };
    (print("0901888484"), print("0901888485"))
}

/// The job `a` in flight by these deliveries of it.
fn flight(deliveries: impl IntoIterator<Item = Arc<Receipt>>) -> InFlight {
    let (in_flight, (job, _)) = (InFlight::default(), prints());
    for (n, receipt) in deliveries.into_iter().enumerate() {
        let entered = in_flight.enter("a", job, &receipt);
        assert!(matches!((n, entered), (0, Entered::Started) | (1.., Entered::Joined)));
    }
    in_flight
}

#[test]
fn the_first_delivery_starts_a_flight_and_the_next_ones_join_it() {
    let in_flight = flight([first(), first(), delivery(true, Some(1))]);
    assert_eq!(in_flight.take("a").len(), 3);
}

#[test]
fn another_job_under_the_same_id_does_not_join() {
    let (in_flight, (job, other)) = (InFlight::default(), prints());
    assert!(matches!(in_flight.enter("a", job, &first()), Entered::Started));
    let entered = in_flight.enter("a", other, &delivery(true, Some(9)));
    assert!(matches!(entered, Entered::AnotherJob));
    assert_eq!((in_flight.custody("a"), count_of(&in_flight)), (Custody::Ours, Some(RETURNED(0))));
    assert_eq!(in_flight.take("a").len(), 1);
}

#[test]
fn the_same_job_under_another_id_is_a_flight_of_its_own() {
    let (in_flight, (job, _)) = (InFlight::default(), prints());
    assert!(matches!(in_flight.enter("a", job, &first()), Entered::Started));
    assert!(matches!(in_flight.enter("b", job, &first()), Entered::Started));
    assert!(in_flight.take("b").len() == 1 && in_flight.end_if_all_are_taken("b"));
    assert_eq!((in_flight.custody("a"), in_flight.custody("b")), (Custody::Ours, Custody::Lost));
}

#[tokio::test]
async fn a_job_is_lost_with_its_last_live_delivery_and_ours_again_with_the_next() {
    let in_flight = flight([first(), first()]);
    for (settled, custody) in [(1, Custody::Ours), (2, Custody::Lost)] {
        let receipts = in_flight.take("a");
        receipts[settled - 1].acknowledge();
        for receipt in receipts {
            in_flight.enter("a", print_of(&in_flight), &receipt);
        }
        assert_eq!(in_flight.custody("a"), custody, "{settled} settled");
    }
    in_flight.enter("a", print_of(&in_flight), &delivery(true, Some(1)));
    assert_eq!(in_flight.custody("a"), Custody::Ours);
}

/// The fingerprint of the job in flight as `a`.
fn print_of(in_flight: &InFlight) -> Fingerprint {
    in_flight.flights()["a"].fingerprint
}

#[tokio::test]
async fn a_delivery_is_settled_once() {
    let receipt = first();
    assert!(receipt.is_live());
    assert!(receipt.acknowledge());
    assert!(!receipt.is_live());
    assert!(!receipt.acknowledge() && !receipt.give_back().await);
}

#[test]
fn the_next_delivery_of_the_same_message_shows_that_nobody_had_it_meanwhile() {
    for deliveries in [
        vec![first(), delivery(true, Some(1))],
        vec![first(), delivery(true, Some(1)), delivery(true, Some(2))],
        vec![delivery(true, Some(4)), delivery(true, Some(5))],
        // RabbitMQ 4: no count with the first delivery.
        vec![delivery(false, None), delivery(true, Some(1))],
    ] {
        assert_eq!(flight(deliveries).custody("a"), Custody::Ours);
    }
}

#[test]
fn a_count_that_skips_one_shows_that_another_worker_had_the_job() {
    for deliveries in [
        vec![first(), delivery(true, Some(2))],
        vec![delivery(false, None), delivery(true, Some(2))],
        vec![first(), delivery(true, Some(2)), delivery(true, Some(3))],
    ] {
        assert_eq!(flight(deliveries).custody("a"), Custody::OursAfterAnother);
    }
}

#[test]
fn where_the_queue_counts_nothing_another_worker_may_have_had_the_job() {
    let deliveries = [delivery(false, None), delivery(true, None)];
    assert_eq!(flight(deliveries).custody("a"), Custody::OursAfterAnother);
}

#[test]
fn a_producers_repeat_tells_nothing_of_where_the_first_message_has_been() {
    for count in [None, Some(0), Some(7)] {
        let in_flight = flight([first(), delivery(false, count)]);
        assert_eq!((in_flight.custody("a"), count_of(&in_flight)), (Custody::Ours, Some(RETURNED(0))));
        in_flight.enter("a", print_of(&in_flight), &delivery(true, Some(1)));
        assert_eq!((in_flight.custody("a"), count_of(&in_flight)), (Custody::Ours, Some(RETURNED(1))));
    }
}

#[test]
fn a_flight_ends_once_every_delivery_has_been_taken() {
    let in_flight = flight([first()]);
    assert!(!in_flight.end_if_all_are_taken("a"), "a delivery waits for its result");
    assert_eq!(in_flight.take("a").len(), 1);
    assert_eq!(in_flight.take("a").len(), 0);
    in_flight.enter("a", print_of(&in_flight), &delivery(true, Some(1)));
    assert!(!in_flight.end_if_all_are_taken("a"), "one more has come meanwhile");
    assert_eq!(in_flight.take("a").len(), 1);
    assert!(in_flight.end_if_all_are_taken("a"));
    assert!(in_flight.flights().is_empty());
}

#[test]
fn nothing_is_known_of_a_job_that_is_not_in_flight() {
    let in_flight = InFlight::default();
    assert_eq!((in_flight.custody("a"), count_of(&in_flight)), (Custody::Lost, None));
    assert!(in_flight.take("a").is_empty());
    assert!(in_flight.end_if_all_are_taken("a"));
}

#[test]
fn a_delivery_that_comes_after_the_end_of_a_flight_starts_a_new_one() {
    let in_flight = flight([first(), delivery(true, Some(1))]);
    assert_eq!(in_flight.end("a").len(), 2);
    assert!(matches!(in_flight.enter("a", prints().0, &delivery(true, Some(2))), Entered::Started));
    assert!(in_flight.end("b").is_empty());
}

#[test]
fn a_job_that_has_ended_starts_anew() {
    let in_flight = flight([first(), delivery(true, Some(5))]);
    in_flight.take("a");
    assert!(in_flight.end_if_all_are_taken("a"));
    assert!(matches!(in_flight.enter("a", prints().0, &first()), Entered::Started));
    assert_eq!(in_flight.custody("a"), Custody::Ours);
}

#[test]
fn a_job_that_the_broker_dropped_while_it_was_in_flight_is_not_to_be_sent() {
    let in_flight = flight([first(), delivery_from(Origin::Dropped, false, Some(0))]);
    assert_eq!(in_flight.custody("a"), Custody::Dropped);
}

#[test]
fn a_repeat_of_a_job_that_has_just_ended_waits_for_the_end_of_the_flight_and_other_deliveries_join_it() {
    let (in_flight, (job, _)) = (flight([first()]), prints());
    in_flight.set_ending("a");
    for redelivered in [delivery(true, Some(1)), delivery_from(Origin::Dropped, false, None)] {
        assert!(matches!(in_flight.enter("a", job, &redelivered), Entered::Joined));
    }
    let Entered::Repeated(over) = in_flight.enter("a", job, &first()) else { panic!("a repeat") };
    assert_eq!(in_flight.take("a").len(), 3);
    assert!(!over.is_cancelled());
    assert!(in_flight.end_if_all_are_taken("a") && over.is_cancelled());
    assert!(matches!(in_flight.enter("a", job, &first()), Entered::Started));
}
