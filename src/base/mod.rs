//! Words everyone uses: identifiers, dialects, secrets, time, and every way to say no.

pub mod clock;
pub mod reject;

use std::fmt;

/// A worker thread, numbered from 0 in the order of the configured cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// An endpoint: one URL of one provider, an index into `Config::endpoints`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u16);

/// An address that clients connect to, an index into `Config::listeners`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// A model, an index into `Config::models`; the one behind the last is the default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(pub u16);

/// A client key, an index into `Config::keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u16);

/// The API family that a path belongs to: it decides the shape of errors and of stream events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI: everything below `/v1` that is not Anthropic's.
    OpenAi,
    /// Anthropic Messages: `/v1/messages` and what lies below it.
    Anthropic,
}

impl Dialect {
    /// The dialect of a request path (without its query).
    pub fn of_path(path: &str) -> Dialect {
        match path.strip_prefix("/v1/messages") {
            Some("") => Dialect::Anthropic,
            Some(rest) if rest.starts_with('/') => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }

    /// The word used for this dialect in logs and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::OpenAi => "openai",
            Dialect::Anthropic => "anthropic",
        }
    }
}

/// A value that must never be shown: `Debug` and `Display` print `***`, and its memory is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(zeroize::Zeroizing<String>);

impl Secret {
    /// Takes the value over.
    pub fn new(value: String) -> Secret {
        Secret(zeroize::Zeroizing::new(value))
    }

    /// The value itself. Call this only where the bytes go to the wire or into a digest.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_decides_its_dialect() {
        for (path, dialect) in [
            ("/v1/messages", Dialect::Anthropic),
            ("/v1/messages/count_tokens", Dialect::Anthropic),
            ("/v1/messagesx", Dialect::OpenAi),
            ("/v1/chat/completions", Dialect::OpenAi),
            ("/", Dialect::OpenAi),
        ] {
            assert_eq!(Dialect::of_path(path), dialect, "{path}");
        }
    }

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("sk-live".into());
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "sk-live");
    }
}
