//! The loads over TLS, against rustls on a blocking socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::certificate;
use crate::http::parse_target;

/// Answers one request after another with `ok`; every answer is a record of its own.
fn serve(home: &Path) -> SocketAddr {
    let certificates = CertificateDer::pem_file_iter(home.join("cert.pem")).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(home.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(certificates, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = ServerConnection::new(config.clone()).unwrap();
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(session, stream);
                let mut request = Vec::new();
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    request.extend_from_slice(&bytes[..count]);
                    if request.ends_with(b"\"}]}") {
                        request.clear();
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                    }
                }
            });
        }
    });
    address
}

fn home(name: &str) -> PathBuf {
    let home = std::env::temp_dir().join(format!("ringway-perf-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    certificate::write(&home).unwrap();
    home
}

fn closed(home: &Path, address: SocketAddr, once: bool, resume: bool, h2: usize) -> Value {
    let common = Common {
        url: parse_target(&format!("https://{address}/v1/chat/completions")).unwrap(),
        headers: Vec::new(),
        model: "mock".into(),
        body_bytes: 300,
        send: What::Chat,
        chunk_bytes: 0,
        pids: vec![std::process::id()],
        ca: Some(home.join("cert.pem")),
        resume,
        h2,
    };
    closed::Closed { common, connections: 2, seconds: 0.0, requests: 20, warm_up: 0.0, once }.run().unwrap()
}

#[test]
fn requests_over_tls_are_counted_and_so_are_resumed_handshakes() {
    let home = home("tls");
    let address = serve(&home);
    for (name, once, resume, resumed) in
        [("kept", false, false, 0), ("full", true, false, 0), ("resumed, but for the first of each", true, true, 18)]
    {
        let report = closed(&home, address, once, resume, 0);
        assert_eq!((&report["requests"], &report["errors"]), (&json!(20), &json!(0)), "{name}: {report}");
        assert!(report["resumed"].as_u64().unwrap() >= resumed, "{name}: {report}");
        assert_eq!(report["resumed"] == 0, resumed == 0, "{name}: {report}");
    }
    std::fs::remove_dir_all(home).unwrap();
}

#[test]
fn an_unknown_certificate_is_a_failure() {
    let (ours, theirs) = (home("ours"), home("theirs"));
    let report = closed(&ours, serve(&theirs), false, false, 0);
    assert_eq!(report["requests"], 0, "{report}");
    assert_ne!(report["errors"], 0, "{report}");
    for home in [ours, theirs] {
        std::fs::remove_dir_all(home).unwrap();
    }
}

#[test]
fn a_peer_that_does_not_settle_on_http2_is_a_failure() {
    let home = home("alpn");
    let report = closed(&home, serve(&home), false, false, 3);
    assert_eq!(report["requests"], 0, "{report}");
    assert_eq!(report["reasons"]["the peer speaks no HTTP/2"], report["errors"], "{report}");
    std::fs::remove_dir_all(home).unwrap();
}
