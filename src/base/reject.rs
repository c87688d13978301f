//! Every way we say no to a client: status, machine-readable code, a sentence, and whose fault it was.
//!
//! `wire` renders a [`Reject`] in the shape of the request's dialect.

use std::borrow::Cow;

/// Who caused an error, as told in the `x-ringway-error-origin` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The request could not be served as it was sent.
    Client,
    /// Ringway itself failed or refused.
    Gateway,
    /// The provider failed, lied or fell silent.
    Upstream,
}

impl Origin {
    /// The header's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Client => "client",
            Origin::Gateway => "gateway",
            Origin::Upstream => "upstream",
        }
    }
}

/// A refusal or failure that the client is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// Whose fault it was.
    pub origin: Origin,
    /// Machine-readable reason, e.g. `model_not_found`.
    pub code: Cow<'static, str>,
    /// One sentence for a person; holds no secret.
    pub message: Cow<'static, str>,
    /// The request field at fault, if one is.
    pub param: Option<&'static str>,
    /// Seconds after which trying again makes sense.
    pub retry_after_s: Option<u32>,
}

impl Reject {
    /// The client's fault.
    pub fn client(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Reject {
        Reject::new(status, Origin::Client, code, message)
    }

    /// Our own fault.
    pub fn gateway(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Reject {
        Reject::new(status, Origin::Gateway, code, message)
    }

    /// The provider's fault.
    pub fn upstream(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Reject {
        Reject::new(status, Origin::Upstream, code, message)
    }

    /// Names the request field at fault.
    pub fn with_param(mut self, param: &'static str) -> Reject {
        self.param = Some(param);
        self
    }

    fn new(status: u16, origin: Origin, code: &'static str, message: impl Into<Cow<'static, str>>) -> Reject {
        Reject { status, origin, code: code.into(), message: message.into(), param: None, retry_after_s: None }
    }
}
