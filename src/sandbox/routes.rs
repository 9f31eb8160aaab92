//! The provider's calls, and the router for them, for the page and for the control plane.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Query, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::{from_fn, map_response},
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    connection::Connection,
    control,
    door::Door,
    guard::guard,
    page::page,
    pages,
    play::{object, play},
    rules::{Asked, Refusal, fields},
    shared::Shared,
};

/// The path of the V5 call.
pub const SEND_PATH: &str = "/MainService.svc/json/SendMessageAutoGenCode_V5";
/// The path of the CheckCode call.
pub const CHECK_CODE_PATH: &str = "/MainService.svc/json/CheckCodeGen_V4_get";
/// The path of the balance call.
pub const BALANCE_PATH: &str = "/MainService.svc/json/GetBalance_json";

/// The largest body, in bytes. A real call has a few hundred.
const BODY_LIMIT: usize = 64 * 1024;

/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The account's number, as in the provider's example.
const USER_ID: u32 = 9999;

pub(crate) fn router(shared: Arc<Shared>, door: Arc<Door>) -> Router {
    let own = Router::new().route("/", get(page)).nest("/_sandbox", control::router(Arc::clone(&shared), door));
    Router::new()
        .route(SEND_PATH, post(send))
        // Clients write the address with and without a slash at its end.
        .route(&format!("{SEND_PATH}/"), post(send))
        .route(CHECK_CODE_PATH, get(check_code))
        .route(BALANCE_PATH, post(balance))
        .layer(map_response(with_cookie))
        .with_state(shared)
        .merge(own.layer(from_fn(guard)))
        .fallback(pages::endpoint_not_found)
        .method_not_allowed_fallback(pages::method_not_allowed)
}

/// Sets a cookie, as ASP.NET does. A client does not need to return it.
async fn with_cookie(mut response: Response) -> Response {
    let cookie = "ASP.NET_SessionId=0123456789abcdefghijklmn; path=/; HttpOnly; SameSite=Lax";
    response.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_static(cookie));
    response
}

async fn send(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(body) = read(body).await else {
        return pages::unreadable();
    };
    let _in_progress = shared.enter(|records| &mut records.in_progress);
    let Some(asked) = posted(&headers, &body) else {
        shared.change(|records| {
            records.counts.requests += 1;
            records.counts.unreadable += 1;
        });
        return pages::unreadable();
    };
    match shared.change(|records| records.arrive(&asked)) {
        Some(arrival) => {
            let answer = connection.while_open(play(&shared, &connection, arrival, wants_json(&headers))).await;
            // If the connection was reset, nobody sees the answer.
            answer.unwrap_or_default()
        }
        None => pages::too_many_phones(),
    }
}

/// Whether the client asks for JSON by name.
fn wants_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains("json")))
}

async fn read(body: Body) -> Option<Bytes> {
    tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_LIMIT)).await.ok()?.ok()
}

/// The posted JSON object. `None` if the content type is not JSON or the body is not an object.
fn posted(headers: &HeaderMap, body: &[u8]) -> Option<Asked> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = content_type.split(';').next()?.trim();
    essence.eq_ignore_ascii_case("application/json").then(|| Asked::read(body))?
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CheckCode {
    api_key: String,
    secret_key: String,
    phone: String,
    code: String,
}

async fn check_code(State(shared): State<Arc<Shared>>, Query(asked): Query<CheckCode>) -> Response {
    object(&shared.change(|records| {
        records.counts.check_code_calls += 1;
        if !records.keys.open(&asked.api_key, &asked.secret_key) {
            Refusal::authorize_failed().json()
        } else {
            records.check_code(&asked.phone, &asked.code)
        }
    }))
}

async fn balance(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    let Some(body) = read(body).await else {
        return pages::unreadable();
    };
    let Some(asked) = posted(&headers, &body) else {
        return pages::unreadable();
    };
    object(&fields(shared.change(|records| {
        records.counts.balance_calls += 1;
        if asked.has_keys(&records.keys) {
            json!({"Balance": records.balance, "CodeResponse": "100", "UserID": USER_ID})
        } else {
            json!({"Balance": 0, "CodeResponse": "101", "ErrorMessage": "Authorize Failed"})
        }
    })))
}
