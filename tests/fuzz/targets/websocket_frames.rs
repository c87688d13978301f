//! Frames of WebSocket: however the connection is cut, as many bytes pass, messages are counted and the same rule is found
//! broken as by a reader who has all of it at once; and a Close of ours is always one that is understood.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::cuts;
use ringway_fuzz::wire::websocket::{Broken, Follower, Role, write_close};

fuzz_target!(|data: &[u8]| {
    // Whose frames, and how long a message may be.
    let [side, max, rest @ ..] = data else { return };
    let role = if side & 1 == 0 { Role::Client } else { Role::Server };
    let max = u64::from(*max) * u64::from(*max);
    let expected = read(role, max, rest);
    assert_eq!(follow(role, max, &[rest]), expected, "at once");
    for pieces in cuts(rest) {
        assert_eq!(follow(role, max, &pieces), expected, "{pieces:?}");
    }

    let reason = String::from_utf8_lossy(rest);
    let mut close = Vec::new();
    write_close(&mut close, 1001, &reason, (role == Role::Client).then_some([*side; 4]));
    let seen = read(role, 0, &close);
    assert_eq!((seen.passed, seen.broken, seen.closed), (close.len(), None, Some(Some(1001))));
});

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    passed: usize,
    broken: Option<Broken>,
    messages: u64,
    payload: u64,
    closed: Option<Option<u16>>,
    between: bool,
}

/// Hands the follower what has not passed yet, with each piece behind it.
fn follow(role: Role, max: u64, pieces: &[&[u8]]) -> Seen {
    let mut follower = Follower::new(role, max);
    let (mut held, mut passed, mut broken) = (Vec::new(), 0, None);
    for piece in pieces {
        held.extend_from_slice(piece);
        let found = follower.follow(&held);
        held.drain(..found.bytes);
        passed += found.bytes;
        broken = found.broken;
        if broken.is_some() {
            break;
        }
        // Only a header, or a Close, is ever held back.
        assert!(held.len() < 14 + 125 || follower.closed().is_some(), "{} held", held.len());
    }
    Seen {
        passed,
        broken,
        messages: follower.messages(),
        payload: follower.payload(),
        closed: follower.closed(),
        between: follower.is_between_frames(),
    }
}

/// The same of all bytes, by RFC 6455 §5 line by line.
fn read(role: Role, max: u64, bytes: &[u8]) -> Seen {
    let mut seen = Seen { passed: 0, broken: None, messages: 0, payload: 0, closed: None, between: true };
    let mut message: Option<u128> = None;
    while seen.closed.is_none() && seen.broken.is_none() {
        let rest = &bytes[seen.passed..];
        let [first, more @ ..] = rest else { break };
        let (fin, opcode) = (first >> 7 == 1, first & 15);
        let is_control = opcode >= 8;
        let refused = match () {
            () if first >> 4 & 7 != 0 => Some(Broken::Reserved),
            () if matches!(opcode, 3..=7 | 11..) => Some(Broken::Opcode),
            () if is_control && !fin => Some(Broken::Control),
            () if !is_control && (opcode == 0) != message.is_some() => Some(Broken::Fragment),
            () => None,
        };
        seen.broken = refused;
        let [second, more @ ..] = more else { break };
        if seen.broken.is_some() {
            break;
        }
        if (second >> 7 == 1) != (role == Role::Client) {
            seen.broken = Some(Broken::Mask);
            break;
        }
        let short = second & 127;
        if is_control && short > 125 {
            seen.broken = Some(Broken::Control);
            break;
        }
        let digits = [0, 2, 8][usize::from(short > 125) + usize::from(short > 126)];
        let Some((length, more)) = more.split_at_checked(digits) else { break };
        let length = match digits {
            0 => u128::from(short),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte)),
        };
        let is_least = digits == 0 || digits == 2 && length > 125 || digits == 8 && length > 65_535;
        if !is_least || length >> 63 != 0 {
            seen.broken = Some(Broken::Length);
            break;
        }
        let Some((mask, payload)) = more.split_at_checked(if role == Role::Client { 4 } else { 0 }) else { break };
        let header = rest.len() - payload.len();
        if opcode == 8 {
            let Some(payload) = payload.get(..length as usize) else { break };
            let plain: Vec<u8> =
                payload.iter().enumerate().map(|(at, byte)| byte ^ mask.get(at % 4).unwrap_or(&0)).collect();
            let code = plain.first_chunk().map(|code| u16::from_be_bytes(*code));
            let may_be = code
                .map_or(plain.is_empty(), |code| (1000..5000).contains(&code) && ![1005, 1006, 1015].contains(&code));
            if !may_be {
                seen.broken = Some(Broken::Close);
                break;
            }
            seen.closed = Some(code);
            seen.passed += header + payload.len();
            continue;
        }
        if !is_control {
            let whole = message.unwrap_or(0) + length;
            if whole > u128::from(max) {
                seen.broken = Some(Broken::TooLarge);
                break;
            }
            message = Some(whole);
        }
        let taken = payload.len().min(length as usize);
        seen.passed += header + taken;
        seen.payload += if is_control { 0 } else { taken as u64 };
        seen.between = taken as u128 == length;
        if !seen.between {
            break;
        }
        if !is_control && fin {
            (message, seen.messages) = (None, seen.messages + 1);
        }
    }
    seen
}
