//! HTTP in the clear where TLS is spoken.

use std::net::SocketAddr;

use crate::base::Dialect;
use crate::base::reject::Reject;
use crate::wire;
use crate::wire::http1::{HeadLimits, HeadSpace, end_head, parse_request, write_content_length, write_status_line};

/// The whole answer to a request that began with `bytes` and came to `address`: use https.
///
/// The host that the client meant stands in it if that much of the head has come; what is still to come is not waited for.
pub fn speak_https(bytes: &[u8], limits: &HeadLimits, address: SocketAddr) -> Vec<u8> {
    let mut space = HeadSpace::new();
    let head = parse_request(bytes, limits, &mut space).ok().flatten();
    let host = head.as_ref().and_then(|head| head.host).map_or_else(|| address.to_string(), str::to_owned);
    let dialect = Dialect::of_path(head.as_ref().map_or("", |head| head.target.path));
    let is_head = head.is_some_and(|head| head.method == "HEAD");
    let text = format!("This port speaks HTTPS: use https://{host}/ instead of http://.");
    let body = wire::error_body(dialect, &Reject::client(400, "https_required", text));
    let mut out = Vec::with_capacity(256 + body.len());
    write_status_line(&mut out, 400);
    out.extend_from_slice(b"content-type: application/json\r\nx-ringway-error-origin: client\r\n");
    write_content_length(&mut out, body.len() as u64);
    out.extend_from_slice(b"connection: close\r\n");
    end_head(&mut out);
    if !is_head {
        out.extend_from_slice(&body);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1024, headers_max: 10, target_bytes_max: 100 };

    fn answer(request: &str) -> String {
        String::from_utf8(speak_https(request.as_bytes(), &LIMITS, "192.0.2.1:8443".parse().unwrap())).unwrap()
    }

    #[test]
    fn the_answer_names_the_url_that_the_client_meant() {
        for (request, said) in [
            ("GET /v1/models HTTP/1.1\r\nHost: api.example:8443\r\n\r\n", "use https://api.example:8443/ instead"),
            ("GET http://api.example/v1 HTTP/1.1\r\nHost: api.example\r\n\r\n", "use https://api.example/ instead"),
            // Half a head, none, or one that breaks the rules.
            ("GET /v1/models HTTP/1.1\r\nHost: api.exa", "use https://192.0.2.1:8443/ instead"),
            ("A", "use https://192.0.2.1:8443/ instead"),
            ("GET / HTTP/1.1\r\nHost: \"><x>\r\n\r\n", "use https://192.0.2.1:8443/ instead"),
            ("GET / HTTP/1.0\r\n\r\n", "use https://192.0.2.1:8443/ instead"),
        ] {
            let answer = answer(request);
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
            assert!(answer.contains(said) && answer.contains("\"https_required\""), "{request}: {answer}");
        }
    }

    #[test]
    fn it_has_the_shape_of_the_paths_dialect_and_no_body_for_head() {
        assert!(answer("POST /v1/messages HTTP/1.1\r\nHost: a\r\n\r\n").contains("{\"type\":\"error\""));
        assert!(answer("HEAD /v1/models HTTP/1.1\r\nHost: a\r\n\r\n").ends_with("\r\n\r\n"));
    }
}
