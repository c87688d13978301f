//! Where a request says that a web page made it, and what its answer tells the browser then.

use crate::admission::cors::{Cors, Preflight};
use crate::wire::http1::{Known, RequestHead};

use super::state::Worker;

/// The field lines about other origins that every answer to this request carries, and whether it is a preflight, which
/// is answered with them alone. Nothing without `[cors]`.
pub fn lines(worker: &Worker, head: &RequestHead<'_, '_>) -> (Vec<u8>, bool) {
    match &worker.shared.cors {
        Some(cors) => lines_by(cors, head),
        None => (Vec::new(), false),
    }
}

/// True if the page that made a request may have what it asks for without asking before; also if no page made it, or one
/// of the host that it calls.
pub fn is_admitted(worker: &Worker, head: &RequestHead<'_, '_>) -> bool {
    let Some(origin) = head.fields.get(Known::Origin) else { return true };
    let host = origin.splitn(3, |byte| *byte == b'/').nth(2);
    let is_own = host.zip(head.host).is_some_and(|(of, own)| of.eq_ignore_ascii_case(own.as_bytes()));
    let is_listed = worker.shared.cors.as_ref().is_some_and(|cors| cors.admits(origin));
    !head.fields.is_repeated(Known::Origin) && (is_own || is_listed)
}

fn lines_by(cors: &Cors, head: &RequestHead<'_, '_>) -> (Vec<u8>, bool) {
    let fields = &head.fields;
    // Two origins are none.
    let origin = fields.get(Known::Origin).filter(|_| !fields.is_repeated(Known::Origin));
    let mut lines = Vec::with_capacity(1024);
    if let Some(origin) = origin
        && head.method == "OPTIONS"
        && fields.get_named(b"access-control-request-method").is_some()
    {
        let private = fields.get_named(b"access-control-request-private-network");
        let headers = fields.get_named(b"access-control-request-headers");
        cors.preflight(origin, Preflight { headers, private_network: private == Some(b"true") }, &mut lines);
        return (lines, true);
    }
    cors.answer(origin, &mut lines);
    (lines, false)
}

/// As [`lines`], of a head that could not be read: as far as its bytes show an origin.
pub fn lines_of_unread(worker: &Worker, input: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    if let Some(cors) = &worker.shared.cors {
        cors.answer(origin_in(input.get(..worker.head_limits.head_bytes_max).unwrap_or(input)), &mut lines);
    }
    lines
}

/// The value of the only whole `Origin` line before an empty one.
fn origin_in(head: &[u8]) -> Option<&[u8]> {
    let (whole, _) = head.split_at(head.iter().rposition(|byte| *byte == b'\n')?);
    let lines = whole.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let of_head = lines.skip(1).take_while(|line| !line.is_empty());
    let mut origins = of_head.filter_map(|line| {
        let (name, value) = line.split_at_checked(7)?;
        name.eq_ignore_ascii_case(b"origin:").then(|| value.trim_ascii())
    });
    origins.next().filter(|_| origins.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_found_in_a_head_that_cannot_be_read() {
        for (name, head, origin) in [
            ("the plain case", "GET / HTTP/9\r\nhost: x\r\nOrigin: https://a\r\n\r\n", Some("https://a")),
            ("without spaces", "GET / HTTP/9\norigin:https://a\nx: y\n", Some("https://a")),
            ("an end that never came", "GET / HTTP/1.1\r\norigin: https://a\r\nx: yyyyy", Some("https://a")),
            ("half a line", "GET / HTTP/1.1\r\nx: y\r\norigin: https://a", None),
            ("two of them", "GET / HTTP/1.1\r\norigin: https://a\r\norigin: https://a\r\n\r\n", None),
            ("in the body", "POST / HTTP/1.1\r\nhost: x\r\n\r\norigin: https://a\r\n", None),
            ("as the request line", "origin: https://a\r\nhost: x\r\n\r\n", None),
            ("another name", "GET / HTTP/1.1\r\nx-origin: https://a\r\norigins: b\r\n\r\n", None),
            ("nothing", "", None),
        ] {
            assert_eq!(origin_in(head.as_bytes()), origin.map(str::as_bytes), "{name}");
            for at in 0..head.len() {
                // No part of a head shows another origin than the whole.
                let part = origin_in(&head.as_bytes()[..at]);
                assert!(part.is_none() || part == Some(b"https://a"), "{name}: {at}");
            }
        }
    }
}
