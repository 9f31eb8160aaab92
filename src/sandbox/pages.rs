//! HTML pages like those of an ASP.NET service, for requests that get no JSON answer.

use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};

/// Where a redirect leads: to a route that counts the clients that follow it.
pub(crate) const REDIRECTED: &str = "/_sandbox/redirected";

/// A page with this status and these words.
pub(crate) fn html(status: StatusCode, words: &str) -> Response {
    let page = format!(
        "<!DOCTYPE html>\n<html><head><title>Request Error</title></head><body>\
         <div id=\"content\"><p class=\"heading1\">Request Error</p><p>{words}</p></div>\
         </body></html>\n"
    );
    (status, Html(page)).into_response()
}

pub(crate) async fn endpoint_not_found() -> Response {
    html(StatusCode::NOT_FOUND, "Endpoint not found.")
}

pub(crate) async fn method_not_allowed() -> Response {
    html(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.")
}

pub(crate) fn unreadable() -> Response {
    let words = "The server encountered an error processing the request. See server logs for more details.";
    html(StatusCode::BAD_REQUEST, words)
}

pub(crate) fn too_many_phones() -> Response {
    let words = "The sandbox knows too many phones to take another: POST /_sandbox/reset.";
    html(StatusCode::SERVICE_UNAVAILABLE, words)
}
