use super::*;
use std::future::ready;
use tokio::task::yield_now;

fn is_free(places: &Places, template: &str) -> bool {
    places.take(template).now_or_never().is_some()
}

#[tokio::test]
async fn a_place_is_free_again_when_it_is_dropped_or_its_call_is_over() {
    let places = Places::new(1);
    for answered in [true, false] {
        let place = places.take("a").await;
        assert!(!is_free(&places, "a"));
        place.over(answered);
        assert!(is_free(&places, "a"));
    }
    drop(places.take("a").await);
    assert!(is_free(&places, "a"));
}

#[tokio::test]
async fn whoever_stops_waiting_takes_no_place_along() {
    let places = Places::new(1);
    let place = places.take("a").await;
    {
        let mut gives_up = Box::pin(places.take("a"));
        let mut waits = Box::pin(places.take("a"));
        assert!(gives_up.as_mut().now_or_never().is_none());
        assert!(waits.as_mut().now_or_never().is_none());
        // It gives up in the moment in which it has been given the place, and has not looked yet.
        drop(place);
        drop(gives_up);
        assert!(waits.as_mut().now_or_never().is_some(), "the next has it");
    }
    assert!(is_free(&places, "b"));
}

#[tokio::test]
async fn a_job_that_must_wait_for_something_else_has_no_place_meanwhile() {
    let places = Places::new(1);
    let mut place = Some(places.take("a").await);
    assert_eq!(without(&mut place, ready(1)).await, 1);
    assert!(place.is_some(), "it did not have to wait");
    without(&mut place, yield_now()).await;
    assert!(place.is_none() && is_free(&places, "a"));
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

/// What a job pays for its place: run by hand, for no time is right on every machine.
#[tokio::test]
#[ignore = "measures"]
async fn what_a_place_costs() {
    const TIMES: u32 = 1_000_000;
    for templates in [1, 10, 250] {
        let names: Vec<String> = (0..templates).map(|n: u32| n.to_string()).collect();
        let places = Places::new(64);
        let began = Instant::now();
        for name in names.iter().cycle().take(TIMES as usize) {
            places.take(name).await.over(true);
        }
        println!("{templates} templates: {:?} a place", began.elapsed() / TIMES);
    }
}
