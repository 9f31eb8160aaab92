//! What eSMS accepts and what it answers. These are pure rules, without the network.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The fields that the V5 call knows.
const FIELDS: [&str; 6] = ["ApiKey", "SecretKey", "Phone", "MultiChannelTempId", "TypeId", "TimeAlive"];

/// How long a code is valid if the request has no `TimeAlive`.
const TIME_ALIVE: Duration = Duration::from_secs(5 * 60);

/// A `CodeResult` other than 100, and its `ErrorMessage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// `CodeResult`, word for word.
    pub code: String,
    /// `ErrorMessage`, word for word.
    #[serde(default)]
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }

    /// The provider's answer to a wrong key, word for word.
    pub(crate) fn authorize_failed() -> Self {
        Self::new("101", "Authorize Failed")
    }

    pub(crate) fn json(&self) -> Map<String, Value> {
        fields(json!({
            "CodeResult": self.code, "CountRegenerate": 0, "ErrorMessage": self.message,
        }))
    }
}

/// The account's credentials.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) api: String,
    pub(crate) secret: String,
}

impl Keys {
    pub(crate) fn open(&self, api: &str, secret: &str) -> bool {
        self.api == api && self.secret == secret
    }
}

/// The JSON object that was posted. It may contain anything.
pub(crate) struct Asked(Map<String, Value>);

impl Asked {
    /// `None` if the body is not a JSON object.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().map(Self)
    }

    /// A field as it was sent; empty if it is missing or not a string.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn has_keys(&self, keys: &Keys) -> bool {
        keys.open(self.text("ApiKey"), self.text("SecretKey"))
    }

    /// A refusal that repeats the phone and the keys, which no client should ever print.
    pub(crate) fn echoed(&self) -> Refusal {
        let [api, secret, phone] = ["ApiKey", "SecretKey", "Phone"].map(|name| self.text(name));
        Refusal::new("110", format!("Wrong request: Phone={phone} ApiKey={api} SecretKey={secret}"))
    }

    /// What the request wants, if the provider would accept it; else the provider's refusal.
    pub(crate) fn judge(&self, keys: &Keys) -> Result<Wanted, Refusal> {
        self.only_strings()?;
        if !self.has_keys(keys) {
            return Err(Refusal::authorize_failed());
        }
        self.only_known_fields()?;
        self.well_formed_phone()?;
        if self.text("MultiChannelTempId").is_empty() {
            return Err(Refusal::new("110", "MultiChannelTempId is missing"));
        }
        Ok(Wanted { sent: self.type_id()?, time_alive: self.time_alive()? })
    }

    fn only_strings(&self) -> Result<(), Refusal> {
        match self.0.iter().find(|(_, value)| !value.is_string()) {
            Some((name, _)) => Err(Refusal::new("110", format!("{name} is not a string"))),
            None => Ok(()),
        }
    }

    fn only_known_fields(&self) -> Result<(), Refusal> {
        match self.0.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            Some(name) => Err(Refusal::new("110", format!("{name} is not a field"))),
            None => Ok(()),
        }
    }

    fn well_formed_phone(&self) -> Result<(), Refusal> {
        let phone = self.text("Phone");
        let digits = phone.bytes().all(|byte| byte.is_ascii_digit());
        if digits && (8..=15).contains(&phone.len()) { Ok(()) } else { Err(Refusal::new("108", "Phone is not valid")) }
    }

    fn type_id(&self) -> Result<bool, Refusal> {
        match self.text("TypeId") {
            "1" => Ok(false),
            "2" => Ok(true),
            _ => Err(Refusal::new("110", "TypeId is neither 1 nor 2")),
        }
    }

    fn time_alive(&self) -> Result<Duration, Refusal> {
        if !self.0.contains_key("TimeAlive") {
            return Ok(TIME_ALIVE);
        }
        match self.text("TimeAlive").parse::<u32>() {
            Ok(minutes) if minutes > 0 => Ok(Duration::from_secs(u64::from(minutes) * 60)),
            _ => Err(Refusal::new("110", "TimeAlive is not a number of minutes")),
        }
    }
}

/// A request that the provider would accept.
pub(crate) struct Wanted {
    /// True for `TypeId` 2. For 1 the code is generated and not sent.
    pub(crate) sent: bool,
    pub(crate) time_alive: Duration,
}

/// The answer to a V5 request. A fault may still change what is sent.
pub(crate) enum Answer {
    Accepted {
        sms_id: String,
    },
    Refused(Refusal),
    /// A fault came first, so the request was not looked at.
    NotConsidered,
}

impl Answer {
    /// The answer's fields, as the provider writes them.
    pub(crate) fn json(&self) -> Map<String, Value> {
        match self {
            Self::Accepted { sms_id } => fields(json!({"CodeResult": "100", "CountRegenerate": 0, "SMSID": sms_id})),
            Self::Refused(refusal) => refusal.json(),
            Self::NotConsidered => Map::new(),
        }
    }

    pub(crate) fn code_result(&self) -> Option<&str> {
        match self {
            Self::Accepted { .. } => Some("100"),
            Self::Refused(refusal) => Some(&refusal.code),
            Self::NotConsidered => None,
        }
    }

    pub(crate) fn sms_id(&self) -> Option<&str> {
        match self {
            Self::Accepted { sms_id } => Some(sms_id),
            Self::Refused(_) | Self::NotConsidered => None,
        }
    }
}

/// The fields of an object made by `json!({…})`.
pub(crate) fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys { api: "key".into(), secret: "secret".into() }
    }

    /// The code that a good request gets after `change` is applied to it. `null` removes a field.
    fn code(change: Value) -> String {
        let mut fields = json!({"ApiKey": "key", "SecretKey": "secret", "Phone": "0901888484",
            "MultiChannelTempId": "1234", "TypeId": "2"});
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => fields.as_object_mut().unwrap().remove(name),
                value => fields.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        let asked = Asked::read(fields.to_string().as_bytes()).unwrap();
        asked.judge(&keys()).err().map_or("100".into(), |refusal| refusal.code)
    }

    #[test]
    fn each_mistake_gets_the_providers_code() {
        let table = [
            (json!({}), "100"),
            (json!({"TypeId": "1", "TimeAlive": "2"}), "100"),
            (json!({"Phone": "84901888484"}), "100"),
            (json!({"ApiKey": "other"}), "101"),
            (json!({"ApiKey": null}), "101"),
            (json!({"SecretKey": null, "Phone": "nonsense"}), "101"),
            (json!({"Phone": null}), "108"),
            (json!({"Phone": "+84901888484"}), "108"),
            (json!({"Phone": "0901 888 484"}), "108"),
            (json!({"Phone": "0901888"}), "108"),
            (json!({"Phone": "0901888484090188"}), "108"),
            (json!({"Phone": 901888484}), "110"),
            (json!({"TypeId": 2}), "110"),
            (json!({"TypeId": "3"}), "110"),
            (json!({"TypeId": null}), "110"),
            (json!({"MultiChannelTempId": null}), "110"),
            (json!({"MultiChannelTempId": ""}), "110"),
            (json!({"TimeAlive": "0"}), "110"),
            (json!({"TimeAlive": "soon"}), "110"),
            (json!({"Brandname": "x"}), "110"),
        ];
        for (change, expected) in table {
            assert_eq!(code(change.clone()), expected, "{change}");
        }
    }

    #[test]
    fn a_wrong_key_is_told_the_providers_words_and_no_smsid() {
        let answer = Answer::Refused(Refusal::authorize_failed()).json();
        let expected = json!({"CodeResult": "101", "CountRegenerate": 0, "ErrorMessage": "Authorize Failed"});
        assert_eq!(Value::Object(answer), expected);
    }
}
