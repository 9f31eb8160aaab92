//! Keeps other websites in the developer's browser away from the page and the control plane.
//!
//! A website can lead its own name to 127.0.0.1 (DNS rebinding): then the `Host` is that name. And it can post to
//! another site without asking: then the browser says so in `Origin` and `Sec-Fetch-Site`. Programs send neither.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const HOST: &str =
    "The Host of this request is neither localhost nor a loopback address: use http://127.0.0.1 and the port.\n";
const SITE: &str =
    "This request comes from another website: the sandbox takes calls from its own page and from programs.\n";

/// Answers 403 to a request that another website made.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    match refused(request.method(), request.headers()) {
        Some(words) => (StatusCode::FORBIDDEN, words).into_response(),
        None => next.run(request).await,
    }
}

/// Why the request is refused. `None` if it is not.
fn refused(method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback(host) {
        return Some(HOST);
    }
    let own_origin = |origin: &str| origin.strip_prefix("http://").is_some_and(|rest| rest.eq_ignore_ascii_case(host));
    let own_site = |site: &str| matches!(site, "same-origin" | "none");
    let own = text(header::ORIGIN).is_none_or(own_origin) && text(SEC_FETCH_SITE).is_none_or(own_site);
    (!method.is_safe() && !own).then_some(SITE)
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loopback_host_is_answered() {
        for (host, expected) in [
            ("127.0.0.1:8081", true),
            ("127.0.0.1", true),
            ("127.1.2.3:1", true),
            ("localhost:8081", true),
            ("LocalHost", true),
            ("[::1]:8081", true),
            ("", false),
            ("evil.example:8081", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("192.168.1.2:8081", false),
            ("0.0.0.0:8081", false),
            ("a b", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host:?}");
        }
    }

    #[test]
    fn another_website_changes_nothing() {
        let own = "http://127.0.0.1:8081";
        for (method, origin, site, expected) in [
            (Method::POST, None, None, true),
            (Method::POST, Some(own), Some("same-origin"), true),
            (Method::POST, Some("http://evil.example"), None, false),
            (Method::POST, Some("null"), None, false),
            (Method::POST, Some("https://127.0.0.1:8081"), None, false),
            (Method::POST, Some("http://127.0.0.1:3000"), Some("same-site"), false),
            (Method::POST, None, Some("cross-site"), false),
            (Method::PUT, Some("http://evil.example"), None, false),
            (Method::DELETE, Some("http://evil.example"), None, false),
            // A link on another website may lead here.
            (Method::GET, None, Some("cross-site"), true),
        ] {
            let mut headers = HeaderMap::from_iter([(header::HOST, "127.0.0.1:8081".parse().unwrap())]);
            headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
            headers.extend(site.map(|site| (SEC_FETCH_SITE, site.parse().unwrap())));
            assert_eq!(refused(&method, &headers).is_none(), expected, "{method} {origin:?} {site:?}");
        }
        assert_eq!(refused(&Method::GET, &HeaderMap::new()), Some(HOST));
    }
}
