//! Fields that say where a message goes, how long it is, or what its connection is to do; and names that resemble theirs.

use super::super::super::requests::SMUGGLED;
use super::Fate::{Ended, Passed, Refused, Reset};
use super::{JSON, Message, Table};

pub fn hosts(table: &mut Table) {
    // As the authority, and as the host that stands for one.
    for (authority, alone, host) in [
        ("h", Passed, Passed),
        ("h:8080", Passed, Passed),
        ("h:", Passed, Passed),
        ("[::1]:80", Passed, Passed),
        ("H.Test", Passed, Passed),
        ("u@h", Refused(400), Refused(400)),
        ("u:p@h", Refused(400), Refused(400)),
        ("@h", Refused(400), Refused(400)),
        ("u@", Reset, Refused(400)),
        ("h:x", Refused(400), Refused(400)),
        ("h:65536", Refused(400), Refused(400)),
        ("h:-1", Refused(400), Refused(400)),
        ("h:1:2", Reset, Refused(400)),
        ("[::1", Reset, Refused(400)),
        ("[]", Refused(400), Refused(400)),
        ("[::1]x", Refused(400), Refused(400)),
        ("[fe80::1%25eth0]", Refused(400), Refused(400)),
        ("h/x", Reset, Refused(400)),
        ("h?x", Reset, Refused(400)),
        ("h#x", Reset, Refused(400)),
        ("h\\x", Reset, Refused(400)),
        ("a, b", Reset, Refused(400)),
        ("a,b", Refused(400), Refused(400)),
        ("a b", Reset, Refused(400)),
        ("http://h", Reset, Refused(400)),
        ("%68", Reset, Refused(400)),
        ("hä", Reset, Refused(400)),
        ("h;x", Refused(400), Refused(400)),
        ("\"h\"", Reset, Refused(400)),
    ] {
        table.add("authority", authority, Message::get().set(":authority", authority), alone);
        let message = Message::get().without(":authority").with("host", authority);
        table.add("host alone", authority, message, host);
    }
    let get = Message::get;
    for (name, message, fate) in [
        ("equal", get().with("host", "h"), Passed),
        ("equal but for case", get().with("host", "H"), Passed),
        ("equal, twice", get().with("host", "h").with("host", "h"), Passed),
        ("another", get().with("host", "other"), Refused(400)),
        ("another, first", get().first("host", "other"), Reset),
        ("another behind an equal one", get().with("host", "h").with("host", "other"), Refused(400)),
        ("another before an equal one", get().with("host", "other").with("host", "h"), Refused(400)),
        ("empty", get().with("host", ""), Refused(400)),
        ("with a port", get().with("host", "h:80"), Refused(400)),
        ("with an empty port", get().with("host", "h:"), Refused(400)),
        ("with a point", get().with("host", "h."), Refused(400)),
        ("a list", get().with("host", "h, h"), Refused(400)),
        ("user information", get().with("host", "u@h"), Refused(400)),
        ("bytes", get().with("host", b"h\xff"), Refused(400)),
        ("two without :authority", get().without(":authority").with("host", "a").with("host", "b"), Refused(400)),
        ("equal ones without :authority", get().without(":authority").with("host", "a").with("host", "a"), Passed),
        ("empty without :authority", get().without(":authority").with("host", ""), Refused(400)),
        ("beside an empty :authority", get().set(":authority", "").with("host", "h"), Reset),
        (
            "others claim one too",
            get().with("x-forwarded-host", "a").with("x-host", "b").with("forwarded", "host=c"),
            Passed,
        ),
    ] {
        table.add("host", name, message, fate);
    }
}

pub fn lengths(table: &mut Table) {
    // Of seven bytes that are held, and then of none.
    for (value, seven, none) in [
        ("7", Passed, Reset),
        ("007", Passed, Reset),
        ("0000000000000000007", Passed, Reset),
        ("0", Reset, Passed),
        ("000", Reset, Passed),
        ("6", Reset, Reset),
        ("8", Reset, Reset),
        ("3", Reset, Reset),
        (" ", Reset, Reset),
        (" 7", Reset, Reset),
        ("7 ", Reset, Reset),
        ("+7", Reset, Reset),
        ("-7", Reset, Reset),
        ("-0", Reset, Reset),
        ("7,7", Reset, Reset),
        ("7, 7", Reset, Reset),
        ("7,", Reset, Reset),
        ("7;", Reset, Reset),
        ("7 7", Reset, Reset),
        ("0x7", Reset, Reset),
        ("7h", Reset, Reset),
        ("7.0", Reset, Reset),
        ("7e0", Reset, Reset),
        ("7_0", Reset, Reset),
        ("\"7\"", Reset, Reset),
        ("seven", Reset, Reset),
        ("chunked", Reset, Reset),
        ("00000000000000000007", Reset, Reset),
        ("18446744073709551615", Reset, Reset),
        ("18446744073709551623", Reset, Reset),
        ("99999999999999999999999999", Reset, Reset),
        ("７", Reset, Reset),
    ] {
        let name = format!("{value:?}");
        table.add("length", &name, Message::json(JSON).with("content-length", value), seven);
        table.add("length, no body", &name, Message::get().set(":method", "POST").with("content-length", value), none);
    }
    let json = || Message::json(JSON);
    for (name, message, fate) in [
        ("none", json(), Passed),
        ("none, streamed", Message::post("hello"), Passed),
        ("streamed", Message::post("hello").with("content-length", "5"), Passed),
        ("twice, equal", json().with("content-length", "7").with("content-length", "7"), Refused(400)),
        ("twice, equal but for zeros", json().with("content-length", "7").with("content-length", "07"), Refused(400)),
        ("twice, shorter first", json().with("content-length", "0").with("content-length", "7"), Reset),
        ("twice, longer first", json().with("content-length", "7").with("content-length", "0"), Reset),
        ("twice, one empty", json().with("content-length", "7").with("content-length", ""), Reset),
        ("in several frames", Message::json("{\"a\"").data("").data(":1}").with("content-length", "7"), Passed),
        ("in several frames, too many", json().data("x").with("content-length", "7"), Reset),
        ("in several frames, one empty and last", json().data("").with("content-length", "7"), Passed),
        ("in several frames, one too long", json().data(SMUGGLED).with("content-length", "7"), Reset),
        ("zero, an empty frame", Message::json("").with("content-length", "0"), Passed),
        ("none, an empty frame", Message::json(""), Passed),
        ("zero, a request behind", Message::json(SMUGGLED).with("content-length", "0"), Reset),
        ("one byte, a request behind", Message::json(SMUGGLED).with("content-length", "1"), Reset),
        ("zero, a request in a second frame", Message::json("").data(SMUGGLED).with("content-length", "0"), Reset),
        ("too large to hold", json().with("content-length", "999999999999").open(), Refused(413)),
        ("beyond 63 bits", json().with("content-length", "9223372036854775808").open(), Refused(413)),
        ("of a GET", Message::json(JSON).set(":method", "GET").with("content-length", "7"), Passed),
        ("of a GET that ends", Message::get().with("content-length", "7"), Reset),
        ("of a GET, empty", Message::get().with("content-length", ""), Refused(400)),
        ("of a GET, the longest", Message::get().with("content-length", "9223372036854775807"), Reset),
        ("of a GET, zero", Message::get().with("content-length", "0"), Passed),
        ("of a GET, less", Message::json(JSON).set(":method", "GET").with("content-length", "3"), Reset),
        ("of a HEAD", Message::json(JSON).set(":method", "HEAD").with("content-length", "7"), Passed),
        ("of a HEAD that ends", Message::get().set(":method", "HEAD").with("content-length", "7"), Reset),
        ("of a HEAD, less", Message::json(JSON).set(":method", "HEAD").with("content-length", "3"), Reset),
        ("of a DELETE, more", Message::json(JSON).set(":method", "DELETE").with("content-length", "70"), Reset),
        ("the body is a request", Message::post(SMUGGLED), Passed),
        ("the body is chunks", Message::post(format!("0\r\n\r\n{SMUGGLED}")), Passed),
    ] {
        table.add("length", name, message, fate);
    }
}

pub fn connections(table: &mut Table) {
    for (name, value, fate) in [
        ("transfer-encoding", "chunked", Reset),
        ("transfer-encoding", "CHUNKED", Reset),
        ("transfer-encoding", "identity", Reset),
        ("transfer-encoding", "gzip, chunked", Reset),
        ("transfer-encoding", "chunked, chunked", Reset),
        ("transfer-encoding", "xchunked", Reset),
        ("transfer-encoding", "", Reset),
        ("transfer-encoding", "\tchunked", Reset),
        ("transfer-encoding", "\u{b}chunked", Ended),
        ("transfer-encoding", "chunked\r\nx: y", Ended),
        ("Transfer-Encoding", "chunked", Ended),
        ("transfer-encoding ", "chunked", Ended),
        ("transfer-encoding:", "chunked", Ended),
        ("transfer-encoding\0", "chunked", Ended),
        ("transfer_encoding", "chunked", Passed),
        ("transfer-encodings", "chunked", Passed),
        ("x-transfer-encoding", "chunked", Passed),
        ("connection", "close", Reset),
        ("connection", "keep-alive", Reset),
        ("connection", "x-a", Reset),
        ("connection", "content-length", Reset),
        ("connection", "upgrade", Reset),
        ("connection", "", Reset),
        ("Connection", "close", Ended),
        ("keep-alive", "timeout=5", Reset),
        ("proxy-connection", "close", Reset),
        ("upgrade", "websocket", Reset),
        ("upgrade", "h2c", Reset),
        ("http2-settings", "AAMAAABkAAQAAP__", Passed),
        ("te", "trailers", Passed),
        ("te", "Trailers", Reset),
        ("te", "gzip", Reset),
        ("te", "chunked", Reset),
        ("te", "trailers, deflate;q=0.5", Reset),
        ("te", " trailers", Reset),
        ("te", "", Reset),
        ("trailer", "content-length", Passed),
        ("proxy-authorization", "Basic eA==", Passed),
        ("expect", "100-continue", Passed),
        ("expect", "100-CONTINUE", Passed),
        ("expect", "200-ok", Refused(417)),
        ("expect", "", Refused(417)),
        ("expect", "100-continue, x", Refused(417)),
        ("expect", "100-continue;x", Refused(417)),
        ("x-http-method-override", "DELETE", Passed),
        ("x-original-url", "/admin", Passed),
        ("x-rewrite-url", "/admin", Passed),
        ("x-forwarded-proto", "https", Passed),
        ("forwarded", "for=1.2.3.4", Passed),
        ("via", "1.1 x", Passed),
        ("content-encoding", "identity", Passed),
        ("content-type", "text/plain", Refused(400)),
        ("max-forwards", "0", Passed),
        ("range", "bytes=0-1", Passed),
    ] {
        table.add("field", format!("{name}: {value:?}"), Message::post("hello").with(name, value), fate);
    }
    let post = || Message::post("hello");
    for (name, message, fate) in [
        ("te twice", post().with("te", "trailers").with("te", "trailers"), Passed),
        ("te twice, one of another kind", post().with("te", "trailers").with("te", "gzip"), Reset),
        (
            "a coding and a length",
            Message::json(JSON).with("transfer-encoding", "chunked").with("content-length", "7"),
            Reset,
        ),
        ("a coding and chunks", Message::json("0\r\n\r\n").with("transfer-encoding", "chunked"), Reset),
        ("expectations twice", post().with("expect", "100-continue").with("expect", "100-continue"), Passed),
        ("one expectation of two", post().with("expect", "100-continue").with("expect", "x"), Refused(417)),
        ("an expectation of a GET", Message::get().with("expect", "100-continue"), Passed),
        ("cookie crumbs", Message::get().with("cookie", "a=b").with("cookie", "c=d").with("cookie", "e=f"), Passed),
        ("a cookie with a line", Message::get().with("cookie", "a=b\r\nx-smuggled: y"), Ended),
        ("two keys", Message::get().with("authorization", "Bearer a").with("authorization", "Bearer b"), Refused(400)),
        ("equal lines", Message::get().with("x-a", "b").with("x-a", "b").with("x-a", "c"), Passed),
        ("a list", Message::get().with("accept", "a/b, c/d").with("accept", "e/f"), Passed),
        ("no value", Message::get().with("x-a", ""), Passed),
        ("a colon in a value", Message::get().with("x-a", ": y: z"), Passed),
        ("quotes left open", Message::get().with("x-a", "\"y"), Passed),
    ] {
        table.add("fields", name, message, fate);
    }
}

pub fn names(table: &mut Table) {
    for name in ["X-A", "x-A", "HOST", "Content-Length", "TE", "", " ", ":", "x a", " x", "x ", "x\t", "ä", "x\u{212a}"]
    {
        table.add("name", format!("{name:?}"), Message::json(JSON).with(name, "7"), Ended);
    }
    // Other names, though some readers take them for those that they resemble: here they are just fields.
    for name in [
        "content_length",
        "content-length_",
        "content-lengt",
        "content-lengthx",
        "x-content-length",
        "content.length",
        "content length".replace(' ', "~").as_str(),
        "host_",
        "http_host",
        "x_forwarded_for",
        "_",
        "-",
        "0",
        "!#$%&'*+-.^_`|~",
        "get",
        "http",
    ] {
        table.add("name", name, Message::json(JSON).with(name, "3"), Passed);
    }
}
