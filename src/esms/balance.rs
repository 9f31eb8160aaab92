//! The account's balance, as eSMS tells it.

use std::time::SystemTime;

use reqwest::Url;
use reqwest::header::DATE;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body;
use super::classify::{Seen, string_or_digits};
use super::client::Esms;
use super::codes;
use super::reading::read;
use super::trouble::describe;

/// The call's name. It is next to the V5 endpoint.
const CALL: &str = "GetBalance_json";

/// What eSMS says of the account.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// In VND.
    pub balance: f64,
    /// The time of eSMS's clock in whole seconds, if the answer had a `Date`.
    pub date: Option<SystemTime>,
}

/// Why the balance is not known.
#[derive(Debug, thiserror::Error)]
pub enum BalanceError {
    /// eSMS refused the call.
    #[error("eSMS refused the keys or the call: CodeResponse {code}, {meaning}")]
    Refused {
        /// The `CodeResponse`, if it is a documented one.
        code: &'static str,
        /// What it means.
        meaning: &'static str,
    },
    /// eSMS could not be reached, or did not answer in time.
    #[error("eSMS did not answer: {0}")]
    NotReached(String),
    /// The answer does not have the form of the balance call.
    #[error("not an answer of the balance call: HTTP {0}")]
    NotUnderstood(u16),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a> {
    api_key: &'a str,
    secret_key: &'a str,
}

/// The provider's pages differ on the types.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said<'a> {
    #[serde(borrow)]
    balance: Option<&'a RawValue>,
    #[serde(borrow)]
    code_response: &'a RawValue,
}

/// What a body says: the `CodeResponse`, and the balance if it is there.
fn said(body: &[u8]) -> Option<(String, Option<f64>)> {
    let object = body::object(body)?;
    let said: Said<'_> = serde_json::from_str(object.get()).ok()?;
    Some((string_or_digits(said.code_response)?, said.balance.and_then(amount)))
}

/// A number, or a string that holds one.
fn amount(raw: &RawValue) -> Option<f64> {
    let text: String = serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
    text.trim().parse().ok().filter(|amount: &f64| amount.is_finite())
}

impl Esms {
    /// Asks for the balance; it takes at most `ESMS_TIMEOUT`.
    ///
    /// # Errors
    /// [`BalanceError`].
    pub async fn balance(&self) -> Result<Account, BalanceError> {
        let keys = self.keys.now();
        let question = Question { api_key: keys.api_key.expose_secret(), secret_key: keys.secret_key.expose_secret() };
        // A struct of strings always has a JSON form.
        let body = serde_json::to_vec(&question).unwrap_or_default();
        let length = body.len();
        let sent = self.client.execute(self.post(balance_url(&self.url), body.into(), length));
        let response = sent.await.map_err(|error| BalanceError::NotReached(describe(error)))?;
        let status = response.status().as_u16();
        let date = response.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let answer = match read(response).await {
            Seen::Reply { body, .. } => body,
            Seen::NotWritten(why) | Seen::NoReply(why) => return Err(BalanceError::NotReached(why)),
        };
        let (code, balance) = said(&answer).ok_or(BalanceError::NotUnderstood(status))?;
        if code != codes::ACCEPTED {
            let known = codes::documented(&code);
            return Err(BalanceError::Refused { code: known.code, meaning: known.meaning });
        }
        let balance = balance.ok_or(BalanceError::NotUnderstood(status))?;
        Ok(Account { balance, date })
    }
}

/// Beside the V5 endpoint, which people write with and without a slash at its end.
fn balance_url(v5: &Url) -> Url {
    let mut v5 = v5.clone();
    v5.set_path(v5.path().trim_end_matches('/').to_owned().as_str());
    v5.join(CALL).unwrap_or(v5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_beside_the_v5_endpoint_however_that_is_written() {
        for (v5, balance) in [
            (
                "https://rest.esms.vn/MainService.svc/json/V5",
                "https://rest.esms.vn/MainService.svc/json/GetBalance_json",
            ),
            (
                "https://rest.esms.vn/MainService.svc/json/V5/",
                "https://rest.esms.vn/MainService.svc/json/GetBalance_json",
            ),
            (
                "http://rest.esms.vn/MainService.svc/json/V5//",
                "http://rest.esms.vn/MainService.svc/json/GetBalance_json",
            ),
            ("http://127.0.0.1:8081/V5?a=b", "http://127.0.0.1:8081/GetBalance_json"),
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081/GetBalance_json"),
        ] {
            assert_eq!(balance_url(&Url::parse(v5).unwrap()).as_str(), balance, "{v5}");
        }
    }

    #[test]
    fn balance_and_code_are_read_in_every_form() {
        for balance in ["36693", "36693.0", r#""36693""#, r#"" 36693 ""#, "3.6693E+4", r#""3.6693E+4""#] {
            for code in ["100", r#""100""#] {
                let body = format!(r#"{{"Balance":{balance},"CodeResponse":{code},"UserID":9999}}"#);
                let expected = Some(("100".to_owned(), Some(36693.0)));
                assert_eq!(said(body.as_bytes()), expected, "{body}");
                assert_eq!(said(format!("\u{feff} {body}").as_bytes()), expected, "{body}");
            }
        }
        let large = br#"{"Balance":1.26743233E+15,"CodeResponse":"100"}"#;
        assert_eq!(said(large), Some(("100".to_owned(), Some(1_267_432_330_000_000.0))));
    }

    #[test]
    fn what_is_no_amount_is_not_known() {
        for balance in ["null", "true", "{}", r#""""#, r#""NaN""#, r#""inf""#, r#""much""#] {
            let body = format!(r#"{{"Balance":{balance},"CodeResponse":"100"}}"#);
            assert_eq!(said(body.as_bytes()), Some(("100".to_owned(), None)), "{body}");
        }
        assert_eq!(said(br#"{"CodeResponse":"101"}"#), Some(("101".to_owned(), None)));
        assert_eq!(said(br#"{"Balance":1}"#), None);
        assert_eq!(said(b"<html>"), None);
    }
}
