//! Where secrets come from: the environment, a file, a hash, the configuration itself.
//!
//! Nothing here shows what was written in place of a secret, not even a wrong name of a variable or file: it may be the
//! secret itself, pasted into the wrong field.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};

use super::read::{Item, Section};
use super::schema::SECRET_BYTES_MAX;
use super::values;
use crate::base::Secret;

const CLIENT_FORM: &str = r#"{ env = "NAME" }, { file = "path" } or { hash = "sha256:…" }"#;
const ENDPOINT_FORM: &str = r#"{ env = "NAME" }, { file = "path" } or { value = "…" }"#;
const CHARACTERS: &str = "1 to 4096 visible ASCII characters";

/// SHA-256 of a client key.
pub(super) fn client_key(item: &Item) -> Option<[u8; 32]> {
    let mut source = table(item, CLIENT_FORM)?;
    let (env, file, hash) = (source.get("env"), source.get("file"), source.get("hash"));
    if !only_one(source, CLIENT_FORM) {
        return None;
    }
    if let Some(hash) = hash {
        return hashed(&hash);
    }
    let secret = env.map_or_else(|| from_file(&file?), |env| from_env(&env))?;
    Some(sha256(secret.expose()))
}

/// A provider's key.
pub(super) fn endpoint_key(item: &Item) -> Option<Secret> {
    let mut source = table(item, ENDPOINT_FORM)?;
    let (env, file, value) = (source.get("env"), source.get("file"), source.get("value"));
    if !only_one(source, ENDPOINT_FORM) {
        return None;
    }
    if let Some(value) = value {
        return sound(&value, "the value", Secret::new(value.text()?.value));
    }
    env.map_or_else(|| from_file(&file?), |env| from_env(&env))
}

/// A path; a relative one starts at the folder of the configuration file.
pub(super) fn path(item: &Item) -> Option<PathBuf> {
    let text = item.text()?;
    if text.value.is_empty() || text.value.contains('\0') {
        return item.wrong("is not a path", "a path; a relative one starts at the folder of this file");
    }
    Some(item.reading.base.join(text.value))
}

fn table<'r>(item: &Item<'r>, form: &str) -> Option<Section<'r>> {
    if item.is_string() {
        return item.wrong("is a string, which does not say where the secret comes from", form);
    }
    item.section()
}

/// Exactly one source, and no unknown field.
fn only_one(source: Section, form: &str) -> bool {
    let count = source.present().count();
    if count != 1 {
        let what = if count == 0 { "says no source" } else { "says more than one source" };
        source.wrong::<()>(what, &format!("exactly one of {form}"));
    }
    // An unknown field comes with a hint of its own.
    let is_known = source.finish();
    count == 1 && is_known
}

fn from_env(item: &Item) -> Option<Secret> {
    let name = item.text()?.value;
    if !values::is_env_name(&name) {
        return item
            .wrong("is not the name of an environment variable", "letters, digits and _, such as \"TEAM_A_KEY\"");
    }
    match item.reading.sources.env(&name) {
        Some(value) => sound(item, &format!("the environment variable {name}"), Secret::new(value)),
        None => item.wrong(&format!("the environment variable {name} is not set"), "set it, or name another source"),
    }
}

fn from_file(item: &Item) -> Option<Secret> {
    let path = path(item)?;
    match item.reading.sources.file(&path) {
        Ok(text) => {
            // The copy with its line end is wiped as well.
            let text = Secret::new(text);
            sound(item, "the file", Secret::new(text.expose().trim_end().to_owned()))
        }
        Err(error) => {
            let what = format!("the file cannot be read: {error}");
            item.wrong(&what, "a readable file; a relative path starts at the folder of this one")
        }
    }
}

/// The secret, if it can stand in a header.
fn sound(item: &Item, holder: &str, secret: Secret) -> Option<Secret> {
    let text = secret.expose();
    if text.is_empty() {
        return item.wrong(&format!("{holder} is empty"), CHARACTERS);
    }
    if text.len() > SECRET_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return item
            .wrong(&format!("{holder} holds no key: too long, or characters that no header can carry"), CHARACTERS);
    }
    Some(secret)
}

fn hashed(item: &Item) -> Option<[u8; 32]> {
    let text = item.text()?.value;
    let digest = text.strip_prefix("sha256:").and_then(unhex);
    match digest {
        Some(digest) if digest == sha256("") => item.wrong("is the hash of an empty secret", CHARACTERS),
        Some(digest) => Some(digest),
        None => {
            item.wrong("is not a hash", "sha256: and 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them")
        }
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 2 * out.len() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}

fn sha256(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}
