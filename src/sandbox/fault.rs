//! The faults that one call can meet, and how they are written.

use serde::{Deserialize, Serialize};

/// What the sandbox does with one V5 request.
///
/// Each variant says whether the request was *accepted* (counted, charged, an OTP on its way). It also says
/// how a careful client should classify the attempt: `answered`, `not sent`, `ambiguous` or `refused`.
/// A variant that accepts does so only for a valid request. A request with a wrong key is refused, and the
/// fault then applies to the refusal: the refusal is cut short, delayed and so on.
///
/// In JSON: `"reset_after"`, `{"status": {"code": 503, "retry_after": "1"}}`. As text,
/// for flags and mixes: `reset_after`, `status:503:1`; its `from_str` lists the forms.
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
    /// sandbox, which counts the clients that follow it. Class `not sent` for 408, 425, 429 and 503, `ambiguous`
    /// for another 5xx, `refused` for 3xx and another 4xx.
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
    /// Accepted, and answered as usual with this status, as a proxy may change it. Class `answered` for a 2xx.
    AnswerStatus {
        /// The status, 200 to 299; anything else is played as 500. A 204 and a 205 have no body.
        code: u16,
    },
    /// Accepted; the answer begins with a byte order mark. Class `answered`.
    ByteOrderMark,
    /// Accepted; the answer has this many lines `Set-Cookie`. Class `answered`.
    ManyHeaders {
        /// How many, at most 500.
        lines: u16,
    },
    /// Accepted; a cookie of the answer has a control character, as some firewalls send it. Class `answered`.
    ControlByte,
    /// Accepted; a header of the answer has a space before its colon. Class `answered`.
    SpaceBeforeColon,
    /// Accepted; a header of the answer is folded over three lines. Class `answered`.
    FoldedHeader,
    /// Accepted; the answer is compressed, whether the client allows that or not. Class `answered`.
    Gzip,
    /// As [`Fault::Gzip`], with `deflate`. Class `answered`.
    Deflate,
    /// Accepted; the answer has no length, and ends with the connection. Class `answered`.
    UntilClose,
    /// Accepted; `Content-Length` is one too long, and then the connection is closed. Class `answered`: the
    /// object is whole.
    LongLength,
    /// As [`Fault::LongLength`], and the connection stays open until the client closes it or the hangs are
    /// released. Class `answered`.
    OpenEnd,
    /// Accepted; the answer comes in a chunk, and the connection is closed before the last, empty chunk. Class
    /// `answered`: the object is whole.
    CutChunks,
    /// Accepted; the connection is closed in the middle of the only chunk. Class `ambiguous`.
    CutChunk,
    /// Accepted; a comment of a proxy follows the answer. Class `answered`.
    TrailingComment,
    /// Accepted; a client whose `Accept` does not name JSON is answered in XML, as WCF does. Class `answered` for
    /// a client that asks for JSON.
    XmlUnlessAsked,
    /// Accepted, and then 503 with the words of an Envoy proxy that lost the answer. Class `ambiguous`.
    ProxyLost,
    /// Not accepted; 503 with the words of an Envoy proxy that has no server to pass the request on to. Class
    /// `not sent`.
    NoUpstream,
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
            Self::AnswerStatus { .. } => "answer_status",
            Self::ByteOrderMark => "byte_order_mark",
            Self::ManyHeaders { .. } => "many_headers",
            Self::ControlByte => "control_byte",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::FoldedHeader => "folded_header",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::UntilClose => "until_close",
            Self::LongLength => "long_length",
            Self::OpenEnd => "open_end",
            Self::CutChunks => "cut_chunks",
            Self::CutChunk => "cut_chunk",
            Self::TrailingComment => "trailing_comment",
            Self::XmlUnlessAsked => "xml_unless_asked",
            Self::ProxyLost => "proxy_lost",
            Self::NoUpstream => "no_upstream",
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
                | Self::NoUpstream
        )
    }
}
