//! What an exchange needs of a request's head, taken out of the buffer it was read into.

use crate::admission::bearer;
use crate::base::reject::Reject;
use crate::base::{Dialect, KeyId};
use crate::config::TraceStart;
use crate::telemetry::trace::{Trace, hex, is_state_passed};
use crate::upstream::fields::{is_of_encoded_bytes, is_request_field_passed};
use crate::wire::chat::{Api, takes_json};
use crate::wire::coding::{Accepts, Codings, Unknown};
use crate::wire::http1::{Fields, Form, Framing, Known, RequestHead, Version};
use crate::wire::multipart;
use crate::wire::websocket::Handshake;

use super::cors;
use super::state::Worker;

/// The longest `x-request-id` that is taken over from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A request's head.
#[derive(Debug)]
pub struct Intake {
    /// Bytes of the head in the client's input.
    pub head_len: usize,
    /// The method.
    pub method: Box<str>,
    /// The path, without the query.
    pub path: Box<str>,
    /// The query, without `?`.
    pub query: Option<Box<str>>,
    /// The dialect of the path.
    pub dialect: Dialect,
    /// The API of the path.
    pub api: Api,
    /// How the body ends.
    pub framing: Framing,
    /// What the body is.
    pub media: Media,
    /// How the body is encoded.
    pub encoding: Result<Option<Codings>, Unknown>,
    /// The codings that the client takes.
    pub accepts: Accepts,
    /// True if the client will take another answer on the connection.
    pub keep_alive: bool,
    /// True if the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// True for HTTP/1.0, which knows no chunks.
    pub is_http10: bool,
    /// The id of this exchange: the client's, or a new one.
    pub request_id: String,
    /// Who calls, or the refusal.
    pub caller: Result<Option<KeyId>, Reject>,
    /// True if the client speaks Anthropic's dialect also where the path does not tell.
    pub anthropic_client: bool,
    /// The field lines that are passed on, whole.
    pub fields: Vec<u8>,
    /// Field lines, whole, that every answer to this request carries, whoever gives it.
    pub lines: Vec<u8>,
    /// True for a browser's question before a page's request, which is answered with these lines alone.
    pub preflight: bool,
    /// The trace it belongs to, if any; the provider is told in `fields`.
    pub trace: Option<Trace>,
    /// The WebSocket that it asks for.
    pub websocket: Option<Box<Handshake>>,
    /// Something that makes the request unservable, found while reading.
    pub refusal: Option<Reject>,
}

/// What a request's body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// JSON, or nothing said.
    Json,
    /// A form of parts; holds the boundary.
    Multipart(Vec<u8>),
    /// Anything else.
    Other,
}

impl Intake {
    /// Takes what is needed out of `head`.
    pub fn read(worker: &Worker, head: &RequestHead<'_, '_>, open: bool) -> Intake {
        let fields = &head.fields;
        let asked = fields.get(Known::Upgrade).and_then(|_| handshake(worker, head));
        let (upgrades, mut refusal) = (asked.is_some(), refusal(head));
        let mut websocket = None;
        match asked {
            None => {}
            Some(Ok(handshake)) => websocket = Some(Box::new(handshake)),
            Some(Err(reject)) => refusal = refusal.or(Some(reject)),
        }
        let credential = match fields.get(Known::Authorization).and_then(bearer) {
            Some(token) => Some(token),
            None => fields.get(Known::XApiKey),
        };
        let credential = credential.or_else(|| websocket.as_ref()?.credential.as_deref());
        let media = read_media(head.target.path, fields.get(Known::ContentType));
        let encoding = match fields.get(Known::ContentEncoding) {
            None => Ok(None),
            Some(_) => Codings::read(
                fields.iter().filter(|field| field.known == Known::ContentEncoding).map(|field| field.value),
            ),
        };
        let has_body = !matches!(head.framing, Framing::None | Framing::Length(0));
        let decodes = encoding != Ok(None) && media != Media::Other && has_body;
        let (trace, keeps_state) = read_trace(worker, fields);
        let mut passed = Vec::with_capacity(448);
        fields.copy_to(&mut passed, |field| {
            is_request_field_passed(field)
                && (field.known != Known::Tracestate || keeps_state)
                && !fields.connection_names(field.name.as_bytes())
                && !(decodes && is_of_encoded_bytes(field.name.as_bytes()))
        });
        if let Some(trace) = &trace {
            trace.write_line(&mut passed);
        }
        let (lines, preflight) = cors::lines(worker, head);
        Intake {
            head_len: head.len,
            method: head.method.into(),
            path: head.target.path.into(),
            query: head.target.query.map(Into::into),
            dialect: Dialect::of_path(head.target.path),
            api: Api::of_path(head.target.path),
            framing: head.framing,
            media,
            encoding,
            accepts: Accepts::new(fields.get(Known::AcceptEncoding), fields.is_repeated(Known::AcceptEncoding)),
            // What stands behind a handshake is no request.
            keep_alive: head.keep_alive && !upgrades,
            expects_continue: head.expect_continue,
            is_http10: head.version == Version::Http10,
            request_id: request_id(worker, fields.get(Known::XRequestId)),
            caller: worker.shared.keys.authenticate(credential, open),
            anthropic_client: fields.get_named(b"anthropic-version").is_some(),
            fields: passed,
            lines,
            preflight,
            trace,
            websocket,
            refusal,
        }
    }

    /// True for HEAD, whose answer has no body.
    pub fn is_head(&self) -> bool {
        &*self.method == "HEAD"
    }
}

/// The WebSocket that a request asks for, or why it gets none; `None` if it asks for none.
#[cold]
fn handshake(worker: &Worker, head: &RequestHead<'_, '_>) -> Option<Result<Handshake, Reject>> {
    Some(match Handshake::read(head)? {
        Err(malformed) => {
            let code = if malformed.status == 426 { "websocket_version" } else { "malformed_request" };
            Err(Reject::client(malformed.status, code, malformed.reason))
        }
        // Browsers let any page open a WebSocket anywhere and read what comes.
        Ok(_) if !cors::is_admitted(worker, head) => {
            let text = "Pages of this origin may not open WebSockets here: it is not among the origins of [cors].";
            Err(Reject::client(403, "origin_not_allowed", text))
        }
        Ok(handshake) => Ok(handshake),
    })
}

/// What makes a request unservable whoever sends it.
fn refusal(head: &RequestHead<'_, '_>) -> Option<Reject> {
    if !matches!(head.target.form, Form::Origin | Form::Absolute) {
        return Some(Reject::client(405, "method_not_allowed", "This method is not served here."));
    }
    // We would go by one of the lines and a provider perhaps by the other.
    let once = [Known::ContentType, Known::Authorization, Known::XApiKey];
    let repeated = once.into_iter().find(|known| head.fields.is_repeated(*known))?;
    let text = format!("The request has more than one {} header; it is not clear which one counts.", repeated.as_str());
    Some(Reject::client(400, "malformed_request", text))
}

/// What the body of a request for `path` is. To an API of JSON all but a form is JSON: many providers parse it
/// without a look at its type, so its model must be read.
fn read_media(path: &str, content_type: Option<&[u8]>) -> Media {
    let Some(value) = content_type else { return Media::Json };
    if let Some(boundary) = multipart::boundary(value) {
        return Media::Multipart(boundary.to_vec());
    }
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is_json = essence.eq_ignore_ascii_case(b"application/json") || essence.to_ascii_lowercase().ends_with(b"+json");
    if is_json || takes_json(path) { Media::Json } else { Media::Other }
}

/// The client's own id if it is short and plain, else a new one.
fn request_id(worker: &Worker, given: Option<&[u8]>) -> String {
    let plain = |id: &&[u8]| {
        !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.iter().all(|byte| byte.is_ascii_graphic())
    };
    match given.filter(plain).and_then(|id| std::str::from_utf8(id).ok()) {
        Some(id) => id.to_owned(),
        None => new_request_id(worker),
    }
}

/// 128 random bits in hexadecimal.
pub fn new_request_id(worker: &Worker) -> String {
    let digits = [hex(worker.random()), hex(worker.random())];
    std::str::from_utf8(digits.as_flattened()).unwrap_or_default().to_owned()
}

/// The trace that a request belongs to, and whether its `tracestate` is passed on as it came.
fn read_trace(worker: &Worker, fields: &Fields<'_, '_>) -> (Option<Trace>, bool) {
    let random = || worker.random();
    // Of two, nobody can say which one counts, so none does.
    let given = fields.get(Known::Traceparent).filter(|_| !fields.is_repeated(Known::Traceparent));
    if let Some(trace) = given.and_then(|given| Trace::take_over(given, random)) {
        let states = fields.iter().filter(|field| field.known == Known::Tracestate).map(|field| field.value);
        return (Some(trace), is_state_passed(states));
    }
    let started = match worker.config().trace_start {
        TraceStart::Unsampled => Some(Trace::start(false, random)),
        TraceStart::Sampled => Some(Trace::start(true, random)),
        TraceStart::Never => None,
    };
    (started, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http1::{HeadLimits, HeadSpace, parse_request};

    #[test]
    fn a_body_for_an_api_of_json_is_read_whatever_its_type_says() {
        let form = || Media::Multipart(b"b".to_vec());
        for (path, content_type, media) in [
            ("/v1/chat/completions", None, Media::Json),
            ("/v1/chat/completions", Some("application/json; charset=utf-8"), Media::Json),
            ("/v1/chat/completions", Some("text/plain"), Media::Json),
            ("/v1/chat/completions", Some(""), Media::Json),
            ("/v1/%63hat/completions", Some("application/x-www-form-urlencoded"), Media::Json),
            ("/v1/messages", Some("multipart/form-data"), Media::Json),
            ("/v1/messages", Some("multipart/form-data; boundary=b"), form()),
            ("/v1/files", None, Media::Json),
            ("/v1/files", Some("application/vnd.api+json"), Media::Json),
            ("/v1/files", Some("application/octet-stream"), Media::Other),
            ("/v1/files", Some("multipart/form-data; boundary=b"), form()),
        ] {
            assert_eq!(read_media(path, content_type.map(str::as_bytes)), media, "{path} {content_type:?}");
        }
    }

    #[test]
    fn a_line_that_decides_comes_once() {
        for (name, head, status) in [
            (
                "plain",
                "POST /v1/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a\r\nx-api-key: a\r\ncontent-type: a/b\r\n",
                None,
            ),
            ("two of another name", "POST /v1/x HTTP/1.1\r\nhost: x\r\naccept: a\r\naccept: b\r\n", None),
            ("absolute", "GET http://x/v1/x HTTP/1.1\r\nhost: x\r\n", None),
            (
                "two types",
                "POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\nContent-Type: a/b\r\n",
                Some(400),
            ),
            ("equal types", "POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-type: a/b\r\ncontent-type: a/b\r\n", Some(400)),
            (
                "two credentials",
                "GET /v1/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a\r\nauthorization: b\r\n",
                Some(400),
            ),
            ("two keys", "GET /v1/x HTTP/1.1\r\nhost: x\r\nx-api-key: a\r\nx-api-key: b\r\n", Some(400)),
            ("no path", "CONNECT x:1 HTTP/1.1\r\nhost: x\r\n", Some(405)),
        ] {
            let bytes = format!("{head}\r\n");
            let mut space = HeadSpace::new();
            let head = parse_request(bytes.as_bytes(), &HeadLimits::default(), &mut space);
            let head = head.expect(name).expect(name);
            assert_eq!(refusal(&head).map(|reject| reject.status), status, "{name}");
        }
    }
}
