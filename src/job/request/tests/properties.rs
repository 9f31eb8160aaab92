//! What holds for all bodies.

use super::*;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

/// A job as a producer would write it.
fn render(job: &OtpRequest) -> Vec<u8> {
    let mut body = json!({
        "Phone": job.phone.digits(),
        "MultiChannelTempId": job.template_id,
        "TypeId": job.kind.type_id(),
    });
    if let Some(minutes) = job.time_alive {
        body["TimeAlive"] = json!(minutes.to_string());
    }
    body.to_string().into_bytes()
}

fn holds_of_every_accepted(job: &OtpRequest) {
    let digits = job.phone.digits();
    assert!((8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()), "{job:?}");
    assert!(!job.template_id.trim().is_empty());
    assert_ne!(job.time_alive, Some(0));
    let named = OtpRequest { template_is_default: false, ..job.clone() };
    assert_eq!(decode(&render(job), None), Ok(named));
}

/// JSON text that is often right for some field.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => "\\+?[0-9]{7,16}".prop_map(|text| json!(text).to_string()),
        2 => "\\+?[0-9]{2,4}([ .-]?[0-9]{2,4}){3}".prop_map(|text| json!(text).to_string()),
        3 => select(vec!["1", "2", "\"1\"", "\"2\"", "null", "true", "-1", "1e3", "0", "\"\"", "\"\\ud800\""])
            .prop_map(str::to_owned),
        1 => any::<String>().prop_map(|text| json!(text).to_string()),
        1 => any::<f64>().prop_map(|number| json!(number).to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            vec(("[a-zA-Z]{0,6}", inner), 0..3).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

const FIELDS: [&str; 6] = ["Phone", "MultiChannelTempId", "TypeId", "TimeAlive", "ApiKey", "Extra"];

fn body() -> impl Strategy<Value = String> {
    let phone = prop_oneof![
        3 => "\\+?[0-9]{8,15}".prop_map(|text| format!("\"{text}\"")),
        1 => value(),
    ];
    (phone, vec((select(FIELDS.to_vec()), value()), 0..4)).prop_map(|(phone, more)| {
        let more: String = more.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
        format!("{{\"Phone\":{phone}{more}}}")
    })
}

/// Found in no error text and no rule, as a word and as a number.
const CANARIES: [&str; 2] = ["zQcanaryQz", "70719373707"];

/// A value that holds a canary, right or wrong for its field.
fn planted() -> impl Strategy<Value = String> {
    select(vec![
        "\"zQcanaryQz\"",
        "\"+70719373707\"",
        "\"70719373707 zQcanaryQz\"",
        "70719373707",
        "-70719373707",
        "70719373707.5e70719373707",
        "[\"zQcanaryQz\",70719373707]",
        "{\"zQcanaryQz\":\"zQcanaryQz\"}",
        "\"zQcanaryQz\\ud800\"",
        "\"zQcanaryQz\\q\"",
        "zQcanaryQz",
        "07071937370",
        "\"zQcanaryQz\u{1}\"",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_accepted_is_right(bytes in vec(any::<u8>(), 0..200), template in option::of("[0-9]{1,4}")) {
        if let Ok(job) = decode(&bytes, template.as_deref()) {
            holds_of_every_accepted(&job);
        }
    }

    #[test]
    fn no_text_panics_and_what_is_accepted_is_right(text in body(), template in option::of("[0-9]{1,4}"), cut in 0usize..400) {
        if let Ok(job) = decode(text.as_bytes(), template.as_deref()) {
            holds_of_every_accepted(&job);
        }
        let _ = decode(&text.as_bytes()[..cut.min(text.len())], template.as_deref());
    }

    #[test]
    fn a_right_job_is_always_accepted_and_read_as_it_was_written(
        phone in "[0-9]{8,15}", template in "[ -~]{0,9}[!-~]", kind in select(vec!["1", "2"]), minutes in option::of(1u32..),
    ) {
        let mut job = json!({"Phone": phone, "MultiChannelTempId": template, "TypeId": kind});
        if let Some(minutes) = minutes {
            job["TimeAlive"] = Value::from(minutes);
        }
        let read = decode(job.to_string().as_bytes(), None).unwrap();
        prop_assert_eq!(read.phone.digits(), phone);
        prop_assert_eq!(&read.template_id, &template);
        prop_assert_eq!((read.kind.type_id(), read.time_alive), (kind, minutes));
        holds_of_every_accepted(&read);
    }

    #[test]
    fn no_refusal_repeats_anything_of_the_body(
        fields in vec((select([&FIELDS[..], &["SecretKey", "zQcanaryQz"]].concat()), planted()), 1..6), cut in 0usize..600,
    ) {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let text = format!("{{{}}}", fields.join(","));
        let cut = (0..=cut.min(text.len())).rev().find(|cut| text.is_char_boundary(*cut)).unwrap_or_default();
        for body in [&text, &text[..cut], &format!("[{text}]"), &format!("{text}zQcanaryQz"), &format!("zQcanaryQz{text}")] {
            if let Err(error) = read(body) {
                let told = format!("{error} {error:?}");
                prop_assert!(CANARIES.iter().all(|canary| !told.contains(canary)), "{}: {}", body, told);
            }
        }
    }

    #[test]
    fn what_is_said_of_an_accepted_job_hides_its_phone(phone in "[1-9][0-9]{7,14}") {
        let job = read(&format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"0"}}"#)).unwrap();
        let told = format!("{job:?} {}", job.phone);
        prop_assert!(!told.contains(&phone) && !told.contains(&phone[..phone.len() - 2]), "{}", told);
    }
}
