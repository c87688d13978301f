//! What browsers are told about a page of another origin that calls here (the Fetch standard, "CORS protocol").
//!
//! Pure. It keeps nobody out: whoever is no browser need not ask. A page whose origin is not listed is answered as ever,
//! and its browser keeps the answer from it, for these lines are missing.

use crate::config::cors::{Cors as Rules, Pages};

/// Names of request headers that are allowed because they were asked for: this much of them, in bytes.
pub const ASKED_BYTES_MAX: usize = 4096;

const ALLOW_ORIGIN: &[u8] = b"access-control-allow-origin: ";
const METHODS: &str = "access-control-allow-methods: GET, HEAD, POST, PUT, PATCH, DELETE\r\n";
const PREFLIGHT_VARY: &[u8] =
    b"vary: origin, access-control-request-method, access-control-request-headers, access-control-request-private-network\r\n";

/// The answer lines of a configuration, made once.
#[derive(Debug)]
pub struct Cors {
    pages: Vec<Pages>,
    /// True if all pages are allowed, so that all answers are alike.
    all: bool,
    /// What an answer to an allowed page says beside its origin.
    answer: Vec<u8>,
    /// What a preflight's answer says beside it.
    preflight: Vec<u8>,
    /// True if any header may be set that is asked for.
    any_header: bool,
    private_network: bool,
}

/// What a browser asks for before a page's request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preflight<'a> {
    /// `Access-Control-Request-Headers`.
    pub headers: Option<&'a [u8]>,
    /// True for `Access-Control-Request-Private-Network: true`.
    pub private_network: bool,
}

impl Cors {
    /// Makes the lines of `rules`.
    pub fn new(rules: &Rules) -> Cors {
        let credentials = if rules.credentials { "access-control-allow-credentials: true\r\n" } else { "" };
        let mut preflight = format!("{credentials}{METHODS}access-control-max-age: {}\r\n", rules.max_age.as_secs());
        if let Some(headers) = &rules.headers {
            preflight += &format!("access-control-allow-headers: {}\r\n", headers.join(", "));
        }
        let expose = rules.expose.join(", ");
        Cors {
            pages: rules.origins.clone(),
            all: rules.origins.contains(&Pages::All),
            answer: format!("{credentials}access-control-expose-headers: {expose}\r\n").into_bytes(),
            preflight: preflight.into_bytes(),
            any_header: rules.headers.is_none(),
            private_network: rules.private_network,
        }
    }

    /// Appends the lines of an answer to a request from `origin`.
    pub fn answer(&self, origin: Option<&[u8]>, out: &mut Vec<u8>) {
        if self.allow(origin, out) {
            out.extend_from_slice(&self.answer);
        }
        if !self.all {
            // On every answer, also to those without an origin: a cache must not give a page what another one got.
            out.extend_from_slice(b"vary: origin\r\n");
        }
    }

    /// Appends the lines of the answer to a preflight from `origin`.
    pub fn preflight(&self, origin: &[u8], asked: Preflight<'_>, out: &mut Vec<u8>) {
        if self.allow(Some(origin), out) {
            out.extend_from_slice(&self.preflight);
            let asked_for = asked.headers.filter(|names| self.any_header && is_list_of_names(names));
            if let Some(names) = asked_for {
                out.extend_from_slice(b"access-control-allow-headers: ");
                out.extend_from_slice(names);
                out.extend_from_slice(b"\r\n");
            }
            if self.private_network && asked.private_network {
                out.extend_from_slice(b"access-control-allow-private-network: true\r\n");
            }
        }
        out.extend_from_slice(PREFLIGHT_VARY);
    }

    /// True if pages of `origin` may call.
    pub fn admits(&self, origin: &[u8]) -> bool {
        self.pages.iter().any(|pages| is_of(origin, pages))
    }

    /// Appends who may read the answer. False if `origin` may not.
    fn allow(&self, origin: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
        let allowed = match origin {
            _ if self.all => b"*",
            Some(origin) if self.admits(origin) => origin,
            _ => return false,
        };
        // An origin that was allowed holds nothing but what a host may hold.
        out.extend_from_slice(ALLOW_ORIGIN);
        out.extend_from_slice(allowed);
        out.extend_from_slice(b"\r\n");
        true
    }
}

/// Compares byte for byte: browsers write an origin in one way only (RFC 6454 §6.2).
fn is_of(origin: &[u8], pages: &Pages) -> bool {
    match pages {
        Pages::All => true,
        Pages::Of(one) => origin == one.as_bytes(),
        Pages::Below { scheme, domain } => {
            let rest = origin.strip_prefix(scheme.as_bytes());
            let name = rest.and_then(|rest| rest.strip_suffix(domain.as_bytes()));
            name.is_some_and(|name| name.split(|byte| *byte == b'.').all(is_label))
        }
    }
}

fn is_label(label: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !label.is_empty() && label.iter().all(is_part)
}

/// True for names and commas, within the bound.
fn is_list_of_names(list: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, ".contains(byte);
    list.len() <= ASKED_BYTES_MAX && list.iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules(origins: Vec<Pages>) -> Rules {
        Rules {
            origins,
            headers: None,
            expose: vec!["x-request-id".into(), "retry-after".into()],
            max_age: Duration::from_secs(7200),
            credentials: false,
            private_network: false,
        }
    }

    fn of(origin: &str) -> Pages {
        Pages::Of(origin.to_owned())
    }

    fn below(scheme: &str, domain: &str) -> Pages {
        Pages::Below { scheme: scheme.to_owned(), domain: domain.to_owned() }
    }

    fn answer(cors: &Cors, origin: Option<&str>) -> String {
        let mut out = Vec::new();
        cors.answer(origin.map(str::as_bytes), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn preflight(cors: &Cors, origin: &str, headers: Option<&str>, private_network: bool) -> String {
        let mut out = Vec::new();
        cors.preflight(origin.as_bytes(), Preflight { headers: headers.map(str::as_bytes), private_network }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn scheme_host_and_port_must_match_exactly() {
        let listed = || vec![of("https://app.example"), of("http://localhost:5173"), below("https://", ".example.com")];
        let cors = Cors::new(&rules(listed()));
        for (origin, allowed) in [
            ("https://app.example", true),
            ("http://app.example", false),
            ("https://app.example:8443", false),
            ("https://app.example.evil.test", false),
            ("https://notapp.example", false),
            ("https://APP.example", false),
            ("https://app.example/", false),
            ("https://app.exampl", false),
            ("http://localhost:5173", true),
            ("http://localhost", false),
            ("http://localhost:51730", false),
            ("https://a.example.com", true),
            ("https://a.b-c.example.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://a..example.com", false),
            ("https://evilexample.com", false),
            ("https://a.example.com:8443", false),
            ("https://a.example.com.evil.test", false),
            ("http://a.example.com", false),
            ("https://evil.test/.example.com", false),
            ("https://evil.test?.example.com", false),
            ("https://evil.test:1.example.com", false),
            ("https://u@b.example.com", false),
            ("https://a b.example.com", false),
            ("https://a\r\nx: y.example.com", false),
            ("null", false),
            ("*", false),
            ("", false),
        ] {
            let said = answer(&cors, Some(origin)).contains("access-control-allow-origin");
            assert_eq!(said, allowed, "{origin:?}");
            let told = preflight(&cors, origin, None, false).contains("access-control-allow");
            assert_eq!(told, allowed, "preflight from {origin:?}");
        }
        assert!(answer(&Cors::new(&rules(vec![of("null")])), Some("null")).contains("allow-origin: null\r\n"));
        let cors = Cors::new(&rules(vec![below("https://", ".example.com:8443")]));
        assert!(answer(&cors, Some("https://a.example.com:8443")).contains("allow-origin: https://a.example.com:8443"));
        assert!(!answer(&cors, Some("https://a.example.com")).contains("allow-origin"));
    }

    #[test]
    fn an_answer_says_who_may_read_what_of_it() {
        const EXPOSE: &str = "access-control-expose-headers: x-request-id, retry-after\r\n";
        let listed = Cors::new(&rules(vec![of("https://a")]));
        let credentials = Cors::new(&Rules { credentials: true, ..rules(vec![of("https://a")]) });
        let all = Cors::new(&rules(vec![of("https://a"), Pages::All]));
        for (name, cors, origin, said) in [
            (
                "listed",
                &listed,
                Some("https://a"),
                format!("access-control-allow-origin: https://a\r\n{EXPOSE}vary: origin\r\n"),
            ),
            ("not listed", &listed, Some("https://b"), "vary: origin\r\n".to_owned()),
            ("no browser", &listed, None, "vary: origin\r\n".to_owned()),
            (
                "with credentials",
                &credentials,
                Some("https://a"),
                format!(
                    "access-control-allow-origin: https://a\r\naccess-control-allow-credentials: true\r\n{EXPOSE}\
                     vary: origin\r\n"
                ),
            ),
            ("all", &all, Some("https://b"), format!("access-control-allow-origin: *\r\n{EXPOSE}")),
            // The same whoever asks, so that a cache may give it to all.
            ("all, no browser", &all, None, format!("access-control-allow-origin: *\r\n{EXPOSE}")),
        ] {
            assert_eq!(answer(cors, origin), said, "{name}");
        }
    }

    #[test]
    fn a_preflight_is_told_methods_and_headers_and_for_how_long() {
        const BASE: &str = "access-control-allow-methods: GET, HEAD, POST, PUT, PATCH, DELETE\r\n\
                            access-control-max-age: 7200\r\n";
        let vary = String::from_utf8(PREFLIGHT_VARY.to_vec()).unwrap();
        let origin = "access-control-allow-origin: https://a\r\n";
        let plain = Cors::new(&rules(vec![of("https://a")]));
        let named =
            Cors::new(&Rules { headers: Some(vec!["x-a".into(), "x-b".into()]), ..rules(vec![of("https://a")]) });
        let more = Rules { credentials: true, private_network: true, ..rules(vec![of("https://a")]) };
        let more = Cors::new(&more);
        let (at, past) = ("a".repeat(ASKED_BYTES_MAX), "a".repeat(ASKED_BYTES_MAX + 1));
        let echo = |names: &str| format!("{origin}{BASE}access-control-allow-headers: {names}\r\n{vary}");
        for (name, cors, headers, private, said) in [
            ("no header", &plain, None, false, format!("{origin}{BASE}{vary}")),
            ("as asked", &plain, Some("authorization,x-stainless-os"), false, echo("authorization,x-stainless-os")),
            ("as many as fit", &plain, Some(at.as_str()), false, echo(&at)),
            ("one byte more", &plain, Some(past.as_str()), false, format!("{origin}{BASE}{vary}")),
            ("no names", &plain, Some("a\tb;c"), false, format!("{origin}{BASE}{vary}")),
            ("private, not allowed", &plain, None, true, format!("{origin}{BASE}{vary}")),
            (
                "listed headers",
                &named,
                Some("x-c"),
                false,
                format!("{origin}{BASE}access-control-allow-headers: x-a, x-b\r\n{vary}"),
            ),
            (
                "all there is",
                &more,
                Some("x-c"),
                true,
                format!(
                    "{origin}access-control-allow-credentials: true\r\n{BASE}access-control-allow-headers: x-c\r\n\
                     access-control-allow-private-network: true\r\n{vary}"
                ),
            ),
        ] {
            assert_eq!(preflight(cors, "https://a", headers, private), said, "{name}");
        }
        assert_eq!(preflight(&plain, "https://b", Some("x-a"), true), vary, "not listed");
    }
}
