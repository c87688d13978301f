//! Long bodies that nobody reads on the way, in the clear on both sides: files, mostly. What is true of those that are read must
//! be true of them.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use common::records::Records;
use common::{Client, Config, Gateway, JSON, Origin, PATIENCE};
use serde_json::Value;

const FILE_BYTES: usize = 24 << 20;

/// More than the gateway passes unread, and less than all sockets on the way hold.
const PART_BYTES: usize = 300_000;

fn gateway(origin: &Origin, models: &str) -> (Gateway, Records) {
    let records = Records::new();
    let mut config = Config::new(&[origin.url()]).top(&records.line());
    if !models.is_empty() {
        config = config.and(models);
    }
    (Gateway::start(&config), records)
}

/// The only record.
fn record(records: &Records) -> Value {
    records.when(|all| !all.is_empty()).remove(0)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(|at| (at ^ at >> 9).to_le_bytes()).take(len).collect()
}

fn upload_head(length: usize) -> Vec<u8> {
    format!(
        "POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: application/octet-stream\r\n\
         content-length: {length}\r\n\r\n",
        JSON[0].1
    )
    .into_bytes()
}

/// Sends all of it from a thread of its own; true if it was taken.
fn sent_beside(client: &Client, bytes: Vec<u8>) -> thread::JoinHandle<bool> {
    let mut out = client.socket().try_clone().expect("the socket");
    thread::spawn(move || out.write_all(&bytes).is_ok())
}

fn answer_head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n")
}

#[test]
fn files_pass_both_ways_unchanged_and_the_connections_are_kept() {
    let origin = Origin::start();
    let (gateway, records) = gateway(&origin, "");
    let mut client = gateway.connect();
    let file = pattern(FILE_BYTES);
    for _ in 0..2 {
        let sender = sent_beside(&client, [upload_head(FILE_BYTES), file.clone()].concat());
        // What cannot be sent twice goes on a fresh connection, which is kept.
        let mut peer = origin.accept();
        assert!(peer.request().body == file, "the upload has changed");
        peer.answer("{}");
        assert_eq!(client.response("POST").head.status, 200);
        assert!(sender.join().unwrap());

        client.send_request("GET", "/v1/files/f/content", &JSON[..1], b"");
        peer.request();
        let mut out = peer.socket().try_clone().unwrap();
        let body = file.clone();
        let sender =
            thread::spawn(move || out.write_all(&[answer_head(FILE_BYTES).into_bytes(), body].concat()).is_ok());
        let response = client.response("GET");
        assert!(response.body == file, "the download has changed");
        assert!(sender.join().unwrap());
    }
    let all = records.when(|all| all.len() == 4);
    for (at, record) in all.iter().enumerate() {
        let bytes = if at % 2 == 0 { "request_bytes" } else { "answer_bytes" };
        assert_eq!(record["state"], "complete", "{record}");
        assert_eq!(record[bytes], FILE_BYTES as u64, "{record}");
    }
}

#[test]
fn what_follows_a_body_is_the_next_message() {
    let origin = Origin::start();
    let (gateway, _records) = gateway(&origin, "");
    let mut client = gateway.connect();
    let file = pattern(PART_BYTES);
    let next = format!("GET /v1/files/next HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\r\n", JSON[0].1);
    let sender = sent_beside(&client, [upload_head(PART_BYTES), file.clone(), next.into_bytes()].concat());
    let mut peer = origin.accept();
    assert!(peer.request().body == file);
    peer.answer("{\"n\":1}");
    assert_eq!(client.response("POST").text(), "{\"n\":1}");
    assert!(peer.request().line.contains("/files/next "));
    peer.answer("{\"n\":2}");
    assert_eq!(client.response("GET").text(), "{\"n\":2}");
    assert!(sender.join().unwrap());
}

#[test]
fn an_answer_that_is_cut_is_not_taken_for_whole() {
    let origin = Origin::start();
    let (gateway, records) = gateway(&origin, "");
    let mut client = gateway.connect();
    client.send_request("GET", "/v1/files/f/content", &JSON[..1], b"");
    let mut peer = origin.accept();
    peer.request();
    peer.send(answer_head(FILE_BYTES)).send(pattern(PART_BYTES));
    client.head();
    assert!(client.take(PART_BYTES) == pattern(PART_BYTES), "what came is passed on");
    drop(peer);
    assert!(client.is_closed());
    let record = record(&records);
    assert_eq!(
        (record["state"].as_str(), record["answer_bytes"].as_u64()),
        (Some("truncated"), Some(PART_BYTES as u64))
    );
}

#[test]
fn a_client_that_leaves_during_a_download_ends_it_at_the_provider() {
    let origin = Origin::start();
    let (gateway, records) = gateway(&origin, "");
    for is_reading in [true, false] {
        let mut client = gateway.connect();
        client.send_request("GET", "/v1/files/f/content", &JSON[..1], b"");
        let mut peer = origin.accept();
        peer.request();
        peer.send(answer_head(1 << 30));
        client.head();
        if is_reading {
            peer.send(pattern(PART_BYTES));
            client.take(PART_BYTES);
        } else {
            // Until no more is taken, so that the gateway waits for its client.
            let socket = peer.socket();
            socket.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
            let (mut out, piece) = (socket, [7; 65536]);
            while out.write(&piece).is_ok() {}
        }
        drop(client);
        peer.ended();
    }
    let all = records.when(|all| all.len() == 2);
    assert!(all.iter().all(|record| record["ended_by"] == "client"), "{all:?}");
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let origin = Origin::start();
    let (gateway, records) = gateway(&origin, "[client]\nwrite = \"300ms\"");
    let mut client = gateway.connect();
    client.send_request("GET", "/v1/files/f/content", &JSON[..1], b"");
    let mut peer = origin.accept();
    peer.request();
    peer.send(answer_head(1 << 30));
    let mut out = peer.socket().try_clone().unwrap();
    let flood = thread::spawn(move || while out.write_all(&[7; 65536]).is_ok() {});
    let record = record(&records);
    assert_eq!(record["error_code"], "client_stalled", "{record}");
    flood.join().unwrap();
}

#[test]
fn a_provider_that_stops_in_the_middle_is_given_up_at_its_time() {
    let origin = Origin::start();
    let route = "[[models]]\nname = \"*\"\nroute = [{ provider = \"mock\" }]\ntimers = { between_tokens = \"300ms\" }";
    let records = Records::new();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).top(&records.line()).models(route));
    let mut client = gateway.connect();
    client.send_request("GET", "/v1/files/f/content", &JSON[..1], b"");
    let mut peer = origin.accept();
    peer.request();
    peer.send(answer_head(FILE_BYTES)).send(pattern(PART_BYTES));
    client.head();
    assert!(client.take(PART_BYTES) == pattern(PART_BYTES));
    assert!(client.is_closed(), "nothing more was sent");
    assert_eq!(record(&records)["state"], "timeout");
    peer.ended();
}

#[test]
fn a_client_that_stops_in_the_middle_of_an_upload_is_told() {
    let origin = Origin::start();
    let (gateway, _records) = gateway(&origin, "[client]\nbody = \"300ms\"");
    let mut client = gateway.connect();
    client.send(&upload_head(FILE_BYTES)).send(&pattern(PART_BYTES));
    let mut peer = origin.accept();
    peer.head();
    assert!(peer.take(PART_BYTES) == pattern(PART_BYTES));
    let response = client.response("POST");
    assert_eq!((response.head.status, response.json()["error"]["code"].as_str()), (408, Some("body_timeout")));
    peer.ended();
}

#[test]
fn a_client_that_leaves_during_an_upload_ends_it_at_the_provider() {
    let origin = Origin::start();
    let (gateway, records) = gateway(&origin, "");
    for (at, how) in ["closes", "resets", "half-closes", "closes while nothing is taken"].into_iter().enumerate() {
        let client = gateway.connect();
        let mut out = client.socket().try_clone().unwrap();
        out.write_all(&upload_head(1 << 30)).unwrap();
        let mut peer = origin.accept();
        peer.head();
        if how == "closes while nothing is taken" {
            out.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
            while out.write(&[7; 65536]).is_ok() {}
        } else {
            out.write_all(&pattern(PART_BYTES)).unwrap();
            assert!(peer.take(PART_BYTES) == pattern(PART_BYTES));
        }
        match how {
            "resets" => {
                nix::sys::socket::setsockopt(
                    &out,
                    nix::sys::socket::sockopt::Linger,
                    &nix::libc::linger { l_onoff: 1, l_linger: 0 },
                )
                .unwrap();
                drop((client, out));
            }
            "half-closes" => out.shutdown(Shutdown::Write).unwrap(),
            _ => drop((client, out)),
        }
        // What had passed may still come first.
        let mut rest = peer.socket();
        rest.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut piece = [0; 65536];
        while matches!(rest.read(&mut piece), Ok(1..)) {}
        let all = records.when(|all| all.len() == at + 1);
        assert_eq!(all[at]["ended_by"], "client", "{how}: {}", all[at]);
    }
}

#[test]
fn a_provider_that_answers_in_the_middle_of_an_upload_is_heard() {
    let origin = Origin::start();
    let (gateway, _records) = gateway(&origin, "");
    for closes in [false, true] {
        let mut client = gateway.connect();
        let mut out = client.socket().try_clone().unwrap();
        out.write_all(&[upload_head(1 << 30), pattern(PART_BYTES)].concat()).unwrap();
        let mut peer = origin.accept();
        peer.head();
        peer.take(PART_BYTES);
        // It takes nothing more, and the client goes on.
        let sender = thread::spawn(move || while out.write_all(&[7; 65536]).is_ok() {});
        peer.send("HTTP/1.1 413 Too Much\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nmuch");
        if closes {
            drop(peer);
        }
        let response = client.response("POST");
        assert_eq!((response.head.status, response.text().as_str()), (413, "much"), "closes: {closes}");
        assert_eq!(response.head.get("connection"), Some("close"));
        drop(client);
        sender.join().unwrap();
    }
}
