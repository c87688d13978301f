//! The HTTP proxy through which an endpoint is reached, and the environment's rules for it.
//!
//! The environment is read as curl reads it: `https_proxy`, else `HTTPS_PROXY`, for https; `http_proxy` in lower case
//! only for http, since a CGI program may find a client's `Proxy` header in the other (httpoxy). `no_proxy`, else
//! `NO_PROXY`, lists exceptions.

use core::net::IpAddr;

use data_encoding::BASE64;

use super::url;
use crate::base::Secret;

/// What a proxy's URL looks like.
pub(super) const PROXY_FORM: &str =
    r#""http://proxy.example:3128", "http://user:password@proxy.example:3128", "env" or "none""#;

/// The longest user name and password of a proxy together, in bytes, as they are sent.
const CREDENTIALS_BYTES_MAX: usize = 1024;

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name in lower case, or an address (IPv6 without brackets).
    pub host: String,
    /// Port; 80 unless the URL says another.
    pub port: u16,
    /// What `Proxy-Authorization` says.
    pub authorization: Option<Secret>,
}

/// Takes a proxy's URL apart. In the environment the scheme may be missing: `lax`.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the URL, which is not to be shown: it may hold a password.
pub(super) fn parse(text: &str, lax: bool) -> Result<Proxy, &'static str> {
    if text.len() > url::URL_BYTES_MAX {
        return Err("is longer than 2048 bytes");
    }
    let (scheme, rest) = match text.split_once("://") {
        Some(parts) => parts,
        None if lax => ("http", text),
        None => return Err("has no scheme"),
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => return Err("is an https URL, and proxies are spoken to in the clear"),
        _ => return Err("has a scheme other than http"),
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (credentials, authority) = match rest.rsplit_once('@') {
        Some((credentials, authority)) => (Some(credentials), authority),
        None => (None, rest),
    };
    if authority.contains(['/', '?', '#']) {
        return Err("has a path, query or fragment, which a proxy has not");
    }
    let url = url::parse(&format!("http://{authority}"))?;
    let authorization = credentials.map(authorization).transpose()?;
    Ok(Proxy { host: url.host, port: url.port, authorization })
}

/// `Basic` and the credentials of a URL (RFC 7617).
fn authorization(credentials: &str) -> Result<Secret, &'static str> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (mut plain, password) = (percent_decoded(user)?, percent_decoded(password)?);
    if plain.contains(&b':') {
        return Err("has a colon in its user name, which cannot be sent");
    }
    plain.push(b':');
    plain.extend(password);
    if plain.iter().any(u8::is_ascii_control) {
        return Err("has a control character in its user name or password");
    }
    if plain.len() > CREDENTIALS_BYTES_MAX {
        return Err("has a user name and password of more than 1024 bytes");
    }
    Ok(Secret::new(format!("Basic {}", BASE64.encode(&plain))))
}

fn percent_decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    let (mut bytes, mut out) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => return Err("has a % in its user name or password without two hexadecimal digits"),
        }
    }
    Ok(out)
}

/// The proxy that the environment names for an endpoint.
///
/// # Errors
/// The variable that holds no usable proxy, and what is wrong with it.
pub(super) fn from_env(
    tls: bool,
    host: &str,
    port: u16,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, (&'static str, &'static str)> {
    let first = |names: &[&'static str]| {
        names.iter().find_map(|name| Some((*name, env(name).filter(|value| !value.is_empty())?)))
    };
    let names: &[&str] = if tls { &["https_proxy", "HTTPS_PROXY"] } else { &["http_proxy"] };
    let Some((name, value)) = first(names) else { return Ok(None) };
    if first(&["no_proxy", "NO_PROXY"]).is_some_and(|(_, list)| is_exempt(&list, host, port)) {
        return Ok(None);
    }
    parse(&value, true).map(Some).map_err(|what| (name, what))
}

/// True if the list of exceptions names `host`: `*` is every host, a domain is itself and all below it (with or without
/// a dot or `*.` before it), an IP address is itself, and `address/bits` a network; each may end in `:port`.
fn is_exempt(list: &str, host: &str, port: u16) -> bool {
    let mut rules = list.split([',', ' ', '\t']).filter(|rule| !rule.is_empty());
    rules.any(|rule| {
        let (name, of_port) = split_port(rule);
        of_port.is_none_or(|of_port| of_port == port) && (name == "*" || names(name, host))
    })
}

fn names(rule: &str, host: &str) -> bool {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return match rule.split_once('/') {
            Some((network, bits)) => is_within(ip, network, bits),
            None => rule.parse() == Ok(ip),
        };
    }
    let domain = rule.strip_prefix('*').unwrap_or(rule).trim_matches('.').to_ascii_lowercase();
    let is_below = host.strip_suffix(domain.as_str()).is_some_and(|left| left.is_empty() || left.ends_with('.'));
    !domain.is_empty() && is_below
}

fn split_port(rule: &str) -> (&str, Option<u16>) {
    match rule.rsplit_once(':') {
        // An IPv6 address has colons of its own, and a port only behind brackets.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => match port.parse() {
            Ok(port) => (bare(name), Some(port)),
            Err(_) => (rule, None),
        },
        _ => (bare(rule), None),
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

fn is_within(ip: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (bare(network).parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) if bits <= 32 => {
            (ip.to_bits() ^ network.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) if bits <= 128 => {
            (ip.to_bits() ^ network.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_exceptions_is_read_as_others_read_it() {
        for (list, host, port, exempt) in [
            ("", "a.test", 443, false),
            (" , ,", "a.test", 443, false),
            ("*", "a.test", 443, true),
            ("*", "10.0.0.1", 443, true),
            ("*:443", "a.test", 443, true),
            ("*:80", "a.test", 443, false),
            ("a.test", "a.test", 443, true),
            ("A.Test", "a.test", 443, true),
            ("a.test.", "a.test", 443, true),
            ("a.test", "b.a.test", 443, true),
            ("a.test", "ba.test", 443, false),
            ("a.test", "test", 443, false),
            (".a.test", "b.a.test", 443, true),
            (".a.test", "a.test", 443, true),
            (".a.test", "ba.test", 443, false),
            ("*.a.test", "c.b.a.test", 443, true),
            ("*.a.test", "ba.test", 443, false),
            (".", "a.test", 443, false),
            ("x,y, a.test", "a.test", 443, true),
            ("x y\ta.test", "a.test", 443, true),
            ("a.test:443", "a.test", 443, true),
            ("a.test:80", "a.test", 443, false),
            ("a.test:port", "a.test", 443, false),
            ("10.0.0.1", "10.0.0.1", 443, true),
            ("10.0.0.1", "10.0.0.10", 443, false),
            ("0.0.1", "10.0.0.1", 443, false),
            ("10.0.0.1:443", "10.0.0.1", 443, true),
            ("10.0.0.1:80", "10.0.0.1", 443, false),
            ("10.0.0.0/8", "10.255.0.1", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("10.0.0.0/31", "10.0.0.1", 443, true),
            ("10.0.0.0/32", "10.0.0.1", 443, false),
            ("0.0.0.0/0", "203.0.113.9", 443, true),
            ("0.0.0.0/33", "203.0.113.9", 443, false),
            ("10.0.0.0/x", "10.0.0.0", 443, false),
            ("10.0.0.0/8", "a.test", 443, false),
            ("0.0.0.0/0", "::1", 443, false),
            ("::1", "::1", 443, true),
            ("[::1]", "::1", 443, true),
            ("[::1]:443", "::1", 443, true),
            ("[::1]:80", "::1", 443, false),
            ("0:0:0:0:0:0:0:1", "::1", 443, true),
            ("fd00::/8", "fd12:3456::1", 443, true),
            ("fd00::/8", "fe80::1", 443, false),
            ("::/0", "fe80::1", 443, true),
            ("::/129", "fe80::1", 443, false),
        ] {
            assert_eq!(is_exempt(list, host, port), exempt, "{list:?} for {host}:{port}");
        }
    }

    #[test]
    fn the_environment_is_asked_as_curl_asks_it() {
        let set = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
        };
        let host = |tls, env: &'static [(&str, &str)]| {
            from_env(tls, "a.test", 443, set(env)).map(|proxy| proxy.map(|proxy| proxy.host))
        };
        let proxy = |host: &str| Ok(Some(host.to_owned()));
        assert_eq!(host(true, &[]), Ok(None));
        assert_eq!(host(true, &[("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "http://q:1")]), proxy("p"));
        assert_eq!(host(true, &[("HTTPS_PROXY", "http://p:1"), ("https_proxy", "q:1")]), proxy("q"));
        assert_eq!(host(true, &[("HTTPS_PROXY", "http://p:1"), ("https_proxy", "")]), proxy("p"));
        assert_eq!(host(false, &[("HTTP_PROXY", "http://p:1"), ("https_proxy", "http://q:1")]), Ok(None));
        assert_eq!(host(false, &[("http_proxy", "http://p:1")]), proxy("p"));
        assert_eq!(host(true, &[("https_proxy", "http://p:1"), ("NO_PROXY", "a.test")]), Ok(None));
        assert_eq!(host(true, &[("https_proxy", "http://p:1"), ("NO_PROXY", "*"), ("no_proxy", "b")]), proxy("p"));
        assert_eq!(
            host(true, &[("https_proxy", "socks5://p:1")]),
            Err(("https_proxy", "has a scheme other than http"))
        );
        assert_eq!(host(true, &[("https_proxy", "socks5://p:1"), ("no_proxy", "*")]), Ok(None));
    }

    #[test]
    fn a_proxy_is_taken_apart_and_its_credentials_are_encoded() {
        // RFC 7617 §2 has the first pair.
        for (url, host, port, authorization) in [
            ("http://Aladdin:open%20sesame@p.test:3128", "p.test", 3128, Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
            ("http://p.test", "p.test", 80, None),
            ("HTTP://P.test:1/", "p.test", 1, None),
            ("http://[::1]:8080", "::1", 8080, None),
            ("http://u@p.test", "p.test", 80, Some("Basic dTo=")),
            ("http://u:p@ss@p.test", "p.test", 80, Some("Basic dTpwQHNz")),
            ("http://@p.test", "p.test", 80, Some("Basic Og==")),
            ("http://u:%C3%BC%3a@p.test", "p.test", 80, Some("Basic dTrDvDo=")),
        ] {
            let proxy = parse(url, false).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{url}");
            assert_eq!(proxy.authorization.as_ref().map(Secret::expose), authorization, "{url}");
            assert!(!format!("{proxy:?}").contains("Basic"), "{proxy:?}");
        }
        assert_eq!(parse("p.test:1", true).map(|proxy| proxy.port), Ok(1));
        let long = |bytes: usize| format!("http://u:{}@p", "x".repeat(bytes - 2));
        assert!(parse(&long(CREDENTIALS_BYTES_MAX), false).is_ok());
        for (url, what) in [
            ("p.test:1", "no scheme"),
            ("https://p.test", "in the clear"),
            ("socks5://p.test", "scheme other"),
            ("http://", "no host"),
            ("http://p.test/path", "path"),
            ("http://p.test?q", "query"),
            ("http://p.test:0", "port"),
            ("http://a%3ab:c@p.test", "colon"),
            ("http://a:b%0d%0a@p.test", "control character"),
            ("http://a:b%0@p.test", "hexadecimal"),
            ("http://a:b%zz@p.test", "hexadecimal"),
            (&long(CREDENTIALS_BYTES_MAX + 1), "more than 1024"),
            (&format!("http://{}", "x".repeat(2048)), "longer than 2048"),
        ] {
            let error = parse(url, false).expect_err(url);
            assert!(error.contains(what), "{url}: {error}");
        }
    }
}
