//! Which fault comes next, and what is remembered.

use std::collections::BTreeMap;

use esms_otp_worker::sandbox::{Fault, Mix, Settings};
use futures_util::future::join_all;

use super::{PHONE, Playing, request};

#[tokio::test]
async fn scripts_are_played_in_order_and_then_the_mix_again() {
    let playing = Playing::start().await;
    playing.sandbox.set_mix(Mix::new([(Fault::EmptyBody, 1.0)]).unwrap());
    playing.sandbox.script(Some(PHONE), vec![Fault::None, Fault::Html]);
    playing.sandbox.script(Some("0901888485"), vec![Fault::CutJson]);
    for _ in 0..3 {
        playing.send().await.unwrap();
    }
    let faults: Vec<_> = playing.sandbox.requests(PHONE).into_iter().map(|told| told.fault).collect();
    assert_eq!(faults, ["none", "html", "empty_body"]);
    assert_eq!(playing.sandbox.stats().faults["html"], 1);
}

/// The faults that each phone met. All phones sent four requests each, `at_once` phones at a time.
async fn run(seed: u64, phones: &[String], at_once: usize) -> BTreeMap<String, Vec<String>> {
    let mix = [(Fault::EmptyBody, 0.2), (Fault::Html, 0.2), (Fault::CodeNumber, 0.2)];
    let mix = Mix::new(mix).unwrap();
    let playing = Playing::with(Settings { seed, mix, ..Settings::default() }).await;
    for _ in 0..4 {
        for wave in phones.chunks(at_once) {
            let requests: Vec<_> = wave.iter().map(|phone| request(phone)).collect();
            join_all(requests.iter().map(|request| playing.post(request))).await;
        }
    }
    let told = |phone: &String| playing.sandbox.requests(phone).into_iter().map(|told| told.fault);
    phones.iter().map(|phone| (phone.clone(), told(phone).collect())).collect()
}

#[tokio::test]
async fn the_mix_depends_on_the_seed_and_not_on_order_or_concurrency() {
    let mut phones: Vec<_> = (0..24).map(|n| format!("09018884{n:02}")).collect();
    let one_by_one = run(1, &phones, 1).await;
    let other_seed = run(2, &phones, 24).await;
    phones.reverse();
    let all_at_once = run(1, &phones, 24).await;
    assert_eq!(one_by_one, all_at_once);
    assert_ne!(one_by_one, other_seed);
}

#[tokio::test]
async fn duplicates_are_the_phones_accepted_more_than_once() {
    let playing = Playing::start().await;
    playing.sandbox.script(Some(PHONE), vec![Fault::ResetAfter]);
    playing.sandbox.script(Some("0901888485"), vec![Fault::Html]);
    for phone in [PHONE, PHONE, "0901888485", "0901888485", "0901888486"] {
        let _ = playing.post(&request(phone)).await;
    }
    let duplicates = playing.sandbox.duplicates();
    assert_eq!(duplicates.len(), 1);
    assert_eq!((duplicates[0].phone.as_str(), duplicates[0].accepted), (PHONE, 2));
    assert_eq!(playing.sandbox.stats().duplicates, 1);
    assert_eq!(playing.sandbox.accepted_phones().len(), 3);
}

#[tokio::test]
async fn a_reset_starts_the_story_over() {
    let playing = Playing::start().await;
    playing.answer().await;
    playing.sandbox.script(None, vec![Fault::Html]);
    playing.sandbox.reset();
    let stats = playing.sandbox.stats();
    assert_eq!((stats.requests, stats.accepted, stats.phones), (0, 0, 0));
    assert_eq!(stats.balance, Settings::default().balance);
    assert_eq!(playing.answer().await["CodeResult"], "100");
    assert_eq!(playing.accepted(), 1);
}
