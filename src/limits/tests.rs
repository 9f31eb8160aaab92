use super::*;
use crate::job::request::decode;
use crate::settings::reader::Reader;

fn read(given: &[(&str, &str)]) -> Result<Limits, String> {
    let given: Vec<(String, String)> =
        given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let source = move |setting: &crate::settings::table::Setting| {
        given.iter().find(|(name, _)| name == setting.env).map(|(_, value)| value.clone())
    };
    let mut reader = Reader::new(&source);
    let limits = Limits::from_reader(&mut reader);
    reader.finish(limits).map_err(|wrong| wrong.to_string())
}

fn limits(given: &[(&str, &str)]) -> Limits {
    read(given).unwrap()
}

fn request(phone: &str) -> OtpRequest {
    decode(format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1"}}"#).as_bytes(), None).unwrap()
}

fn place(limits: &Limits, phone: &str) -> Option<Place> {
    limits.place("a", &request(phone), Instant::now())
}

#[test]
fn without_a_setting_nothing_is_counted_and_nobody_held_back() {
    let limits = limits(&[]);
    assert_eq!(limits, Limits::default());
    assert!(place(&limits, "0901888484").is_none() && limits.denied(&request("0901888484")).is_none());
    assert_eq!(limits.label(&request("0901888484").phone), "");
}

#[test]
fn the_longest_prefix_that_fits_counts_and_all_count_for_the_total() {
    let limits = limits(&[("OTP_PREFIX_LIMIT", "84:5/1m,8490:3/1m,*:1/1m"), ("OTP_TOTAL_LIMIT", "9/1h")]);
    for (phone, prefix) in
        [("0901888484", "8490"), ("+84 91 188 8484", "84"), ("0084901888484", "8490"), ("00442071234567", "*")]
    {
        let place = place(&limits, phone).unwrap();
        let names: Vec<String> = limits.groups_of(&place).map(|(_, group)| group.name()).collect();
        assert_eq!(names, [prefix, "total"], "{phone}");
        assert_eq!(limits.label(&request(phone).phone), prefix);
    }
}

#[test]
fn a_number_that_no_prefix_fits_counts_for_the_others_only() {
    let limits = limits(&[("OTP_PREFIX_LIMIT", "84:5/1m"), ("OTP_PHONE_COOLDOWN", "60s")]);
    let place = place(&limits, "00442071234567").unwrap();
    assert_eq!(limits.rules_of(&place).map(|rule| rule.limit).collect::<Vec<_>>(), [Limit::Cooldown]);
    assert_eq!(limits.label(&place.phone), "");
}

#[test]
fn a_code_that_is_only_generated_counts_for_nothing() {
    let limits = limits(&[("OTP_PHONE_COOLDOWN", "60s"), ("OTP_PREFIX_DENY", "84")]);
    let body = br#"{"Phone":"0901888484","MultiChannelTempId":"1","TypeId":"1"}"#;
    let request = decode(body, None).unwrap();
    assert!(limits.place("a", &request, Instant::now()).is_none() && limits.denied(&request).is_none());
}

#[test]
fn a_number_inside_a_denied_or_outside_every_allowed_prefix_is_not_served() {
    let both = limits(&[("OTP_PREFIX_ALLOW", "84,44"), ("OTP_PREFIX_DENY", "8499"), ("OTP_TOTAL_LIMIT", "5/1h")]);
    let deny = limits(&[("OTP_PREFIX_DENY", "88")]);
    for (limits, phone, setting) in [
        (&both, "0901888484", None),
        (&both, "00442071234567", None),
        (&both, "0991888484", Some("OTP_PREFIX_DENY")),
        (&both, "+1 202 555 0123", Some("OTP_PREFIX_ALLOW")),
        (&deny, "8812345678", Some("OTP_PREFIX_DENY")),
        // In international digits this is 8488…
        (&deny, "0881234567", None),
    ] {
        let denied = limits.denied(&request(phone));
        assert_eq!(denied.as_ref().map(|held| held.reason.split(':').next().unwrap()), setting, "{phone}");
        assert!(denied.is_none_or(|held| held.limit == Limit::PrefixDenied && held.retry_after.is_none()));
        assert_eq!(place(limits, phone).is_some(), setting.is_none() && limits.count(), "{phone}");
    }
}

#[test]
fn a_reason_names_the_setting_and_never_the_number() {
    let limits = limits(&[
        ("OTP_PHONE_COOLDOWN", "60s"),
        ("OTP_PHONE_LIMIT", "3/10m"),
        ("OTP_PREFIX_LIMIT", "84:2000/1m"),
        ("OTP_TOTAL_LIMIT", "100000/24h"),
    ]);
    let place = place(&limits, "0901888484").unwrap();
    let reason = |rule| {
        let verdict = Verdict { rule, free_in: Duration::from_secs(1), is_in_flight: false };
        limits.held_back(&place, verdict).map(|held| held.reason)
    };
    assert_eq!(reason(0).unwrap(), "OTP_PHONE_COOLDOWN: one OTP to a number in 1m");
    assert_eq!(reason(1).unwrap(), "OTP_PHONE_LIMIT: at most 3 to a number in 10m");
    assert_eq!(reason(2).unwrap(), "OTP_PREFIX_LIMIT: at most 2000 to numbers of the prefix 84 in 1m");
    assert_eq!(reason(3).unwrap(), "OTP_TOTAL_LIMIT: at most 100000 in all in 1day");
    assert_eq!(reason(4), None);
    assert!(!format!("{place:?}").contains("901888"), "{place:?}");
}

#[test]
fn retry_after_is_in_whole_seconds_and_never_too_early() {
    for (millis, seconds) in [(0, 1), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (59_999, 60), (60_000, 60)] {
        let held = HeldBack {
            limit: Limit::Cooldown,
            reason: String::new(),
            retry_after: Some(Duration::from_millis(millis)),
            is_in_flight: false,
        };
        assert_eq!(held.retry_after_seconds(), Some(seconds), "{millis}");
    }
}

/// Wrong values of each setting.
const WRONG: &[(&str, &[&str])] = &[
    ("OTP_PHONE_COOLDOWN", &["0s", "500ms", "60", "soon", "-5s", "1m,2m"]),
    (
        "OTP_PHONE_LIMIT",
        &[
            "3",
            "0/10m",
            "3/0s",
            "-1/10m",
            "1.5/10m",
            "1001/1h",
            "3/10m,",
            ",",
            "3/10",
            "3/10m,3/10m",
            "3/10m,2/24h",
            "5/24h,5/1h",
        ],
    ),
    ("OTP_PREFIX_ALLOW", &["84a", "vn", "*", "+84", "0901", "84,", "84,84", "84,8490", "8490,84", "12345678", "8409"]),
    ("OTP_PREFIX_DENY", &["84a", "84;88", "88,,99", "88,881", "0"]),
    (
        "OTP_PREFIX_LIMIT",
        &[
            "84",
            "84:5",
            "84:5/0s",
            "84:0/1m",
            "a:5/1m",
            "5/1m",
            "84:5/1m,84:5/1m",
            "84:5/1m,84:4/1h",
            "**:5/1m",
            ":5/1m",
        ],
    ),
    ("OTP_TOTAL_LIMIT", &["100", "0/24h", "5/24h,9/24h", "9/1h,5/24h", "10000000000/24h"]),
];

#[test]
fn nonsense_is_refused_by_name() {
    for (setting, wrong) in WRONG {
        for value in *wrong {
            let problem = read(&[(setting, value)]).expect_err(value);
            assert!(problem.contains(setting), "{setting}={value}: {problem}");
        }
    }
}

#[test]
fn settings_of_which_one_makes_the_other_useless_are_refused() {
    for (given, blamed) in [
        (&[("OTP_PREFIX_ALLOW", "8490"), ("OTP_PREFIX_DENY", "84")][..], "OTP_PREFIX_ALLOW"),
        (&[("OTP_PHONE_COOLDOWN", "10m"), ("OTP_PHONE_LIMIT", "3/10m,10/24h")], "OTP_PHONE_LIMIT"),
        (&[("OTP_PREFIX_LIMIT", "8499:5/1m"), ("OTP_PREFIX_DENY", "84")], "OTP_PREFIX_LIMIT"),
        (&[("OTP_PREFIX_LIMIT", "84:5/1m,44:5/1m"), ("OTP_PREFIX_ALLOW", "84")], "OTP_PREFIX_LIMIT"),
    ] {
        let problem = read(given).expect_err(blamed);
        assert!(problem.contains(&format!("\n  {blamed}: ")), "{problem}");
    }
    for given in [
        &[("OTP_PREFIX_LIMIT", "8:5/1m,8490:5/1m,*:9/1m"), ("OTP_PREFIX_ALLOW", "84"), ("OTP_PREFIX_DENY", "8499")][..],
        &[("OTP_PHONE_COOLDOWN", "60s"), ("OTP_PHONE_LIMIT", "3/10m,10/24h")],
    ] {
        assert!(read(given).is_ok(), "{given:?}");
    }
}

#[test]
fn what_people_write_is_read() {
    let limits = limits(&[
        ("OTP_PHONE_COOLDOWN", " 60s "),
        ("OTP_PHONE_LIMIT", "10/24h, 3/10m"),
        ("OTP_PREFIX_LIMIT", "84:2000/1m, 84:20000/1h, * : 20 / 1m"),
        ("OTP_PREFIX_ALLOW", "84, 44"),
    ]);
    let text = |rule: &Rule| format!("{}/{}", rule.most, rule.window.as_secs());
    assert_eq!(limits.number.iter().map(text).collect::<Vec<_>>(), ["1/60", "3/600", "10/86400"]);
    let groups: Vec<(String, Vec<String>)> =
        limits.groups.iter().map(|group| (group.name(), group.rules.iter().map(text).collect())).collect();
    assert_eq!(groups[0], ("84".into(), vec!["2000/60".into(), "20000/3600".into()]));
    assert_eq!(groups[1], ("*".into(), vec!["20/60".into()]));
    assert_eq!((limits.most_of_a_number(), limits.longest()), (11, Duration::from_secs(86_400)));
}
