//! The URL of an endpoint: scheme, host, port and base path, and nothing else (RFC 3986 §3).
//!
//! Strict on purpose: a URL with user name, query or fragment has a meaning that we would drop in silence.
//! No error quotes the URL, for people put keys into them.

use core::net::{Ipv4Addr, Ipv6Addr};

/// The longest URL taken, in bytes.
pub(super) const URL_BYTES_MAX: usize = 2048;

/// What an endpoint's URL looks like.
pub(super) const URL_FORM: &str = r#"a URL like "https://api.example.com/v1" or "http://127.0.0.1:8000/v1""#;

/// A URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// True for https.
    pub tls: bool,
    /// A name in lower case, or an address; IPv6 without brackets.
    pub host: String,
    /// From the URL, or the scheme's own.
    pub port: u16,
    /// Host, and port unless it is the scheme's own; IPv6 in brackets.
    pub authority: String,
    /// Empty, or begins with `/`; never ends with one.
    pub path: String,
}

/// Takes a URL apart.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the URL.
pub(super) fn parse(text: &str) -> Result<Url, &'static str> {
    if text.len() > URL_BYTES_MAX {
        return Err("is longer than 2048 bytes");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("holds a space, a control character or a letter outside ASCII (write names in punycode)");
    }
    let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return Err("has a scheme other than http and https"),
    };
    if rest.contains('#') {
        return Err("has a fragment (#…)");
    }
    if rest.contains('?') {
        return Err("has a query (?…)");
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("has a user name; the provider's key belongs into `key`");
    }
    let (host, port) = host_and_port(authority)?;
    let own_port = if tls { 443 } else { 80 };
    let port = port.unwrap_or(own_port);
    let shown_host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let authority = if port == own_port { shown_host } else { format!("{shown_host}:{port}") };
    Ok(Url { tls, host, port, authority, path: base_path(path)? })
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("has an IPv6 address without its closing bracket")?;
        let address: Ipv6Addr = address.parse().map_err(|_| "has no IPv6 address in its brackets")?;
        return match rest.strip_prefix(':') {
            Some(digits) => Ok((address.to_string(), Some(port(digits)?))),
            None if rest.is_empty() => Ok((address.to_string(), None)),
            None => Err("has something other than a port after the IPv6 address"),
        };
    }
    let (name, port) = match authority.split_once(':') {
        Some((name, digits)) => (name, Some(port(digits)?)),
        None => (authority, None),
    };
    Ok((host(name)?, port))
}

fn port(digits: &str) -> Result<u16, &'static str> {
    let number = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None };
    number.filter(|port| *port != 0).ok_or("has a port that is not 1 to 65535")
}

/// A host name (RFC 1123 §2.1, and `_`, which private zones use) or an IPv4 address, in lower case.
fn host(name: &str) -> Result<String, &'static str> {
    if name.is_empty() {
        return Err("has no host");
    }
    let in_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(in_label)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err("has a host that is no name and no address");
    }
    // A last label of digits is an address or a mistake, never a name: some resolvers read 127.1 as 127.0.0.1.
    let is_numeric = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if is_numeric && name.parse::<Ipv4Addr>().is_err() {
        return Err("has a host that is neither a name nor a whole IPv4 address");
    }
    Ok(name.to_ascii_lowercase())
}

/// Checks the path and takes the slashes off its end.
fn base_path(path: &str) -> Result<String, &'static str> {
    // RFC 3986 §3.3: pchar and "/".
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
    if !path.bytes().all(is_allowed) {
        return Err("has a character in its path that must be percent-encoded");
    }
    let is_hex = |b: Option<&u8>| b.is_some_and(u8::is_ascii_hexdigit);
    for (at, _) in path.match_indices('%') {
        let bytes = path.as_bytes();
        if !is_hex(bytes.get(at + 1)) || !is_hex(bytes.get(at + 2)) {
            return Err("has a % in its path without two hexadecimal digits");
        }
    }
    let path = path.trim_end_matches('/');
    if path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("has an empty, `.` or `..` segment in its path");
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, tls, host, port, authority, path) in [
            ("https://api.deepseek.com/v1", true, "api.deepseek.com", 443, "api.deepseek.com", "/v1"),
            ("http://127.0.0.1:8000", false, "127.0.0.1", 8000, "127.0.0.1:8000", ""),
            ("HTTPS://API.Example.COM:443/", true, "api.example.com", 443, "api.example.com", ""),
            ("http://a:80/x/y//", false, "a", 80, "a", "/x/y"),
            ("http://a:443", false, "a", 443, "a:443", ""),
            ("https://[2001:DB8::1]/v1", true, "2001:db8::1", 443, "[2001:db8::1]", "/v1"),
            ("http://[::1]:9000/v1/", false, "::1", 9000, "[::1]:9000", "/v1"),
            ("http://vllm_0.pool-a:1/a%2Fb:c@d", false, "vllm_0.pool-a", 1, "vllm_0.pool-a:1", "/a%2Fb:c@d"),
            ("http://a:65535", false, "a", 65535, "a:65535", ""),
        ] {
            let (host, authority, path) = (host.to_owned(), authority.to_owned(), path.to_owned());
            assert_eq!(parse(text), Ok(Url { tls, host, port, authority, path }), "{text}");
        }
    }

    #[test]
    fn what_is_no_plain_url_is_refused_with_its_reason() {
        let label = "a".repeat(64);
        for (text, reason) in [
            ("", "no scheme"),
            ("api.example.com/v1", "no scheme"),
            ("ftp://a", "scheme other"),
            ("https://", "no host"),
            ("https:///v1", "no host"),
            ("https://:80/v1", "no host"),
            ("https://user:sk-secret@a/v1", "user name"),
            ("https://a/v1?key=sk-secret", "query"),
            ("https://a?x", "query"),
            ("https://a/#x", "fragment"),
            ("https://a b/", "space"),
            ("https://münchen.example/", "punycode"),
            ("https://a\n/", "control"),
            ("https://a:0/", "port"),
            ("https://a:65536/", "port"),
            ("https://a:/", "port"),
            ("https://a:+1/", "port"),
            ("https://a:1:2/", "port"),
            ("https://a..b/", "no name and no address"),
            ("https://a./", "no name and no address"),
            ("https://-a/", "no name and no address"),
            ("https://a%41/", "no name and no address"),
            ("https://1.2.3/", "IPv4"),
            ("https://256.1.1.1/", "IPv4"),
            ("https://[::1/", "closing bracket"),
            ("https://[x]/", "IPv6"),
            ("https://[::1]x/", "after the IPv6"),
            ("https://a/a//b", "segment"),
            ("https://a/../b", "segment"),
            ("https://a/%4", "hexadecimal"),
            ("https://a/%zz", "hexadecimal"),
            ("https://a/\"", "percent-encoded"),
            (&format!("https://{label}/"), "no name and no address"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("sk-secret"));
        }
        let fits = format!("https://a/{}", "x".repeat(URL_BYTES_MAX - 10));
        assert!(parse(&fits).is_ok());
        assert!(parse(&(fits + "x")).is_err());
    }
}
