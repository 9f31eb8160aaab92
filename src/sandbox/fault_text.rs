//! How faults are written as text, for flags and mixes.

use std::{fmt, str::FromStr, time::Duration};

use super::fault::Fault;

impl fmt::Display for Fault {
    /// The text form. [`Fault::Raw`] has no text form, so this writes its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Latency { ms } | Self::SlowBody { ms } => write!(f, ":{ms}ms"),
            Self::Status { code, retry_after: Some(after) } => write!(f, ":{code}:{after}"),
            Self::Status { code, .. } | Self::StatusAfter { code } | Self::AnswerStatus { code } => {
                write!(f, ":{code}")
            }
            Self::ManyHeaders { lines } => write!(f, ":{lines}"),
            Self::HugeBody { mib } => write!(f, ":{mib}"),
            Self::Code { code, message } if message.is_empty() => write!(f, ":{code}"),
            Self::Code { code, message } => write!(f, ":{code}:{message}"),
            _ => Ok(()),
        }
    }
}

/// A fault's text that cannot be read. If the name is known, the message gives the right form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No fault has this name.
    #[error("there is no fault `{0}`")]
    Unknown(String),
    /// The fault needs a value after its name, and this one is missing or wrong.
    #[error("`{name}` is written `{form}`")]
    Form {
        /// The fault's name.
        name: &'static str,
        /// The right form.
        form: &'static str,
    },
}

impl FromStr for Fault {
    type Err = FaultError;

    /// The text forms: `none`, `latency:2s`, `reset_before`, `reset_after`, `hang_before`,
    /// `hang_after`, `hold`, `status:503`, `status:429:1` (the last is `Retry-After`),
    /// `status_after:502`, `html`, `html_after`, `cut_json`, `empty_body`, `json_array`,
    /// `no_code_result`, `huge_body:16` (MiB), `code_number`, `null_fields`, `missing_fields`,
    /// `extra_fields`, `code:160`, `code:99:a message`, `echo_secrets`, `slow_body:5s`, `answer_status:203`,
    /// `byte_order_mark`, `many_headers:120`, `control_byte`, `space_before_colon`, `folded_header`, `gzip`,
    /// `deflate`, `until_close`, `long_length`, `open_end`, `cut_chunks`, `cut_chunk`, `trailing_comment`,
    /// `xml_unless_asked`, `proxy_lost`, `no_upstream`.
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        if let Some(fault) = plain(text) {
            return Ok(fault);
        }
        match name {
            "latency" => millis(rest).map(|ms| Self::Latency { ms }).ok_or(form("latency", "latency:2s")),
            "slow_body" => millis(rest).map(|ms| Self::SlowBody { ms }).ok_or(form("slow_body", "slow_body:5s")),
            "status" => status(rest).ok_or(form("status", "status:503 or status:429:1, the last being Retry-After")),
            "status_after" => rest
                .and_then(status_code)
                .map(|code| Self::StatusAfter { code })
                .ok_or(form("status_after", "status_after:502")),
            "huge_body" => rest
                .and_then(|mib| mib.parse().ok())
                .map(|mib| Self::HugeBody { mib })
                .ok_or(form("huge_body", "huge_body:16, in MiB")),
            "answer_status" => rest
                .and_then(status_code)
                .filter(|code| *code < 300)
                .map(|code| Self::AnswerStatus { code })
                .ok_or(form("answer_status", "answer_status:203")),
            "many_headers" => rest
                .and_then(|lines| lines.parse().ok())
                .map(|lines| Self::ManyHeaders { lines })
                .ok_or(form("many_headers", "many_headers:120")),
            "code" => code(rest).ok_or(form("code", "code:160 or code:99:a message")),
            _ => Err(FaultError::Unknown(name.to_owned())),
        }
    }
}

fn form(name: &'static str, form: &'static str) -> FaultError {
    FaultError::Form { name, form }
}

/// The faults whose text form is only a name.
fn plain(name: &str) -> Option<Fault> {
    const PLAIN: [Fault; 32] = [
        Fault::None,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::HangBefore,
        Fault::HangAfter,
        Fault::Hold,
        Fault::Html,
        Fault::HtmlAfter,
        Fault::CutJson,
        Fault::EmptyBody,
        Fault::JsonArray,
        Fault::NoCodeResult,
        Fault::CodeNumber,
        Fault::NullFields,
        Fault::MissingFields,
        Fault::ExtraFields,
        Fault::EchoSecrets,
        Fault::ByteOrderMark,
        Fault::ControlByte,
        Fault::SpaceBeforeColon,
        Fault::FoldedHeader,
        Fault::Gzip,
        Fault::Deflate,
        Fault::UntilClose,
        Fault::LongLength,
        Fault::OpenEnd,
        Fault::CutChunks,
        Fault::CutChunk,
        Fault::TrailingComment,
        Fault::XmlUnlessAsked,
        Fault::ProxyLost,
        Fault::NoUpstream,
    ];
    PLAIN.into_iter().find(|fault| fault.name() == name)
}

fn millis(text: Option<&str>) -> Option<u64> {
    let duration: Duration = humantime::parse_duration(text?).ok()?;
    u64::try_from(duration.as_millis()).ok()
}

fn status_code(text: &str) -> Option<u16> {
    text.parse().ok().filter(|code| (200..=599).contains(code))
}

fn status(rest: Option<&str>) -> Option<Fault> {
    let (code, retry_after) = match rest?.split_once(':') {
        Some((code, after)) => (code, Some(after.to_owned())),
        None => (rest?, None),
    };
    status_code(code).map(|code| Fault::Status { code, retry_after })
}

fn code(rest: Option<&str>) -> Option<Fault> {
    let (code, message) = rest?.split_once(':').unwrap_or((rest?, ""));
    (!code.is_empty()).then(|| Fault::Code { code: code.to_owned(), message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_form_is_read_back_as_it_was_written() {
        let forms = "none latency:2000ms reset_before reset_after hang_before hang_after hold \
            status:503 status:429:1 status_after:502 html html_after cut_json empty_body json_array \
            no_code_result huge_body:16 code_number null_fields missing_fields extra_fields \
            code:160 code:99:blocked:really echo_secrets slow_body:5000ms answer_status:203 byte_order_mark \
            many_headers:120 control_byte space_before_colon folded_header gzip deflate until_close long_length \
            open_end cut_chunks cut_chunk trailing_comment xml_unless_asked proxy_lost no_upstream";
        for text in forms.split_whitespace() {
            let fault: Fault = text.parse().unwrap();
            assert_eq!(fault.to_string(), text);
        }
    }

    #[test]
    fn a_date_is_a_retry_after_too() {
        let fault: Fault = "status:503:Wed, 21 Oct 2026 07:28:00 GMT".parse().unwrap();
        let retry_after = Some("Wed, 21 Oct 2026 07:28:00 GMT".to_owned());
        assert_eq!(fault, Fault::Status { code: 503, retry_after });
    }

    #[test]
    fn a_bad_text_is_told_the_right_form() {
        let message = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
        assert_eq!(message("boom"), "there is no fault `boom`");
        assert_eq!(message("html:1"), "there is no fault `html`");
        assert_eq!(message("latency"), "`latency` is written `latency:2s`");
        assert_eq!(message("latency:soon"), "`latency` is written `latency:2s`");
        assert!(message("status:42").contains("status:503"));
        assert!(message("status_after").contains("status_after:502"));
        assert!(message("huge_body:big").contains("MiB"));
        assert!(message("code:").contains("code:160"));
        assert!(message("answer_status:404").contains("answer_status:203"));
        assert!(message("many_headers").contains("many_headers:120"));
    }

    #[test]
    fn json_is_snake_case() {
        let json = r#"["reset_after",{"status":{"code":503}},{"hold":null}]"#;
        let faults: Result<Vec<Fault>, _> = serde_json::from_str(json);
        assert_eq!(faults.unwrap(), [Fault::ResetAfter, Fault::Status { code: 503, retry_after: None }, Fault::Hold]);
    }
}
