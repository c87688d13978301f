//! `[cors]`.

use core::net::Ipv6Addr;

use super::*;
use crate::config::cors::{Cors, EXPOSED, Pages};

const ORIGIN_FORM: &str = r#""https://app.example", "http://localhost:5173", "https://*.example.com", "null" or "*""#;
const HEADERS_FORM: &str = "a list of header names";

/// `Some(None)` if there is no such table.
pub(super) fn cors(file: &mut Section) -> Option<Option<Cors>> {
    let Some(item) = file.get("cors") else { return Some(None) };
    let mut cors = item.section()?;
    let origins = cors.require("origins", ORIGIN_FORM);
    let headers = cors.get("headers").map(|item| names(&item, false));
    let expose = cors.get("expose");
    let exposed = expose.as_ref().map(|item| names(item, true));
    let max_age = cors.duration("max_age", CorsSchema::MAX_AGE);
    let credentials = cors.boolean("credentials", false);
    let private_network = cors.boolean("private_network", false);
    cors.finish();
    let origins = origins.and_then(|item| all(item.list(ORIGINS_MAX, ORIGIN_FORM)?, origin))?;
    if credentials && origins.contains(&Pages::All) {
        let allowed = "list the origins, or leave credentials out: API keys that a page sends itself need it not";
        return item.wrong("\"*\" lets every page on the web call with its visitor's credentials", allowed);
    }
    let exposed = match exposed {
        Some(names) => names?,
        None => EXPOSED.map(str::to_owned).to_vec(),
    };
    if credentials
        && exposed.iter().any(|name| name == "*")
        && let Some(item) = expose
    {
        return item.wrong("\"*\" means nothing to browsers together with credentials", "list the names");
    }
    let headers = match headers {
        Some(names) => Some(names?),
        None => None,
    };
    Some(Some(Cors { origins, headers, expose: exposed, max_age, credentials, private_network }))
}

fn origin(item: &Item) -> Option<Pages> {
    let text = item.text()?;
    if text.value.len() > ORIGIN_BYTES_MAX {
        return text.wrong("is too long for an origin", &format!("at most {ORIGIN_BYTES_MAX} bytes"));
    }
    match pages(&text.value) {
        Ok(pages) => Some(pages),
        Err(why) => text.wrong(why, ORIGIN_FORM),
    }
}

/// An origin as browsers write it (RFC 6454 §6.2), or a pattern of some.
fn pages(text: &str) -> Result<Pages, &'static str> {
    if text == "*" {
        return Ok(Pages::All);
    }
    if text == "null" {
        return Ok(Pages::Of(text.to_owned()));
    }
    let (scheme, rest) = text.split_once("://").ok_or("is not an origin: it has no scheme")?;
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !is_scheme {
        return Err("is not an origin: its scheme is none");
    }
    if rest.contains(['/', '?', '#', '@']) {
        return Err("is not an origin: it ends with host and port, without a path or a slash");
    }
    if !rest.is_ascii() {
        return Err("is not an origin: browsers write international names in their xn-- form");
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let port = match port.map(|port| (port, port.parse::<u16>())) {
        None => String::new(),
        Some((digits, Ok(port))) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            // Browsers leave a scheme's own port out.
            let usual = matches!((scheme.as_str(), port), ("http", 80) | ("https", 443));
            if usual { String::new() } else { format!(":{port}") }
        }
        Some(_) => return Err("is not an origin: its port is not 1 to 65535"),
    };
    let host = host.to_ascii_lowercase();
    if let Some(domain) = host.strip_prefix("*.") {
        if !is_name(domain) {
            return Err("is not an origin: *. stands before a domain");
        }
        return Ok(Pages::Below { scheme: format!("{scheme}://"), domain: format!(".{domain}{port}") });
    }
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match address.map(str::parse::<Ipv6Addr>) {
        Some(Ok(address)) => format!("[{address}]"),
        None if is_name(&host) => host,
        _ => return Err("is not an origin: its host is no name and no address"),
    };
    Ok(Pages::Of(format!("{scheme}://{host}{port}")))
}

/// True for labels of a domain with single dots between them.
fn is_name(name: &str) -> bool {
    name.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'))
}

fn names(list: &Item, star: bool) -> Option<Vec<String>> {
    let items = list.list(CORS_HEADERS_MAX, HEADERS_FORM)?;
    all(items, |item| {
        let text = item.text()?;
        let is_token = text.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b));
        let is_name = is_token && (1..=CORS_HEADER_BYTES_MAX).contains(&text.value.len());
        match text.value.as_str() {
            "*" if star => Some("*".to_owned()),
            "*" => {
                text.wrong("does not cover authorization in browsers", "leave headers out to allow what is asked for")
            }
            _ if is_name => Some(text.value.to_ascii_lowercase()),
            _ => {
                text.wrong("is not a header's name", &format!("1 to {CORS_HEADER_BYTES_MAX} of letters, digits and -"))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{around, only, sound};
    use super::*;

    #[test]
    fn an_origin_is_read_as_browsers_write_it() {
        let of = |text: &str| Ok(Pages::Of(text.to_owned()));
        let below = |scheme: &str, domain: &str| Ok(Pages::Below { scheme: scheme.into(), domain: domain.into() });
        for (written, read) in [
            ("*", Ok(Pages::All)),
            ("null", of("null")),
            ("https://app.example", of("https://app.example")),
            ("HTTPS://App.Example", of("https://app.example")),
            ("https://app.example:443", of("https://app.example")),
            ("http://app.example:80", of("http://app.example")),
            ("http://app.example:443", of("http://app.example:443")),
            ("http://localhost:5173", of("http://localhost:5173")),
            ("http://localhost:05173", of("http://localhost:5173")),
            ("http://127.0.0.1:1", of("http://127.0.0.1:1")),
            ("http://[0:0::1]:65535", of("http://[::1]:65535")),
            ("http://[::1]", of("http://[::1]")),
            ("chrome-extension://abcdef", of("chrome-extension://abcdef")),
            ("https://xn--bcher-kva.example", of("https://xn--bcher-kva.example")),
            ("https://*.example.com", below("https://", ".example.com")),
            ("https://*.Example.com:8443", below("https://", ".example.com:8443")),
            ("https://*.example.com:443", below("https://", ".example.com")),
            ("", Err("no scheme")),
            ("app.example", Err("no scheme")),
            ("Null", Err("no scheme")),
            ("://a", Err("scheme is none")),
            ("1http://a", Err("scheme is none")),
            ("ht tp://a", Err("scheme is none")),
            ("https://app.example/", Err("without a path")),
            ("https://app.example/x", Err("without a path")),
            ("https://user@app.example", Err("without a path")),
            ("https://app.example?x", Err("without a path")),
            ("https://bücher.example", Err("xn--")),
            ("https://", Err("its host")),
            ("https://*", Err("its host")),
            ("https://a.*.example", Err("its host")),
            ("https://*.*.example", Err("before a domain")),
            ("https://*.", Err("before a domain")),
            ("https://a..b", Err("its host")),
            ("https://.a", Err("its host")),
            ("https://a b", Err("its host")),
            ("https://[::g]", Err("its host")),
            ("https://a:0", Err("its port")),
            ("https://a:65536", Err("its port")),
            ("https://a:+1", Err("its port")),
            ("https://a:", Err("its port")),
            ("https://a:1:2", Err("its host")),
        ] {
            match (pages(written), read) {
                (Err(why), Err(part)) => assert!(why.contains(part), "{written}: {why}"),
                (got, read) => assert_eq!(got, read, "{written}"),
            }
        }
    }

    #[test]
    fn without_the_table_it_is_off_and_with_it_the_defaults_are_those_of_the_schema() {
        assert_eq!(sound(&around("", "")).cors, None);
        let cors = sound(&around("", "[cors]\norigins = [\"*\"]")).cors.expect("on");
        assert_eq!((cors.origins.as_slice(), cors.headers), ([Pages::All].as_slice(), None));
        assert_eq!((cors.expose.len(), cors.max_age), (EXPOSED.len(), Duration::from_secs(7200)));
        assert!(!cors.credentials && !cors.private_network);
    }

    #[test]
    fn what_browsers_would_not_take_is_refused_with_its_place() {
        for (table, path, part) in [
            ("", "cors.origins", "is missing"),
            ("origins = []", "cors.origins", "is empty"),
            ("origins = \"*\"", "cors.origins", "is a string"),
            ("origins = [\"https://a\", \"b\"]", "cors.origins[1]", "no scheme"),
            ("origins = [\"https://a\", \"*\"]\ncredentials = true", "cors", "every page on the web"),
            ("origins = [\"https://a\"]\nexpose = [\"*\"]\ncredentials = true", "cors.expose", "list the names"),
            ("origins = [\"*\"]\nheaders = [\"*\"]", "cors.headers[0]", "authorization"),
            ("origins = [\"*\"]\nheaders = [\"a b\"]", "cors.headers[0]", "is not a header's name"),
            ("origins = [\"*\"]\nexpose = [\"x-a\", \"\"]", "cors.expose[1]", "is not a header's name"),
            ("origins = [\"*\"]\nexpose = [\"x\\r\\ny: z\"]", "cors.expose[0]", "is not a header's name"),
            ("origins = [\"*\"]\nmethods = [\"GET\"]", "cors.methods", "is not a known field"),
        ] {
            let (at, what) = only(&around("", &format!("[cors]\n{table}\n")));
            assert!(at == path && what.contains(part), "{table}: {at}: {what}");
        }
    }

    #[test]
    fn every_list_and_text_has_its_bound() {
        let list = |count: usize, one: &str| format!("[{}]", format!("\"{one}\",").repeat(count));
        let origin = |length: usize| format!("[\"https://{}\"]", "a".repeat(length - 8));
        let name = |length: usize| format!("[\"{}\"]", "a".repeat(length));
        for (field, at, past) in [
            ("origins", list(ORIGINS_MAX, "https://a"), list(ORIGINS_MAX + 1, "https://a")),
            ("origins", origin(ORIGIN_BYTES_MAX), origin(ORIGIN_BYTES_MAX + 1)),
            ("headers", list(CORS_HEADERS_MAX, "a"), list(CORS_HEADERS_MAX + 1, "a")),
            ("headers", name(CORS_HEADER_BYTES_MAX), name(CORS_HEADER_BYTES_MAX + 1)),
            ("expose", list(CORS_HEADERS_MAX, "a"), list(CORS_HEADERS_MAX + 1, "a")),
            ("expose", name(CORS_HEADER_BYTES_MAX), name(CORS_HEADER_BYTES_MAX + 1)),
        ] {
            let origins = if field == "origins" { "" } else { "origins = [\"*\"]\n" };
            sound(&around("", &format!("[cors]\n{origins}{field} = {at}\n")));
            let (path, _) = only(&around("", &format!("[cors]\n{origins}{field} = {past}\n")));
            assert!(path.starts_with(&format!("cors.{field}")), "{path}");
        }
    }
}
