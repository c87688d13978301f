//! Peers that mean harm or know no better: what one of them does to its own exchange must not become another's loss.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::authority::server_config;
use common::origin::{DONE, FINISH, ROLE, content};
use common::{Authority, Client, Config, End, Framing, Gateway, JSON, Origin, PATIENCE, Peer, Records, chat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

const PATH: &str = "/v1/chat/completions";
const AUTH: (&str, &str) = JSON[0];
const OPAQUE: [(&str, &str); 2] = [AUTH, ("content-type", "application/octet-stream")];

// --- what a refused request leaves on its connection ---

/// Sends an upload whose body is itself a request, and after its refusal a request that is meant.
fn refused_upload(gateway: &Gateway, target: &str, media: &str, status: u16) {
    let what = format!("{target} {media}");
    let hidden =
        format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{}: {}\r\nx-request-id: hidden\r\n\r\n", AUTH.0, AUTH.1);
    let mut client = gateway.connect();
    // One write: the body is in the gateway's hands before it refuses.
    client.send_request("POST", target, &[AUTH, ("content-type", media)], hidden.as_bytes());
    let refusal = client.response("POST");
    assert_eq!(refusal.head.status, status, "{what}: {}", refusal.text());
    let meant = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{}: {}\r\nx-request-id: meant\r\n\r\n", AUTH.0, AUTH.1);
    if client.try_send(meant.as_bytes()).is_err() || client.is_closed() {
        return;
    }
    let next = client.response("GET");
    assert_eq!(next.head.get("x-request-id"), Some("meant"), "{what}: a body was served as a request");
    assert_eq!(next.head.status, 200, "{what}");
    assert!(client.is_silent_for(Duration::from_millis(100)), "{what}: a third answer to two requests");
}

#[test]
fn the_body_of_a_refused_upload_is_never_the_next_request() {
    let origin = Origin::start();
    let named = "[[models]]\nname = \"m\"\nroute = [{ provider = \"mock\" }]";
    let unknown = Gateway::start(&Config::new(&[origin.url()]).models(named));
    refused_upload(&unknown, "/v1/files?model=nope", "text/plain", 404);

    let key = "[[keys]]\nname = \"test\"\nsecret = { env = \"RINGWAY_TEST_KEY\" }\nmodels = [\"m\"]";
    let forbidding = Gateway::start(&Config::new(&[origin.url()]).keys(key));
    refused_upload(&forbidding, "/v1/files?model=nope", "text/plain", 403);
    assert!(origin.is_left_alone());

    // A port that is taken and that nobody listens on.
    let taken = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let fd = taken.as_raw_fd();
    bind(fd, &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a free port");
    let port = getsockname::<SockaddrIn>(fd).expect("its address").port();
    let down = Gateway::start(&Config::new(&[format!("http://127.0.0.1:{port}/v1")]));
    refused_upload(&down, "/v1/files", "application/octet-stream", 502);
}

#[test]
fn dots_behind_an_encoded_slash_do_not_leave_the_prefix() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    for target in [
        "/v1/..%2f..%2fadmin",
        "/v1/..%2F..%2Fadmin",
        "/v1/%2e%2e%2f%2E%2E%2fadmin",
        "/v1/files/..%2f..%2fadmin",
        "/v1/files/x%2f..%2f..%2f..%2fadmin",
    ] {
        let mut client = gateway.connect();
        client.send_request("GET", target, &[AUTH], b"");
        // Should it get through after all, the provider's answer makes the failure a quick one.
        thread::scope(|scope| {
            let reading = scope.spawn(|| client.response("GET").head.status);
            while !reading.is_finished() {
                assert!(origin.is_left_alone(), "{target} reached the provider");
                thread::yield_now();
            }
            assert_eq!(reading.join().expect("an answer"), 400, "{target}");
        });
    }
}

// --- uploads that the provider talks into ---

/// A gateway that waits for the wrong thing says so before the test gives up.
const SOON: &str = "[timers]\nfirst_token = \"5s\"";

/// An upload of `length` bytes that has begun.
fn begin_upload(gateway: &Gateway, length: usize) -> Client {
    let mut client = gateway.connect();
    let fields: String = OPAQUE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    client.send(format!("POST /v1/files HTTP/1.1\r\nhost: x\r\n{fields}content-length: {length}\r\n\r\n").as_bytes());
    client
}

#[test]
fn interim_answers_during_an_upload_are_not_the_answer() {
    const PIECES: usize = 10;
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).and(SOON));
    for interim in
        ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\nx-n: 1\r\n\r\n"]
    {
        let mut client = begin_upload(&gateway, PIECES * 1000);
        let mut peer = origin.accept();
        peer.head();
        for turn in 0..PIECES {
            let piece = [b'a' + turn as u8; 1000];
            client.send(&piece);
            assert_eq!(peer.take(1000), piece, "{interim:?}: piece {turn}");
            peer.send(interim);
        }
        peer.answer("{\"whole\":true}");
        let response = client.response("POST");
        assert_eq!((response.head.status, &*response.text()), (200, "{\"whole\":true}"), "{interim:?}");
    }
}

/// A provider's side of TLS, and the file that lets the gateway believe it.
struct Secure {
    config: Arc<ServerConfig>,
    listener: TcpListener,
    authority: Authority,
}

impl Secure {
    fn new(name: &str) -> Secure {
        let authority = Authority::new(name);
        let config = server_config(authority.sign("127.0.0.1", false), &rustls::version::TLS13);
        assert!(config.send_tls13_tickets > 0, "the provider sends tickets");
        Secure { config, listener: TcpListener::bind("127.0.0.1:0").expect("a free port"), authority }
    }

    fn gateway(&self) -> Gateway {
        let url = format!("https://{}/v1", self.listener.local_addr().expect("its address"));
        Gateway::start(&Config::new(&[url]).endpoint(&format!("ca = \"{}\"", self.authority.file.display())).and(SOON))
    }

    /// The gateway's next connection, which must come.
    fn accept(&self) -> StreamOwned<ServerConnection, TcpStream> {
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).expect("a short time");
        assert!(poll(&mut fds, patience).expect("poll") > 0, "the gateway does not connect");
        self.accept_some_time()
    }

    /// The gateway's next connection, whenever it comes.
    fn accept_some_time(&self) -> StreamOwned<ServerConnection, TcpStream> {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        StreamOwned::new(ServerConnection::new(Arc::clone(&self.config)).expect("a session"), stream)
    }
}

/// Reads a request's head and returns what came of the body with it.
fn read_head(stream: &mut impl Read) -> (String, Vec<u8>) {
    let (mut held, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(at) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = held.split_off(at + 4);
            return (String::from_utf8_lossy(&held).into_owned(), body);
        }
        let count = stream.read(&mut piece).expect("a request");
        assert!(count > 0, "ended within a head: {:?}", String::from_utf8_lossy(&held));
        held.extend_from_slice(&piece[..count]);
    }
}

/// Reads on until `body` has `length` bytes or the gateway has ended the connection.
fn read_body(stream: &mut impl Read, body: &mut Vec<u8>, length: usize) {
    let mut piece = [0; 64 << 10];
    while body.len() < length {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(count) => body.extend_from_slice(&piece[..count]),
        }
    }
}

const SERVED: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"served\":true}";

#[test]
fn tickets_of_a_tls_provider_are_no_answer_to_an_upload() {
    let secure = Secure::new("tickets");
    let gateway = secure.gateway();
    let (first, second) = (vec![b'a'; 1000], vec![b'b'; 1000]);
    let large = format!("{{\"model\":\"m\",\"messages\":[],\"x\":\"{}\"}}", "z".repeat(4 << 20)).into_bytes();
    thread::scope(|scope| {
        let (has_first, wait_first) = channel();
        let (secure, large_length) = (&secure, large.len());
        let provider = scope.spawn(move || {
            let mut stream = secure.accept();
            let (_, mut upload) = read_head(&mut stream);
            read_body(&mut stream, &mut upload, 1000);
            // By now the handshake is over on this side, and the tickets are on their way.
            let _ = has_first.send(());
            read_body(&mut stream, &mut upload, 2000);
            let _ = stream.write_all(SERVED.as_bytes());
            drop(stream);
            let mut stream = secure.accept();
            let (_, mut json) = read_head(&mut stream);
            read_body(&mut stream, &mut json, large_length);
            let _ = stream.write_all(SERVED.as_bytes());
            (upload, json)
        });
        let mut client = begin_upload(&gateway, 2000);
        client.send(&first);
        wait_first.recv_timeout(PATIENCE).expect("the first piece");
        let _ = client.try_send(&second);
        let uploaded = client.response("POST");
        let mut client = gateway.connect();
        client.send_request("POST", PATH, &JSON, &large);
        let asked = client.response("POST");
        let (upload, json) = provider.join().expect("a provider that served twice");
        assert_eq!(upload.len(), 2000, "the upload was cut; the client was told {}", uploaded.text());
        assert!(upload == [first, second].concat());
        assert_eq!((uploaded.head.status, &*uploaded.text()), (200, "{\"served\":true}"));
        assert!(json == large, "{} of {} bytes arrived; the client was told {}", json.len(), large.len(), asked.text());
        assert_eq!((asked.head.status, &*asked.text()), (200, "{\"served\":true}"));
    });
}

/// Answers one request, says good-bye and goes on talking, all in one write; then waits for the gateway to go.
fn answer_and_babble(mut stream: StreamOwned<ServerConnection, TcpStream>) {
    read_head(&mut stream);
    let mut bytes = Vec::new();
    stream.conn.writer().write_all(SERVED.as_bytes()).expect("room");
    stream.conn.send_close_notify();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut bytes).expect("into memory");
    }
    bytes.extend(b"\x17\x03\x03\x20\x00".repeat(3000));
    stream.sock.write_all(&bytes).expect("the gateway is there");
    let _ = stream.sock.read_to_end(&mut Vec::new());
}

#[test]
fn what_follows_a_tls_good_bye_costs_no_other_client() {
    let secure = Arc::new(Secure::new("babble"));
    let gateway = secure.gateway();
    let provider = Arc::clone(&secure);
    thread::spawn(move || {
        loop {
            let stream = provider.accept_some_time();
            thread::spawn(move || answer_and_babble(stream));
        }
    });
    for turn in 0..3 {
        let mut client = gateway.connect();
        client.send_request("GET", "/v1/files/f-1", &[AUTH], b"");
        let response = client.response("GET");
        assert_eq!((response.head.status, &*response.text()), (200, "{\"served\":true}"), "turn {turn}");
        let others = gateway.connect().request("GET", "/v1/models", &[AUTH], b"");
        assert_eq!(others.head.status, 200, "turn {turn}");
    }
}

// --- providers that never pause ---

/// A provider that begins `media` for everyone and then repeats `piece` as fast as it is taken.
fn endless(media: &'static str, piece: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, piece) = (stream.expect("a client"), piece.clone());
            thread::spawn(move || {
                read_head(&mut stream);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {media}\r\n\r\n");
                let mut is_read = stream.write_all(head.as_bytes()).is_ok();
                while is_read {
                    is_read = stream.write_all(&piece).is_ok();
                }
            });
        }
    });
    address
}

/// Reads as fast as it can until the socket is shut down; reports once when a good deal has come.
fn devour(mut stream: &TcpStream, begun: &Sender<usize>) {
    let (mut piece, mut total) = (vec![0; 1 << 20], 0);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        let before = total;
        total += count;
        if before < 1 << 20 && total >= 1 << 20 {
            let _ = begun.send(total);
        }
    }
}

#[test]
fn small_requests_are_answered_while_endless_answers_pass() {
    let (opaque, events) = (
        endless("application/octet-stream", vec![b'z'; 256 << 10]),
        endless("text/event-stream", content("q").repeat(800).into_bytes()),
    );
    for driver in ["deferred", "epoll"] {
        let config = format!(
            "[[providers]]\nname = \"events\"\n[[providers.endpoints]]\nurl = \"http://{events}/v1\"\n\
             [[models]]\nname = \"events\"\nroute = [{{ provider = \"events\" }}]\n[ring]\ndriver = \"{driver}\""
        );
        let gateway = Gateway::start(&Config::new(&[format!("http://{opaque}/v1")]).and(&config));
        let (mut download, mut stream) = (gateway.connect(), gateway.connect());
        download.send_request("GET", "/v1/files/f-1/content", &[AUTH], b"");
        stream.send_request("POST", PATH, &JSON, &chat("events", true));
        let (begun, wait_begun) = channel();
        thread::scope(|scope| {
            let readers = [download.socket(), stream.socket()];
            for socket in readers {
                let begun = begun.clone();
                scope.spawn(move || devour(socket, &begun));
            }
            let both_begun = (0..2).all(|_| wait_begun.recv_timeout(PATIENCE).is_ok());
            let mut other = TcpStream::connect(gateway.address()).expect("a connection");
            other.set_read_timeout(Some(Duration::from_secs(1))).expect("a read timeout");
            let request = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{}: {}\r\n\r\n", AUTH.0, AUTH.1);
            let mut late = Vec::new();
            for turn in 0..20 {
                let start = Instant::now();
                let answered = other.write_all(request.as_bytes()).and_then(|()| other.read(&mut [0; 4096]));
                if !matches!(answered, Ok(1..)) || start.elapsed() >= Duration::from_secs(1) {
                    late.push((turn, start.elapsed()));
                    break;
                }
            }
            for socket in readers {
                let _ = socket.shutdown(Shutdown::Both);
            }
            assert!(both_begun, "{driver}: one endless answer starves the other");
            assert!(late.is_empty(), "{driver}: starved: {late:?}");
        });
    }
}

#[test]
fn a_flood_without_content_does_not_put_off_the_first_token() {
    // Reports that the client has not asked for are taken out, so that nothing adds up to be let through.
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
    let provider = endless("text/event-stream", usage.repeat(600).into_bytes());
    for driver in ["deferred", "epoll"] {
        let more = format!("[ring]\ndriver = \"{driver}\"\n[timers]\nfirst_token = \"300ms\"");
        let gateway = Gateway::start(&Config::new(&[format!("http://{provider}/v1")]).and(&more));
        let mut client = gateway.connect();
        client.send_request("POST", PATH, &JSON, &chat("m", true));
        // The head alone: were it a 200, the body would have no end.
        assert_eq!(client.head().status, 504, "{driver}");
    }
}

// --- ends that look clean ---

/// A chat chunk of one choice: content, or the reason for finishing.
fn choice(index: u32, text: Option<&str>) -> String {
    match text {
        Some(text) => format!("data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"),
        None => format!("data: {{\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n"),
    }
}

/// A streamed chat whose provider sends `events` and then ends the body cleanly, in chunks or by closing.
fn stream_that_ends(gateway: &Gateway, origin: &Origin, events: &[String], chunked: bool) -> (Vec<common::Event>, End) {
    let mut client = gateway.connect();
    let headers: Vec<_> = JSON.into_iter().chain([("x-request-id", "ends")]).collect();
    client.send_request("POST", PATH, &headers, &chat("m", true));
    let mut peer = origin.accept();
    peer.request();
    if chunked {
        peer.begin_stream();
        for event in events {
            peer.chunk(event);
        }
        peer.send("0\r\n\r\n");
    } else {
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").send(events.concat());
        peer.socket().shutdown(Shutdown::Write).expect("open");
    }
    let head = client.head();
    assert_eq!(head.status, 200);
    let mut stream = client.events(&head);
    let all = stream.all();
    let end = stream.end().expect("it has ended").clone();
    (all, end)
}

#[test]
fn a_clean_end_without_a_finish_is_truncated_whatever_came_before() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    let unknown = "data: {\"hello\":1}\n\n".to_owned();
    let two = |last: Option<&str>| {
        vec![choice(0, Some("a")), choice(1, Some("b")), choice(0, None), choice(1, Some("c")), choice(1, last)]
    };
    for (name, events, is_whole) in [
        ("only content", vec![content("a")], false),
        ("content, then an unknown kind", vec![content("a"), unknown.clone()], false),
        ("an unknown kind between contents", vec![content("a"), unknown.clone(), content("b")], false),
        ("one of two choices unfinished", two(Some("d")), false),
        ("both choices finished", two(None), true),
        ("an unknown kind, then all of it", vec![unknown, content("a"), FINISH.into(), DONE.into()], true),
    ] {
        for chunked in [true, false] {
            let what = format!("{name}, {}", if chunked { "chunked" } else { "to the end of the connection" });
            let (mut got, end) = stream_that_ends(&gateway, &origin, &events, chunked);
            let error = (!is_whole).then(|| got.pop()).flatten();
            let raw: Vec<u8> = got.iter().flat_map(|event| event.raw.clone()).collect();
            if is_whole {
                assert_eq!(String::from_utf8_lossy(&raw), events.concat(), "{what}");
                assert_eq!(end, End::Complete, "{what}");
                continue;
            }
            let error = error.expect("an event").data;
            assert!(error.contains("\"error\""), "{what}: ended by {error}, {end:?}");
            assert_eq!(String::from_utf8_lossy(&raw), events.concat(), "{what}");
            assert_eq!(end, End::Cut, "{what}: a last chunk after an error");
        }
    }
}

#[test]
fn a_client_of_http_1_0_can_tell_a_cut_body_from_a_whole_one() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    for is_cut in [true, false] {
        let mut client = gateway.connect();
        client.send(format!("GET /v1/files/f-1 HTTP/1.0\r\n{}: {}\r\n\r\n", AUTH.0, AUTH.1).as_bytes());
        let mut peer = origin.accept();
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        peer.chunk("hello");
        let head = client.head();
        assert_eq!(head.status, 200);
        if !is_cut {
            peer.send("0\r\n\r\n");
        }
        drop(peer);
        let response = client.body("GET", head);
        assert_eq!((response.text().as_str(), &response.framing), ("hello", &Framing::Close));
        // Without chunks and a length, only a reset says that something is missing.
        assert_eq!(response.end, if is_cut { End::Cut } else { End::Complete }, "cut: {is_cut}");
    }
}

#[test]
fn an_object_that_tells_of_an_error_is_no_error() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    let mut peer: Option<Peer> = None;
    for (path, json) in [
        (
            "/v1/fine_tuning/jobs/x",
            r#"{"object":"fine_tuning.job","id":"x","status":"succeeded","error":{"code":null,"message":null,"param":null}}"#,
        ),
        (
            "/v1/fine_tuning/jobs/y",
            r#"{"object":"fine_tuning.job","id":"y","status":"failed","error":{"code":"invalid_training_file","message":"line 3","param":"training_file"}}"#,
        ),
        (
            "/v1/responses/resp_1",
            r#"{"id":"resp_1","object":"response","status":"failed","error":{"code":"server_error","message":"m"},"output":[],"usage":{"input_tokens":9,"output_tokens":3}}"#,
        ),
    ] {
        let mut client = gateway.connect();
        client.send_request("GET", path, &[AUTH], b"");
        // A connection that was told of an error may or may not be kept.
        let mut own = peer.take().filter(|_| origin.is_left_alone()).unwrap_or_else(|| origin.accept());
        own.request();
        own.answer(json);
        let response = client.response("GET");
        assert_eq!((response.head.status, response.text().as_str()), (200, json), "{path}");
        peer = None;
        own.socket().shutdown(Shutdown::Both).expect("open");
    }
}

// --- what the usage records say of all this ---

/// A gateway that writes usage records, and those.
fn recorded(origin: &Origin, more: &str) -> (Gateway, Records) {
    let records = Records::new();
    let top = format!("cores = \"0\"\n{}", records.line());
    (Gateway::start(&Config::new(&[origin.url()]).top(&top).and(more)), records)
}

/// The first record.
fn first(records: &Records) -> Value {
    records.when(|records| !records.is_empty()).remove(0)
}

#[test]
fn a_stream_with_an_event_too_long_to_read_is_not_recorded_as_complete() {
    let origin = Origin::start();
    let (gateway, records) = recorded(&origin, "[limits]\nevent_bytes_max = \"1KiB\"");
    let long = content(&"z".repeat(300_000));
    for (events, is_complete) in [
        (vec![ROLE.to_owned(), content("a"), long.clone()], false),
        (vec![long.clone(), content("a")], false),
        (vec![ROLE.to_owned(), content("a"), long.clone(), content("b")], false),
        (vec![ROLE.to_owned(), content("a"), long, content("b"), FINISH.into(), DONE.into()], true),
    ] {
        for chunked in [true, false] {
            records.forget();
            stream_that_ends(&gateway, &origin, &events, chunked);
            let record = first(&records);
            assert_eq!(record["state"] == "complete", is_complete, "chunked: {chunked}: {record}");
        }
    }
}

#[test]
fn what_a_provider_charged_before_it_failed_is_recorded() {
    let origin = Origin::start();
    let (gateway, records) = recorded(&origin, "");
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/messages", &JSON, &chat("m", true));
    let mut peer = origin.accept();
    peer.request();
    let usage = "{\"input_tokens\":777,\"output_tokens\":1}";
    peer.begin_stream().chunk(format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"usage\":{usage}}}}}\n\n"
    ));
    drop(peer);
    assert_eq!(client.response("POST").head.status, 502);
    let record = first(&records);
    assert_eq!((&record["status"], &record["input_tokens"]), (&502.into(), &777.into()), "{record}");
}

#[test]
fn tokens_written_into_a_providers_cache_are_recorded() {
    let origin = Origin::start();
    let (gateway, records) = recorded(&origin, "");
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/messages", &JSON, &chat("m", false));
    let mut peer = origin.accept();
    peer.request();
    peer.answer(
        r#"{"type":"message","content":[{"type":"text","text":"a"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"cache_creation_input_tokens":55,"cache_read_input_tokens":44,"output_tokens":2}}"#,
    );
    assert_eq!(client.response("POST").head.status, 200);
    let record = first(&records);
    assert_eq!(record["cached_input_tokens"], 44, "{record}");
    assert_eq!(record["cache_creation_input_tokens"], 55, "{record}");
}

#[test]
fn a_head_that_cannot_be_read_leaves_a_record() {
    let origin = Origin::start();
    let (gateway, records) = recorded(&origin, "");
    let mut client = gateway.connect();
    client.send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nno colon here\r\n\r\n");
    assert_eq!(client.response("GET").head.status, 400);
    // A record of its own, or the next one's place would be the first.
    assert_eq!(gateway.connect().request("GET", "/v1/models", &[AUTH], b"").head.status, 200);
    let record = first(&records);
    assert_eq!((&record["state"], &record["status"]), (&"refused".into(), &400.into()), "{record}");
}
