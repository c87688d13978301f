//! Bodies that come encoded: read all the same, passed on as they came where that is right, bounded everywhere.

mod common;

use common::coding::{CODINGS, encoded, pieces};
use common::origin::{DONE, FINISH, ROLE, content};
use common::{Client, Config, End, Gateway, JSON, Origin, Peer, Records, chat};

const PATH: &str = "/v1/chat/completions";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n";
const ANSWER: &str = "{\"id\":\"1\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"hi\"}}],\
                      \"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}";

struct Stage {
    origin: Origin,
    gateway: Gateway,
    records: Records,
}

impl Stage {
    fn new(provider: &str, more: &str) -> Stage {
        let (origin, records) = (Origin::start(), Records::new());
        let top = format!("cores = \"0\"\n{}", records.line());
        let gateway = Gateway::start(&Config::new(&[origin.url()]).top(&top).provider(provider).and(more));
        Stage { origin, gateway, records }
    }

    /// Sends a chat that is recorded as `id` from a client that takes `accepts`, and has the provider read it.
    fn ask(&self, id: &str, accepts: &str, body: &[u8]) -> (Client, Peer) {
        let mut client = self.gateway.connect();
        let mut headers = JSON.to_vec();
        headers.extend([("x-request-id", id), ("accept-encoding", accepts)]);
        client.send_request("POST", PATH, &headers, body);
        let mut peer = self.origin.accept();
        assert_eq!(peer.request().get("accept-encoding"), Some("identity"), "{id}");
        (client, peer)
    }

    /// State, input and output tokens, and whether it passed unread.
    fn told(&self, id: &str) -> (String, Option<u64>, Option<u64>, bool) {
        let record = self.records.of(id);
        let tokens = |name: &str| record[name].as_u64();
        let state = record["state"].as_str().unwrap_or_default().to_owned();
        (state, tokens("input_tokens"), tokens("output_tokens"), record["unread"] == true)
    }
}

fn told(state: &str, known: bool, unread: bool) -> (String, Option<u64>, Option<u64>, bool) {
    (state.to_owned(), known.then_some(7), known.then_some(2), unread)
}

/// A streamed chat that asks for usage itself, so that nothing has to be taken out.
fn asking() -> Vec<u8> {
    br#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#.to_vec()
}

fn begin(peer: &mut Peer, kind: &str, coding: &str) {
    peer.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-encoding: {coding}\r\netag: \"v1\"\r\n\
         transfer-encoding: chunked\r\n\r\n"
    ));
}

fn answer(peer: &mut Peer, kind: &str, coding: &str, body: &[u8]) {
    let length = body.len();
    peer.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-encoding: {coding}\r\netag: \"v1\"\r\n\
         content-length: {length}\r\n\r\n"
    ));
    peer.try_send(body);
}

#[test]
fn each_piece_of_an_encoded_stream_passes_as_it_comes_and_is_read_aside() {
    let stage = Stage::new("", "");
    for coding in CODINGS {
        let parts = [ROLE, &content("a"), &content("b"), FINISH, USAGE, DONE];
        let pieces = pieces(coding, &parts);
        let (mut client, mut peer) = stage.ask(coding, "gzip, deflate, br, zstd", &asking());
        begin(&mut peer, "text/event-stream", coding);
        // Nothing is said before the first content; then what was held comes with it.
        peer.chunk(&pieces[0]);
        peer.chunk(&pieces[1]);
        let head = client.head();
        assert_eq!((head.get("content-encoding"), head.get("etag")), (Some(coding), Some("\"v1\"")), "{head:?}");
        let mut got = Vec::new();
        let mut take = |client: &mut Client, wanted: &[u8]| {
            while got.len() < wanted.len() {
                let Some(common::client::Chunk::Data(data)) = client.chunk() else { panic!("{coding}: it ended") };
                got.extend_from_slice(&data);
            }
            assert_eq!(got, wanted, "{coding}");
        };
        take(&mut client, &pieces[..2].concat());
        // Each further piece comes before the next is sent.
        for sent in 2..pieces.len() {
            peer.chunk(&pieces[sent]);
            take(&mut client, &pieces[..=sent].concat());
        }
        peer.send("0\r\n\r\n");
        assert!(matches!(client.chunk(), Some(common::client::Chunk::Last(_))), "{coding}");
        assert_eq!(stage.told(coding), told("complete", true, false));
        let record = stage.records.of(coding);
        assert_eq!((record["streamed"] == true, record["content_events"].as_u64()), (true, Some(3)), "{record}");
        assert!(record["ttft_us"].is_u64(), "{record}");
    }
}

#[test]
fn a_stream_that_usage_is_taken_out_of_is_sent_decoded() {
    let stage = Stage::new("", "");
    for coding in CODINGS {
        let parts = [ROLE, &content("a"), &content("b"), FINISH, USAGE, DONE];
        let pieces = pieces(coding, &parts);
        let (mut client, mut peer) = stage.ask(coding, "gzip, deflate, br, zstd", &chat("m", true));
        begin(&mut peer, "text/event-stream", coding);
        peer.chunk(&pieces[0]).chunk(&pieces[1]);
        let head = client.head();
        assert_eq!((head.get("content-encoding"), head.get("vary")), (None, Some("accept-encoding")), "{head:?}");
        assert_eq!(head.get("etag"), Some("W/\"v1\""), "{head:?}");
        let mut events = client.events(&head);
        let mut got = vec![events.next_event().expect("held"), events.next_event().expect("content")];
        for (piece, shown) in pieces[2..].iter().zip([true, true, false, true, false]) {
            peer.chunk(piece);
            if shown {
                got.push(events.next_event().expect("in the same turn"));
            }
        }
        peer.send("0\r\n\r\n");
        assert!(events.next_event().is_none() && events.end() == Some(&End::Complete), "{coding}");
        let raw: Vec<u8> = got.iter().flat_map(|event| event.raw.clone()).collect();
        assert_eq!(String::from_utf8(raw).expect("text"), [parts[0], parts[1], parts[2], parts[3], parts[5]].concat());
        assert_eq!(stage.told(coding), told("complete", true, false));
    }
}

#[test]
fn an_answer_passes_as_it_came_to_a_client_that_takes_it_and_else_decoded() {
    let stage = Stage::new("", "");
    let large = ANSWER.replace("hi", &"many words, of which few repeat 0123456789 ".repeat(20_000));
    for (name, text) in [("small", ANSWER), ("large", &large)] {
        for coding in CODINGS {
            let body = encoded(coding, text);
            for (accepts, passes) in [("gzip, deflate, br, zstd;q=0.5", true), ("*", true), ("identity", false)] {
                let id = format!("{name}-{coding}-{}", accepts.len());
                let (mut client, mut peer) = stage.ask(&id, accepts, &chat("m", false));
                answer(&mut peer, "application/json", coding, &body);
                let response = client.response("POST");
                assert_eq!((response.head.status, &response.end), (200, &End::Complete), "{id}: {:?}", response.head);
                assert_eq!(response.head.get("content-encoding"), passes.then_some(coding), "{id}");
                assert!(response.body == if passes { body.as_slice() } else { text.as_bytes() }, "{id}");
                assert_eq!(stage.told(&id), told("complete", true, false), "{id}");
            }
        }
    }
    // One that says nothing takes all (RFC 9110 §12.5.3).
    let mut client = stage.gateway.connect();
    client.send_request("POST", PATH, &JSON, &chat("m", false));
    let mut peer = stage.origin.accept();
    peer.request();
    let body = encoded("gzip", ANSWER);
    answer(&mut peer, "application/json", "x-gzip", &body);
    assert_eq!(client.response("POST").body, body);
    drop(peer);
    // Two codings over one another.
    let inner = encoded("gzip", ANSWER);
    let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut writer, &inner).expect("to memory");
    let both = writer.finish().expect("to memory");
    for (id, accepts) in [("both-taken", "gzip, deflate"), ("one-taken", "gzip")] {
        let (mut client, mut peer) = stage.ask(id, accepts, &chat("m", false));
        answer(&mut peer, "application/json", "gzip, deflate", &both);
        let body = client.response("POST").body;
        assert!(body == if id == "one-taken" { ANSWER.as_bytes() } else { both.as_slice() }, "{id}");
        assert_eq!(stage.told(id), told("complete", true, false), "{id}");
    }
}

#[test]
fn a_failure_in_an_encoded_answer_is_seen_as_in_a_plain_one() {
    let stage = Stage::new("", "");
    let error = "{\"error\":{\"message\":\"out of order\",\"type\":\"server_error\"}}";
    let event = format!("data: {error}\n\n");
    for coding in CODINGS {
        let id = format!("whole-{coding}");
        let (mut client, mut peer) = stage.ask(&id, "gzip, deflate, br, zstd", &chat("m", false));
        answer(&mut peer, "application/json", coding, &encoded(coding, error));
        let response = client.response("POST");
        assert!(response.head.status >= 500 && response.text().contains("out of order"), "{id}: {}", response.text());
        assert_eq!(stage.told(&id), told("upstream_error", false, false), "{id}");

        for (asks, body) in [("asked", asking()), ("not-asked", chat("m", true))] {
            let id = format!("first-{asks}-{coding}");
            let (mut client, mut peer) = stage.ask(&id, "gzip, deflate, br, zstd", &body);
            begin(&mut peer, "text/event-stream", coding);
            peer.chunk(pieces(coding, &[ROLE, &event]).concat());
            let response = client.response("POST");
            assert!(response.head.status >= 500 && response.text().contains("out of order"), "{id}");

            let id = format!("later-{asks}-{coding}");
            let (mut client, mut peer) = stage.ask(&id, "gzip, deflate, br, zstd", &body);
            begin(&mut peer, "text/event-stream", coding);
            let pieces = pieces(coding, &[&content("a"), &event, DONE]);
            peer.chunk(&pieces[0]).chunk(&pieces[1]);
            let response = client.response("POST");
            assert_eq!((response.head.status, &response.end), (200, &End::Cut), "{id}");
            let passed = response.head.get("content-encoding").is_some();
            assert_eq!(passed, asks == "asked", "{id}");
            let wanted = if passed { pieces[..2].concat() } else { (content("a") + &event).into_bytes() };
            assert!(response.body == wanted, "{id}: {:?}", response.text());
            assert_eq!(stage.told(&id), told("upstream_error", false, false), "{id}");
        }
    }
}

#[test]
fn an_encoded_answer_without_its_end_is_never_passed_off_as_whole() {
    let stage = Stage::new("", "");
    let large = ANSWER.replace("hi", &noise(200_000));
    for coding in CODINGS {
        for (fault, state) in [("short", "truncated"), ("corrupt", "truncated")] {
            let spoil = |mut body: Vec<u8>| {
                match (fault, coding) {
                    ("short", _) => drop(body.pop()),
                    // Brotli has no checksum; what follows its end is as wrong.
                    ("corrupt", "br") => body.push(0),
                    _ => *body.last_mut().expect("not empty") ^= 1,
                }
                body
            };
            let id = format!("{fault}-held-{coding}");
            let (mut client, mut peer) = stage.ask(&id, coding, &chat("m", false));
            answer(&mut peer, "application/json", coding, &spoil(encoded(coding, ANSWER)));
            assert_eq!(client.response("POST").head.status, 502, "{id}");
            assert_eq!(stage.told(&id).0, state, "{id}");

            // Longer than is held: the answer has begun, and its length is one that it does not reach.
            for accepts in [coding, "identity"] {
                let id = format!("{fault}-long-{}-{coding}", accepts.len());
                let (mut client, mut peer) = stage.ask(&id, accepts, &chat("m", false));
                let body = spoil(encoded(coding, &large));
                answer(&mut peer, "application/json", coding, &body);
                let response = client.response("POST");
                assert_eq!((response.head.status, &response.end), (200, &End::Cut), "{id}");
                assert_eq!(response.head.get("content-length").is_some(), accepts == coding, "{id}");
                assert_eq!(stage.told(&id).0, state, "{id}");
            }

            for (asks, body) in [("asked", asking()), ("not-asked", chat("m", true))] {
                let id = format!("{fault}-{asks}-{coding}");
                let (mut client, mut peer) = stage.ask(&id, coding, &body);
                begin(&mut peer, "text/event-stream", coding);
                let whole = spoil(pieces(coding, &[&content("a"), FINISH, USAGE]).concat());
                let first = pieces(coding, &[&content("a")])[0].len();
                peer.chunk(&whole[..first]);
                let head = client.head();
                peer.chunk(&whole[first..]).send("0\r\n\r\n");
                let response = client.body("POST", head);
                assert_eq!(response.end, End::Cut, "{id}");
                if asks == "not-asked" {
                    assert!(response.text().contains("upstream_"), "an error event: {}", response.text());
                    assert!(!response.text().contains("[DONE]"), "{id}");
                } else {
                    assert!(response.body == whole, "{id}");
                }
                let (state_told, input, ..) = stage.told(&id);
                assert_eq!(state_told, state, "{id}");
                // The last bytes of a corrupt body are not given by every library.
                assert!(input == Some(7) || fault == "corrupt", "{id}");
            }
        }
    }
}

/// Text that does not compress well.
fn noise(length: usize) -> String {
    let mut seed = 1_u32;
    let letter = |_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'A' + (seed >> 26) as u8 % 26 + 32 * (seed >> 25 & 1) as u8)
    };
    (0..length).map(letter).collect()
}

/// Resident memory of a process in bytes, and its peak.
fn resident(process: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect("the line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    };
    (kib("VmRSS:") << 10, kib("VmHWM:") << 10)
}

/// Spaces between two halves of an answer: a gibibyte, where encoding it does not take too long.
fn bomb(coding: &str) -> Vec<u8> {
    let spaces = " ".repeat(16 << 20);
    let count = if matches!(coding, "gzip" | "zstd") { 64 } else { 8 };
    let mut parts = vec!["{\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2},"];
    parts.extend(std::iter::repeat_n(spaces.as_str(), count));
    parts.push("\"choices\":[1]}");
    pieces(coding, &parts).concat()
}

#[test]
fn a_bomb_passes_unread_in_bounded_memory_and_holds_nobody_up() {
    let stage = Stage::new("", "");
    let before = resident(stage.gateway.process.id()).1;
    for coding in CODINGS {
        let body = bomb(coding);
        assert!(body.len() < 2 << 20, "{coding}: {}", body.len());
        let (mut client, mut peer) = stage.ask(coding, coding, &chat("m", false));
        let sent = body.clone();
        let sender = std::thread::spawn(move || answer(&mut peer, "application/json", coding, &sent));
        let response = client.response("POST");
        sender.join().expect("sent");
        assert!(response.body == body, "{coding}: it passes as it came");
        // What stood in front of it was read.
        assert_eq!(stage.told(coding), told("complete", true, true), "{coding}");

        // Sent decoded it cannot go on.
        let id = format!("{coding}-decoded");
        let (mut client, mut peer) = stage.ask(&id, "identity", &chat("m", false));
        let sender = std::thread::spawn(move || answer(&mut peer, "application/json", coding, &body));
        let response = client.response("POST");
        sender.join().expect("sent");
        assert!(response.head.status == 502 || response.end == End::Cut, "{id}: {:?}", response.head);
        assert!(response.body.len() < 300 << 20, "{id}: {}", response.body.len());
    }
    let grown = resident(stage.gateway.process.id()).1 - before;
    assert!(grown <= 32 << 20, "{grown} bytes more at the peak");
}

#[test]
fn what_is_decoded_has_a_bound() {
    let stage = Stage::new("", "[limits]\ndecoded_bytes_max = \"64KiB\"\n");
    let text = |length: usize| {
        let (start, end) = ("{\"choices\":[\"", "\"],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}");
        start.to_owned() + &noise(length - start.len() - end.len()) + end
    };
    for (length, read) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let body = encoded("gzip", &text(length));
        let id = length.to_string();
        let (mut client, mut peer) = stage.ask(&id, "gzip", &chat("m", false));
        answer(&mut peer, "application/json", "gzip", &body);
        assert!(client.response("POST").body == body, "{length}");
        let (state, _, _, unread) = stage.told(&id);
        assert_eq!((state.as_str(), unread), ("complete", !read), "{length}");
        drop(peer);
        let id = format!("{length}-decoded");
        let (mut client, mut peer) = stage.ask(&id, "identity", &chat("m", false));
        answer(&mut peer, "application/json", "gzip", &body);
        let status = client.response("POST").head.status;
        assert_eq!(status, if read { 200 } else { 502 }, "{length}");
    }
}

#[test]
fn a_coding_that_is_not_known_passes_unread() {
    let stage = Stage::new("", "");
    // No encoding at all, in truth: whoever looked inside would find an error.
    let error = "data: {\"error\":{\"message\":\"x\"}}\n\n";
    for (kind, coding) in
        [("text/event-stream", "compress"), ("application/json", "aes128gcm"), ("application/json", "gzip, gzip, gzip")]
    {
        let id = coding.replace(", ", "+");
        let (mut client, mut peer) = stage.ask(&id, "identity", &chat("m", true));
        begin(&mut peer, kind, coding);
        let head = client.head();
        assert_eq!((head.status, head.get("content-encoding")), (200, Some(coding)), "{kind}");
        peer.chunk(error).send("0\r\n\r\n");
        let response = client.body("POST", head);
        assert_eq!((response.text().as_str(), response.end), (error, End::Complete), "{kind}");
        assert_eq!(stage.told(&id), told("complete", false, true), "{kind}");
    }
}

#[test]
fn a_provider_is_told_what_the_client_takes_where_that_is_asked_for() {
    let stage = Stage::new("accept_encoding = \"pass\"", "");
    for (accepts, body, said) in [
        (Some("gzip, br;q=0.5, compress, *"), chat("m", false), "gzip, br;q=0.5"),
        (Some("identity"), chat("m", false), "identity"),
        (None, chat("m", false), "identity"),
        (Some("gzip"), asking(), "gzip"),
        // Usage is to be taken out of it.
        (Some("gzip"), chat("m", true), "identity"),
    ] {
        let mut client = stage.gateway.connect();
        let headers: Vec<_> = JSON.into_iter().chain(accepts.map(|accepts| ("accept-encoding", accepts))).collect();
        client.send_request("POST", PATH, &headers, &body);
        let mut peer = stage.origin.accept();
        let request = peer.request();
        let all: Vec<_> = request.headers.iter().filter(|(name, _)| name == "accept-encoding").collect();
        assert_eq!(all, [&("accept-encoding".to_owned(), said.to_owned())], "{accepts:?}");
        peer.answer(ANSWER);
        assert_eq!(client.response("POST").head.status, 200);
    }
}

fn request(coding: &str, framing: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: {kind}\r\ncontent-encoding: {coding}\r\n\
         content-digest: sha-256=:x:\r\n",
        JSON[0].1
    )
    .into_bytes();
    if framing == "length" {
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
    } else {
        bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        for byte in body {
            bytes.extend_from_slice(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    }
    bytes
}

#[test]
fn an_encoded_request_is_sent_on_decoded_however_it_comes() {
    let stage = Stage::new("", "");
    let call = r#"{"model":"m","messages":[{"role":"user","content":"Grüße, 深度"}],"x":1e400}"#;
    for coding in CODINGS {
        let body = encoded(coding, call);
        for framing in ["length", "chunked"] {
            for whole in [true, false] {
                let mut client = stage.gateway.connect();
                let bytes = request(coding, framing, "application/json", &body);
                // A second one behind it, which must not be taken for a part of the first.
                let both = [&bytes[..], &bytes].concat();
                if whole {
                    client.send(&both);
                } else {
                    for byte in &both {
                        client.send(std::slice::from_ref(byte));
                    }
                }
                let mut peer = stage.origin.accept();
                for _ in 0..2 {
                    let seen = peer.request();
                    assert_eq!(seen.text(), call, "{coding} {framing}");
                    let length = call.len().to_string();
                    assert_eq!(seen.get("content-length"), Some(length.as_str()), "{coding} {framing}");
                    for gone in ["content-encoding", "content-digest", "transfer-encoding"] {
                        assert_eq!(seen.get(gone), None, "{coding} {framing}");
                    }
                    peer.answer(ANSWER);
                    assert_eq!(client.response("POST").head.status, 200, "{coding} {framing}");
                }
            }
        }
    }
}

#[test]
fn an_encoded_form_is_decoded_too_and_bytes_that_nobody_reads_are_not() {
    let stage = Stage::new("", "");
    let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n\
                --b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF\r\n--b--\r\n";
    for (path, kind, text, decoded) in [
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=b", form, true),
        ("/v1/files", "application/octet-stream", "RIFF", false),
    ] {
        let body = encoded("gzip", text);
        let headers = [JSON[0], ("content-type", kind), ("content-encoding", "gzip")];
        let mut client = stage.gateway.connect();
        client.send_request("POST", path, &headers, &body);
        let mut peer = stage.origin.accept();
        let seen = peer.request();
        assert!(seen.body == if decoded { text.as_bytes() } else { body.as_slice() }, "{path}: {}", seen.text());
        assert_eq!(seen.get("content-encoding"), (!decoded).then_some("gzip"), "{path}");
        peer.answer("{}");
        assert_eq!(client.response("POST").head.status, 200);
    }
    let second = form.replace("name=\"file\"; filename=\"a\"", "name=\"model\"");
    let headers = [JSON[0], ("content-type", "multipart/form-data; boundary=b"), ("content-encoding", "gzip")];
    let response =
        stage.gateway.connect().request("POST", "/v1/audio/transcriptions", &headers, &encoded("gzip", &second));
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (400, &"duplicate_field".into()));
    assert!(stage.origin.is_left_alone());
}

#[test]
fn an_encoded_request_that_cannot_be_decoded_is_refused_with_the_reason() {
    let stage = Stage::new("", "[limits]\nbody_bytes_max = \"3MiB\"\n");
    let call = |length: usize| {
        let start = "{\"model\":\"m\",\"x\":\"";
        format!("{start}{}\"}}", noise(length - start.len() - 2))
    };
    let cut = |mut body: Vec<u8>| {
        body.pop();
        body
    };
    let zeros = "0".repeat(2 << 20);
    let members = encoded("gzip", "").repeat((3 << 20) / 20 + 1);
    let cases = [
        ("unknown", "compress", b"x".to_vec(), 415, "unsupported_content_encoding"),
        ("three", "gzip, gzip, gzip", b"x".to_vec(), 415, "unsupported_content_encoding"),
        ("corrupt", "gzip", b"{\"model\":\"m\"}".to_vec(), 400, "malformed_body"),
        ("cut", "zstd", cut(encoded("zstd", &call(100))), 400, "malformed_body"),
        ("behind", "br", [encoded("br", &call(100)), b"{}".to_vec()].concat(), 400, "malformed_body"),
        ("no JSON", "gzip", encoded("gzip", "{"), 400, "invalid_json"),
        ("one past the size", "gzip", encoded("gzip", &call((3 << 20) + 1)), 413, "body_too_large"),
        ("a bomb", "gzip", encoded("gzip", &zeros), 413, "body_too_large"),
        ("a brotli bomb", "br", encoded("br", &zeros), 413, "body_too_large"),
        ("a zstd bomb", "zstd", encoded("zstd", &zeros), 413, "body_too_large"),
        ("a window", "zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 0, 14 << 3, 8, 0, 0, b'a'], 413, "body_too_large"),
        ("empty members", "gzip", members, 413, "body_too_large"),
    ];
    for (name, coding, body, status, code) in cases {
        for framing in ["length", "chunked"] {
            if framing == "chunked" && body.len() > 1 << 10 {
                continue;
            }
            let mut client = stage.gateway.connect();
            let _ = client.try_send(&request(coding, framing, "application/json", &body));
            let response = client.response("POST");
            let told = response.json()["error"]["code"].clone();
            assert_eq!(
                (response.head.status, told.as_str()),
                (status, Some(code)),
                "{name} {framing}: {}",
                response.text()
            );
            let taken = (status == 415).then_some("gzip, deflate, br, zstd");
            assert_eq!(response.head.get("accept-encoding"), taken, "{name}");
            assert_eq!(response.head.get("x-ringway-error-origin"), Some("client"), "{name}");
        }
    }
    assert!(stage.origin.is_left_alone(), "nothing of it was sent on");
    // At the size it is taken.
    let mut client = stage.gateway.connect();
    client.send(&request("gzip", "length", "application/json", &encoded("gzip", &call(3 << 20))));
    let mut peer = stage.origin.accept();
    assert_eq!(peer.request().body.len(), 3 << 20);
    peer.answer(ANSWER);
    assert_eq!(client.response("POST").head.status, 200);
}

#[test]
fn a_client_that_waits_is_told_to_send_what_can_be_decoded_and_nothing_else() {
    let stage = Stage::new("", "");
    let body = encoded("gzip", r#"{"model":"m"}"#);
    for (coding, status) in [("gzip", 100), ("compress", 415)] {
        let mut client = stage.gateway.connect();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-encoding: {coding}\r\n\
             expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            JSON[0].1,
            body.len()
        );
        client.send(head.as_bytes());
        assert_eq!(client.head().status, status, "{coding}");
        if status == 100 {
            client.send(&body);
            let mut peer = stage.origin.accept();
            assert_eq!(peer.request().text(), r#"{"model":"m"}"#);
            peer.answer(ANSWER);
            assert_eq!(client.response("POST").head.status, 200);
        }
    }
}
