//! What an exchange needs of a request's head, taken out of the buffer it was read into.

use crate::admission::bearer;
use crate::base::reject::Reject;
use crate::base::{Dialect, KeyId};
use crate::upstream::http1::is_request_field_passed;
use crate::wire::chat::Api;
use crate::wire::http1::{Form, Framing, Known, RequestHead, Version};
use crate::wire::multipart;

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
    /// True if the body is encoded, so that we cannot read it.
    pub encoded: bool,
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
        let credential = match fields.get(Known::Authorization).and_then(bearer) {
            Some(token) => Some(token),
            None => fields.get(Known::XApiKey),
        };
        let mut passed = Vec::with_capacity(384);
        fields.copy_to(&mut passed, |field| {
            is_request_field_passed(field) && !fields.connection_names(field.name.as_bytes())
        });
        let media = match fields.get(Known::ContentType) {
            None => Media::Json,
            Some(value) => read_media(value),
        };
        let refusal = match head.target.form {
            Form::Origin | Form::Absolute => None,
            _ => Some(Reject::client(405, "method_not_allowed", "This method is not served here.")),
        };
        Intake {
            head_len: head.len,
            method: head.method.into(),
            path: head.target.path.into(),
            query: head.target.query.map(Into::into),
            dialect: Dialect::of_path(head.target.path),
            api: Api::of_path(head.target.path),
            framing: head.framing,
            media,
            encoded: fields.get(Known::ContentEncoding).is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")),
            keep_alive: head.keep_alive,
            expects_continue: head.expect_continue,
            is_http10: head.version == Version::Http10,
            request_id: request_id(worker, fields.get(Known::XRequestId)),
            caller: worker.shared.keys.authenticate(credential, open),
            anthropic_client: fields.get_named(b"anthropic-version").is_some(),
            fields: passed,
            refusal,
        }
    }

    /// True for HEAD, whose answer has no body.
    pub fn is_head(&self) -> bool {
        &*self.method == "HEAD"
    }
}

fn read_media(value: &[u8]) -> Media {
    if let Some(boundary) = multipart::boundary(value) {
        return Media::Multipart(boundary.to_vec());
    }
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is_json = essence.eq_ignore_ascii_case(b"application/json") || essence.to_ascii_lowercase().ends_with(b"+json");
    if is_json { Media::Json } else { Media::Other }
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
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut id = String::with_capacity(32);
    for byte in [worker.random(), worker.random()].into_iter().flat_map(u64::to_be_bytes) {
        id.push(char::from(HEX[usize::from(byte >> 4)]));
        id.push(char::from(HEX[usize::from(byte & 15)]));
    }
    id
}
