//! What eSMS's `CodeResult`s mean and who must act on them, from the provider's public tables.

/// What a refusal is about, and so who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// No refusal.
    None,
    /// The account: it hits every job until a person acts.
    Account,
    /// The receiver's number.
    Recipient,
    /// The request as this program made it.
    Request,
    /// The template, brandname or Zalo official account.
    Template,
    /// Too many calls.
    Throttle,
    /// Not documented.
    Unknown,
}

impl Scope {
    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::None => "none",
            Scope::Account => "account",
            Scope::Recipient => "recipient",
            Scope::Request => "request",
            Scope::Template => "template",
            Scope::Throttle => "throttle",
            Scope::Unknown => "unknown",
        }
    }

    /// What a person can do about it, where a person can.
    pub const fn hint(self) -> Option<&'static str> {
        match self {
            Scope::Account => Some("every job will be refused until the account at eSMS is put right"),
            Scope::Template => Some("check MultiChannelTempId, brandname and Zalo OA with eSMS"),
            Scope::Throttle => Some("lower OTP_CONCURRENCY, or have eSMS raise the account's rate"),
            Scope::Request => Some("compare the job's fields with the provider's documentation"),
            Scope::None | Scope::Recipient | Scope::Unknown => None,
        }
    }
}

/// One documented code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code as eSMS writes it.
    pub code: &'static str,
    /// What it is about.
    pub scope: Scope,
    /// Its meaning, for people.
    pub meaning: &'static str,
}

const fn code(code: &'static str, scope: Scope, meaning: &'static str) -> Code {
    Code { code, scope, meaning }
}

/// The code that means accepted.
pub const ACCEPTED: &str = "100";

/// What is known of a code that no public table lists.
pub const UNDOCUMENTED: Code = code("other", Scope::Unknown, "not documented by eSMS");

/// Every documented code, in order.
pub const DOCUMENTED: &[Code] = &[
    code("99", Scope::Recipient, "phone number blocked by the provider"),
    code(ACCEPTED, Scope::None, "accepted"),
    code("101", Scope::Account, "wrong ApiKey or SecretKey: check ESMS_API_KEY and ESMS_SECRET_KEY"),
    code("102", Scope::Account, "no price list for the account"),
    code("103", Scope::Account, "not enough balance: top up the account"),
    code("104", Scope::Template, "brandname does not exist"),
    code("105", Scope::Request, "message id not found"),
    code("106", Scope::Request, "recording file not found"),
    code("107", Scope::Request, "fewer receivers than the minimum"),
    code("108", Scope::Recipient, "phone number malformed"),
    code("110", Scope::Request, "request data wrong"),
    code("115", Scope::Recipient, "hashed phone invalid"),
    code("118", Scope::Request, "message type not supported"),
    code("120", Scope::Request, "too many receivers"),
    code("124", Scope::Request, "RequestId repeated"),
    code("140", Scope::Account, "this machine's IP address is not on the account's list"),
    code("143", Scope::Account, "account inactive or locked"),
    code("146", Scope::Template, "wrong customer-care template"),
    code("160", Scope::Throttle, "over the allowed calls per second"),
    code("163", Scope::Request, "too many receivers"),
    code("171", Scope::Recipient, "code used, expired or not for this phone"),
    code("177", Scope::Recipient, "network not registered for the brandname"),
    code("199", Scope::Request, "request already being processed"),
    code("201", Scope::Template, "content has a blocked keyword"),
    code("204", Scope::Template, "OA id does not exist"),
    code("210", Scope::Request, "payload not as specified"),
    code("300", Scope::Request, "message type missing or not supported"),
    code("301", Scope::Request, "message type missing or not supported"),
    code("687", Scope::Request, "more than 500 receivers"),
    code("788", Scope::Template, "OA not active, wrong, or not on the account"),
    code("789", Scope::Template, "template not configured for the OA"),
    code("790", Scope::Template, "wrong ZNS template"),
    code("791", Scope::Template, "OA id or template id missing"),
    code("799", Scope::Template, "OA not active, wrong, or not on the account"),
    code("801", Scope::Account, "over-quota sending mode not allowed"),
    code("802", Scope::Account, "over-quota sending mode not allowed"),
];

/// What is known of a code.
pub fn documented(code: &str) -> &'static Code {
    DOCUMENTED.iter().find(|known| known.code == code).unwrap_or(&UNDOCUMENTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_code_is_found_and_any_other_is_unknown() {
        for known in DOCUMENTED {
            assert_eq!(documented(known.code), known);
        }
        for other in ["", "1", "0100", "100 ", "abc", "65536"] {
            assert_eq!(documented(other), &UNDOCUMENTED, "{other}");
        }
    }

    #[test]
    fn the_refusals_that_hit_every_job_are_the_accounts() {
        for code in ["101", "102", "103", "140", "143", "801", "802"] {
            assert_eq!(documented(code).scope, Scope::Account);
        }
    }

    #[test]
    fn every_code_has_the_scope_of_whoever_must_act() {
        let of = |scope: Scope| -> Vec<&str> {
            DOCUMENTED.iter().filter(|known| known.scope == scope).map(|known| known.code).collect()
        };
        assert_eq!(of(Scope::None), ["100"]);
        assert_eq!(of(Scope::Throttle), ["160"]);
        assert_eq!(of(Scope::Account), ["101", "102", "103", "140", "143", "801", "802"]);
        assert_eq!(of(Scope::Recipient), ["99", "108", "115", "171", "177"]);
        assert_eq!(of(Scope::Template), ["104", "146", "201", "204", "788", "789", "790", "791", "799"]);
        let request = ["105", "106", "107", "110", "118", "120", "124", "163", "199", "210", "300", "301", "687"];
        assert_eq!(of(Scope::Request), request);
        assert!(of(Scope::Unknown).is_empty());
    }

    #[test]
    fn codes_are_listed_once_and_in_order() {
        let numbers: Vec<u32> = DOCUMENTED.iter().map(|known| known.code.parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
}
