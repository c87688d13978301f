//! monoio-http as an independent HTTP/1 peer, on both sides of the gateway: as a client in front of it and as an origin
//! behind it. Its decoder is too lenient to face strangers, but it shares no line with our codec, so what both sides
//! understand alike is not our own misreading.
//!
//! It refuses chunk extensions and trailers and knows no `Expect`; those are tested with other peers.

mod common;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use bytes::Bytes;
use monoio::io::sink::SinkExt;
use monoio::io::stream::Stream;
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio_http::common::body::{Body, BodyExt};
use monoio_http::common::error::HttpError;
use monoio_http::common::request::{Request, RequestBuilder};
use monoio_http::common::response::{Response, ResponseBuilder};
use monoio_http::h1::codec::decoder::FillPayload;
use monoio_http::h1::codec::{ClientCodec, ServerCodec};
use monoio_http::h1::payload::{FixedPayload, FramedPayload, Payload, stream_payload_pair};

use common::process::KEY;
use common::{Config, End, Framing, Gateway, Mock, PATIENCE};

/// Sizes around what codecs and sockets buffer.
const SIZES: [usize; 6] = [1, 100, 8 << 10, (8 << 10) + 1, 64 << 10, 1 << 20];

/// Pieces in which a chunked body is sent: never a divisor of a buffer.
const PIECE: usize = 1009;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime =
        monoio::RuntimeBuilder::<monoio::FusionDriver>::new().enable_timer().build().expect("a runtime for the peer");
    runtime.block_on(async { monoio::time::timeout(PATIENCE, future).await.expect("the peer is done in time") })
}

fn some_bytes(size: usize) -> Bytes {
    (0..size).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framed {
    ByLength,
    ByChunks,
}

fn payload(bytes: Bytes, framed: Framed) -> Payload {
    match framed {
        Framed::ByLength => Payload::Fixed(FixedPayload::new(bytes)),
        Framed::ByChunks => {
            let (payload, mut sender) = stream_payload_pair::<Bytes, HttpError>();
            for start in (0..bytes.len()).step_by(PIECE) {
                sender.feed_data(Some(bytes.slice(start..bytes.len().min(start + PIECE))));
            }
            sender.feed_data(None);
            Payload::Stream(payload)
        }
    }
}

/// One connection of the peer as a client.
struct PeerClient {
    codec: ClientCodec<TcpStream>,
    host: String,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Answer {
    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl PeerClient {
    async fn connect(address: SocketAddr) -> PeerClient {
        let stream = TcpStream::connect(address).await.expect("a connection");
        PeerClient { codec: ClientCodec::new(stream), host: address.to_string() }
    }

    async fn post(&mut self, path: &str, content_type: &str, body: Bytes, framed: Framed) -> Answer {
        eprintln!("the peer sends {} bytes to {path}, {framed:?}", body.len());
        let request: Request = RequestBuilder::new()
            .method("POST")
            .uri(path)
            .header("host", &self.host)
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-type", content_type)
            .body(payload(body, framed))
            .expect("a request");
        self.codec.send_and_flush(request).await.expect("the request is sent");
        let response = self.codec.next().await.expect("an answer").expect("an answer the peer understands");
        let (head, decoder) = response.into_parts();
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let headers = headers.collect();
        let body = whole(FramedPayload::new(&mut self.codec, decoder)).await;
        Answer { status: head.status.as_u16(), headers, body }
    }
}

async fn whole<E: std::fmt::Debug>(body: impl Body<Data = Bytes, Error = E>) -> Bytes {
    body.bytes().await.expect("a body the peer understands")
}

/// What the peer says to `address` on one connection, and must hear from the simulated provider behind it.
async fn converse(address: SocketAddr) {
    let mut peer = PeerClient::connect(address).await;
    for framed in [Framed::ByLength, Framed::ByChunks] {
        for size in SIZES {
            let body = some_bytes(size);
            // The provider echoes what is no API of its own.
            let answer = peer.post("/v1/echo", "application/octet-stream", body.clone(), framed).await;
            assert_eq!(answer.status, 200, "{framed:?} {size}: {}", answer.text());
            assert!(answer.body == body, "{framed:?} {size}: came back as {} bytes", answer.body.len());
        }
        for framing in ["length", "chunked"] {
            let call = format!(r#"{{"model":"mock:ttft=1ms,gap=1ms,tokens=5,framing={framing}","messages":[]}}"#);
            let answer = peer.post("/v1/chat/completions", "application/json", call.into(), framed).await;
            assert_eq!(answer.status, 200, "{framed:?} {framing}: {}", answer.text());
            let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(json["usage"]["completion_tokens"], 5, "{framed:?} {framing}: {json}");
        }
        let call = r#"{"model":"mock:ttft=1ms,gap=1ms,tokens=40","stream":true,"messages":[]}"#;
        let answer = peer.post("/v1/chat/completions", "application/json", call.into(), framed).await;
        assert_eq!(answer.get("transfer-encoding"), Some("chunked"), "{framed:?}: {:?}", answer.headers);
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{framed:?}: {}", answer.text());
        assert!(answer.text().matches("data: ").count() > 40, "{framed:?}: {}", answer.text());
    }
}

#[test]
fn the_peer_and_the_provider_understand_each_other() {
    let mock = Mock::start(&[]);
    block_on(converse(mock.address));
    assert_eq!(mock.stats("/mock/stats")["requests_per_connection_max"], 2 * (SIZES.len() + 3));
}

#[test]
fn the_peer_as_a_client_is_understood_and_its_connection_kept() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    block_on(converse(gateway.address()));
}

/// The peer as an origin that answers every request with its own body: below `/chunked` in chunks, else by length.
struct PeerOrigin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl PeerOrigin {
    fn start() -> PeerOrigin {
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (accepted, served) = (Arc::clone(&connections), Arc::clone(&requests));
        let (bound, address) = sync_channel(1);
        // Ends with the test's process.
        thread::spawn(move || {
            let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().build().expect("a runtime");
            runtime.block_on(async move {
                let options = ListenerOpts::new().reuse_port(false);
                let listener = TcpListener::bind_with_config("127.0.0.1:0", &options).expect("a free port");
                bound.send(listener.local_addr().expect("its address")).expect("the test waits");
                loop {
                    let (stream, _) = listener.accept().await.expect("a client");
                    accepted.fetch_add(1, Ordering::Relaxed);
                    monoio::spawn(PeerOrigin::serve(stream, Arc::clone(&served)));
                }
            });
        });
        let address = address.recv_timeout(PATIENCE).expect("the origin listens");
        PeerOrigin { address, connections, requests }
    }

    async fn serve(stream: TcpStream, served: Arc<AtomicUsize>) {
        let mut codec = ServerCodec::new(stream);
        while let Some(request) = codec.next().await {
            let request: Request = request.expect("a request the peer understands");
            let framed = if request.uri().path().contains("/chunked") { Framed::ByChunks } else { Framed::ByLength };
            assert!(request.headers().contains_key("host"), "{:?}", request.headers());
            let body = request.into_body();
            codec.fill_payload().await.expect("a body the peer understands");
            let body = whole(body).await;
            served.fetch_add(1, Ordering::Relaxed);
            let response: Response = ResponseBuilder::new()
                .status(200)
                .header("content-type", "application/octet-stream")
                .body(payload(body, framed))
                .expect("a response");
            if codec.send_and_flush(response).await.is_err() {
                return;
            }
        }
    }
}

/// Sends every size in every framing over one connection to `address`, and expects it all back.
fn expect_echoes(address: SocketAddr) -> usize {
    let mut client = common::Client::connect(address);
    let authorization = format!("Bearer {KEY}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/octet-stream")];
    let mut asked = 0;
    for size in SIZES {
        let body = some_bytes(size);
        for path in ["/v1/length", "/v1/chunked"] {
            for upload in [Framed::ByLength, Framed::ByChunks] {
                let name = format!("{path}, {size} bytes sent {upload:?}");
                match upload {
                    Framed::ByLength => client.send_request("POST", path, &headers, &body),
                    Framed::ByChunks => {
                        let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n");
                        headers.iter().for_each(|(name, value)| bytes += &format!("{name}: {value}\r\n"));
                        let mut bytes = (bytes + "\r\n").into_bytes();
                        for piece in body.chunks(PIECE) {
                            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                            bytes.extend_from_slice(piece);
                            bytes.extend_from_slice(b"\r\n");
                        }
                        bytes.extend_from_slice(b"0\r\n\r\n");
                        client.send(&bytes)
                    }
                };
                asked += 1;
                let response = client.response("POST");
                assert_eq!((response.head.status, &response.end), (200, &End::Complete), "{name}: {}", response.text());
                assert!(response.body == body, "{name}: came back as {} bytes", response.body.len());
                // What came in chunks may leave by length, if all of it was there; what has a length keeps it.
                if path == "/v1/length" {
                    assert_eq!(response.framing, Framing::Length(size), "{name}");
                }
            }
        }
    }
    asked
}

#[test]
fn the_peer_as_an_origin_answers_the_harness() {
    let origin = PeerOrigin::start();
    let asked = expect_echoes(origin.address);
    assert_eq!(origin.requests.load(Ordering::Relaxed), asked);
}

#[test]
fn the_peer_as_an_origin_is_understood_and_its_connection_kept() {
    let origin = PeerOrigin::start();
    let gateway = Gateway::start(&Config::new(&[format!("http://{}/v1", origin.address)]));
    let asked = expect_echoes(gateway.address());
    assert_eq!(origin.requests.load(Ordering::Relaxed), asked);
    // A body that passes through cannot be sent again, so it never risks a connection that may be stale; a held one does.
    let opened = origin.connections.load(Ordering::Relaxed);
    let mut client = gateway.connect();
    for _ in 0..5 {
        assert_eq!(client.request("POST", "/v1/length", &common::JSON, b"{\"model\":\"any\"}").head.status, 200);
    }
    assert_eq!(origin.connections.load(Ordering::Relaxed), opened, "requests in turn share a connection upstream");
}
