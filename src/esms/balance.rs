//! The account's balance, as eSMS tells it.

use std::time::SystemTime;

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, DATE};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::classify::Seen;
use super::client::{Esms, describe, read};
use super::codes;

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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    balance: Option<f64>,
    code_response: String,
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
        let sent = self.client.post(balance_url(&self.url)).header(CONTENT_TYPE, "application/json").body(body).send();
        let response = sent.await.map_err(|error| BalanceError::NotReached(describe(error)))?;
        let status = response.status().as_u16();
        let date = response.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let answer = match read(response).await {
            Seen::Reply { body, .. } => body,
            Seen::NotConnected(why) | Seen::NoReply(why) => return Err(BalanceError::NotReached(why)),
        };
        let said: Said = serde_json::from_slice(&answer).map_err(|_| BalanceError::NotUnderstood(status))?;
        if said.code_response != codes::ACCEPTED {
            let known = codes::documented(&said.code_response);
            return Err(BalanceError::Refused { code: known.code, meaning: known.meaning });
        }
        let balance = said.balance.ok_or(BalanceError::NotUnderstood(status))?;
        Ok(Account { balance, date })
    }
}

fn balance_url(v5: &Url) -> Url {
    v5.join(CALL).unwrap_or_else(|_| v5.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_beside_the_v5_endpoint() {
        let v5 = Url::parse("https://rest.esms.vn/MainService.svc/json/SendMessageAutoGenCode_V5").unwrap();
        assert_eq!(balance_url(&v5).as_str(), "https://rest.esms.vn/MainService.svc/json/GetBalance_json");
    }
}
