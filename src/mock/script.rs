//! How one answer behaves: its timing, its shape, its faults; and the one grammar in which all of it is said.
//!
//! A script is `key=value,key=value`. The same keys are read from four places, later ones winning:
//!
//! 1. the instance (`MockConfig::script`, the flags of `ringway mock`, `POST /mock/script`),
//! 2. the model's name: `mock:ttft=200ms,tokens=50,fault=stall@3`,
//! 3. the header `x-mock: ttft=200ms,tokens=50`,
//! 4. one header per key: `x-mock-ttft: 200ms`.
//!
//! [`KEYS`] and [`FAULTS`] are the reference, and the help text. What the settings do on the wire is
//! decided by [`super::play`] and [`super::tap`]; nothing here does IO.

use std::fmt::Write as _;
use std::time::Duration;

/// Every key and what it means; `ringway mock --help` prints this table.
pub const KEYS: &[(&str, &str)] = &[
    ("ttft", "time to the first content event, or to an unstreamed answer (50ms)"),
    ("gap", "time between content events (10ms)"),
    ("tokens", "content tokens in the answer, at most 100000 (20)"),
    ("tokens-per-event", "tokens in one content event, at least 1 (1)"),
    ("token-bytes", "exact bytes of each token; 0 = words of natural length (0)"),
    ("prompt-tokens", "prompt tokens reported in usage (11)"),
    ("seed", "decides text and ids, together with the prompt (1)"),
    (
        "usage",
        "asked | final | every | finish | null-choices | in-choice | none: where a chat stream reports usage; \
         asked = as stream_options.include_usage says (asked)",
    ),
    (
        "comments",
        "a keep-alive this often while waiting: `: keep-alive` in a stream, an empty line before JSON; 0 = none",
    ),
    ("role", "on | off: a chat stream begins with a role chunk (on)"),
    ("head", "early | late: a stream's head leaves at once, or with the first content (early)"),
    ("tool", "on | off: answer with a tool call instead of text (off)"),
    ("reasoning", "tokens of reasoning_content (Anthropic: thinking) before the text (0)"),
    ("stamp", "on | off: each event carries x_sent_ns, CLOCK_MONOTONIC when it left (off)"),
    ("status", "200 to 599; from 400 on, the answer is an error of the dialect (200)"),
    ("error-type", "the `type` of error objects (from the status)"),
    ("error-code", "the `code` of error objects (from the status)"),
    ("error-message", "the `message` of error objects"),
    ("retry-after", "the value of a Retry-After header"),
    ("body", "answer with this text instead"),
    ("fault", "what goes wrong: see below (none)"),
    ("line-end", "lf | cr | crlf: how lines of a stream end (lf)"),
    ("bom", "on | off: a byte order mark before the first event (off)"),
    ("multi-line", "on | off: each event's data on two `data:` lines (off)"),
    ("split", "N | random: every write holds N bytes, or 1 to 64 by the seed; 0 = off (0)"),
    ("split-gap", "pause between the writes of split; 0 = only yield (0)"),
    ("drip", "BYTES/TIME: a body of so many bytes per tick, as 16/10ms; 0 = off (0)"),
    ("head-gap", "the head leaves a byte at a time, each after this long; 0 = off (0)"),
    ("gzip", "on | off: content-encoding gzip, streams too, unasked (off)"),
    ("framing", "auto | length | chunked | close: how the body's end is told (auto)"),
    ("close", "keep | announced | silent: the connection after the answer; silent closes without a word (keep)"),
    ("informational", "102 | 103: send this interim answer first; 0 = none (0)"),
    ("trailers", "on | off: a chunked body ends with the trailer x-mock-trailer: 1 (off)"),
    ("unread", "on | off: answer without reading the request's body; not from the model's name (off)"),
    ("echo", "on | off: answer with the request's head as JSON (off)"),
    ("id", "name this request for GET /mock/requests/ID"),
];

/// Every fault and what it does. `N` counts content events (bytes, if the answer is not streamed);
/// `first` stands for: before any event at all.
pub const FAULTS: &[(&str, &str)] = &[
    ("none", "nothing goes wrong"),
    ("stall@N", "no event any more after N content events, for ever; comments, if set, go on"),
    ("cut@N", "the connection ends (FIN) after N content events"),
    ("rst@N", "the same with RST"),
    ("cut-bytes@N", "the connection ends (FIN) after N bytes of body"),
    ("rst-bytes@N", "the same with RST"),
    ("error@N", "an error object inside a 200 stream after N content events, then the end; unstreamed: as error-200"),
    ("error-200", "an unstreamed error object under status 200"),
    ("no-done", "the stream ends cleanly without [DONE], message_stop or response.completed"),
    ("no-finish", "the stream ends cleanly after the last content: no finish reason, usage or end mark"),
    ("truncated", "everything is sent but the end of the body (last chunk), then FIN"),
    ("long-length@N", "Content-Length promises N bytes more than are sent, then FIN"),
    ("never", "the request is read and never answered"),
    ("close", "the request is read and the connection closed"),
    ("refuse", "connections are closed as soon as accepted (instance only; else as close)"),
    ("bad-utf8@N", "the content event after N holds invalid UTF-8"),
    ("huge@BYTES", "the first content event holds so many bytes of text, at most 67108864"),
];

/// Where in a stream a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Before any event.
    First,
    /// After so many content events (bytes, if the answer is not streamed).
    After(u32),
}

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// An orderly close: FIN.
    Fin,
    /// An abortive close: RST.
    Rst,
}

/// What goes wrong; see [`FAULTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table FAULTS documents each")]
pub enum Fault {
    None,
    Stall(At),
    Cut(Cut, At),
    CutBytes(Cut, u64),
    Error(At),
    Error200,
    NoDone,
    NoFinish,
    Truncated,
    LongLength(u64),
    Never,
    Close,
    Refuse,
    BadUtf8(u32),
    Huge(u32),
}

/// Where a chat completions stream reports usage (FIELD: compatible servers differ).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// In an extra last chunk if `stream_options.include_usage` asks for it, else nowhere.
    Asked,
    /// In an extra last chunk with empty `choices`.
    Final,
    /// In every chunk, counting up.
    Every,
    /// On the chunk with the finish reason.
    Finish,
    /// In an extra last chunk with `choices: null`.
    NullChoices,
    /// Inside `choices[0]` of the chunk with the finish reason.
    InChoice,
    /// Nowhere.
    None,
}

/// How lines of a stream end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LineEnd {
    Lf,
    Cr,
    CrLf,
}

/// How the bytes are cut into writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// As they come.
    Off,
    /// So many bytes per write.
    Every(u32),
    /// 1 to 64 bytes per write, decided by the seed.
    Random,
}

/// How the end of the body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length` for an unstreamed answer, chunked for a stream.
    Auto,
    /// `Content-Length` whenever the length is known beforehand (no comments, no gzip in a stream).
    Length,
    /// Chunked.
    Chunked,
    /// By closing, as HTTP/1.0 does.
    Close,
}

/// What becomes of the connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// It is kept.
    Keep,
    /// `Connection: close`, and closed.
    Announced,
    /// Closed without saying so.
    Silent,
}

/// The behaviour of one answer. The default is an agreeable provider.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table KEYS documents each")]
pub struct Script {
    pub ttft: Duration,
    pub gap: Duration,
    pub tokens: u32,
    pub tokens_per_event: u32,
    pub token_bytes: u32,
    pub prompt_tokens: u32,
    pub seed: u64,
    pub usage: Usage,
    pub comments: Option<Duration>,
    pub role: bool,
    pub head_late: bool,
    pub tool: bool,
    pub reasoning: u32,
    pub stamp: bool,
    pub status: u16,
    pub error_type: Option<String>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub retry_after: Option<String>,
    pub body: Option<String>,
    pub fault: Fault,
    pub line_end: LineEnd,
    pub bom: bool,
    pub multi_line: bool,
    pub split: Split,
    pub split_gap: Duration,
    pub drip: Option<(u32, Duration)>,
    pub head_gap: Option<Duration>,
    pub gzip: bool,
    pub framing: Framing,
    pub close: Close,
    pub informational: u16,
    pub trailers: bool,
    pub unread: bool,
    pub echo: bool,
    pub id: Option<String>,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            ttft: Duration::from_millis(50),
            gap: Duration::from_millis(10),
            tokens: 20,
            tokens_per_event: 1,
            token_bytes: 0,
            prompt_tokens: 11,
            seed: 1,
            usage: Usage::Asked,
            comments: None,
            role: true,
            head_late: false,
            tool: false,
            reasoning: 0,
            stamp: false,
            status: 200,
            error_type: None,
            error_code: None,
            error_message: None,
            retry_after: None,
            body: None,
            fault: Fault::None,
            line_end: LineEnd::Lf,
            bom: false,
            multi_line: false,
            split: Split::Off,
            split_gap: Duration::ZERO,
            drip: None,
            head_gap: None,
            gzip: false,
            framing: Framing::Auto,
            close: Close::Keep,
            informational: 0,
            trailers: false,
            unread: false,
            echo: false,
            id: None,
        }
    }
}

impl Script {
    /// Applies a list `key=value,key=value` on top of this script. Empty parts are skipped.
    ///
    /// # Errors
    /// A sentence naming the key or value and what is allowed; parts before it have been applied.
    pub fn apply(&mut self, list: &str) -> Result<(), String> {
        for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) =
                part.split_once('=').ok_or_else(|| format!("\"{part}\" is not key=value; keys: {}", key_names()))?;
            self.set(key.trim(), value.trim())?;
        }
        Ok(())
    }

    /// Applies the script in a model's name, if it begins with `mock:`.
    ///
    /// # Errors
    /// As [`Script::apply`].
    pub fn apply_model(&mut self, model: &str) -> Result<(), String> {
        model.strip_prefix("mock:").map_or(Ok(()), |list| self.apply(list))
    }

    /// Sets one key. `_` may stand for `-` in keys.
    ///
    /// # Errors
    /// A sentence naming the key or value and what is allowed; the script is unchanged.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match key.to_ascii_lowercase().replace('_', "-").as_str() {
            "ttft" => self.ttft = duration(key, value)?,
            "gap" => self.gap = duration(key, value)?,
            "tokens" => self.tokens = number(key, value, 0, 100_000)?,
            "tokens-per-event" => self.tokens_per_event = number(key, value, 1, 100_000)?,
            "token-bytes" => self.token_bytes = number(key, value, 0, 65_536)?,
            "prompt-tokens" => self.prompt_tokens = number(key, value, 0, u32::MAX)?,
            "seed" => self.seed = number(key, value, 0, u64::MAX)?,
            "usage" => {
                self.usage = choice(
                    key,
                    value,
                    &[
                        ("asked", Usage::Asked),
                        ("final", Usage::Final),
                        ("every", Usage::Every),
                        ("finish", Usage::Finish),
                        ("null-choices", Usage::NullChoices),
                        ("in-choice", Usage::InChoice),
                        ("none", Usage::None),
                    ],
                )?;
            }
            "comments" => self.comments = duration_or_off(key, value)?,
            "role" => self.role = switch(key, value)?,
            "head" => self.head_late = choice(key, value, &[("early", false), ("late", true)])?,
            "tool" => self.tool = switch(key, value)?,
            "reasoning" => self.reasoning = number(key, value, 0, 100_000)?,
            "stamp" => self.stamp = switch(key, value)?,
            "status" => self.status = number(key, value, 200, 599)?,
            "error-type" => self.error_type = text(),
            "error-code" => self.error_code = text(),
            "error-message" => self.error_message = text(),
            "retry-after" => {
                if value.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
                    return Err(format!("{key}: only visible ASCII may stand in a header"));
                }
                self.retry_after = text();
            }
            "body" => self.body = Some(value.to_owned()),
            "fault" => self.fault = fault(value)?,
            "line-end" => {
                let ends = [("lf", LineEnd::Lf), ("cr", LineEnd::Cr), ("crlf", LineEnd::CrLf)];
                self.line_end = choice(key, value, &ends)?;
            }
            "bom" => self.bom = switch(key, value)?,
            "multi-line" => self.multi_line = switch(key, value)?,
            "split" => {
                self.split = match value {
                    "random" => Split::Random,
                    "0" => Split::Off,
                    _ => Split::Every(number(key, value, 1, u32::MAX)?),
                }
            }
            "split-gap" => self.split_gap = duration(key, value)?,
            "drip" => {
                self.drip = match value.split_once('/') {
                    None if value == "0" => None,
                    None => {
                        return Err(format!("{key}: \"{value}\" is not BYTES/TIME, as 16/10ms"));
                    }
                    Some((bytes, tick)) => Some((number(key, bytes, 1, u32::MAX)?, duration(key, tick)?)),
                }
            }
            "head-gap" => self.head_gap = duration_or_off(key, value)?,
            "gzip" => self.gzip = switch(key, value)?,
            "framing" => {
                let framings = [
                    ("auto", Framing::Auto),
                    ("length", Framing::Length),
                    ("chunked", Framing::Chunked),
                    ("close", Framing::Close),
                ];
                self.framing = choice(key, value, &framings)?;
            }
            "close" => {
                let closes = [("keep", Close::Keep), ("announced", Close::Announced), ("silent", Close::Silent)];
                self.close = choice(key, value, &closes)?;
            }
            "informational" => {
                self.informational = choice(key, value, &[("0", 0), ("102", 102), ("103", 103)])?;
            }
            "trailers" => self.trailers = switch(key, value)?,
            "unread" => self.unread = switch(key, value)?,
            "echo" => self.echo = switch(key, value)?,
            "id" => self.id = text(),
            _ => return Err(format!("unknown key \"{key}\"; keys: {}", key_names())),
        }
        Ok(())
    }
}

/// The reference of keys and faults as text, for `--help`.
pub fn help() -> String {
    let mut text = String::from(
        "A script is key=value,key=value. It is read from --script, from the model's name (mock:ttft=200ms,tokens=50),\n\
         from the header x-mock, and from one header per key (x-mock-ttft: 200ms); later ones win.\n\nKeys:\n",
    );
    for (key, meaning) in KEYS {
        let _ = writeln!(text, "  {key:<17} {meaning}");
    }
    text.push_str(
        "\nFaults (fault=KIND). N counts content events, or bytes if the answer is not streamed;\n\
         `first` in its place means before any event at all:\n",
    );
    for (fault, meaning) in FAULTS {
        let _ = writeln!(text, "  {fault:<17} {meaning}");
    }
    text
}

fn key_names() -> String {
    KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

fn fault(value: &str) -> Result<Fault, String> {
    let (kind, at) = value.split_once('@').map_or((value, None), |(kind, at)| (kind, Some(at)));
    let event = || match at {
        Some("first") => Ok(At::First),
        Some(at) => number("fault", at, 0, u32::MAX).map(At::After),
        None => Ok(At::After(0)),
    };
    let count = |min: u64, max: u64| number("fault", at.unwrap_or("0"), min, max);
    let plain = |fault| match at {
        None => Ok(fault),
        Some(_) => Err(format!("fault \"{kind}\" takes no @")),
    };
    match kind {
        "none" => plain(Fault::None),
        "stall" => Ok(Fault::Stall(event()?)),
        "cut" => Ok(Fault::Cut(Cut::Fin, event()?)),
        "rst" => Ok(Fault::Cut(Cut::Rst, event()?)),
        "cut-bytes" => Ok(Fault::CutBytes(Cut::Fin, count(0, u64::MAX)?)),
        "rst-bytes" => Ok(Fault::CutBytes(Cut::Rst, count(0, u64::MAX)?)),
        "error" => Ok(Fault::Error(event()?)),
        "error-200" => plain(Fault::Error200),
        "no-done" => plain(Fault::NoDone),
        "no-finish" => plain(Fault::NoFinish),
        "truncated" => plain(Fault::Truncated),
        "long-length" => Ok(Fault::LongLength(count(1, u64::from(u32::MAX))?)),
        "never" => plain(Fault::Never),
        "close" => plain(Fault::Close),
        "refuse" => plain(Fault::Refuse),
        "bad-utf8" => Ok(Fault::BadUtf8(count(0, u64::from(u32::MAX))? as u32)),
        "huge" => Ok(Fault::Huge(count(1, 64 << 20)? as u32)),
        _ => Err(format!(
            "unknown fault \"{value}\"; faults: {}",
            FAULTS.iter().map(|(fault, _)| *fault).collect::<Vec<_>>().join(", ")
        )),
    }
}

fn number<T>(key: &str, value: &str, min: T, max: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match value.parse::<T>() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(format!("{key}: \"{value}\" is not a number from {min} to {max}")),
    }
}

/// Reads `250us`, `20ms`, `1.5s`, `2m` or `0`; at most a day.
pub(crate) fn duration(key: &str, value: &str) -> Result<Duration, String> {
    let wrong = || format!("{key}: \"{value}\" is not a time such as 250us, 20ms, 1.5s, 2m or 0");
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    let unit_at = value.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (count, unit) = value.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(wrong()),
    };
    let count: f64 = count.parse().map_err(|_| wrong())?;
    Some(count * seconds)
        .filter(|seconds| (0.0..=86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(wrong)
}

fn duration_or_off(key: &str, value: &str) -> Result<Option<Duration>, String> {
    Ok(Some(duration(key, value)?).filter(|time| !time.is_zero()))
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" | "1" | "true" => Ok(true),
        "off" | "0" | "false" => Ok(false),
        _ => Err(format!("{key}: \"{value}\" is not on or off")),
    }
}

fn choice<T: Copy>(key: &str, value: &str, allowed: &[(&str, T)]) -> Result<T, String> {
    allowed.iter().find(|(name, _)| *name == value).map(|(_, what)| *what).ok_or_else(|| {
        let names = allowed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        format!("{key}: \"{value}\" is not one of {names}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_fault_of_the_reference_is_understood() {
        for (key, _) in KEYS {
            let error = Script::default().set(key, "\u{1}?").err().unwrap_or_default();
            assert!(!error.contains("unknown key"), "{key}: {error}");
        }
        for (kind, _) in FAULTS {
            let value = kind.replace("@N", "@3").replace("@BYTES", "@3");
            assert!(fault(&value).is_ok(), "{value}: {:?}", fault(&value));
        }
    }

    #[test]
    fn a_script_says_what_it_says() {
        let with = |change: fn(&mut Script)| {
            let mut script = Script::default();
            change(&mut script);
            Ok(script)
        };
        for (list, expected) in [
            ("", with(|_| ())),
            (
                " ttft = 200ms , gap=1.5s,",
                with(|s| {
                    s.ttft = Duration::from_millis(200);
                    s.gap = Duration::from_millis(1500);
                }),
            ),
            (
                "tokens=50,fault=stall@3",
                with(|s| {
                    s.tokens = 50;
                    s.fault = Fault::Stall(At::After(3));
                }),
            ),
            ("fault=error@first", with(|s| s.fault = Fault::Error(At::First))),
            ("fault=rst-bytes@77", with(|s| s.fault = Fault::CutBytes(Cut::Rst, 77))),
            (
                "token_bytes=4,Split=random",
                with(|s| {
                    s.token_bytes = 4;
                    s.split = Split::Random;
                }),
            ),
            (
                "drip=16/10ms,comments=5ms",
                with(|s| {
                    s.drip = Some((16, Duration::from_millis(10)));
                    s.comments = Some(Duration::from_millis(5));
                }),
            ),
            (
                "stamp=1,gzip=on,role=off",
                with(|s| {
                    s.stamp = true;
                    s.gzip = true;
                    s.role = false;
                }),
            ),
            ("tokens", Err("\"tokens\" is not key=value")),
            ("tokens=many", Err("tokens: \"many\" is not a number from 0 to 100000")),
            ("tokens=100001", Err("not a number from 0 to 100000")),
            ("ttft=fast", Err("ttft: \"fast\" is not a time")),
            ("ttft=9", Err("not a time")),
            ("ttft=-1s", Err("not a time")),
            ("speed=9", Err("unknown key \"speed\"; keys: ttft, gap, tokens")),
            ("fault=explode", Err("unknown fault \"explode\"; faults: none, stall@N")),
            ("fault=never@2", Err("fault \"never\" takes no @")),
            ("fault=huge@0", Err("not a number from 1")),
            ("usage=perhaps", Err("usage: \"perhaps\" is not one of asked, final")),
            ("gzip=maybe", Err("gzip: \"maybe\" is not on or off")),
            ("drip=16", Err("not BYTES/TIME")),
            ("status=199", Err("from 200 to 599")),
        ] {
            let mut script = Script::default();
            match (script.apply(list), expected) {
                (Ok(()), Ok(expected)) => assert_eq!(script, expected, "{list}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{list}: {error}"),
                (got, expected) => panic!("{list}: got {got:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn only_names_that_begin_with_mock_are_scripts() {
        for (model, tokens) in [("mock:tokens=3", 3), ("mock", 20), ("gpt:tokens=3", 20), ("", 20)] {
            let mut script = Script::default();
            assert_eq!(script.apply_model(model), Ok(()), "{model}");
            assert_eq!(script.tokens, tokens, "{model}");
        }
    }
}
