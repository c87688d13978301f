//! One request, top to bottom: read it, find its script, say what the dialect says, play it.

use std::cell::RefCell;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use aws_lc_rs::digest;
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Shared;
use super::answer::{Api, Ask, Body, stream, whole};
use super::play::{How, Play};
use super::realtime::{self, Session};
use super::script::{Close, Cut, Fault, Framing, Script, Split};
use super::stats::Connection;
use super::tap::{Edits, Wire};
use super::text::hex;
use super::{anthropic, openai};

/// Bytes of a request held at most.
const BODY_BYTES_MAX: usize = 256 << 20;

/// What one connection's requests share.
pub(crate) struct Context {
    pub shared: Arc<Shared>,
    pub wire: Rc<Wire>,
    pub connection: RefCell<Connection>,
    /// What the connection becomes after a 101.
    pub session: RefCell<Option<Session>>,
}

/// A request's body as it came.
struct Upload {
    bytes: Vec<u8>,
    trailers: Vec<(String, String)>,
}

/// An answer before it is played.
struct Answer {
    status: u16,
    content_type: String,
    headers: Vec<(&'static str, String)>,
    body: Body,
    streamed: bool,
}

/// Answers one request.
pub(crate) async fn serve(request: Request<Incoming>, context: Rc<Context>) -> Result<Response<Play>, hyper::Error> {
    let path = request.uri().path().to_owned();
    if is_control(&path) {
        return control(request, &path, &context).await;
    }
    let exchange = context.connection.borrow_mut().begin(&path);
    context.wire.begin(exchange);
    let since = Instant::now();
    let handshake = realtime::handshake(&request);
    let (head, mut incoming) = request.into_parts();
    let api = api_of(&path);
    let instance = context.shared.script.lock().unwrap_or_else(PoisonError::into_inner).clone();

    // The headers alone first: they may say not to read the body, and name the request before it is read.
    let mut script = instance.clone();
    let mut problem = apply_headers(&mut script, &head.headers).err();
    name(&context, &script, &path);
    if let Some((fields, model)) = handshake
        && problem.is_none()
        && script.status < 400
    {
        // What is wrong with a name of a model is told to no WebSocket: it plays what was understood.
        let _ = script.apply_model(&model);
        let body = whole(&Script { ttft: Default::default(), ..script.clone() }, Vec::new());
        let how = How { since, comments: None, gzip: false, exact: true };
        let mut response = Response::new(Play::new(body, Rc::clone(&context.wire), how));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = fields;
        *context.session.borrow_mut() = Some(Session { script, model });
        return Ok(response);
    }
    let early = script.id.clone();
    let upload = if script.unread { None } else { Some(read(&mut incoming).await?) };
    let json = upload.as_ref().and_then(|upload| serde_json::from_slice::<Value>(&upload.bytes).ok());
    if let Some(model) = json.as_ref().and_then(|json| json["model"].as_str()) {
        script = instance;
        problem = problem.or_else(|| script.apply_model(model).err());
        problem = problem.or_else(|| apply_headers(&mut script, &head.headers).err());
        if script.id != early {
            name(&context, &script, &path);
        }
    }
    if let Some(problem) = problem {
        let script =
            Script { status: 400, error_message: Some(problem), ttft: Default::default(), ..Script::default() };
        return Ok(send(&context, &script, error(&script, api, 400), since).await);
    }
    match script.fault {
        Fault::Never => std::future::pending::<()>().await,
        Fault::Close | Fault::Refuse => {
            context.wire.cut(Cut::Fin);
            std::future::pending::<()>().await;
        }
        _ => {}
    }
    let answer = answer(&script, &head, &path, api, upload, json, &context.wire);
    Ok(send(&context, &script, answer, since).await)
}

fn is_control(path: &str) -> bool {
    matches!(path, "/mock/stats" | "/mock/reset" | "/mock/script") || path.starts_with("/mock/requests/")
}

fn name(context: &Context, script: &Script, path: &str) {
    if let Some(id) = &script.id {
        context.wire.with_exchange(|exchange| exchange.name(id, path));
    }
}

fn api_of(path: &str) -> Api {
    // Providers differ in what stands before; the end of the path decides.
    match path {
        _ if path.ends_with("/chat/completions") => Api::Chat,
        _ if path.ends_with("/completions") => Api::Completions,
        _ if path.ends_with("/responses") => Api::Responses,
        _ if path.ends_with("/messages") || path.ends_with("/messages/count_tokens") => Api::Messages,
        _ => Api::Other,
    }
}

fn apply_headers(script: &mut Script, headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &HeaderName, value: &HeaderValue| {
        let bytes = value.as_bytes().to_vec();
        String::from_utf8(bytes).map_err(|_| format!("{name}: not UTF-8"))
    };
    for (name, value) in headers {
        if name == "x-mock" {
            script.apply(&text(name, value)?)?;
        }
    }
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix("x-mock-") {
            script.set(key, &text(name, value)?)?;
        }
    }
    Ok(())
}

/// Reads a body to its end. Fails when the client leaves.
async fn read(incoming: &mut Incoming) -> Result<Upload, hyper::Error> {
    let mut upload = Upload { bytes: Vec::new(), trailers: Vec::new() };
    while let Some(frame) = incoming.frame().await {
        match frame?.into_data() {
            // Beyond the bound bytes are read and forgotten; an echo then comes back short, and shows it.
            Ok(data) if upload.bytes.len() + data.len() <= BODY_BYTES_MAX => upload.bytes.extend_from_slice(&data),
            Ok(_) => {}
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                upload.trailers.extend(
                    trailers.iter().map(|(name, value)| {
                        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                    }),
                );
            }
        }
    }
    Ok(upload)
}

fn answer(
    script: &Script,
    head: &hyper::http::request::Parts,
    path: &str,
    api: Api,
    upload: Option<Upload>,
    json: Option<Value>,
    wire: &Wire,
) -> Answer {
    let posted = head.method == Method::POST;
    if script.echo || path == "/mock/echo-head" {
        return plain(script, echo_head(head, upload.as_ref(), wire).to_string());
    }
    if let Some(body) = &script.body {
        let is_json = body.starts_with(['{', '[']);
        let content_type = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
        return Answer { content_type: content_type.into(), ..plain(script, body.clone()) };
    }
    if script.status >= 400 {
        return error(script, api, script.status);
    }
    let known = posted && (api != Api::Other || path.ends_with("/embeddings"));
    let body = match (known, json, &upload) {
        (true, Some(json), _) => json,
        (true, None, None) => Value::Null,
        (true, None, Some(_)) => {
            let script = Script { error_message: Some("The body is not JSON.".into()), ..script.clone() };
            return error(&script, api, 400);
        }
        _ => return other(script, head, path, upload),
    };
    let ask = Ask::of(&body);
    if script.fault == Fault::Error200 || (matches!(script.fault, Fault::Error(_)) && !ask.stream) {
        return error(script, api, 200);
    }
    if path.ends_with("/count_tokens") {
        return plain(script, anthropic::count_tokens(script));
    }
    let events = match api {
        _ if !ask.stream => None,
        Api::Chat => Some((openai::chat_events(script, &ask), openai::error_event(script, api))),
        Api::Completions => Some((openai::completion_events(script, &ask), openai::error_event(script, api))),
        Api::Responses => Some((openai::response_events(script, &ask), openai::error_event(script, api))),
        Api::Messages => Some((anthropic::message_events(script, &ask), anthropic::error_event(script))),
        Api::Other => None,
    };
    let mut answer = match events {
        Some((events, error)) => Answer {
            status: script.status,
            content_type: "text/event-stream; charset=utf-8".into(),
            headers: vec![("cache-control", "no-cache".into())],
            body: stream(script, events, error),
            streamed: true,
        },
        None => plain(
            script,
            match api {
                Api::Chat => openai::chat(script, &ask),
                Api::Completions => openai::completion(script, &ask),
                Api::Responses => openai::response(script, &ask),
                Api::Messages => anthropic::message(script, &ask),
                Api::Other => openai::embeddings(script, &ask, &body),
            },
        ),
    };
    answer.headers.extend(provider_headers(api));
    answer
}

/// The fields real providers put on every answer; their meanings differ by dialect.
fn provider_headers(api: Api) -> Vec<(&'static str, String)> {
    let fields: &[(&'static str, &str)] = match api {
        Api::Messages => &[
            ("request-id", "req_mock"),
            ("anthropic-ratelimit-requests-limit", "1000"),
            ("anthropic-ratelimit-requests-remaining", "999"),
            ("anthropic-ratelimit-requests-reset", "2030-01-01T00:00:00Z"),
        ],
        _ => &[
            ("x-request-id", "req_mock"),
            ("openai-processing-ms", "50"),
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-reset-requests", "6ms"),
        ],
    };
    fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// Any other path: models, and echoes.
fn other(script: &Script, head: &hyper::http::request::Parts, path: &str, upload: Option<Upload>) -> Answer {
    if head.method == Method::GET || head.method == Method::HEAD {
        return match path.rsplit_once("/models") {
            Some((_, "")) => plain(script, openai::models()),
            Some((_, name)) if name.starts_with('/') => plain(script, openai::model(&name[1..])),
            _ => plain(script, json!({"method": head.method.as_str(), "path": path}).to_string()),
        };
    }
    let upload = upload.unwrap_or(Upload { bytes: Vec::new(), trailers: Vec::new() });
    let content_type = head.headers.get("content-type").and_then(|value| value.to_str().ok());
    let body = compress_whole(script, upload.bytes);
    Answer {
        status: script.status,
        content_type: content_type.unwrap_or("application/octet-stream").to_owned(),
        headers: upload
            .trailers
            .iter()
            .map(|(name, value)| ("x-mock-request-trailer", format!("{name}: {value}")))
            .collect(),
        body,
        streamed: false,
    }
}

fn plain(script: &Script, text: String) -> Answer {
    Answer {
        status: script.status,
        content_type: "application/json".into(),
        headers: Vec::new(),
        body: compress_whole(script, text.into_bytes()),
        streamed: false,
    }
}

fn error(script: &Script, api: Api, status: u16) -> Answer {
    let worded = if status >= 400 { status } else { 500 };
    let text = match api {
        Api::Messages => anthropic::error(script, worded),
        _ => openai::error(script, api, worded),
    };
    Answer { status, headers: provider_headers(api), ..plain(script, text) }
}

fn compress_whole(script: &Script, bytes: Vec<u8>) -> Body {
    if !script.gzip {
        return whole(script, bytes);
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into a Vec does not fail.
    let packed = gzip.write_all(&bytes).and_then(|()| gzip.finish()).unwrap_or_default();
    whole(script, packed)
}

/// The request as it came, so that a test can see what was really sent.
fn echo_head(head: &hyper::http::request::Parts, upload: Option<&Upload>, wire: &Wire) -> Value {
    let raw = wire.raw_head();
    let headers: Vec<(String, String)> = if raw.is_empty() {
        let pairs = head.headers.iter();
        pairs.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
    } else {
        String::from_utf8_lossy(&raw)
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    };
    let body = upload.map_or(&[][..], |upload| &upload.bytes);
    json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body_bytes": body.len(),
        "body_sha256": hex(digest::digest(&digest::SHA256, body).as_ref()),
        "trailers": upload.map(|upload| upload.trailers.clone()).unwrap_or_default(),
    })
}

/// Gives an answer to hyper, with the edits of the wire its script asks for.
async fn send(context: &Context, script: &Script, answer: Answer, since: Instant) -> Response<Play> {
    let comments = script.comments.map(|every| (every, if answer.streamed { &b": keep-alive\n\n"[..] } else { b"\n" }));
    let late = if answer.streamed { script.head_late } else { comments.is_none() };
    if late {
        tokio::time::sleep_until(since + script.ttft).await;
    }
    let exact = comments.is_none()
        && match script.framing {
            Framing::Auto => !answer.streamed,
            Framing::Length => !(answer.streamed && script.gzip),
            Framing::Chunked | Framing::Close => false,
        };
    let mut edits = Edits {
        prefix: match script.informational {
            102 => Some(b"HTTP/1.1 102 Processing\r\n\r\n"),
            103 => Some(b"HTTP/1.1 103 Early Hints\r\nlink: </mock>; rel=preload\r\n\r\n"),
            _ => None,
        },
        as_http11: script.framing == Framing::Close,
        head_gap: script.head_gap,
        pieces: (script.split != Split::Off).then_some((script.split, script.split_gap)),
        trailers: script.trailers && !exact && script.framing != Framing::Close,
        seed: script.seed,
        end: (script.close == Close::Silent).then_some(Cut::Fin),
        ..Edits::default()
    };
    if let Some((bytes, tick)) = script.drip {
        edits.pieces = Some((Split::Every(bytes), tick));
        edits.head_whole = true;
    }
    if let Fault::LongLength(extra) = script.fault {
        edits.length_extra = extra;
        edits.end = Some(Cut::Fin);
        edits.incomplete = true;
    }
    context.wire.edit(edits);

    let how = How { since, comments, gzip: script.gzip && answer.streamed, exact };
    let mut response = Response::new(Play::new(answer.body, Rc::clone(&context.wire), how));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let fields = response.headers_mut();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.append(HeaderName::from_static(name), value);
        }
    };
    put("content-type", &answer.content_type);
    for (name, value) in &answer.headers {
        put(name, value);
    }
    if let Some(after) = &script.retry_after {
        put("retry-after", after);
    }
    if script.gzip {
        put("content-encoding", "gzip");
    }
    if script.close == Close::Announced || script.framing == Framing::Close {
        put("connection", "close");
    }
    if script.framing == Framing::Close {
        *response.version_mut() = Version::HTTP_10;
    }
    response
}

/// `/mock/…`: what was seen, and how to behave from now on.
async fn control(request: Request<Incoming>, path: &str, context: &Context) -> Result<Response<Play>, hyper::Error> {
    let method = request.method().clone();
    let upload = read(&mut request.into_body()).await?;
    let shared = &context.shared;
    let (status, text) = match (&method, path) {
        (&Method::GET, "/mock/stats") => (200, serde_json::to_string(&shared.stats.snapshot())),
        (&Method::POST, "/mock/reset") => {
            shared.stats.reset();
            (200, Ok("{}".to_owned()))
        }
        (&Method::POST, "/mock/script") => {
            let mut script = shared.configured.clone();
            match script.apply(&String::from_utf8_lossy(&upload.bytes)) {
                Ok(()) => {
                    *shared.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
                    (200, Ok("{}".to_owned()))
                }
                Err(problem) => (400, Ok(json!({"error": {"message": problem}}).to_string())),
            }
        }
        (&Method::GET, _) if path.starts_with("/mock/requests/") => {
            match shared.stats.record(&path["/mock/requests/".len()..]) {
                Some(record) => (200, serde_json::to_string(&record)),
                None => (404, Ok("{\"error\":{\"message\":\"no request of this name\"}}".to_owned())),
            }
        }
        _ => (405, Ok("{\"error\":{\"message\":\"not this method\"}}".to_owned())),
    };
    let script = Script { ttft: Default::default(), ..Script::default() };
    let answer = Answer { status, ..plain(&script, text.unwrap_or_default()) };
    Ok(send(context, &script, answer, Instant::now()).await)
}
