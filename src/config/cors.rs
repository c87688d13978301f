//! Which web pages may call, compiled.

use std::time::Duration;

/// Which web pages may call from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The pages; never empty.
    pub origins: Vec<Pages>,
    /// Request headers that they may set, in lower case; `None` is whatever is asked for.
    pub headers: Option<Vec<String>>,
    /// Answer headers that they may read, in lower case; `*` is all.
    pub expose: Vec<String>,
    /// How long a browser may remember that.
    pub max_age: Duration,
    /// Whether they may call with the browser's own credentials; not together with [`Pages::All`].
    pub credentials: bool,
    /// Whether public pages may call a gateway on a private network.
    pub private_network: bool,
}

/// Pages, by their origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pages {
    /// All there are.
    All,
    /// Of one origin, as browsers write it: lower case, without the scheme's own port; or `null`.
    Of(String),
    /// Of every subdomain: what stands before it (`https://`) and behind it (`.example.com:8443`).
    Below {
        /// Scheme and `://`.
        scheme: String,
        /// A dot, the domain, and the port if there is one.
        domain: String,
    },
}

/// Answer headers that pages may read unless the file says otherwise: those that SDKs look at.
pub const EXPOSED: [&str; 25] = [
    "x-request-id",
    "request-id",
    "x-ringway-error-origin",
    "x-ringway-upstream-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-input-tokens-reset",
    "anthropic-ratelimit-output-tokens-limit",
    "anthropic-ratelimit-output-tokens-remaining",
    "anthropic-ratelimit-output-tokens-reset",
];
