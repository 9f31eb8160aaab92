//! The page at `/`: one file, without anything from elsewhere.

use axum::{
    http::header,
    response::{Html, IntoResponse, Response},
};
use uuid::Uuid;

/// The page. `{nonce}` stands where its style and its script say that they are its own.
const PAGE: &str = include_str!("page.html");

/// Only the page's own style and script run, it calls only its own server, nobody frames it, and its script cannot
/// make HTML of what came in a request.
pub(crate) async fn page() -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, Html(PAGE.replace("{nonce}", &nonce))).into_response()
}
