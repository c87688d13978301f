//! May this request come in?
//!
//! Pure. Who calls is told by the digest of the key that was presented; what they may ask for by that key's models.

pub mod cors;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use aws_lc_rs::digest::{SHA256, digest};

use crate::base::KeyId;
use crate::base::reject::Reject;
use crate::config::{Config, Key};

/// The client keys, compiled for lookup.
#[derive(Debug, Default)]
pub struct Keys {
    // By digest, so that comparing takes no time that depends on how much of a guess is right.
    by_digest: HashMap<[u8; 32], KeyId, BuildHasherDefault<DigestHasher>>,
    models: Vec<Option<HashSet<String>>>,
}

/// Takes the first bytes of a digest for its hash: they are as evenly spread as any hash of them would be, and
/// nobody can choose them.
#[derive(Debug, Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, digest: &[u8]) {
        if let Some(first) = digest.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length of an array, which says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Keys {
    /// Compiles the keys of a configuration.
    pub fn new(config: &Config) -> Keys {
        Keys {
            by_digest: (0..).zip(&config.keys).map(|(at, key)| (key.digest, KeyId(at))).collect(),
            models: config.keys.iter().map(allowed_models).collect(),
        }
    }

    /// Who presents `credential`. Where the listener is open, a missing or unknown one is nobody: `None`.
    ///
    /// # Errors
    /// 401, which never repeats the credential.
    pub fn authenticate(&self, credential: Option<&[u8]>, open: bool) -> Result<Option<KeyId>, Reject> {
        let known = credential.and_then(|credential| {
            let digest = digest(&SHA256, credential);
            self.by_digest.get(digest.as_ref()).copied()
        });
        match (known, credential) {
            (Some(key), _) => Ok(Some(key)),
            (None, _) if open => Ok(None),
            (None, None) => Err(Reject::client(
                401,
                "missing_api_key",
                "No API key was given: send it as Authorization: Bearer or as x-api-key.",
            )),
            (None, Some(_)) => Err(Reject::client(401, "invalid_api_key", "This API key is not known here.")),
        }
    }

    /// True if `key` may ask for `model`; nobody (an open listener's caller) may ask for all.
    pub fn may_use(&self, key: Option<KeyId>, model: &str) -> bool {
        match key.and_then(|key| self.models.get(usize::from(key.0))) {
            Some(Some(models)) => models.contains(model),
            _ => true,
        }
    }
}

fn allowed_models(key: &Key) -> Option<HashSet<String>> {
    key.models.as_ref().map(|models| models.iter().cloned().collect())
}

/// The key within an `Authorization` field: what follows `Bearer`, in any case, and spaces.
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let token = rest.trim_ascii();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let sha = |text: &str| <[u8; 32]>::try_from(digest(&SHA256, text.as_bytes()).as_ref()).unwrap();
        Keys {
            by_digest: HashMap::from_iter([(sha("all"), KeyId(0)), (sha("some"), KeyId(1))]),
            models: vec![None, Some(HashSet::from(["chat".to_owned()]))],
        }
    }

    #[test]
    fn a_key_is_known_by_its_digest_and_an_open_listener_asks_for_none() {
        let keys = keys();
        for (name, credential, open, verdict) in [
            ("known", Some("all"), false, Ok(Some(KeyId(0)))),
            ("known on an open listener", Some("some"), true, Ok(Some(KeyId(1)))),
            ("unknown", Some("guess"), false, Err("invalid_api_key")),
            ("a prefix", Some("al"), false, Err("invalid_api_key")),
            ("none", None, false, Err("missing_api_key")),
            ("unknown on an open listener", Some("guess"), true, Ok(None)),
            ("none on an open listener", None, true, Ok(None)),
        ] {
            let got = keys.authenticate(credential.map(str::as_bytes), open);
            let got = got.map_err(|reject| {
                assert_eq!(reject.status, 401, "{name}");
                assert!(!reject.message.contains("guess"), "{name}");
                reject.code.into_owned()
            });
            assert_eq!(got, verdict.map_err(str::to_owned), "{name}");
        }
    }

    #[test]
    fn a_key_may_use_its_models_and_no_others() {
        let keys = keys();
        for (key, model, may) in
            [(Some(0), "any", true), (Some(1), "chat", true), (Some(1), "chats", false), (None, "any", true)]
        {
            assert_eq!(keys.may_use(key.map(KeyId), model), may, "{key:?} {model}");
        }
    }

    #[test]
    fn a_bearer_token_is_what_follows_the_scheme() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer ", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("", None),
        ] {
            assert_eq!(bearer(value.as_bytes()), token.map(str::as_bytes), "{value:?}");
        }
    }
}
