//! Field names that someone in the gateway acts upon, told apart without a hash or a long chain of comparisons.

macro_rules! known {
    ($($variant:ident = $name:literal,)*) => {
        /// A field name that someone in the gateway acts upon.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            /// Any other name.
            Other,
            $(#[doc = concat!("`", $name, "`.")] $variant,)*
        }

        impl Known {
            /// Every known name, in lower case.
            pub const ALL: &[(Known, &str)] = &[$((Known::$variant, $name),)*];

            /// The name in lower case; empty for [`Known::Other`].
            pub fn as_str(self) -> &'static str {
                match self {
                    Known::Other => "",
                    $(Known::$variant => $name,)*
                }
            }
        }
    };
}

known! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AltSvc = "alt-svc",
    ApiKey = "api-key",
    Authorization = "authorization",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentEncoding = "content-encoding",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Expect = "expect",
    Forwarded = "forwarded",
    Host = "host",
    Http2Settings = "http2-settings",
    KeepAlive = "keep-alive",
    Origin = "origin",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    RetryAfter = "retry-after",
    Server = "server",
    SetCookie = "set-cookie",
    StrictTransportSecurity = "strict-transport-security",
    Te = "te",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Via = "via",
    XApiKey = "x-api-key",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedProto = "x-forwarded-proto",
    XGoogApiKey = "x-goog-api-key",
    XRequestId = "x-request-id",
}

// A set of names is 64 bits.
const _: () = assert!(Known::ALL.len() < 64);

impl Known {
    /// Which name this is. `name` is a token (RFC 9110 §5.6.2), in any case; other input is classified too,
    /// but perhaps as a name that differs from it in a control byte.
    #[inline]
    pub fn of(name: &[u8]) -> Known {
        use Known::*;
        let Some(first) = name.first() else {
            return Other;
        };
        // Length and first letter leave one or two candidates.
        match (name.len(), first | 0x20) {
            (2, b't') => either(name, [(b"te", Te)]),
            (3, b'v') => either(name, [(b"via", Via)]),
            (4, b'h') => either(name, [(b"host", Host)]),
            (4, b'd') => either(name, [(b"date", Date)]),
            (6, b'a') => either(name, [(b"accept", Accept)]),
            (6, b'c') => either(name, [(b"cookie", Cookie)]),
            (6, b'e') => either(name, [(b"expect", Expect)]),
            (6, b'o') => either(name, [(b"origin", Origin)]),
            (6, b's') => either(name, [(b"server", Server)]),
            (7, b'a') => either(name, [(b"alt-svc", AltSvc), (b"api-key", ApiKey)]),
            (7, b't') => either(name, [(b"trailer", Trailer)]),
            (7, b'u') => either(name, [(b"upgrade", Upgrade)]),
            (9, b'f') => either(name, [(b"forwarded", Forwarded)]),
            (9, b'x') => either(name, [(b"x-api-key", XApiKey)]),
            (10, b'c') => either(name, [(b"connection", Connection)]),
            (10, b'k') => either(name, [(b"keep-alive", KeepAlive)]),
            (10, b's') => either(name, [(b"set-cookie", SetCookie)]),
            (10, b'u') => either(name, [(b"user-agent", UserAgent)]),
            (11, b'r') => either(name, [(b"retry-after", RetryAfter)]),
            (10, b't') => either(name, [(b"tracestate", Tracestate)]),
            (11, b't') => either(name, [(b"traceparent", Traceparent)]),
            (12, b'c') => either(name, [(b"content-type", ContentType)]),
            (12, b'x') => either(name, [(b"x-request-id", XRequestId)]),
            (13, b'a') => either(name, [(b"authorization", Authorization)]),
            (13, b'c') => either(name, [(b"cache-control", CacheControl)]),
            (14, b'c') => either(name, [(b"content-length", ContentLength)]),
            (14, b'h') => either(name, [(b"http2-settings", Http2Settings)]),
            (14, b'x') => either(name, [(b"x-goog-api-key", XGoogApiKey)]),
            (15, b'a') => either(name, [(b"accept-encoding", AcceptEncoding)]),
            (15, b'x') => either(name, [(b"x-forwarded-for", XForwardedFor)]),
            (16, b'c') => either(name, [(b"content-encoding", ContentEncoding)]),
            (16, b'p') => either(name, [(b"proxy-connection", ProxyConnection)]),
            (16, b'x') => either(name, [(b"x-forwarded-host", XForwardedHost)]),
            (17, b't') => either(name, [(b"transfer-encoding", TransferEncoding)]),
            (17, b'x') => either(name, [(b"x-forwarded-proto", XForwardedProto)]),
            (18, b'p') => either(name, [(b"proxy-authenticate", ProxyAuthenticate)]),
            (19, b'p') => either(name, [(b"proxy-authorization", ProxyAuthorization)]),
            (25, b's') => either(name, [(b"strict-transport-security", StrictTransportSecurity)]),
            _ => Other,
        }
    }

    /// True for a field that belongs to one connection and is not passed on (RFC 9110 §7.6.1), whether
    /// `Connection` names it or not.
    #[inline]
    pub fn is_hop_by_hop(self) -> bool {
        use Known::*;
        const SET: u64 = Known::bit(Connection)
            | Known::bit(KeepAlive)
            | Known::bit(ProxyConnection)
            | Known::bit(Te)
            | Known::bit(Trailer)
            | Known::bit(TransferEncoding)
            | Known::bit(Upgrade)
            | Known::bit(ProxyAuthenticate)
            | Known::bit(ProxyAuthorization)
            | Known::bit(Http2Settings);
        SET & Known::bit(self) != 0
    }

    /// Its bit in a set of names.
    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// The first candidate that equals `name` without regard to case. Setting bit 5 folds exactly the letters
/// here: no other token character maps onto a letter, a digit or a hyphen.
#[inline(always)]
fn either<const N: usize, const C: usize>(name: &[u8], candidates: [(&[u8; N], Known); C]) -> Known {
    let Some(name) = name.first_chunk::<N>() else {
        return Known::Other;
    };
    for (candidate, known) in candidates {
        let mut differ = 0;
        for (a, b) in name.iter().zip(candidate) {
            differ |= (a | 0x20) ^ b;
        }
        if differ == 0 {
            return known;
        }
    }
    Known::Other
}
