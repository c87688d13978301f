//! Bounds of which a peer is told something at the bound and something else one past it, where no other test looks: see
//! config/limits.md for all of them.

mod common;

use std::io::{ErrorKind, Read};
use std::thread;
use std::time::{Duration, Instant};

use common::http2::{ACK, Frame, GOAWAY, Http2, PING, RST_STREAM, frame, request};
use common::metrics::{scrape_when, sum};
use common::origin::{DONE, FINISH, content};
use common::{Client, Config, End, Gateway, JSON, Mock, Origin, PATIENCE, Peer, Records, chat, metric, metric_is};

const PATH: &str = "/v1/chat/completions";
const DRIVERS: [&str; 2] = ["deferred", "epoll"];

/// A gateway whose records are kept.
fn watched(origin: &Origin, more: &str) -> (Gateway, Records) {
    let records = Records::new();
    let top = format!("cores = \"0\"\n{}", records.line());
    (Gateway::start(&Config::new(&[origin.url()]).top(&top).and(more)), records)
}

/// A request that has reached its provider.
fn begin(gateway: &Gateway, origin: &Origin, stream: bool) -> (Client, Peer) {
    let mut client = gateway.connect();
    client.send_request("POST", PATH, &JSON, &chat("m", stream));
    let mut peer = origin.accept();
    peer.request();
    (client, peer)
}

/// All that still comes, whichever way it ends.
fn rest(client: &Client) -> Vec<u8> {
    client.socket().set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    let (mut all, mut piece) = (Vec::new(), [0; 64 << 10]);
    loop {
        match client.socket().read(&mut piece) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the gateway keeps the connection open")
            }
            Err(_) => return all,
        }
    }
}

// --- clients that do not read ---

/// An interim answer of about a megabyte.
fn long_interim() -> String {
    let line = format!("link: </{}>\r\n", "a".repeat(10_000));
    format!("HTTP/1.1 103 Early Hints\r\n{}\r\n", line.repeat(90))
}

#[test]
fn an_interim_answer_that_is_half_written_is_followed_by_nothing() {
    const COUNT: usize = 16;
    let limits = "[limits]\nhead_bytes_max = \"1MiB\"\n";
    for driver in DRIVERS {
        let origin = Origin::start();
        let more = format!("{limits}[client]\nwrite = \"300ms\"\n[ring]\ndriver = {driver:?}");
        let (gateway, records) = watched(&origin, &more);
        let (client, mut peer) = begin(&gateway, &origin, false);
        let interim = long_interim();
        // More of them than the kernel holds, and then the answer, which must not come behind the half of one.
        let provider = thread::spawn(move || {
            let _ = (0..COUNT).all(|_| peer.try_send(&interim)) && peer.try_send("HTTP/1.1 200 OK\r\n\r\n");
            peer.ended();
        });
        // Its endpoint is let go at once, though it has more to say. From here on whatever else were said would be read.
        provider.join().expect("the provider");
        let text = String::from_utf8(rest(&client)).expect("text");
        assert_eq!(text.matches("HTTP/1.1 ").count(), text.matches("HTTP/1.1 103 ").count(), "{driver}");
        assert!(text.starts_with("HTTP/1.1 103 "), "{driver}: {} bytes", text.len());
        let record = records.when(|records| !records.is_empty()).pop().expect("a record");
        assert_eq!((&record["state"], &record["ended_by"]), (&"client_gone".into(), &"gateway".into()), "{record}");
        assert_eq!((&record["error_code"], record["status"].as_u64()), (&"client_stalled".into(), None), "{record}");
    }
    // A client that reads is given all of them, and the answer.
    let origin = Origin::start();
    let (gateway, _) = watched(&origin, limits);
    let (mut client, mut peer) = begin(&gateway, &origin, false);
    let interim = long_interim();
    let provider = thread::spawn(move || {
        for _ in 0..COUNT {
            peer.send(&interim);
        }
        peer.answer("{}");
    });
    for _ in 0..COUNT {
        let head = client.head();
        assert_eq!((head.status, head.all("link").len()), (103, 90));
    }
    assert_eq!(client.response("POST").head.status, 200);
    provider.join().expect("the provider");
}

#[test]
fn a_client_that_does_not_take_its_answer_is_given_up_in_time() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let (gateway, records) = watched(&origin, &format!("[client]\nwrite = \"300ms\"\n[ring]\ndriver = {driver:?}"));
        for stream in [true, false] {
            let (client, mut peer) = begin(&gateway, &origin, stream);
            let kind = if stream { "text/event-stream" } else { "application/octet-stream" };
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"));
            let piece = content(&"x".repeat(100_000));
            let start = Instant::now();
            while peer.try_send(format!("{:x}\r\n{piece}\r\n", piece.len())) {
                assert!(start.elapsed() < PATIENCE, "{driver}: it goes on for a client that does not read");
            }
            let record = records.when(|records| !records.is_empty()).pop().expect("a record");
            assert_eq!(record["error_code"], "client_stalled", "{driver}: {record}");
            assert_eq!((&record["state"], &record["phase"]), (&"client_gone".into(), &"relay".into()), "{record}");
            let text = rest(&client);
            assert!(!text.ends_with(b"\r\n0\r\n\r\n"), "{driver}: a clean end would be a lie");
            records.forget();
        }
    }
}

#[test]
fn an_eighth_above_the_memory_no_more_clients_are_accepted_until_there_is_room() {
    const EACH: usize = 7 << 20;
    let origin = Origin::start();
    let limits = "[limits]\nmemory_max = \"16MiB\"\nevent_bytes_max = \"8MiB\"";
    let gateway = Gateway::start(&Config::new(&[origin.url()]).admin().and(limits));
    let mut streams: Vec<_> = (0..3)
        .map(|_| {
            let (mut client, mut peer) = begin(&gateway, &origin, true);
            peer.begin_stream().chunk(content("begun"));
            let head = client.head();
            (client.events(&head), peer)
        })
        .collect();
    // What is under way goes on: an event of each is held, all but its end.
    let event = content(&"x".repeat(EACH));
    let (start, end) = event.split_at(event.len() - 1);
    let paused = [("reason", "memory")];
    assert_eq!(metric(&gateway, "ringway_accept_paused_total", &paused), 0.0);
    for (_, peer) in &mut streams {
        peer.chunk(start);
    }
    scrape_when(&gateway, "it is held", |all| sum(all, "ringway_worker_memory_bytes", &[]) > (16 << 20) as f64 * 1.125);
    // The first to come is accepted, by an accept that was under way; then those that are under way as well.
    let mut waiting: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = gateway.connect();
            client.send_request("GET", "/v1/models", &JSON[..1], b"");
            client
        })
        .collect();
    metric_is(&gateway, "ringway_accept_paused_total", &paused, 1.0);
    gateway.process.lines_until("no more clients are accepted for now: this worker has no memory left");
    let taken = metric(&gateway, "ringway_client_connections_accepted_total", &[]);
    assert!(taken < 40.0, "{taken}: the others wait");
    for (events, peer) in &mut streams {
        peer.chunk(end).chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
        assert!(events.all().last().is_some_and(|event| event.data == "[DONE]"));
    }
    drop(streams);
    for client in &mut waiting {
        assert_eq!(client.response("GET").head.status, 200);
    }
    metric_is(&gateway, "ringway_listeners_paused", &[], 0.0);
}

// --- requests ---

/// A request whose body has no announced length, in chunks of its own choice.
fn chunked(gateway: &Gateway, kind: &str, body: &[u8]) -> Client {
    let mut client = gateway.connect();
    let mut bytes = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n",
        JSON[0].1
    )
    .into_bytes();
    for piece in body.chunks(1000) {
        bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    client.send(&bytes);
    client
}

#[test]
fn a_body_of_unknown_length_and_what_stands_before_a_forms_model_are_held_up_to_the_bound() {
    const MAX: usize = 4096;
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and(&format!("[limits]\nbody_bytes_max = {MAX}")));
    let json = |bytes: usize| {
        let (start, end) = (r#"{"model":"mock:ttft=1ms","messages":[],"x":""#, "\"}");
        format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
    };
    for (bytes, status) in [(MAX, 200), (MAX + 1, 413)] {
        let response = chunked(&gateway, "application/json", json(bytes).as_bytes()).response("POST");
        assert_eq!(response.head.status, status, "{bytes}: {}", response.text());
        if status == 413 {
            assert_eq!(response.json()["error"]["code"], "body_too_large");
        }
    }

    // Of a form no more is held than up to its model. It comes in the end, or never.
    let (file, model) = (
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n",
        "\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nmock:ttft=1ms\r\n--b--\r\n",
    );
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).and(&format!("[limits]\nbody_bytes_max = {MAX}")));
    let start = |bytes: usize| {
        let mut client = gateway.connect();
        client.send(
            format!(
                "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\
                 content-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n\r\n{file}{}",
                JSON[0].1,
                bytes + model.len(),
                "f".repeat(bytes - file.len())
            )
            .as_bytes(),
        );
        client
    };
    let mut at = start(MAX);
    assert!(at.is_silent_for(Duration::from_millis(100)), "all of it is held, and more may come");
    at.send(model.as_bytes());
    let mut peer = origin.accept();
    assert_eq!(peer.request().body.len(), MAX + model.len());
    peer.answer("{}");
    assert_eq!(at.response("POST").head.status, 200);
    let response = start(MAX + 1).response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (413, &"body_too_large".into()));
}

#[test]
fn an_id_of_128_bytes_is_kept_and_one_of_129_is_not() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    for (length, is_kept) in [(128, true), (129, false)] {
        let id = "i".repeat(length);
        let response = gateway.connect().request("GET", "/v1/models", &[JSON[0], ("x-request-id", &id)], b"");
        let told = response.head.get("x-request-id").expect("an id");
        assert_eq!(told == id, is_kept, "{length}: {told}");
    }
}

#[test]
fn head_and_body_that_stop_half_way_are_told_apart() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and("[client]\nhead = \"300ms\"\nbody = \"300ms\""));
    let body =
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-length: 9\r\n\r\n{{", JSON[0].1);
    for (sent, code) in [("GET /v1/models HTTP/1.1\r\nhost", "head_timeout"), (&body, "body_timeout")] {
        let response = gateway.connect().send(sent.as_bytes()).response("POST");
        assert_eq!((response.head.status, &response.json()["error"]["code"]), (408, &code.into()));
    }
    // A head has its time as a whole: each byte of it may come in time.
    let mut client = gateway.connect();
    let head = b"GET /v1/models HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'x'));
    let start = Instant::now();
    for byte in head {
        assert!(start.elapsed() < PATIENCE, "a head may take for ever");
        if client.try_send(&[*byte]).is_err() || !client.is_silent_for(Duration::from_millis(20)) {
            break;
        }
    }
    assert_eq!(client.response("GET").head.status, 408);
}

#[test]
fn who_goes_on_sending_after_a_refusal_is_read_for_two_seconds_and_not_for_ever() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin());
    let mut client = gateway.connect();
    let start = Instant::now();
    // Without a key.
    client.send(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").as_bytes());
    assert_eq!(client.response("POST").head.status, 401);
    while client.try_send(b"x").is_ok() {
        assert!(start.elapsed() < PATIENCE, "it is read for ever");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(start.elapsed() >= Duration::from_millis(1900), "after {:?}", start.elapsed());
    metric_is(&gateway, "ringway_client_connections_open", &[], 0.0);
}

#[test]
fn who_goes_on_opening_streams_that_are_refused_loses_the_connection() {
    // Ten for each that may be open, and a thousand at least.
    const REFUSED: u32 = 1000;
    const REFUSED_STREAM: u32 = 7;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).and("[http2]\nstreams_max = 1"));
    let mut http2 = Http2::connect(gateway.address(), PATIENCE);
    http2.send(&request(1, "POST", PATH, &JSON, Some(&chat("m", false))));
    let mut peer = origin.accept();
    peer.request();
    let mut open = |number: u32| {
        let stream = 2 * number + 1;
        http2.send(&request(stream, "GET", "/v1/models", &JSON[..1], None));
        loop {
            let came: Frame = http2.next();
            if came.stream == stream || came.kind == GOAWAY {
                return (came.kind, came.reason());
            }
        }
    };
    for number in 1..=REFUSED {
        assert_eq!(open(number), (RST_STREAM, REFUSED_STREAM), "{number}");
    }
    // It is served yet.
    http2.send(&frame(PING, 0, 0, &[7; 8]));
    while !matches!(http2.frame().expect("it is open"), (PING, ACK, ..)) {}
    let mut open = |number: u32| {
        http2.send(&request(2 * number + 1, "GET", "/v1/models", &JSON[..1], None));
        http2.end()
    };
    assert_eq!(open(REFUSED + 1), common::http2::Said::Ended(Some(ENHANCE_YOUR_CALM)));
    peer.ended();
}

#[test]
fn a_request_that_was_refused_and_is_not_ended_has_two_seconds() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin());
    let mut http2 = Http2::connect(gateway.address(), PATIENCE);
    // Without a key, and without an end.
    let mut head = request(1, "POST", PATH, &JSON[1..], None);
    head[4] &= !common::http2::END_STREAM;
    let start = Instant::now();
    http2.send(&head);
    let end = loop {
        let frame = http2.next();
        if frame.kind == RST_STREAM {
            break frame;
        }
    };
    assert_eq!(end.stream, 1);
    assert!(start.elapsed() >= Duration::from_millis(1900), "after {:?}", start.elapsed());
    metric_is(&gateway, "ringway_http2_streams_open", &[], 0.0);
    http2.send(&request(3, "GET", "/v1/models", &JSON[..1], None));
    assert!(matches!(http2.answer(3), common::http2::Said::Answer(200, _)));
}

// --- answers ---

#[test]
fn an_answer_is_held_up_to_64_kib_and_a_failure_in_it_is_a_status() {
    const HELD: usize = 64 << 10;
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    let begun = |bytes: usize| {
        let (client, mut peer) = begin(&gateway, &origin, false);
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n");
        peer.send(vec![b' '; bytes]);
        (client, peer)
    };
    let (mut client, peer) = begun(HELD);
    drop(peer);
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_truncated".into()));
    let (mut client, peer) = begun(HELD + 1);
    // It comes though the answer goes on.
    let head = client.head();
    assert_eq!(head.status, 200);
    drop(peer);
    let response = client.body("POST", head);
    assert_eq!((response.body.len(), response.end), (HELD + 1, End::Cut));
}

#[test]
fn what_a_stream_says_before_its_content_is_held_up_to_the_bound() {
    const HELD: usize = 4096;
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).and(&format!("[limits]\nstream_bytes_max = {HELD}")));
    let begun = |bytes: usize| {
        let (client, mut peer) = begin(&gateway, &origin, true);
        peer.begin_stream().chunk(format!(":{}\n\n", "x".repeat(bytes - 3)));
        (client, peer)
    };
    let (mut client, peer) = begun(HELD);
    drop(peer);
    let response = client.response("POST");
    assert_eq!(response.head.status, 502, "{}", response.text());
    let (mut client, mut peer) = begun(HELD + 1);
    let head = client.head();
    assert_eq!(head.status, 200);
    peer.chunk(content("a")).chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
    assert_eq!(client.body("POST", head).end, End::Complete);
}

// --- providers ---

#[test]
fn so_many_idle_connections_are_kept_and_for_so_long() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).admin().and("[pool]\nidle_max = 2\nidle = \"1h\""));
    let mut under_way: Vec<_> = (0..3).map(|_| begin(&gateway, &origin, false)).collect();
    for (turn, (client, peer)) in under_way.iter_mut().enumerate() {
        peer.answer("{}");
        assert_eq!(client.response("POST").head.status, 200);
        metric_is(&gateway, "ringway_upstream_connections_open", &[], if turn < 2 { 3.0 } else { 2.0 });
        let idle = (turn + 1).min(2) as f64;
        metric_is(&gateway, "ringway_upstream_connections_idle", &[], idle);
    }
    // There was no room for the last.
    under_way[2].1.ended();
    assert!(under_way[0].1.is_quiet() && under_way[1].1.is_quiet());

    let gateway = Gateway::start(&Config::new(&[origin.url()]).admin().and("[pool]\nidle = \"1ms\""));
    let (mut client, mut peer) = begin(&gateway, &origin, false);
    peer.answer("{}");
    assert_eq!(client.response("POST").head.status, 200);
    // At the next look, each second.
    assert_eq!(peer.ended(), common::Ended::Fin);
    metric_is(&gateway, "ringway_upstream_connections_open", &[], 0.0);
}

// --- operators ---

#[test]
fn so_many_operators_look_in_at_once_and_their_heads_have_a_bound() {
    const PLACES: usize = 64;
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin());
    let looks_in = |client: &mut Client| client.request("GET", "/healthz", &[], b"").head.status;
    let mut places: Vec<Client> = (0..PLACES).map(|_| Client::connect(gateway.admin())).collect();
    for client in &mut places {
        assert_eq!(looks_in(client), 200);
    }
    assert!(Client::connect(gateway.admin()).is_closed(), "one more");
    assert_eq!(looks_in(&mut places[0]), 200);
    drop(places);
    let start = Instant::now();
    loop {
        let mut client = Client::connect(gateway.admin());
        if client.try_send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").is_ok() && !client.is_closed() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "places are not given back");
    }

    let head = |bytes: usize| {
        let (start, end) = ("GET /healthz HTTP/1.1\r\nhost: x\r\nx: ", "\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
    };
    // What is over the bound is seen at the next read, of 4 KiB at most.
    for (bytes, status) in [(16 << 10, 200), (20 << 10, 431)] {
        let mut client = Client::connect(gateway.admin());
        let _ = client.try_send(head(bytes).as_bytes());
        assert_eq!(client.head().status, status, "{bytes}");
    }
}
