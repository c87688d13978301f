use super::*;
use proptest::prelude::*;

/// A request head in one line: method, path, query, host, framing, and `+` what else it says.
fn describe(head: &RequestHead<'_, '_>) -> String {
    let mut line = format!("{} {}", head.method, head.target.path);
    if let Some(query) = head.target.query {
        line += &format!("?{query}");
    }
    line += &format!(" @{} {}", head.host.unwrap_or("-"), word(head.framing));
    for (holds, word) in
        [(head.version == Version::Http10, " +1.0"), (head.keep_alive, " +keep"), (head.expect_continue, " +continue")]
    {
        if holds {
            line += word;
        }
    }
    line
}

/// What `buf` comes to, with the length of the head.
fn verdict(buf: &[u8], limits: &HeadLimits) -> Result<Option<(String, usize)>, u16> {
    match parse_request(buf, limits, &mut HeadSpace::new()) {
        Ok(Some(head)) => Ok(Some((describe(&head), head.len))),
        Ok(None) => Ok(None),
        Err(malformed) => Err(malformed.status),
    }
}

/// Each valid head: nothing before its last byte, the same with and without more bytes behind it.
#[test]
fn a_sound_request_is_read_the_same_however_it_arrives() {
    let cases: &[(&str, &str, &str)] = &[
        ("3 plain", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / @h none +keep"),
        ("3.2.1 query", "GET /a?b=c&d HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a?b=c&d @h none +keep"),
        ("3.2.1 empty query", "GET /a? HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a? @h none +keep"),
        ("3.2.1 query with ?", "GET /a?b?c HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a?b?c @h none +keep"),
        ("3.2.1 two slashes", "GET //a//b HTTP/1.1\r\nHost: h\r\n\r\n", "GET //a//b @h none +keep"),
        (
            "3986-3.3 dots inside",
            "GET /v1/m/gpt-4.1/...x HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /v1/m/gpt-4.1/...x @h none +keep",
        ),
        ("3986-3.3 three dots", "GET /... HTTP/1.1\r\nHost: h\r\n\r\n", "GET /... @h none +keep"),
        ("3986-2.1 encoded slash", "GET /org%2Fmodel HTTP/1.1\r\nHost: h\r\n\r\n", "GET /org%2Fmodel @h none +keep"),
        (
            "3986-2.1 encoded slashes and harmless dots",
            "GET /a%2f...%5C.b%2Fc.%2f HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /a%2f...%5C.b%2Fc.%2f @h none +keep",
        ),
        ("3986-3.4 raw brackets", "GET /a?x[]={1}|^` HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a?x[]={1}|^` @h none +keep"),
        ("3986-3.4 dots in query", "GET /a?../.. HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a?../.. @h none +keep"),
        ("3.2.2 absolute", "GET http://x/a?b HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a?b @x none +keep"),
        ("3.2.2 absolute overrides Host", "GET http://x:8/a HTTP/1.1\r\nHost: y\r\n\r\n", "GET /a @x:8 none +keep"),
        ("3.2.2 absolute, upper case", "GET HTTPS://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET / @x none +keep"),
        ("9110-4.2.3 absolute, empty path", "GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", "GET / @x none +keep"),
        ("9110-4.2.3 absolute, only query", "GET http://x?q=/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET /?q=/ @x none +keep"),
        ("3.2.3 CONNECT", "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", "CONNECT  @x:443 none +keep"),
        ("3.2.4 asterisk", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * @h none +keep"),
        ("3.2.4 absolute OPTIONS", "OPTIONS http://x HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * @x none +keep"),
        ("3.1 any token is a method", "M-SEARCH! / HTTP/1.1\r\nHost: h\r\n\r\n", "M-SEARCH! / @h none +keep"),
        ("3.1 methods keep their case", "get / HTTP/1.1\r\nHost: h\r\n\r\n", "get / @h none +keep"),
        ("2.2 one empty line before", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / @h none +keep"),
        ("2.2 two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / @h none +keep"),
        ("5.1 no space after colon", "GET / HTTP/1.1\r\nHost:h\r\n\r\n", "GET / @h none +keep"),
        ("5.1 whitespace around value", "GET / HTTP/1.1\r\nHost: \t h \t \r\n\r\n", "GET / @h none +keep"),
        ("5.1 empty value", "GET / HTTP/1.1\r\nHost: h\r\nX:\r\nY: \r\n\r\n", "GET / @h none +keep"),
        ("9110-5.5 tab inside a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\tb\r\n\r\n", "GET / @h none +keep"),
        ("9110-7.2 port", "GET / HTTP/1.1\r\nHost: h:8080\r\n\r\n", "GET / @h:8080 none +keep"),
        ("9110-7.2 empty port", "GET / HTTP/1.1\r\nHost: h:\r\n\r\n", "GET / @h: none +keep"),
        ("9110-7.2 largest port", "GET / HTTP/1.1\r\nHost: h:65535\r\n\r\n", "GET / @h:65535 none +keep"),
        ("9110-7.2 IPv6", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET / @[::1]:80 none +keep"),
        ("9110-7.2 names in any case", "GET / HTTP/1.1\r\nhOsT: h\r\n\r\n", "GET / @h none +keep"),
        ("6.2 length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", "POST / @h len:5 +keep"),
        ("6.2 length 0", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "POST / @h len:0 +keep"),
        (
            "6.2 leading zeros are decimal",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 010\r\n\r\n",
            "POST / @h len:10 +keep",
        ),
        (
            "6.2 largest length",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999999999999\r\n\r\n",
            "POST / @h len:9999999999999999999 +keep",
        ),
        ("6.3 GET with a body", "GET / HTTP/1.1\r\nHost: h\r\ncontent-length: 1\r\n\r\n", "GET / @h len:1 +keep"),
        ("6.3 POST without framing", "POST / HTTP/1.1\r\nHost: h\r\n\r\n", "POST / @h none +keep"),
        ("7 chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", "POST / @h chunked +keep"),
        (
            "7 chunked in any case",
            "POST / HTTP/1.1\r\nHost: h\r\ntransfer-ENCODING: \tCHUNKED \r\n\r\n",
            "POST / @h chunked +keep",
        ),
        ("9.6 close", "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET / @h none"),
        ("9.6 close in a list", "GET / HTTP/1.1\r\nHost: h\r\nConnection: x,, , Close\r\n\r\n", "GET / @h none"),
        (
            "9.6 close in a second line",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: x\r\nConnection: close\r\n\r\n",
            "GET / @h none",
        ),
        (
            "9.6 close beats keep-alive",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n",
            "GET / @h none",
        ),
        (
            "9.3 only whole tokens count",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: closed\r\n\r\n",
            "GET / @h none +keep",
        ),
        ("9.3 1.0 closes", "GET / HTTP/1.0\r\n\r\n", "GET / @- none +1.0"),
        ("9.3 1.0 with keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / @- none +1.0 +keep"),
        ("3.2 1.0 may have a Host", "GET / HTTP/1.0\r\nHost: h\r\n\r\n", "GET / @h none +1.0"),
        (
            "9110-10.1.1 expect",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n",
            "POST / @h len:2 +keep +continue",
        ),
        (
            "9110-10.1.1 expect, chunked",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
            "POST / @h chunked +keep +continue",
        ),
        (
            "9110-10.1.1 expect, no body",
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
            "POST / @h none +keep",
        ),
        (
            "9110-10.1.1 expect, empty body",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
            "POST / @h len:0 +keep",
        ),
        (
            "9110-10.1.1 expect in 1.0",
            "POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
            "POST / @- len:2 +1.0",
        ),
    ];
    for (name, head, expected) in cases {
        let head = head.as_bytes();
        let expected = Ok(Some((expected.to_string(), head.len())));
        for end in 0..head.len() {
            assert_eq!(verdict(&head[..end], &limits()), Ok(None), "{name}: first {end} bytes");
        }
        for rest in ["", "G", "\r\n\r\n", "\0\n\n", "POST /other HTTP/1.1\r\nHost: other\r\n\r\n"] {
            let buf = [head, rest.as_bytes()].concat();
            assert_eq!(verdict(&buf, &limits()), expected, "{name}: before {rest:?}");
        }
    }
}

#[test]
fn an_ambiguous_or_broken_request_is_refused() {
    let cases: &[(&str, &[u8], u16)] = &[
        ("2.2 bare LF after the request line", b"GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
        ("2.2 bare LF after a field", b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
        ("2.2 bare LF after the last field", b"GET / HTTP/1.1\r\nHost: h\n\r\n", 400),
        ("2.2 bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
        ("2.2 bare LF throughout", b"GET / HTTP/1.1\nHost: h\n\n", 400),
        ("2.2 bare LF after an empty value", b"GET / HTTP/1.1\r\nHost: h\r\nX:\nY: z\r\n\r\n", 400),
        ("2.2 bare LF hides a length", b"GET / HTTP/1.1\r\nHost: h\r\nX: y\nContent-Length: 5\r\n\r\n", 400),
        ("2.2 bare LF in 1.0", b"GET / HTTP/1.0\n\n", 400),
        ("2.2 bare LF before the request", b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("2.2 bare LF after one empty line", b"\r\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("2.2 bare CR before the request", b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("2.2 three empty lines before", b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("2.2 bare CR in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
        ("2.2 bare CR ends a line", b"GET / HTTP/1.1\r\nHost: h\rX: b\r\n\r\n", 400),
        ("2.2 CR CR LF", b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", 400),
        ("2.2 bare CR as the empty line", b"GET / HTTP/1.1\r\nHost: h\r\n\rX", 400),
        ("2.2 whitespace before the first field", b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
        ("2.3 HTTP/2.0", b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("2.3 HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("2.3 HTTP/1.2", b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
        ("2.3 HTTP/0.9", b"GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505),
        ("2.3 lower case", b"GET / http/1.1\r\nHost: h\r\n\r\n", 400),
        ("2.3 no minor", b"GET / HTTP/1\r\nHost: h\r\n\r\n", 400),
        ("2.3 two digits", b"GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400),
        ("2.3 another protocol", b"GET / ICAP/1.0\r\nHost: h\r\n\r\n", 400),
        ("3 HTTP/0.9 line", b"GET /\r\nHost: h\r\n\r\n", 400),
        ("3 two spaces before the target", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3 two spaces after the target", b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3 tab for a space", b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3 space after the version", b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
        ("3 space before the method", b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3 a space in the target", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3 no method", b"/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.1 method not a token", b"GE(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.1 endless method", b"GETGETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("3.1 TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ("3.2 relative target", b"GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 fragment", b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 fragment in the query", b"GET /a?b#c HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 NUL in the target", b"GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 DEL in the target", b"GET /a\x7f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 UTF-8 in the target", "GET /ä HTTP/1.1\r\nHost: h\r\n\r\n".as_bytes(), 400),
        ("3.2 UTF-8 in the query", "GET /?ä HTTP/1.1\r\nHost: h\r\n\r\n".as_bytes(), 400),
        ("3.2 not UTF-8 in the target", b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-3.3 backslash", b"GET /a\\..\\b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-3.3 quote", b"GET /a\" HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 dot segment", b"GET /v1/../admin HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 dot segment at the end", b"GET /v1/.. HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 single dot", b"GET /./v1 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 encoded dots", b"GET /v1/%2e%2E/admin HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 half encoded dots", b"GET /v1/.%2e HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 dots between encoded slashes", b"GET /v1/..%2f..%2fadmin HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 dots behind an encoded slash", b"GET /v1/x%2F.. HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 dots before an encoded backslash", b"GET /v1/..%5Cadmin HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 all of it encoded", b"GET /v1/a%5c%2e%2E%2fb HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 one dot behind an encoded slash", b"GET /v1/a%2f. HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-5.2.4 in absolute form", b"GET http://x/../a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3986-2.1 broken escape", b"GET /a%2 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-2.1 escape not hexadecimal", b"GET /a%+1 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3986-7.3 encoded NUL", b"GET /a%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2.2 another scheme", b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2.2 scheme without slashes", b"GET http:x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("9110-4.2.1 empty host in absolute form", b"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("9110-4.2.4 user information", b"GET http://u:p@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2.2 absolute without Host", b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        ("3.2.2 absolute with a bad Host", b"GET http://x/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("3.2.3 CONNECT to a path", b"CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2.3 authority form with GET", b"GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2.4 asterisk with GET", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
        ("3.2 two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("3.2 two equal Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        ("3.2 two Hosts in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("9110-7.2 empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("9110-7.2 Host with a path", b"GET / HTTP/1.1\r\nHost: h/a\r\n\r\n", 400),
        ("9110-7.2 Host with a user", b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        ("9110-7.2 a list of Hosts", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        ("9110-7.2 Host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("9110-7.2 Host not ASCII", "GET / HTTP/1.1\r\nHost: ä\r\n\r\n".as_bytes(), 400),
        ("9110-7.2 port not a number", b"GET / HTTP/1.1\r\nHost: h:8o\r\n\r\n", 400),
        ("9110-7.2 port too large", b"GET / HTTP/1.1\r\nHost: h:65536\r\n\r\n", 400),
        ("9110-7.2 port beyond 32 bits", b"GET / HTTP/1.1\r\nHost: h:99999999999\r\n\r\n", 400),
        ("9110-7.2 port beyond 32 bits in the target", b"CONNECT h:99999999999 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("9110-7.2 port with a sign", b"GET / HTTP/1.1\r\nHost: h:+80\r\n\r\n", 400),
        ("9110-7.2 two ports", b"GET / HTTP/1.1\r\nHost: h:1:2\r\n\r\n", 400),
        ("9110-7.2 only a port", b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
        ("9110-7.2 open bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("9110-7.2 text after the bracket", b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400),
        ("9110-7.2 no address in brackets", b"GET / HTTP/1.1\r\nHost: [x]\r\n\r\n", 400),
        ("5 no colon", b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 400),
        ("5 empty name", b"GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n", 400),
        ("5.1 space before the colon", b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        ("5.1 tab before the colon", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length\t: 5\r\n\r\n", 400),
        ("5.1 space inside a name", b"GET / HTTP/1.1\r\nHost: h\r\nA B: x\r\n\r\n", 400),
        ("5.1 vertical tab in a name", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\x0b: chunked\r\n\r\n", 400),
        ("5.1 UTF-8 in a name", "GET / HTTP/1.1\r\nHost: h\r\nÄ: x\r\n\r\n".as_bytes(), 400),
        ("5.1 NUL in a name", b"GET / HTTP/1.1\r\nHost: h\r\nA\0: x\r\n\r\n", 400),
        ("5.2 folded line", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400),
        ("5.2 folded line, tab", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", 400),
        ("5.2 folded coding", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", 400),
        ("9110-5.5 NUL in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
        ("9110-5.5 DEL in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: \x7f\r\n\r\n", 400),
        ("9110-5.5 escape in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: \x1b[0m\r\n\r\n", 400),
        ("6.3 two lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        ("6.3 two equal lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", 400),
        ("6.3 list of lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\n", 400),
        ("9110-8.6 plus sign", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n", 400),
        ("9110-8.6 minus sign", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n", 400),
        ("9110-8.6 hexadecimal", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\n", 400),
        ("9110-8.6 fraction", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5.0\r\n\r\n", 400),
        ("9110-8.6 underscore", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1_0\r\n\r\n", 400),
        ("9110-8.6 empty", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", 400),
        ("9110-8.6 space between digits", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1 0\r\n\r\n", 400),
        ("9110-8.6 beyond 64 bits", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551621\r\n\r\n", 400),
        ("9110-8.6 other digits", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: ５\r\n\r\n".as_bytes(), 400),
        (
            "6.1 both, length first",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "6.1 both, coding first",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            400,
        ),
        (
            "6.1 both, length 0",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            400,
        ),
        (
            "6.1 chunked twice, two lines",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "6.1 chunked twice, one line",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            400,
        ),
        ("6.1 chunked not last", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        ("6.1 gzip, chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("6.1 gzip", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("6.1 identity", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", 501),
        (
            "6.1 identity beside chunked",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
            501,
        ),
        ("6.1 almost chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        ("6.1 chunked with a parameter", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", 400),
        ("6.1 quoted", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 400),
        ("6.1 empty coding", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", 400),
        ("6.1 empty element", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: , chunked\r\n\r\n", 400),
        ("6.1 vertical tab", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
        (
            "6.1 chunked and a byte beyond ASCII",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\xa0\r\n\r\n",
            400,
        ),
        ("6.1 coding in 1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (
            "9110-10.1.1 another expectation",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: x\r\n\r\n",
            417,
        ),
        (
            "9110-10.1.1 one known, one not",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: x\r\nExpect: 100-continue\r\n\r\n",
            417,
        ),
    ];
    for (name, head, status) in cases {
        assert_eq!(verdict(head, &limits()), Err(*status), "{name}");
        for end in 0..head.len() {
            assert!(!matches!(verdict(&head[..end], &limits()), Ok(Some(_))), "{name}: taken after {end} bytes");
        }
    }
}

#[test]
fn limits_hold_at_the_bound_and_refuse_one_past_it() {
    let head = |target: usize, fields: usize, pad: usize| {
        let mut head = format!("GET /{} HTTP/1.1\r\nHost: h\r\n", "t".repeat(target - 1));
        for at in 1..fields {
            head += &format!("x-{at}: {}\r\n", "v".repeat(if at == 1 { pad } else { 0 }));
        }
        head + "\r\n"
    };
    let tight = HeadLimits { head_bytes_max: 400, headers_max: 9, target_bytes_max: 50 };
    for (name, head, limits, status) in [
        ("target at the bound", head(50, 1, 0), tight, None),
        ("target one past it", head(51, 1, 0), tight, Some(414)),
        ("fields at the bound", head(1, 9, 0), tight, None),
        ("fields one past it", head(1, 10, 0), tight, Some(431)),
        ("bytes at the bound", head(1, 2, 400 - head(1, 2, 0).len()), tight, None),
        ("bytes one past it", head(1, 2, 401 - head(1, 2, 0).len()), tight, Some(431)),
        ("a target over both bounds is 414", head(500, 1, 0), tight, Some(414)),
        ("no limit goes beyond the room", head(1, 129, 0), HeadLimits { headers_max: 4096, ..limits() }, Some(431)),
        ("the room is used to its end", head(1, 128, 0), HeadLimits { headers_max: 4096, ..limits() }, None),
    ] {
        let got = verdict(head.as_bytes(), &limits);
        assert_eq!(got.clone().err(), status, "{name}");
        for end in 0..head.len() {
            match verdict(&head.as_bytes()[..end], &limits) {
                Ok(None) => {}
                Err(early) => assert_eq!(Some(early), status, "{name}: after {end} bytes"),
                Ok(Some(_)) => panic!("{name}: taken after {end} bytes"),
            }
        }
    }
}

#[test]
fn an_endless_head_is_refused_as_soon_as_a_limit_is_passed() {
    let tight = HeadLimits { head_bytes_max: 300, headers_max: 5, target_bytes_max: 100 };
    for (name, start, endless, status, at_most) in [
        ("method", "", "A", 501, METHOD_BYTES_MAX + 1),
        ("target", "GET /", "a", 414, 4 + 101),
        ("name", "GET / HTTP/1.1\r\n", "n", 431, 300),
        ("value", "GET / HTTP/1.1\r\nx: ", "v", 431, 300),
        ("fields", "GET / HTTP/1.1\r\n", "a:\r\n", 431, 16 + 6 * 4),
    ] {
        let mut buf = start.to_string();
        let refused = loop {
            match verdict(buf.as_bytes(), &tight) {
                Ok(None) => buf += endless,
                other => break other,
            }
        };
        assert_eq!(refused, Err(status), "{name}");
        assert_eq!(buf.len(), at_most, "{name}");
    }
}

#[test]
fn a_head_sent_byte_by_byte_is_parsed_a_few_times_only_and_at_its_end() {
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "v".repeat(4000));
    let mut scan = HeadScan::default();
    let mut parses = 0;
    for end in 1..=head.len() {
        if scan.is_due(&head.as_bytes()[..end]) {
            parses += 1;
            let taken = verdict(&head.as_bytes()[..end], &limits()).unwrap().is_some();
            assert_eq!(taken, end == head.len());
        } else {
            assert!(end < head.len(), "the end was missed");
        }
    }
    assert!(parses <= 14, "{parses}");
}

#[test]
fn every_known_name_is_known_in_any_case_and_no_other_is() {
    for (known, name) in Known::ALL {
        let near = format!("{}z", &name[..name.len() - 1]);
        for (name, expected) in [
            (name.to_string(), *known),
            (name.to_uppercase(), *known),
            (format!("{name}x"), Known::Other),
            (near, Known::Other),
        ] {
            assert_eq!(Known::of(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(known.as_str(), *name);
    }
    let hop: Vec<_> = Known::ALL.iter().filter(|(known, _)| known.is_hop_by_hop()).map(|(_, name)| *name).collect();
    let expected = [
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    assert_eq!(hop, expected);
}

#[test]
fn fields_are_found_counted_nominated_and_copied_in_order() {
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nA: 1\r\nConnection: X-Drop, close\r\nB:2\r\nx-drop: 3\r\nCookie: c\r\nCookie: d\r\nC:  4 \r\n\r\nbody";
    let mut space = HeadSpace::new();
    let request = parse_request(head, &limits(), &mut space).unwrap().unwrap();
    let fields = request.fields;
    assert_eq!((fields.len(), fields.is_empty()), (8, false));
    assert_eq!(fields.get(Known::Cookie), Some(&b"c"[..]));
    assert_eq!(fields.get(Known::Authorization), None);
    assert_eq!(fields.get_named(b"c"), Some(&b"4"[..]));
    assert!(fields.is_repeated(Known::Cookie) && !fields.is_repeated(Known::Host));
    assert!(fields.connection_names(b"x-DROP") && !fields.connection_names(b"a"));

    let mut out = Vec::new();
    fields.copy_to(&mut out, |field| {
        let stays = !field.known.is_hop_by_hop() && !fields.connection_names(field.name.as_bytes());
        stays && field.known != Known::Cookie
    });
    assert_eq!(out, b"Host: h\r\nA: 1\r\nB:2\r\nC:  4 \r\n");
    out.clear();
    fields.copy_to(&mut out, |field| field.known == Known::Cookie);
    assert_eq!(out, b"Cookie: c\r\nCookie: d\r\n");
    out.clear();
    fields.copy_to(&mut out, |_| true);
    assert_eq!(out, &head[17..head.len() - 6]);
    out.clear();
    fields.copy_to(&mut out, |_| false);
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_taken_stays_taken(
        mut buf in prop::collection::vec(prop_oneof![
            Just(b"GET / HTTP/1.1\r\n".to_vec()), Just(b"Host: h\r\n".to_vec()), Just(b"\r\n".to_vec()),
            Just(b"Content-Length: 5\r\n".to_vec()), Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()), prop::collection::vec(any::<u8>(), 0..8),
        ], 0..12).prop_map(|parts| parts.concat()),
        more in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let before = verdict(&buf, &limits());
        let _ = parse_response(&buf, &limits(), false, &mut HeadSpace::new());
        buf.extend_from_slice(&more);
        let after = verdict(&buf, &limits());
        match before {
            Ok(None) => {}
            Ok(taken) => prop_assert_eq!(Ok(taken), after),
            Err(_) => prop_assert!(after.is_err()),
        }
    }

    #[test]
    fn a_written_request_reads_back(
        method in "[A-Z!-]{1,32}",
        path in "(/[a-zA-Z0-9_~:@!$&'()*+,;=-]{0,12}){1,4}",
        query in prop::option::of("[!$-;=?-~]{0,20}"),
        fields in prop::collection::vec(("x-[a-z]{1,10}", "[!-~]([ -~]{0,20}[!-~])?"), 0..20),
        length in prop::option::of(0..=9_999_999_999_999_999_999_u64),
    ) {
        prop_assume!(method != "CONNECT");
        let mut out = Vec::new();
        write_request_line(&mut out, &method, "", &path, query.as_deref()).unwrap();
        write_header(&mut out, "host", b"example.com:1").unwrap();
        for (name, value) in &fields {
            write_header(&mut out, name, value.as_bytes()).unwrap();
        }
        if let Some(length) = length {
            write_content_length(&mut out, length);
        }
        end_head(&mut out);
        let mut space = HeadSpace::new();
        let head = parse_request(&out, &limits(), &mut space).unwrap().unwrap();
        prop_assert_eq!((head.method, head.target.path, head.target.query), (&*method, &*path, query.as_deref()));
        prop_assert_eq!(head.len, out.len());
        prop_assert_eq!(head.framing, length.map_or(Framing::None, Framing::Length));
        let read: Vec<_> = head.fields.iter().filter(|field| field.name.starts_with("x-")).collect();
        prop_assert_eq!(read.len(), fields.len());
        for (read, (name, value)) in read.iter().zip(&fields) {
            prop_assert_eq!((read.name, read.value), (&**name, value.as_bytes()));
        }
    }
}
