use super::*;
use crate::settings::reader::Reader;
use crate::settings::table::Setting;

const SETTINGS: &[(&str, &str)] = &[
    ("OTP_PHONE_COOLDOWN", "60s"),
    ("OTP_PHONE_LIMIT", "3/10m"),
    ("OTP_PREFIX_DENY", "8499"),
    ("OTP_PREFIX_LIMIT", "84:2000/1m"),
    ("OTP_TOTAL_LIMIT", "100000/24h"),
];

fn limits(given: &'static [(&str, &str)]) -> Limits {
    let source =
        |setting: &Setting| given.iter().find(|(name, _)| *name == setting.env).map(|(_, value)| (*value).to_owned());
    Limits::from_reader(&mut Reader::new(&source))
}

fn of_rule(counted: u64, in_flight: u64, free_in: u64) -> OfRule {
    OfRule { counted, in_flight, free_in: Duration::from_millis(free_in) }
}

fn report(phone: &str, rules: Vec<OfRule>, in_flight: u64) -> Vec<String> {
    let (limits, phone) = (limits(SETTINGS), Phone::parse(phone).expect("a number"));
    let place = limits.place_of(&phone).expect("a place");
    Report::of(&limits, &phone, Some((&place, Counted { to_number: 1, in_flight, rules }))).lines
}

#[test]
fn each_rule_has_a_line_and_the_longest_wait_is_the_next_otp() {
    let rules = vec![of_rule(1, 0, 41_001), of_rule(3, 0, 300_000), of_rule(12, 2, 0), of_rule(400, 2, 0)];
    assert_eq!(
        report("0901888484", rules, 0),
        [
            "number       *******484",
            "served       yes",
            "in flight    0 jobs",
            "number       1 of 1           OTP_PHONE_COOLDOWN: one OTP to a number in 1m; full for 42s",
            "number       3 of 3           OTP_PHONE_LIMIT: at most 3 to a number in 10m; full for 5m",
            "prefix 84    12 of 2000       OTP_PREFIX_LIMIT: at most 2000 to numbers of the prefix 84 in 1m; 2 in flight",
            "total        400 of 100000    OTP_TOTAL_LIMIT: at most 100000 in all in 1day; 2 in flight",
            "next OTP     in 5m (OTP_PHONE_LIMIT)",
        ]
    );
}

#[test]
fn a_job_in_flight_may_end_and_send_nothing() {
    let free = of_rule(0, 0, 0);
    let lines = report("0901888484", vec![of_rule(1, 1, 90_000), free, free, free], 1);
    assert!(lines.contains(&"in flight    1 job".to_owned()), "{lines:#?}");
    let last = lines.last().expect("a line");
    assert_eq!(last, "next OTP     in 1m 30s (OTP_PHONE_COOLDOWN); sooner if a job in flight sends nothing");
}

#[test]
fn a_number_that_is_not_served_never_gets_an_otp_whatever_is_counted() {
    let lines = report("0991888484", vec![of_rule(0, 0, 0); 4], 0);
    assert_eq!(lines[1], "served       no. OTP_PREFIX_DENY: numbers of this prefix are not served");
    assert_eq!(lines.last().expect("a line"), "next OTP     none, as long as the number is not served");
}

#[test]
fn without_a_limit_it_says_so() {
    let lines = Report::of(&limits(&[]), &Phone::parse("0901888484").expect("a number"), None).lines;
    assert!(lines[2].contains("no limit that counts it is set"), "{lines:#?}");
    assert_eq!(lines[3], "next OTP     now");
}

#[test]
fn a_reset_says_what_it_forgot_and_what_it_kept() {
    let phone = Phone::parse("0901888484").expect("a number");
    let of = |otps, in_flight| Report::of_reset(&phone, Forgotten { otps, in_flight }).lines.join("\n");
    assert!(of(3, 0).contains("forgotten    3 OTPs\nkept         what is counted for its prefix and in all"));
    assert!(of(1, 1).contains("forgotten    1 OTP\nin flight    1 job of them; what they send counts"));
    assert!(of(0, 0).contains("nothing was counted"));
    assert!(!of(3, 1).contains("901888"));
}
