//! Tables of heads and bodies, hostile ones above all, and what each must come to. The names of the cases
//! carry the section of RFC 9112 (or 9110, 3986, 6585 where they say so) that decides them.

mod body;
mod encode;
mod request;
mod response;

use super::*;

fn limits() -> HeadLimits {
    HeadLimits::default()
}

/// A framing in one word.
fn word(framing: Framing) -> String {
    match framing {
        Framing::None => "none".into(),
        Framing::Length(length) => format!("len:{length}"),
        Framing::Chunked => "chunked".into(),
        Framing::UntilClose => "close".into(),
    }
}
