//! The four shapes of a call: two dialects, streamed or not.

use crate::common::origin::{DONE, FINISH, ROLE, Request, START, STOP, content, delta};

/// How a call asks and is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub anthropic: bool,
    pub streamed: bool,
}

impl Shape {
    /// All there are.
    pub const ALL: [Shape; 4] = [
        Shape { anthropic: false, streamed: true },
        Shape { anthropic: false, streamed: false },
        Shape { anthropic: true, streamed: true },
        Shape { anthropic: true, streamed: false },
    ];

    /// The shape in which `request` wants its answer.
    pub fn of(request: &Request) -> Shape {
        Shape { anthropic: request.line.contains("/messages"), streamed: request.text().contains("\"stream\":true") }
    }

    /// For names and ids.
    pub fn name(self) -> String {
        let dialect = if self.anthropic { "anthropic" } else { "openai" };
        format!("{dialect}-{}", if self.streamed { "streamed" } else { "whole" })
    }

    pub fn path(self) -> &'static str {
        if self.anthropic { "/v1/messages" } else { "/v1/chat/completions" }
    }

    /// The media type of an answer.
    pub fn media(self) -> &'static str {
        if self.streamed { "text/event-stream" } else { "application/json" }
    }

    /// What an answer begins with before there is any content in it.
    pub fn lead(self) -> &'static str {
        match (self.streamed, self.anthropic) {
            (true, false) => ROLE,
            (true, true) => START,
            (false, false) => "{\"object\":\"chat.completion\",\"choices\":[{\"message\":{\"content\":\"",
            (false, true) => "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"",
        }
    }

    /// Content that commits: an event, or more than the gateway holds of an unstreamed answer.
    pub fn content(self) -> String {
        match (self.streamed, self.anthropic) {
            (true, false) => content("a"),
            (true, true) => delta("a"),
            (false, _) => "z".repeat(100_000),
        }
    }

    /// What an answer ends with.
    pub fn end(self) -> String {
        match (self.streamed, self.anthropic) {
            (true, false) => format!("{FINISH}{DONE}"),
            (true, true) => STOP.to_owned(),
            (false, false) => "\"},\"finish_reason\":\"stop\"}]}".to_owned(),
            (false, true) => "\"}],\"stop_reason\":\"end_turn\"}".to_owned(),
        }
    }

    /// A short answer up to its end.
    pub fn short(self) -> String {
        self.lead().to_owned() + &if self.streamed { self.content() } else { "short".to_owned() }
    }

    /// A short whole answer.
    pub fn whole(self) -> String {
        self.short() + &self.end()
    }

    /// A whole answer that is passed on before its end has come.
    pub fn long(self) -> String {
        format!("{}{}{}", self.lead(), self.content(), self.end())
    }
}
