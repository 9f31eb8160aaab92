//! Each row of the table of a job's fields.

use super::*;

#[test]
fn the_example_of_the_contract_is_read() {
    let job =
        read(r#"{"Phone": "0901888484", "MultiChannelTempId": "1234", "TypeId": "2", "TimeAlive": "5"}"#).unwrap();
    assert_eq!(job.phone.digits(), "0901888484");
    assert_eq!((job.template_id.as_str(), job.kind, job.time_alive), ("1234", Kind::Send, Some(5)));
}

#[test]
fn only_phone_and_template_are_required() {
    let job = read(r#"{"Phone":"0901888484","MultiChannelTempId":"1234"}"#).unwrap();
    assert_eq!((job.kind, job.time_alive), (Kind::Send, None));
    assert_eq!(refusal("{}"), "Phone is missing");
    assert_eq!(refusal(r#"{"MultiChannelTempId":"1234"}"#), "Phone is missing");
    assert_eq!(refusal(r#"{"Phone":"0901888484"}"#), "MultiChannelTempId is missing");
}

#[test]
fn a_field_that_is_null_counts_as_absent() {
    let job = read(&job_with(r#""TypeId":null,"TimeAlive":null"#)).unwrap();
    assert_eq!((job.kind, job.time_alive), (Kind::Send, None));
    assert_eq!(refusal(r#"{"Phone":null,"MultiChannelTempId":"1234"}"#), "Phone is missing");
    assert_eq!(refusal(r#"{"Phone":"0901888484","MultiChannelTempId":null}"#), "MultiChannelTempId is missing");
}

#[test]
fn a_phone_loses_its_plus_and_what_stands_between_its_digits() {
    for written in ["+84901888484", "84 901 888 484", "+84-901.888 484", "84\\u0039 01888484"] {
        let job = read(&format!(r#"{{"Phone":"{written}","MultiChannelTempId":"1"}}"#)).unwrap();
        assert_eq!(job.phone.digits(), "84901888484", "{written}");
    }
}

#[test]
fn a_phone_has_8_to_15_digits() {
    let of = |digits: usize| format!(r#"{{"Phone":"{}","MultiChannelTempId":"1"}}"#, "9".repeat(digits));
    for digits in [8, 15] {
        assert_eq!(read(&of(digits)).unwrap().phone.digits().len(), digits);
    }
    for digits in [1, 7, 16, 5000] {
        assert_eq!(refusal(&of(digits)), "Phone must have 8 to 15 digits");
    }
}

#[test]
fn a_phone_of_anything_but_digits_is_refused() {
    for wrong in
        ["", "abc", "0901888484 ", "+", "++84901888484", "0901888484;drop", "0901\\n888484", "０９０１８８８４８４"]
    {
        let refused = refusal(&format!(r#"{{"Phone":"{wrong}","MultiChannelTempId":"1"}}"#));
        assert!(refused.starts_with("Phone must be digits, with one leading +"), "{wrong}: {refused}");
    }
}

#[test]
fn a_phone_that_is_no_string_is_refused_since_a_number_has_lost_its_nought() {
    for wrong in ["901888484", "84901888484", "9e9", "true", "[]", r#"["0901888484"]"#, r#"{"a":"0901888484"}"#] {
        let refused = refusal(&format!(r#"{{"Phone":{wrong},"MultiChannelTempId":"1"}}"#));
        assert_eq!(refused, "Phone must be a string of digits", "{wrong}");
    }
}

#[test]
fn a_template_is_a_string_or_a_whole_number_kept_digit_for_digit() {
    for (given, read_as) in [
        (r#""1234""#, "1234"),
        ("1234", "1234"),
        ("0", "0"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        (r#""0012""#, "0012"),
        (r#""otp-\u0061""#, "otp-a"),
    ] {
        let job = read(&format!(r#"{{"Phone":"0901888484","MultiChannelTempId":{given}}}"#)).unwrap();
        assert_eq!(job.template_id, read_as, "{given}");
    }
}

#[test]
fn a_template_that_is_empty_or_no_such_value_is_refused() {
    for wrong in [r#""""#, r#"" ""#, "true", "false", "[]", "[1]", "{}", "-1", "1.5", "1e3"] {
        let refused = refusal(&format!(r#"{{"Phone":"0901888484","MultiChannelTempId":{wrong}}}"#));
        assert_eq!(refused, "MultiChannelTempId must be a non-empty string or a whole number", "{wrong}");
    }
}

#[test]
fn the_default_template_is_for_jobs_that_name_none() {
    let template = |body: &str| decode(body.as_bytes(), Some("77")).map(|job| job.template_id);
    assert_eq!(template(r#"{"Phone":"0901888484"}"#), Ok("77".into()));
    assert_eq!(template(r#"{"Phone":"0901888484","MultiChannelTempId":null}"#), Ok("77".into()));
    assert_eq!(template(r#"{"Phone":"0901888484","MultiChannelTempId":"5"}"#), Ok("5".into()));
    for wrong in [r#""""#, "[]", "true"] {
        let body = format!(r#"{{"Phone":"0901888484","MultiChannelTempId":{wrong}}}"#);
        assert!(matches!(template(&body), Err(BodyError::Field { field: "MultiChannelTempId", .. })), "{wrong}");
    }
}

#[test]
fn a_type_is_1_or_2_as_string_or_number() {
    for (given, kind) in [
        (r#""1""#, Kind::Generate),
        ("1", Kind::Generate),
        (r#""2""#, Kind::Send),
        ("2", Kind::Send),
        ("2.0", Kind::Send),
    ] {
        assert_eq!(read(&job_with(&format!(r#""TypeId":{given}"#))).unwrap().kind, kind, "{given}");
    }
    for wrong in
        ["0", "3", "-1", "2.5", "2e0", "12", r#""""#, r#""0""#, r#""3""#, r#"" 2""#, r#""02""#, "true", "[]", "{}"]
    {
        assert_eq!(refusal(&job_with(&format!(r#""TypeId":{wrong}"#))), r#"TypeId must be "1" or "2""#, "{wrong}");
    }
}

#[test]
fn a_life_is_a_positive_whole_number_of_minutes_as_string_or_number() {
    for (given, minutes) in
        [("5", 5), (r#""5""#, 5), ("1", 1), (r#""15""#, 15), ("5.0", 5), ("5.000", 5), ("4294967295", u32::MAX)]
    {
        let job = read(&job_with(&format!(r#""TimeAlive":{given}"#))).unwrap();
        assert_eq!(job.time_alive, Some(minutes), "{given}");
    }
    for wrong in [
        "0",
        r#""0""#,
        "-1",
        r#""-1""#,
        r#""+5""#,
        "1.5",
        "5.01",
        "0.0",
        "5.0e0",
        r#""5.0""#,
        "1e1",
        r#""""#,
        r#""5m""#,
        r#"" 5""#,
        "true",
        "[]",
        "[5]",
        "{}",
        "4294967296",
        "99999999999999999999999999",
        "1e999999",
        r#""٥""#,
    ] {
        let refused = refusal(&job_with(&format!(r#""TimeAlive":{wrong}"#)));
        assert_eq!(refused, "TimeAlive must be a positive whole number of minutes", "{wrong}");
    }
}

#[test]
fn unknown_fields_are_ignored_whatever_is_in_them() {
    for more in [
        r#""Brandname":"x""#,
        r#""phone":"1","TYPEID":9,"apikey2":"""#,
        r#""a":{"Phone":1,"ApiKey":"x","b":[[[null]]]}"#,
        r#""a":1,"a":2"#,
        r#""a":1e999999,"b":-0.0,"":null"#,
        r#""a":"\ud800""#,
    ] {
        assert_eq!(read(&job_with(more)), read(&job_with(r#""TypeId":"2""#)), "{more}");
    }
}

#[test]
fn credentials_make_a_job_invalid_whatever_their_value_and_the_other_fields() {
    for field in ["ApiKey", "SecretKey"] {
        let rule = format!("{field} must not be in a job");
        for value in [r#""x""#, r#""""#, "null", "0", "[]", r#"{"a":"b"}"#] {
            assert!(refusal(&job_with(&format!(r#""{field}":{value}"#))).starts_with(&rule), "{field} {value}");
        }
        assert!(refusal(&format!(r#"{{"{field}":"x"}}"#)).starts_with(&rule));
        assert!(refusal(&format!(r#"{{"Phone":[],"{field}":"x","TypeId":9}}"#)).starts_with(&rule));
    }
    assert!(refusal(&job_with(r#""Api\u004bey":"x""#)).starts_with("ApiKey must not be in a job"));
}

#[test]
fn a_field_named_twice_is_refused_even_with_the_same_value() {
    for field in ["Phone", "MultiChannelTempId", "TypeId", "TimeAlive", "ApiKey", "SecretKey"] {
        let body = format!(r#"{{"{field}":"2","{field}":"2"}}"#);
        assert_eq!(refusal(&body), "the body names a field twice", "{field}");
    }
    assert_eq!(refusal(r#"{"Phone":"0901888484","\u0050hone":"0901888485"}"#), "the body names a field twice");
}

#[test]
fn json_that_is_no_object_is_refused() {
    for body in
        ["[]", r#"["0901888484","1234","2","5",false,false]"#, "null", "true", "12", "1e999999", r#""{}""#, " [] "]
    {
        assert_eq!(refusal(body), "the body must be a JSON object", "{body}");
    }
}

#[test]
fn what_is_not_json_is_refused_with_the_place_where_reading_stopped() {
    assert_eq!(refusal(""), "the body is not valid JSON (line 1, column 0)");
    assert_eq!(refusal("{\n  'Phone': 1}"), "the body is not valid JSON (line 2, column 3)");
    for body in [
        " ",
        "{",
        "nope",
        "{}x",
        "{}{}",
        "{,}",
        r#"{"Phone":}"#,
        r#"{"Phone":"0901888484",}"#,
        r#"{"Phone":NaN}"#,
        r#"{"Phone":"0901"#,
        r#"{"\ud800":1}"#,
        r#"{"Phone":+1}"#,
        r#"{"Phone":01}"#,
        "Phone=0901888484",
        "\u{a0}{}",
        "{\"Phone\":\"0901\n888484\"}",
        "[1",
        "// a job\n{}",
    ] {
        assert!(refusal(body).starts_with("the body is not valid JSON (line "), "{body}");
    }
}

#[test]
fn spaces_and_line_breaks_around_a_job_are_harmless() {
    let body = "\r\n\t {\"Phone\" :\n\"0901888484\" , \"MultiChannelTempId\": 1 }\n\n";
    assert_eq!(read(body).map(|job| job.template_id), Ok("1".into()));
}

#[test]
fn the_types_on_the_wire_are_esmss() {
    assert_eq!((Kind::Generate.type_id(), Kind::Send.type_id()), ("1", "2"));
}
