//! Frames as they pass (RFC 6455 §5), and the one frame that we say ourselves.

/// The longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;

/// Whose frames are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A client's, which are masked.
    Client,
    /// A server's, which are not.
    Server,
}

/// The rule that a frame broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// A client's frame is not masked, or a server's is.
    Mask,
    /// A reserved bit is set, though no extension was agreed on.
    Reserved,
    /// An opcode that means nothing.
    Opcode,
    /// A control frame that is longer than [`CONTROL_BYTES_MAX`], or one of several fragments.
    Control,
    /// A fragment of no message, or a new message within another.
    Fragment,
    /// A length with its top bit set, or in more bytes than it needs.
    Length,
    /// A Close with half a code, or one that must not be sent.
    Close,
    /// A message longer than it may be.
    TooLarge,
}

impl Broken {
    /// The code of the Close that its sender is told with (RFC 6455 §7.4.1).
    pub fn code(self) -> u16 {
        if self == Broken::TooLarge { 1009 } else { 1002 }
    }

    /// What was wrong.
    pub fn as_str(self) -> &'static str {
        match self {
            Broken::Mask => "a frame is masked that must not be, or not masked that must be (RFC 6455 5.1)",
            Broken::Reserved => "a frame has a reserved bit set (RFC 6455 5.2)",
            Broken::Opcode => "a frame has an unknown opcode (RFC 6455 5.2)",
            Broken::Control => "a control frame is fragmented or longer than 125 bytes (RFC 6455 5.5)",
            Broken::Fragment => "fragments of messages are out of order (RFC 6455 5.4)",
            Broken::Length => "a frame's length is not written in the one way (RFC 6455 5.2)",
            Broken::Close => "a Close has a code that none may have (RFC 6455 7.4)",
            Broken::TooLarge => "a message is larger than this gateway takes",
        }
    }
}

/// What of some bytes may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// So many of them. Those behind it are the beginning of a header that is not whole, or of a Close: they come again,
    /// with more behind them; or they broke a rule, or followed a Close.
    pub bytes: usize,
    /// Why none of the others ever may.
    pub broken: Option<Broken>,
}

/// Follows the frames of one side.
#[derive(Debug, Clone)]
pub struct Follower {
    role: Role,
    message_bytes_max: u64,
    /// Bytes of the frame under way that are still to come.
    left: u64,
    /// True if that frame is of a message, and not control.
    is_data: bool,
    /// True if it is the message's last.
    is_last: bool,
    /// Bytes of the message under way, all of its frames begun so far together.
    message: Option<u64>,
    /// There once a Close has passed.
    closed: Option<Closed>,
    messages: u64,
    payload: u64,
}

/// A Close: with a code, or without.
type Closed = Option<u16>;

/// A header that is whole.
struct Header {
    len: usize,
    fin: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    payload: u64,
}

impl Follower {
    /// Follows the frames of `role`, of which no message may be longer than `message_bytes_max`.
    pub fn new(role: Role, message_bytes_max: u64) -> Follower {
        Follower {
            role,
            message_bytes_max,
            left: 0,
            is_data: false,
            is_last: false,
            message: None,
            closed: None,
            messages: 0,
            payload: 0,
        }
    }

    /// Takes in what came behind all that has passed so far. Nothing is looked at but headers and what a Close says, so this
    /// costs no more for long frames than for short ones.
    pub fn follow(&mut self, bytes: &[u8]) -> Passed {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if self.left > 0 {
                let taken = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                at += taken;
                self.take(taken as u64);
                if self.left > 0 {
                    return Passed { bytes: at, broken: None };
                }
                continue;
            }
            if self.closed.is_some() || rest.is_empty() {
                return Passed { bytes: at, broken: None };
            }
            match self.begin(rest) {
                Ok(0) => return Passed { bytes: at, broken: None },
                Ok(taken) => at += taken,
                Err(broken) => return Passed { bytes: at, broken: Some(broken) },
            }
        }
    }

    /// Begins the frame at the front of `bytes`, which are at least one; how many of them are its header, or all of it if it
    /// is a Close. 0 if more are needed.
    fn begin(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let header = match self.header(bytes)? {
            Some(header) => header,
            None => return Ok(0),
        };
        let payload_len = header.payload;
        if header.opcode == CLOSE {
            let end = header.len + usize::try_from(payload_len).unwrap_or(usize::MAX);
            let Some(payload) = bytes.get(header.len..end) else { return Ok(0) };
            self.closed = Some(close_code(payload, header.mask)?);
            return Ok(end);
        }
        self.is_data = header.opcode < CLOSE;
        self.is_last = header.fin;
        if self.is_data {
            let whole = self.message.unwrap_or(0).saturating_add(payload_len);
            if whole > self.message_bytes_max {
                return Err(Broken::TooLarge);
            }
            self.message = Some(whole);
        }
        self.left = payload_len;
        self.take(0);
        Ok(header.len)
    }

    /// Reads a header as far as it has come; what breaks a rule is told by the first byte that does.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Broken> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (fin, opcode) = (first & FIN != 0, first & OPCODE);
        if first & RESERVED != 0 {
            return Err(Broken::Reserved);
        }
        match opcode {
            CONTINUATION if self.message.is_none() => return Err(Broken::Fragment),
            1 | 2 if self.message.is_some() => return Err(Broken::Fragment),
            CONTINUATION..=2 => {}
            CLOSE..=10 if !fin => return Err(Broken::Control),
            CLOSE..=10 => {}
            _ => return Err(Broken::Opcode),
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if (second & MASKED != 0) != (self.role == Role::Client) {
            return Err(Broken::Mask);
        }
        let short = second & !MASKED;
        if opcode >= CLOSE && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(Broken::Control);
        }
        let (payload, mut len) = match short {
            126 => {
                let Some(long) = bytes.get(2..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*long)), 4)
            }
            127 => {
                let Some(long) = bytes.get(2..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
                (u64::from_be_bytes(*long), 10)
            }
            short => (u64::from(short), 2),
        };
        let least = match short {
            126 => 126,
            127 => 1 << 16,
            _ => 0,
        };
        if payload < least || payload >= 1 << 63 {
            return Err(Broken::Length);
        }
        let mut mask = None;
        if self.role == Role::Client {
            let Some(key) = bytes.get(len..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
            mask = Some(*key);
            len += 4;
        }
        Ok(Some(Header { len, fin, opcode, mask, payload }))
    }

    /// `taken` bytes of the frame under way have passed.
    fn take(&mut self, taken: u64) {
        self.left -= taken;
        if self.is_data {
            self.payload += taken;
            if self.left == 0 && self.is_last {
                self.message = None;
                self.messages += 1;
            }
        }
    }

    /// True if what has passed ends where a frame does, so that another frame can follow.
    pub fn is_between_frames(&self) -> bool {
        self.left == 0
    }

    /// The Close that has passed, with its code if it has one. Nothing passes behind it.
    pub fn closed(&self) -> Option<Option<u16>> {
        self.closed
    }

    /// Messages that have passed to their end.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of messages that have passed, without framing.
    pub fn payload(&self) -> u64 {
        self.payload
    }
}

/// The code that the payload of a Close begins with (RFC 6455 §5.5.1, §7.4).
fn close_code(payload: &[u8], mask: Option<[u8; 4]>) -> Result<Option<u16>, Broken> {
    let [high, low] = match payload {
        [] => return Ok(None),
        [_] => return Err(Broken::Close),
        [high, low, ..] => [*high, *low],
    };
    let [a, b, ..] = mask.unwrap_or_default();
    let code = u16::from_be_bytes([high ^ a, low ^ b]);
    match code {
        // Not a code, no code was there, the connection broke, TLS failed: of these each side only tells itself.
        0..1000 | 1005 | 1006 | 1015 | 5000.. => Err(Broken::Close),
        code => Ok(Some(code)),
    }
}

/// Appends a Close with `code` and `reason`, of which the first 123 bytes are said; masked with `mask` if a client says it.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str, mask: Option<[u8; 4]>) {
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    let masked = if mask.is_some() { MASKED } else { 0 };
    out.extend_from_slice(&[FIN | CLOSE, masked | (reason.len() as u8 + 2)]);
    out.extend_from_slice(mask.as_ref().map_or(&[][..], |mask| mask));
    let mask = mask.unwrap_or_default().into_iter().cycle();
    let payload = code.to_be_bytes().into_iter().chain(reason.iter().copied());
    out.extend(payload.zip(mask).map(|(byte, key)| byte ^ key));
}
