//! The faults that one call can meet, and how they are written.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// What the sandbox does with one V5 request.
///
/// Each variant says whether the request was *accepted* (counted, charged, an OTP on its way). It also says
/// how a careful client should classify the attempt: `answered`, `not sent`, `ambiguous` or `refused`.
/// A variant that accepts does so only for a valid request. A request with a wrong key is refused, and the
/// fault then applies to the refusal: the refusal is cut short, delayed and so on.
///
/// In JSON: `"reset_after"`, `{"status": {"code": 503, "retry_after": "1"}}`. As text,
/// for flags and mixes: `reset_after`, `status:503:1`; [`Fault::from_str`] lists the forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// No fault: accepted and answered. Class `answered`.
    None,
    /// Accepted, and answered this much later than usual. Class `answered`, or `ambiguous` for a client
    /// that does not wait that long.
    Latency {
        /// Milliseconds on top of the sandbox's own latency.
        ms: u64,
    },
    /// The request is read and not accepted, and the connection is reset (TCP RST). Class `ambiguous`.
    ResetBefore,
    /// Accepted, then the connection is reset (TCP RST). Class `ambiguous`.
    ResetAfter,
    /// Read, not accepted, never answered. It hangs until the client gives up, or until the hangs are
    /// released, which resets the connection. Class `ambiguous`.
    HangBefore,
    /// Accepted, never answered. It hangs as [`Fault::HangBefore`] does. Class `ambiguous`.
    HangAfter,
    /// Accepted, and answered as usual once the test releases it. Class `answered`.
    Hold,
    /// An HTTP status with an HTML page, not accepted. A 3xx has a `Location` that leads back to the
    /// sandbox, which counts the clients that follow it. Class `not sent` for 429 and 503, `ambiguous` for
    /// another 5xx, `refused` for 3xx and another 4xx.
    Status {
        /// The status, 200 to 599; anything else is played as 500.
        code: u16,
        /// `Retry-After`, word for word, so that nonsense can be sent too.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Accepted, and then an HTTP status with an HTML page. Class as for [`Fault::Status`]. With 502 or 504
    /// it plays a proxy that lost the answer: `ambiguous`.
    StatusAfter {
        /// The status, 200 to 599; anything else is played as 500.
        code: u16,
    },
    /// Status 200 and an HTML page, not accepted. Class `ambiguous`.
    Html,
    /// Accepted, and then status 200 and an HTML page. Class `ambiguous`.
    HtmlAfter,
    /// Accepted; the JSON ends before its `Content-Length`, and the connection is closed (FIN).
    /// Class `ambiguous`.
    CutJson,
    /// Accepted; status 200 without a body. Class `ambiguous`.
    EmptyBody,
    /// Accepted; the answer is wrapped in a JSON array. Class `ambiguous`.
    JsonArray,
    /// Accepted; a JSON object without `CodeResult`. Class `ambiguous`.
    NoCodeResult,
    /// Accepted; a valid answer of this size, without a `Content-Length`. Class `ambiguous` for a client
    /// that limits how much it reads.
    HugeBody {
        /// Size in MiB, at most 1024.
        mib: u32,
    },
    /// Accepted; `CodeResult` is a JSON number. Class `answered`: the digits are read.
    CodeNumber,
    /// Accepted; every field but `CodeResult` is null. Class `answered`.
    NullFields,
    /// Accepted; there is no field but `CodeResult`. Class `answered`.
    MissingFields,
    /// Accepted; the answer has fields that the provider's pages do not list. Class `answered`.
    ExtraFields,
    /// Refused with this `CodeResult`. Class `answered`, or `not sent` if the client is set to retry this
    /// code (160).
    Code {
        /// `CodeResult`, word for word.
        code: String,
        /// `ErrorMessage`, word for word.
        #[serde(default)]
        message: String,
    },
    /// Refused with an `ErrorMessage` that contains the phone, `ApiKey` and `SecretKey` as they were sent.
    /// It shows whether the client leaks them. Class `answered`.
    EchoSecrets,
    /// Not accepted; exactly this response. The class depends on the response.
    Raw {
        /// The status, 200 to 599; anything else is played as 500.
        status: u16,
        /// `Content-Type`, word for word.
        content_type: String,
        /// The body.
        body: String,
    },
    /// Accepted; status and headers come at once, and the body comes in pieces spread over this time.
    /// Class `answered`, or `ambiguous` for a client that does not wait that long.
    SlowBody {
        /// Milliseconds from the headers to the end of the body.
        ms: u64,
    },
}

impl Fault {
    /// The name without its values. There are only a few names, so it can label a count.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Latency { .. } => "latency",
            Self::ResetBefore => "reset_before",
            Self::ResetAfter => "reset_after",
            Self::HangBefore => "hang_before",
            Self::HangAfter => "hang_after",
            Self::Hold => "hold",
            Self::Status { .. } => "status",
            Self::StatusAfter { .. } => "status_after",
            Self::Html => "html",
            Self::HtmlAfter => "html_after",
            Self::CutJson => "cut_json",
            Self::EmptyBody => "empty_body",
            Self::JsonArray => "json_array",
            Self::NoCodeResult => "no_code_result",
            Self::HugeBody { .. } => "huge_body",
            Self::CodeNumber => "code_number",
            Self::NullFields => "null_fields",
            Self::MissingFields => "missing_fields",
            Self::ExtraFields => "extra_fields",
            Self::Code { .. } => "code",
            Self::EchoSecrets => "echo_secrets",
            Self::Raw { .. } => "raw",
            Self::SlowBody { .. } => "slow_body",
        }
    }

    /// Whether a valid request that meets this fault is accepted.
    pub fn accepts(&self) -> bool {
        !matches!(
            self,
            Self::ResetBefore
                | Self::HangBefore
                | Self::Status { .. }
                | Self::Html
                | Self::Code { .. }
                | Self::EchoSecrets
                | Self::Raw { .. }
        )
    }
}

impl fmt::Display for Fault {
    /// The text form. [`Fault::Raw`] has no text form, so this writes its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Latency { ms } | Self::SlowBody { ms } => write!(f, ":{ms}ms"),
            Self::Status { code, retry_after: Some(after) } => write!(f, ":{code}:{after}"),
            Self::Status { code, .. } | Self::StatusAfter { code } => write!(f, ":{code}"),
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
    /// `extra_fields`, `code:160`, `code:99:a message`, `echo_secrets`, `slow_body:5s`.
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
    const PLAIN: [Fault; 17] = [
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
            code:160 code:99:blocked:really echo_secrets slow_body:5000ms";
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
    }

    #[test]
    fn json_is_snake_case() {
        let json = r#"["reset_after",{"status":{"code":503}},{"hold":null}]"#;
        let faults: Result<Vec<Fault>, _> = serde_json::from_str(json);
        assert_eq!(faults.unwrap(), [Fault::ResetAfter, Fault::Status { code: 503, retry_after: None }, Fault::Hold]);
    }
}
