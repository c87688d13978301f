//! One record as a line of JSON.
//!
//! Written by hand: a line has up to sixty fields, and a generic serialiser would cost more than all else that is done
//! for the log. A field without a value is left out.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::clock::UnixTime;
use crate::config::Config;
use crate::telemetry::trace::hex;
use crate::telemetry::{Exchange, State, Timings, Word};

/// What records name by number.
pub struct Names {
    listeners: Vec<String>,
    keys: Vec<String>,
    endpoints: Vec<String>,
}

impl Names {
    /// The names in `config`; `addresses` are those that its listeners have really got.
    pub fn new(config: &Config, addresses: &[SocketAddr]) -> Names {
        Names {
            listeners: addresses.iter().map(SocketAddr::to_string).collect(),
            keys: config.keys.iter().map(|key| key.name.clone()).collect(),
            endpoints: config.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect(),
        }
    }
}

fn name(names: &[String], at: u16) -> Option<Text<'_>> {
    names.get(usize::from(at)).map(|name| Text(name))
}

macro_rules! fields {
    (|$record:ident, $names:ident| $($name:literal: $value:expr, $meaning:literal;)*) => {
        /// Every field but `time`, which comes first: its name, and what it means.
        pub const FIELDS: &[(&str, &str)] = &[$(($name, $meaning),)*];

        fn write_fields(out: &mut Vec<u8>, $record: &Exchange, $names: &Names) {
            $(Value::write($value, concat!(",\"", $name, "\":"), out);)*
        }
    };
}

fields! { |record, names|
    "request_id": text(record, Word::RequestId), "`x-request-id` of the answer: the client's own or a new one";
    "trace_id": record.trace.map(|trace| Hex([(trace.id >> 64) as u64, trace.id as u64])), "the W3C trace it belongs to";
    "span_id": record.trace.map(|trace| Hex([trace.span])), "its own span, which the provider was told as the parent";
    "parent_id": record.trace.filter(|trace| trace.parent != 0).map(|trace| Hex([trace.parent])), "the span that the client named";
    "listener": name(&names.listeners, record.listener.0), "the address that the client connected to";
    "client": record.client, "the address that the client connected from";
    "key": record.key.and_then(|key| name(&names.keys, key.0)), "name of the client's key";
    "http": Some(Plain(record.http)).filter(|_| !record.http.is_empty()), "version of HTTP that the client spoke: `1.0`, `1.1` or `2`";
    "method": text(record, Word::Method), "method";
    "path": text(record, Word::Path), "path, without the query; the first 1024 bytes";
    "dialect": Plain(record.dialect.as_str()), "`openai` or `anthropic`: the shape of errors and events";
    "api": Plain(record.api), "`chat`, `completions`, `responses`, or `other`";
    "model": text(record, Word::Model), "the model that was asked for; the first 256 bytes";
    "model_sent": text(record, Word::SentModel), "the model that the provider was asked for";
    "endpoint": record.endpoint.and_then(|endpoint| name(&names.endpoints, endpoint.0)), "the endpoint that answered, or failed last: provider/number";
    "attempts": Some(record.attempts).filter(|attempts| *attempts > 0), "endpoints and connections tried";
    "reused": Some(record.reused).filter(|_| record.attempts > 0), "whether the last attempt went over a connection that was there";
    "streamed": record.streamed, "whether the answer was an event stream";
    "unread": Some(true).filter(|_| record.unread), "`true` if the answer came encoded and passed unread, or from some point on: tokens may have been missed";
    "status": Some(record.status).filter(|status| *status > 0), "status that the client was sent";
    "upstream_status": Some(record.upstream_status).filter(|status| *status > 0), "status that the endpoint answered with";
    "state": Plain(record.state.as_str()), "`complete`, `refused`, `client_gone`, `upstream_error`, `truncated`, `timeout` or `gateway_error`";
    "ended_by": Plain(record.ended_by.as_str()), "whose doing the end was: `completion`, `client`, `upstream` or `gateway`";
    "phase": Some(Plain(record.phase.as_str())).filter(|_| record.state != State::Complete), "how far it had come, unless complete: `head`, `admission`, `request_body`, `connect`, `send`, `first_byte`, `answer_head`, `first_content` or `relay`";
    "error_origin": record.fault.as_ref().map(|fault| Plain(fault.origin.as_str())), "whose fault it was: `client`, `gateway` or `upstream`";
    "error_code": record.fault.as_ref().map(|fault| Text(&fault.code[..fault.code.floor_char_boundary(CODE_BYTES_MAX)])), "the error's code, as the client is told; may be a provider's own";
    "input_tokens": record.tokens.input, "tokens of the request, as the provider counts";
    "output_tokens": record.tokens.output, "tokens of the answer";
    "cached_input_tokens": record.tokens.cached_input, "part of the input that came from the provider's cache";
    "cache_creation_input_tokens": record.tokens.cache_creation_input, "part of the input that its cache was filled with";
    "reasoning_output_tokens": record.tokens.reasoning_output, "part of the output that was reasoning";
    "messages_received": record.websocket.as_ref().map(|socket| socket.messages_received), "of a WebSocket: messages from the client";
    "messages_sent": record.websocket.as_ref().map(|socket| socket.messages_sent), "of a WebSocket: messages to the client";
    "websocket_end": record.websocket.as_ref().map(|socket| Plain(socket.end.as_str())), "of a WebSocket: how it ended";
    "close_code": record.websocket.as_ref().and_then(|socket| socket.close_code), "of a WebSocket: code of the first Close, whoever said it";
    "content_events": Some(record.content_events).filter(|events| *events > 0), "events with content, the finishing one included";
    "request_bytes": record.request_bytes, "body of the request, without framing";
    "answer_bytes": record.answer_bytes, "body of the provider's answer as relayed, without framing";
    "sent_bytes": record.sent_bytes, "all that was written to the client, before TLS";
    "upstream_sent_bytes": Some(record.upstream_sent_bytes).filter(|_| record.attempts > 0), "all that was written to endpoints, before TLS";
    "upstream_received_bytes": Some(record.upstream_received_bytes).filter(|_| record.attempts > 0), "body of the answer with its framing, before TLS";
    "body_us": record.timings.to(record.timings.body), "µs from the request's head to the part of its body that had to be known";
    "attempt_us": record.timings.to(record.timings.attempt), "µs from the head to the begin of the last attempt";
    "connect_us": Timings::between(record.timings.attempt, record.timings.connected), "µs to have a connection, in the last attempt";
    "send_us": Timings::between(record.timings.connected, record.timings.sent), "µs to send the request";
    "first_byte_us": Timings::between(record.timings.sent, record.timings.first_byte), "µs from there to the first byte of an answer";
    "ttft_us": record.timings.to(record.timings.content), "µs from the head to the first content; unstreamed, to what can be sent of the answer";
    "written_us": record.timings.to(record.timings.written), "µs from the head to the first bytes written to the client";
    "added_us": record.added(), "µs that Ringway added: to the first attempt, to send, and from the first content in hand to its being written, all without waiting for the client";
    "duration_us": record.timings.duration(), "µs from the head to the end";
}

/// A provider's own error code is cut to this.
const CODE_BYTES_MAX: usize = 64;

/// Writes lines; keeps the text of the second that was written last.
#[derive(Debug, Default)]
pub struct Lines {
    second: Option<u64>,
    shown: String,
}

impl Lines {
    /// Appends the line of `record`, line feed included.
    pub fn write(&mut self, out: &mut Vec<u8>, record: &Exchange, names: &Names) {
        let second = record.at.0 / 1_000_000;
        if self.second != Some(second) {
            self.second = Some(second);
            self.shown = format!("{{\"time\":\"{}.", show_second(second));
        }
        out.extend_from_slice(self.shown.as_bytes());
        write_micros(out, (record.at.0 % 1_000_000) as u32);
        out.extend_from_slice(b"Z\"");
        write_fields(out, record, names);
        out.extend_from_slice(b"}\n");
    }
}

fn write_micros(out: &mut Vec<u8>, micros: u32) {
    let mut digits = [0; 6];
    let mut rest = micros;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

/// `2026-11-23T08:15:00.123456Z` (RFC 3339).
pub fn show_time(time: UnixTime) -> String {
    format!("{}.{:06}Z", show_second(time.0 / 1_000_000), time.0 % 1_000_000)
}

/// `2026-11-23T08:15:00`, of seconds since 1970 in UTC.
fn show_second(second: u64) -> String {
    let (year, month, day) = date(second / 86_400);
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day since 1970. Algorithm: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let in_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let (day, month) = (in_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// Something that stands behind a key; what has no value writes neither.
trait Value {
    fn write(self, key: &str, out: &mut Vec<u8>);
}

impl<V: Value> Value for Option<V> {
    fn write(self, key: &str, out: &mut Vec<u8>) {
        if let Some(value) = self {
            value.write(key, out);
        }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Value for $number {
            fn write(self, key: &str, out: &mut Vec<u8>) {
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(itoa::Buffer::new().format(self).as_bytes());
            }
        })*
    };
}
numbers!(u16, u32, u64);

impl Value for bool {
    fn write(self, key: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(if self { b"true" } else { b"false" });
    }
}

impl Value for Duration {
    fn write(self, key: &str, out: &mut Vec<u8>) {
        u64::try_from(self.as_micros()).unwrap_or(u64::MAX).write(key, out);
    }
}

/// A word of ours, which needs no escapes.
struct Plain(&'static str);

impl Value for Plain {
    fn write(self, key: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(key.as_bytes());
        out.push(b'"');
        out.extend_from_slice(self.0.as_bytes());
        out.push(b'"');
    }
}

/// Text from elsewhere.
struct Text<'t>(&'t str);

impl Value for Text<'_> {
    fn write(self, key: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(key.as_bytes());
        write_string(out, self.0);
    }
}

/// A string of the record, unless it is empty.
fn text(record: &Exchange, word: Word) -> Option<Text<'_>> {
    Some(record.words.get(word)).filter(|text| !text.is_empty()).map(Text)
}

struct Hex<const N: usize>([u64; N]);

impl<const N: usize> Value for Hex<N> {
    fn write(self, key: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(key.as_bytes());
        out.push(b'"');
        self.0.into_iter().for_each(|bits| out.extend_from_slice(&hex(bits)));
        out.push(b'"');
    }
}

impl Value for SocketAddr {
    fn write(self, key: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(key.as_bytes());
        out.push(b'"');
        // Writing to memory cannot fail.
        let _ = match self {
            SocketAddr::V4(address) => {
                for (at, octet) in address.ip().octets().into_iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b"." } else { b"" });
                    out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
                }
                out.push(b':');
                out.write_all(itoa::Buffer::new().format(address.port()).as_bytes())
            }
            SocketAddr::V6(address) => write!(out, "{address}"),
        };
        out.push(b'"');
    }
}

/// Appends `text` as a JSON string (RFC 8259 §7).
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    out.push(b'"');
    // All of it at once, which the compiler does in vectors: nearly every string is plain to its end.
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if is_plain(byte) {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[from..at]);
        from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::Value as Json;

    use super::*;
    use crate::base::clock::Instant;
    use crate::base::reject::Origin;
    use crate::base::{Dialect, EndpointId, KeyId, ListenerId};
    use crate::telemetry::trace::Trace;
    use crate::telemetry::{EndedBy, Fault, Phase, SocketEnd, Tokens, WebSocket, Words};

    /// The guide beside the configuration.
    const GUIDE: &str = include_str!("../../../config/access_log.md");

    fn names() -> Names {
        Names {
            listeners: vec!["127.0.0.1:8080".into()],
            keys: vec!["team-a".into()],
            endpoints: vec!["p/0".into(), "p/1".into()],
        }
    }

    fn empty() -> Exchange {
        Exchange::begin(UnixTime(0), Instant(0), Dialect::OpenAi, ListenerId(0), "192.0.2.7:65535".parse().unwrap())
    }

    /// A record in which nothing is absent.
    fn full() -> Exchange {
        let at = |us: u64| Instant(us * 1000);
        Exchange {
            at: UnixTime(1_795_421_700_000_042),
            words: Words::new(["id", "POST", "/v1/chat/completions", "chat", "gpt"]),
            trace: Trace::take_over(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", || 0xa),
            client: "[2001:db8::1]:443".parse().unwrap(),
            http: "2",
            api: "chat",
            key: Some(KeyId(0)),
            endpoint: Some(EndpointId(1)),
            attempts: 2,
            reused: true,
            streamed: true,
            unread: true,
            status: 200,
            upstream_status: 201,
            state: State::Truncated,
            phase: Phase::Relay,
            ended_by: EndedBy::Upstream,
            fault: Some(Fault { origin: Origin::Upstream, code: "upstream_truncated".into() }),
            tokens: Tokens {
                input: Some(1),
                output: Some(u64::MAX),
                cached_input: Some(3),
                cache_creation_input: Some(4),
                reasoning_output: Some(5),
            },
            content_events: 6,
            websocket: Some(Box::new(WebSocket {
                end: SocketEnd::UpstreamClosed,
                close_code: Some(1001),
                messages_received: 12,
                messages_sent: 13,
            })),
            request_bytes: 7,
            answer_bytes: 8,
            sent_bytes: 9,
            upstream_sent_bytes: 10,
            upstream_received_bytes: 11,
            timings: Timings {
                head: at(0),
                body: at(1),
                first_attempt: at(2),
                attempt: at(3),
                connected: at(5),
                sent: at(8),
                first_byte: at(12),
                content: at(20),
                written: at(21),
                end: at(30),
            },
            ..empty()
        }
    }

    fn line(record: &Exchange) -> Json {
        let mut out = Vec::new();
        Lines::default().write(&mut out, record, &names());
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1, "{text:?}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn a_full_record_has_every_field_and_each_its_own_value() {
        let json = line(&full());
        let expected: Json = serde_json::from_str(
            r#"{"time":"2026-11-23T08:15:00.000042Z","request_id":"id",
            "trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"000000000000000a","parent_id":"00f067aa0ba902b7",
            "listener":"127.0.0.1:8080","client":"[2001:db8::1]:443","key":"team-a","http":"2","method":"POST",
            "path":"/v1/chat/completions","dialect":"openai","api":"chat","model":"chat","model_sent":"gpt",
            "endpoint":"p/1","attempts":2,"reused":true,"streamed":true,"unread":true,"status":200,"upstream_status":201,
            "state":"truncated","ended_by":"upstream","phase":"relay","error_origin":"upstream",
            "error_code":"upstream_truncated","input_tokens":1,"output_tokens":18446744073709551615,
            "cached_input_tokens":3,"cache_creation_input_tokens":4,"reasoning_output_tokens":5,"messages_received":12,
            "messages_sent":13,"websocket_end":"upstream_closed","close_code":1001,"content_events":6,
            "request_bytes":7,"answer_bytes":8,"sent_bytes":9,"upstream_sent_bytes":10,"upstream_received_bytes":11,
            "body_us":1,"attempt_us":3,"connect_us":2,"send_us":3,"first_byte_us":4,"ttft_us":20,"written_us":21,
            "added_us":6,"duration_us":30}"#,
        )
        .unwrap();
        assert_eq!(json, expected);
        let fields = json.as_object().unwrap();
        assert_eq!(fields.len(), FIELDS.len() + 1);
        assert!(FIELDS.iter().all(|(name, _)| fields.contains_key(*name)));
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let json = line(&empty());
        let mut fields: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "answer_bytes",
                "api",
                "client",
                "dialect",
                "duration_us",
                "ended_by",
                "listener",
                "phase",
                "request_bytes",
                "sent_bytes",
                "state",
                "streamed",
                "time"
            ]
        );
        assert_eq!(json["client"], "192.0.2.7:65535");
        let complete = Exchange { state: State::Complete, ..empty() };
        assert!(line(&complete).get("phase").is_none());
    }

    #[test]
    fn any_text_becomes_a_json_string() {
        let all: String = (0..=0x2ff).filter_map(char::from_u32).collect();
        for text in ["", "plain", "\"\\\n\r\t\u{0}\u{1f}\u{7f}", "é€😀", &all] {
            let mut out = Vec::new();
            write_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
        let mut record = empty();
        record.words = Words::new(["\"", "\\", "/\u{7}", "é", "\n"]);
        record.fault = Some(Fault { origin: Origin::Upstream, code: Cow::Owned("é".repeat(CODE_BYTES_MAX)) });
        let json = line(&record);
        assert_eq!((&json["request_id"], &json["path"]), (&"\"".into(), &"/\u{7}".into()));
        assert_eq!(json["error_code"].as_str().unwrap().len(), CODE_BYTES_MAX);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        // From `date -u`.
        for (second, shown) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_735_689_600, "2025-01-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(show_second(second), shown);
        }
        assert_eq!(show_time(UnixTime(1)), "1970-01-01T00:00:00.000001Z");
        // Two lines of one second and one of the next.
        let mut lines = Lines::default();
        for (at, shown) in [(999_999, "00.999999Z"), (5, "00.000005Z"), (1_000_000, "01.000000Z"), (0, "00.000000Z")] {
            let mut out = Vec::new();
            lines.write(&mut out, &Exchange { at: UnixTime(at), ..empty() }, &names());
            let start = format!("{{\"time\":\"1970-01-01T00:00:{shown}\",");
            assert!(out.starts_with(start.as_bytes()), "{}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn the_guide_has_every_field_with_its_meaning_in_order() {
        let mut table =
            String::from("| `time` | RFC 3339 with microseconds, UTC: when the request's head was complete |\n");
        FIELDS.iter().for_each(|(name, meaning)| table += &format!("| `{name}` | {meaning} |\n"));
        assert!(GUIDE.contains(&table), "config/access_log.md should have:\n{table}");
    }
}
