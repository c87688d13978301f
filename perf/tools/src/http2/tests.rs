//! One side of a conversation, written out by hand.

use super::*;
use crate::http::{chat_request, parse_target};

const BODY_BYTES: usize = 300;

fn session(slots: usize, shut: bool) -> Session {
    let target = parse_target("http://127.0.0.1:1/v1/chat/completions").unwrap();
    let request = Request::new(&chat_request(&target, &[], "mock", BODY_BYTES, true));
    let mut session = Session::new(Rc::new(request), slots, shut);
    assert!(session.out.starts_with(PREFACE));
    session.out.drain(..PREFACE.len());
    session
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// `:status: 200` from the static table.
const OK: &[u8] = &[0x88];

/// What was sent: kind, flags, stream and length of the payload of each frame; window updates with what they give.
fn sent(session: &mut Session) -> Vec<(u8, u8, u32, usize)> {
    let out = std::mem::take(&mut session.out);
    let mut frames = Vec::new();
    let mut rest = &out[..];
    while !rest.is_empty() {
        let bytes = number(&[0, rest[0], rest[1], rest[2]]) as usize;
        let told = if rest[3] == WINDOW_UPDATE { number(&rest[HEAD_BYTES..]) as usize } else { bytes };
        frames.push((rest[3], rest[4], number(&rest[5..]), told));
        rest = &rest[HEAD_BYTES + bytes..];
    }
    frames
}

/// What came of `input`, bodies joined.
fn came(session: &mut Session, pieces: &[&[u8]]) -> Result<Vec<String>, Malformed> {
    let mut got: Vec<String> = Vec::new();
    for piece in pieces {
        session.feed(piece, |slot, came| {
            got.push(match came {
                Came::Body(bytes) => format!("{slot} {}", String::from_utf8_lossy(bytes)),
                Came::Done { status, body_bytes } => format!("{slot} done {status} {body_bytes}"),
                Came::Reset => format!("{slot} reset"),
            });
        })?;
    }
    Ok(got)
}

#[test]
fn answers_come_the_same_wherever_they_are_split() {
    let input = [
        settings(&[(MAX_CONCURRENT_STREAMS, 100)]),
        frame(SETTINGS, ACK, 0, b""),
        frame(HEADERS, END_HEADERS, 3, &[0x48, 3, b'1', b'0', b'3']),
        frame(HEADERS, END_HEADERS | PRIORITY, 3, &[&[0, 0, 0, 0, 9][..], OK].concat()),
        frame(PING, 0, 0, b"12345678"),
        frame(DATA, 0, 3, b"hello"),
        // 404, in three pieces, of which one is padded.
        frame(HEADERS, PADDED, 1, &[2, 0x8d, 0, 0]),
        frame(CONTINUATION, 0, 1, &[0x40, 1, b'a']),
        frame(CONTINUATION, END_HEADERS, 1, &[1, b'b']),
        frame(99, 0, 7, b"of a kind that nobody knows"),
        frame(DATA, END_STREAM | PADDED, 1, b"\x03no\0\0\0"),
        frame(HEADERS, END_HEADERS | END_STREAM, 3, &[0xbe]),
        frame(RST_STREAM, 0, 5, &CANCEL.to_be_bytes()),
    ]
    .concat();
    let expected = ["1 hello", "0 no", "0 done 404 2", "1 done 200 5", "2 reset"];
    for cut in 0..=input.len() {
        let mut session = session(3, false);
        (0..3).for_each(|slot| session.start(slot, false));
        assert_eq!(came(&mut session, &[&input[..cut], &input[cut..]]).unwrap(), expected, "cut at {cut}");
        assert!((0..3).all(|slot| !session.is_busy(slot)), "cut at {cut}");
        let acknowledged = sent(&mut session).iter().filter(|frame| frame.1 == ACK && frame.2 == 0).count();
        assert_eq!(acknowledged, 2, "cut at {cut}: settings and a ping");
    }
}

#[test]
fn requests_wait_for_settings_streams_and_windows() {
    let mut session = session(3, false);
    let window = (CONNECTION_WINDOW - WINDOW_START) as usize;
    (0..3).for_each(|slot| session.start(slot, false));
    assert_eq!(sent(&mut session), [(SETTINGS, 0, 0, 12), (WINDOW_UPDATE, 0, 0, window)]);

    came(&mut session, &[&settings(&[(MAX_CONCURRENT_STREAMS, 2), (INITIAL_WINDOW_SIZE, 100)])]).unwrap();
    let (first, again) = (session.request.section.first.len(), session.request.section.again.len());
    assert_eq!(
        sent(&mut session),
        [
            (SETTINGS, ACK, 0, 0),
            (HEADERS, END_HEADERS, 1, first),
            (DATA, 0, 1, 100),
            (HEADERS, END_HEADERS, 3, again),
            (DATA, 0, 3, 100)
        ]
    );
    // A window of their own, then one for all that come after.
    came(&mut session, &[&frame(WINDOW_UPDATE, 0, 3, &200_u32.to_be_bytes())]).unwrap();
    assert_eq!(sent(&mut session), [(DATA, END_STREAM, 3, 200)]);
    came(&mut session, &[&settings(&[(INITIAL_WINDOW_SIZE, 250)])]).unwrap();
    assert_eq!(sent(&mut session), [(SETTINGS, ACK, 0, 0), (DATA, 0, 1, 150)]);

    // Answered before its request was whole: the rest is not sent, and the third may begin.
    let answer = [frame(HEADERS, END_HEADERS | END_STREAM, 1, OK)].concat();
    assert_eq!(came(&mut session, &[&answer]).unwrap(), ["0 done 200 0"]);
    assert_eq!(sent(&mut session), [(RST_STREAM, 0, 1, 4), (HEADERS, END_HEADERS, 5, again), (DATA, 0, 5, 250)]);
}

#[test]
fn the_window_of_the_connection_is_shared_by_all() {
    let slots = WINDOW_START as usize / BODY_BYTES + 1;
    let mut session = session(slots, false);
    (0..slots).for_each(|slot| session.start(slot, false));
    came(&mut session, &[&settings(&[])]).unwrap();
    let data: usize = sent(&mut session).iter().filter(|frame| frame.0 == DATA).map(|frame| frame.3).sum();
    assert_eq!(data, WINDOW_START as usize);
    came(&mut session, &[&frame(WINDOW_UPDATE, 0, 0, &1000_u32.to_be_bytes())]).unwrap();
    let left = slots * BODY_BYTES - WINDOW_START as usize;
    assert_eq!(sent(&mut session), [(DATA, END_STREAM, 2 * slots as u32 - 1, left)]);
}

#[test]
fn a_server_without_a_table_gets_requests_that_need_none() {
    let mut session = session(2, false);
    (0..2).for_each(|slot| session.start(slot, false));
    came(&mut session, &[&settings(&[(HEADER_TABLE_SIZE, 0)])]).unwrap();
    let plain = session.request.section.plain.len();
    let heads: Vec<usize> = sent(&mut session).iter().filter(|frame| frame.0 == HEADERS).map(|frame| frame.3).collect();
    assert_eq!(heads, [plain, plain]);
}

#[test]
fn what_is_read_is_given_back_and_what_is_not_stays_shut() {
    let mut session = session(2, true);
    session.start(0, true);
    session.start(1, false);
    came(&mut session, &[&settings(&[])]).unwrap();
    let opened: Vec<_> =
        sent(&mut session).into_iter().filter(|frame| frame.0 == WINDOW_UPDATE && frame.2 > 0).collect();
    assert_eq!(opened, [(WINDOW_UPDATE, 0, 3, STREAM_WINDOW as usize)]);

    came(&mut session, &[&frame(HEADERS, END_HEADERS, 3, OK)]).unwrap();
    let piece = frame(DATA, 0, 3, &vec![b'x'; FRAME_BYTES_MAX]);
    let mut given = 0;
    for _ in 0..3 * CONNECTION_WINDOW as usize / FRAME_BYTES_MAX {
        session.feed(&piece, |_, _| {}).unwrap();
        given += sent(&mut session).iter().filter(|frame| frame.2 == 3).map(|frame| frame.3).sum::<usize>();
    }
    assert!(given as i64 > 2 * CONNECTION_WINDOW, "{given}");

    came(&mut session, &[&frame(HEADERS, END_HEADERS, 1, OK)]).unwrap();
    assert_eq!(session.so_far(0), (200, 0));
    assert_eq!(came(&mut session, &[&frame(DATA, 0, 1, b"x")]), Err(Malformed("more than the window allows")));
}

#[test]
fn what_the_protocol_forbids_ends_the_connection() {
    let start = settings(&[]);
    for (name, frames) in [
        ("something else", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("no settings first", frame(PING, 0, 0, b"12345678")),
        ("a frame too long", [&start[..], &[1, 0, 0, DATA, 0, 0, 0, 0, 1]].concat()),
        ("data before a head", [start.clone(), frame(DATA, 0, 1, b"x")].concat()),
        ("data of a stream that never was", [start.clone(), frame(DATA, 0, 9, b"x")].concat()),
        ("a head without a status", [start.clone(), frame(HEADERS, END_HEADERS, 1, &[0x84])].concat()),
        ("an unknown index", [start.clone(), frame(HEADERS, END_HEADERS, 1, &[0xbe])].concat()),
        ("a push", [start.clone(), frame(PUSH_PROMISE, END_HEADERS, 1, b"")].concat()),
        ("within a head", [start.clone(), frame(HEADERS, 0, 1, OK), frame(PING, 0, 0, b"12345678")].concat()),
        ("the end", [start.clone(), frame(GOAWAY, 0, 0, &[0; 8])].concat()),
        (
            "a window beyond its bound",
            [start.clone(), frame(WINDOW_UPDATE, 0, 0, &(WINDOW_MAX as u32).to_be_bytes())].concat(),
        ),
        ("padding", [start.clone(), frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0x88])].concat()),
    ] {
        let mut session = session(1, false);
        session.start(0, false);
        assert!(came(&mut session, &[&frames]).is_err(), "{name}");
    }
}
