use super::*;

/// The proxy's host and port for this URL and these variables.
fn proxy(url: &str, variables: &[(&str, &str)]) -> Option<String> {
    route(url, variables).proxy()
}

fn route(url: &str, variables: &[(&str, &str)]) -> Route {
    let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Route::by(&Url::parse(url).unwrap(), &value)
}

const ESMS: &str = "https://rest.esms.vn/MainService.svc/json/SendMessageAutoGenCode_V5";

#[test]
fn the_variables_say_which_proxy() {
    for (url, variables, expected) in [
        (ESMS, &[][..], None),
        (ESMS, &[("HTTPS_PROXY", "http://a:1")], Some("a:1")),
        (ESMS, &[("https_proxy", "http://a:1")], Some("a:1")),
        (ESMS, &[("HTTPS_PROXY", "a:1")], Some("a:1")),
        (ESMS, &[("HTTPS_PROXY", " http://a:1/ \r\n")], Some("a:1")),
        (ESMS, &[("HTTPS_PROXY", ""), ("https_proxy", "http://a:1")], Some("a:1")),
        (ESMS, &[("HTTP_PROXY", "http://a:1")], None),
        (ESMS, &[("ALL_PROXY", "socks5h://a:1"), ("HTTPS_PROXY", "http://b:2")], Some("b:2")),
        (ESMS, &[("all_proxy", "socks5://a:1")], Some("a:1")),
        ("http://gateway.example/", &[("HTTP_PROXY", "http://a:1")], Some("a:1")),
        ("http://gateway.example/", &[("HTTPS_PROXY", "http://a:1")], None),
    ] {
        assert_eq!(proxy(url, variables).as_deref(), expected, "{url} {variables:?}");
    }
}

#[test]
fn this_machine_is_never_called_through_a_proxy() {
    for host in [
        "127.0.0.1:8081",
        "127.1.2.3",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "esms.localhost",
        "[::1]:8081",
        "[::ffff:127.0.0.1]",
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}/V5");
            assert_eq!(proxy(&url, &[("ALL_PROXY", "http://a:1")]), None, "{url}");
        }
    }
    for host in ["128.0.0.1", "localhost.example", "mylocalhost", "[::2]", "10.0.0.1"] {
        let url = format!("http://{host}/V5");
        assert_eq!(proxy(&url, &[("ALL_PROXY", "http://a:1")]).as_deref(), Some("a:1"), "{url}");
    }
}

#[test]
fn no_proxy_spares_the_hosts_that_it_names() {
    for (list, host, is_spared) in [
        ("esms.vn", "rest.esms.vn", true),
        (".esms.vn", "rest.esms.vn", true),
        ("*.esms.vn", "rest.esms.vn", true),
        ("a.example, rest.esms.vn", "rest.esms.vn", true),
        ("a.example rest.esms.vn", "rest.esms.vn", true),
        ("rest.esms.vn:443", "rest.esms.vn", true),
        ("rest.esms.vn:80", "rest.esms.vn", false),
        ("sms.vn", "rest.esms.vn", false),
        ("*", "rest.esms.vn", true),
        ("*", "10.1.2.3", true),
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.1.2.3:443", "10.1.2.3", true),
        ("fd00::/8", "[fd00::1]", true),
        ("fd00::1", "[fd00::1]", true),
        ("10.0.0.0/8", "11.1.2.3", false),
        ("", "rest.esms.vn", false),
    ] {
        let variables = [("HTTPS_PROXY", "http://a:1"), ("no_proxy", list)];
        let found = proxy(&format!("https://{host}/V5"), &variables);
        assert_eq!(found.is_none(), is_spared, "{list} {host}");
    }
}

#[test]
fn an_address_that_cannot_be_understood_is_told_and_not_used() {
    for value in ["http://user:zQcanaryQz@", "ftp://a:1", "http://a b:1", "http://"] {
        let route = route(ESMS, &[("HTTPS_PROXY", value)]);
        let Route::Direct { unusable: Some("HTTPS_PROXY") } = route else { panic!("{value}: {route:?}") };
    }
}

#[test]
fn nobody_reads_a_proxys_credentials() {
    for value in ["http://user:zQcanaryQz@a:1", "socks5h://user:zQcanaryQz@a:1", "user:zQcanaryQz@a:1"] {
        let route = route(ESMS, &[("HTTPS_PROXY", value)]);
        assert_eq!(route.proxy().as_deref(), Some("a:1"));
        assert!(!format!("{route:?}").contains("zQcanaryQz"));
        assert!(route.apply(reqwest::Client::builder()).is_ok(), "{value}");
    }
}
