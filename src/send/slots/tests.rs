use super::*;
use std::future::ready;
use tokio::task::yield_now;

fn is_free(slots: &Slots, template: &str) -> bool {
    slots.take(template).now_or_never().is_some()
}

#[tokio::test]
async fn a_place_is_free_again_when_it_is_dropped_or_its_call_is_over() {
    let slots = Slots::new(1);
    for answered in [true, false] {
        let slot = slots.take("a").await;
        assert!(!is_free(&slots, "a"));
        slot.over(answered);
        assert!(is_free(&slots, "a"));
    }
    drop(slots.take("a").await);
    assert!(is_free(&slots, "a"));
}

#[tokio::test]
async fn whoever_stops_waiting_takes_no_place_along() {
    let slots = Slots::new(1);
    let slot = slots.take("a").await;
    {
        let mut gives_up = Box::pin(slots.take("a"));
        let mut waits = Box::pin(slots.take("a"));
        assert!(gives_up.as_mut().now_or_never().is_none());
        assert!(waits.as_mut().now_or_never().is_none());
        // It gives up in the moment in which it has been given the slot, and has not looked yet.
        drop(slot);
        drop(gives_up);
        assert!(waits.as_mut().now_or_never().is_some(), "the next has it");
    }
    assert!(is_free(&slots, "b"));
}

#[tokio::test]
async fn a_job_that_must_wait_for_something_else_has_no_place_meanwhile() {
    let slots = Slots::new(1);
    let mut slot = Some(slots.take("a").await);
    assert_eq!(without(&mut slot, ready(1)).await, 1);
    assert!(slot.is_some(), "it did not have to wait");
    without(&mut slot, yield_now()).await;
    assert!(slot.is_none() && is_free(&slots, "a"));
}

#[test]
fn of_a_template_with_a_long_name_only_the_beginning_is_remembered() {
    let long = "đ".repeat(BEGINNING);
    for (template, remembered) in
        [("1234", "1234"), ("", ""), (long.as_str(), long.as_str()), (&format!("{long}x"), long.as_str())]
    {
        assert_eq!(beginning(template), remembered);
    }
}

/// What a job pays for its slot: run by hand, for no time is right on every machine.
#[tokio::test]
#[ignore = "measures"]
async fn what_a_place_costs() {
    const TIMES: u32 = 1_000_000;
    for templates in [1, 10, 250] {
        let names: Vec<String> = (0..templates).map(|n: u32| n.to_string()).collect();
        let slots = Slots::new(64);
        let began = Instant::now();
        for name in names.iter().cycle().take(TIMES as usize) {
            slots.take(name).await.over(true);
        }
        println!("{templates} templates: {:?} a slot", began.elapsed() / TIMES);
    }
}
