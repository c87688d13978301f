//! HTTP in the clear where TLS is spoken.

use std::net::SocketAddr;

use crate::base::Dialect;
use crate::base::reject::Reject;
use crate::wire::http1::{HeadLimits, HeadSpace, parse_request};

/// What a client is told that spoke HTTP in the clear.
pub struct Advice {
    /// The no.
    pub reject: Reject,
    /// Whose shape it has.
    pub dialect: Dialect,
    /// True if the answer has no body.
    pub is_head: bool,
}

/// The advice for a request that began with `bytes` and came to `address`: use https.
///
/// The host that the client meant stands in it if that much of the head has come; what is still to come is not waited for.
pub fn speak_https(bytes: &[u8], limits: &HeadLimits, address: SocketAddr) -> Advice {
    let mut space = HeadSpace::new();
    let head = parse_request(bytes, limits, &mut space).ok().flatten();
    let host = head.as_ref().and_then(|head| head.host).map_or_else(|| address.to_string(), str::to_owned);
    let text = format!("This port speaks HTTPS: use https://{host}/ instead of http://.");
    Advice {
        reject: Reject::client(400, "https_required", text),
        dialect: Dialect::of_path(head.as_ref().map_or("", |head| head.target.path)),
        is_head: head.is_some_and(|head| head.method == "HEAD"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1024, headers_max: 10, target_bytes_max: 100 };

    fn advice(request: &str) -> Advice {
        speak_https(request.as_bytes(), &LIMITS, "192.0.2.1:8443".parse().unwrap())
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
            let reject = advice(request).reject;
            assert_eq!((reject.status, &*reject.code), (400, "https_required"), "{request}");
            assert!(reject.message.contains(said), "{request}: {}", reject.message);
        }
    }

    #[test]
    fn it_has_the_shape_of_the_paths_dialect_and_no_body_for_head() {
        let post = advice("POST /v1/messages HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((post.dialect, post.is_head), (Dialect::Anthropic, false));
        let head = advice("HEAD /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((head.dialect, head.is_head), (Dialect::OpenAi, true));
    }
}
