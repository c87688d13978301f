//! What can be asked for, how often, and which ends are right.

/// What an actor does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A chat, streamed or not, that the provider answers as `script` says.
    Chat,
    /// As `Chat`, in Anthropic's dialect.
    Messages,
    /// An upload that passes through and comes back.
    Upload,
    /// A JSON body that is held.
    LargeChat,
    /// The client leaves before the answer.
    LeaveSilent,
    /// The client leaves in the middle of a stream.
    LeaveStream,
    /// The client leaves in the middle of its upload.
    LeaveUpload,
    /// The client leaves in the middle of a head.
    LeaveHead,
    /// A stream that is read slowly.
    SlowReader,
    /// What is not HTTP.
    Garbage,
    /// HTTP in the clear where TLS is spoken.
    Clear,
    /// The client leaves in the middle of its handshake.
    LeaveHandshake,
    /// A connection for one request for which no provider is asked.
    Churn,
}

impl Kind {
    /// True if there is none of it without a TLS listener.
    pub fn needs_tls(self) -> bool {
        matches!(self, Kind::Clear | Kind::LeaveHandshake)
    }
}

/// One thing on the menu.
#[derive(Debug)]
pub struct Dish {
    /// For the report.
    pub name: &'static str,
    pub kind: Kind,
    /// How often, against the others.
    pub weight: u32,
    /// The model: `steady` has long timers, `hasty` short ones.
    pub model: &'static str,
    pub stream: bool,
    /// What the simulated provider is told. `{n}` becomes a number from 1 to 200, `{g}` one from 0 to 10.
    pub script: &'static str,
    /// The ends that are right: a status, and `cut` if the body did not reach its own end.
    pub ends: &'static [&'static str],
}

const fn dish(
    name: &'static str,
    weight: u32,
    stream: bool,
    script: &'static str,
    ends: &'static [&'static str],
) -> Dish {
    Dish { name, kind: Kind::Chat, weight, model: "steady", stream, script, ends }
}

impl Dish {
    const fn kind(mut self, kind: Kind) -> Dish {
        self.kind = kind;
        self
    }

    const fn hasty(mut self) -> Dish {
        self.model = "hasty";
        self
    }
}

const OK: &[&str] = &["200"];
const CUT: &[&str] = &["200 cut"];
const BAD: &[&str] = &["502"];
const LATE: &[&str] = &["504"];
/// A client that leaves hears nothing.
const LEFT: &[&str] = &["left"];

/// The menu.
pub const MENU: &[Dish] = &[
    dish("stream", 300, true, "ttft={g}ms,gap={g}ms,tokens={n}", OK),
    dish("stream, Anthropic", 100, true, "ttft={g}ms,gap={g}ms,tokens={n}", OK).kind(Kind::Messages),
    dish("stream at full speed", 20, true, "ttft=0ms,gap=0ms,tokens=2000", OK),
    dish("stream with reasoning and tools", 20, true, "ttft=1ms,gap=1ms,tokens=20,reasoning=20,tool=on", OK),
    dish("stream with comments", 10, true, "ttft=50ms,gap=20ms,tokens=5,comments=3ms", OK),
    dish("stream in pieces", 20, true, "ttft=1ms,gap=1ms,tokens={n},split=random,line-end=crlf", OK),
    dish("stream to the end of the connection", 10, true, "ttft=1ms,gap=1ms,tokens={n},framing=close", OK),
    dish("post", 300, false, "ttft={g}ms,tokens={n}", OK),
    dish("post, Anthropic", 50, false, "ttft={g}ms,tokens={n}", OK).kind(Kind::Messages),
    dish("post, long answer", 10, false, "ttft=1ms,tokens=20000", OK),
    dish("post, silently closed", 20, false, "ttft=1ms,tokens=5,close=silent", OK),
    dish("post, announced close", 10, false, "ttft=1ms,tokens=5,close=announced", OK),
    dish("post, interim answer", 10, false, "ttft=5ms,tokens=5,informational=103", OK),
    dish("post, encoded", 10, false, "ttft=1ms,tokens={n},gzip=on", OK),
    dish("post, a head that drips", 5, false, "ttft=1ms,tokens=5,head-gap=1ms", OK),
    dish("post, a body that drips", 5, false, "ttft=1ms,tokens=50,drip=64/5ms", OK),
    dish("upload", 15, false, "", OK).kind(Kind::Upload),
    dish("large post", 10, false, "ttft=1ms,tokens=5", OK).kind(Kind::LargeChat),
    dish("leaves a silent provider", 30, true, "fault=never", LEFT).kind(Kind::LeaveSilent),
    dish("leaves an unstreamed answer", 20, false, "ttft=3600s", LEFT).kind(Kind::LeaveSilent),
    dish("leaves a stream", 40, true, "ttft=1ms,gap=5ms,tokens=1000", LEFT).kind(Kind::LeaveStream),
    dish("leaves a stream at full speed", 10, true, "ttft=0ms,gap=0ms,tokens=100000", LEFT).kind(Kind::LeaveStream),
    dish("leaves an upload", 20, false, "", LEFT).kind(Kind::LeaveUpload),
    dish("leaves a head", 10, false, "", LEFT).kind(Kind::LeaveHead),
    dish("slow reader", 5, true, "ttft=0ms,gap=0ms,tokens=4000", OK).kind(Kind::SlowReader),
    dish("garbage", 10, false, "", &["400"]).kind(Kind::Garbage),
    dish("in the clear to the TLS port", 10, false, "", &["400"]).kind(Kind::Clear),
    dish("leaves a handshake", 10, false, "", LEFT).kind(Kind::LeaveHandshake),
    dish("churn", 60, false, "", OK).kind(Kind::Churn),
    dish("unknown key", 10, false, "", &["401"]).kind(Kind::Churn),
    dish("status 429", 10, false, "status=429,retry-after=1", &["429"]),
    dish("status 500", 10, true, "status=500", &["500"]),
    dish("silent for ever", 10, true, "fault=never", LATE).hasty(),
    dish("silent for ever, post", 10, false, "fault=never", LATE).hasty(),
    // Where the machine has no time for it, the first token is late as well.
    dish("stalls", 10, true, "ttft=1ms,gap=1ms,fault=stall@3", &["200 cut", "504"]).hasty(),
    dish("stalls at once", 5, true, "ttft=1ms,fault=stall@first", LATE).hasty(),
    dish("stalls, post", 10, false, "ttft=1ms,fault=stall@20", LATE).hasty(),
    dish("cut", 10, true, "ttft=1ms,gap=1ms,fault=cut@3", CUT),
    dish("cut, post", 10, false, "ttft=1ms,fault=cut@20", BAD),
    // A reset may overtake what was sent before it.
    dish("reset", 10, true, "ttft=1ms,gap=5ms,fault=rst@3", &["200 cut", "502"]),
    dish("reset, post", 10, false, "ttft=1ms,fault=rst@20", BAD),
    dish("closed after the request", 10, false, "fault=close", BAD),
    dish("error in the stream", 10, true, "ttft=1ms,gap=1ms,fault=error@3", CUT),
    dish("error in a success", 10, false, "ttft=1ms,fault=error-200", &["500", "502"]),
    dish("no finish", 10, true, "ttft=1ms,gap=1ms,fault=no-finish", CUT),
    dish("no last chunk", 10, true, "ttft=1ms,gap=1ms,fault=truncated", OK),
    dish("fewer bytes than announced", 10, false, "ttft=1ms,fault=long-length@10", BAD),
    dish("not UTF-8", 5, true, "ttft=1ms,gap=1ms,fault=bad-utf8@3", OK),
    dish("a huge event", 3, true, "ttft=1ms,gap=1ms,tokens=3,fault=huge@1000000", OK),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dish_is_served_and_named_once() {
        for (at, dish) in MENU.iter().enumerate() {
            assert!(dish.weight > 0 && !dish.ends.is_empty(), "{}", dish.name);
            assert!(MENU[..at].iter().all(|other| other.name != dish.name), "{} is there twice", dish.name);
            assert!(["steady", "hasty"].contains(&dish.model), "{}", dish.name);
        }
    }
}
