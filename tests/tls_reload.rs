//! Certificates that change while the gateway runs: each way in which operators put them in place, and what stays.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::thread;

use common::https::{BOTH, client, client_as};
use common::origin::{DONE, FINISH, content};
use common::pem::{Ca, Folder, Pair};
use common::{Client, Config, Gateway, Https, JSON, Origin, chat, metric_is};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

const PATH: &str = "/v1/chat/completions";
const CHANGED: &str = "files have changed; connections from now on go by them";
const KEPT: &str = "what was there before stays in use";

/// Waits until the gateway has said `words` so often.
fn said(gateway: &Gateway, words: &str, times: usize) {
    gateway.process.until(&format!("{times} times \"{words}\""), |lines| {
        lines.iter().filter(|line| line.contains(words)).count() >= times
    });
}

fn gateway(folder: &Folder, tls: &str, origin: &Origin) -> Gateway {
    let (chain, key) = (folder.path("tls.crt"), folder.path("tls.key"));
    let certificates = format!("certificates = [{{ chain = {chain:?}, key = {key:?} }}]");
    let listener = format!("[listeners.tls]\n{certificates}\n{tls}");
    Gateway::start(&Config::new(&[origin.url()]).listener(&listener).admin())
}

fn shown(gateway: &Gateway, authority: &Ca) -> CertificateDer<'static> {
    let https = Https::connect(gateway.address(), &client(authority, BOTH), "first.test");
    https.session().peer_certificates().expect("certificates")[0].clone().into_owned()
}

/// How a new pair comes into a folder, and the folder as it is before the first.
type Way = fn(&Folder, &Pair, usize);

fn written_over(folder: &Folder, pair: &Pair, _: usize) {
    folder.write("tls.crt", &pair.chain);
    folder.write("tls.key", &pair.key);
}

fn renamed_into_place(folder: &Folder, pair: &Pair, _: usize) {
    for (name, text) in [("tls.crt", &pair.chain), ("tls.key", &pair.key)] {
        fs::rename(folder.write(&format!("{name}.new"), text), folder.path(name)).expect("a rename");
    }
}

/// As Kubernetes does: `tls.crt` → `..data/tls.crt`, and `..data` is turned to another folder in one step.
fn link_turned(folder: &Folder, pair: &Pair, turn: usize) {
    folder.write(&format!("..{turn}/tls.crt"), &pair.chain);
    folder.write(&format!("..{turn}/tls.key"), &pair.key);
    symlink(format!("..{turn}"), folder.path("..data_tmp")).expect("a link");
    fs::rename(folder.path("..data_tmp"), folder.path("..data")).expect("a rename");
    for name in ["tls.crt", "tls.key"] {
        if turn == 0 {
            symlink(format!("..data/{name}"), folder.path(name)).expect("a link");
        }
    }
    if turn > 0 {
        fs::remove_dir_all(folder.path(&format!("..{}", turn - 1))).expect("the old folder");
    }
}

/// The file that a link leads to is written anew, in another folder.
fn behind_a_link(folder: &Folder, pair: &Pair, turn: usize) {
    folder.write("live/tls.crt", &pair.chain);
    folder.write("live/tls.key", &pair.key);
    for name in ["tls.crt", "tls.key"] {
        if turn == 0 {
            symlink(format!("live/{name}"), folder.path(name)).expect("a link");
        }
    }
}

#[test]
fn a_new_certificate_is_shown_however_it_came_and_old_connections_go_on() {
    let ways: [(&str, Way); 4] = [
        ("written over", written_over),
        ("renamed into place", renamed_into_place),
        ("a link is turned", link_turned),
        ("behind a link", behind_a_link),
    ];
    for (name, put) in ways {
        let (authority, folder, origin) = (Ca::new(), Folder::new(), Origin::start());
        let pairs = [0, 1, 2].map(|_| authority.sign(&["first.test"]));
        put(&folder, &pairs[0], 0);
        let gateway = gateway(&folder, "", &origin);
        let mut old = Https::connect(gateway.address(), &client(&authority, BOTH), "first.test");
        old.send_request("POST", PATH, &JSON, &chat("m", true));
        let mut peer = origin.accept();
        peer.request();
        peer.begin_stream().chunk(content("before"));
        old.head();
        old.chunk().expect("an event");
        for turn in [1, 2] {
            put(&folder, &pairs[turn], turn);
            said(&gateway, CHANGED, turn);
            assert!(shown(&gateway, &authority) == pairs[turn].der(), "{name}, {turn}: the new certificate is shown");
            peer.chunk(content("meanwhile"));
            let event = old.chunk().unwrap_or_else(|| panic!("{name}, {turn}: the old connection's stream has ended"));
            assert!(String::from_utf8_lossy(&event).contains("meanwhile"), "{name}, {turn}");
        }
        peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
        while old.chunk().is_some() {}
        let (head, _) = old.request("GET", "/v1/models", &JSON[..1], b"");
        assert!(head.starts_with("http/1.1 200 "), "{name}: {head}");
    }
}

#[test]
fn a_session_from_before_goes_on_under_the_new_certificate() {
    let (authority, folder, origin) = (Ca::new(), Folder::new(), Origin::start());
    written_over(&folder, &authority.sign(&["first.test"]), 0);
    let gateway = gateway(&folder, "", &origin);
    let config = client(&authority, BOTH);
    let kind = |gateway: &Gateway| {
        let mut https = Https::connect(gateway.address(), &config, "first.test");
        assert!(https.request("GET", "/v1/models", &JSON[..1], b"").0.starts_with("http/1.1 200 "));
        https.session().handshake_kind().expect("a handshake")
    };
    assert_eq!(kind(&gateway), HandshakeKind::Full);
    renamed_into_place(&folder, &authority.sign(&["first.test"]), 1);
    said(&gateway, CHANGED, 1);
    assert_eq!(kind(&gateway), HandshakeKind::Resumed);
    metric_is(&gateway, "ringway_tls_handshakes_total", &[("side", "client"), ("result", "full")], 1.0);
    metric_is(&gateway, "ringway_tls_handshakes_total", &[("side", "client"), ("result", "resumed")], 1.0);
}

#[test]
fn what_cannot_be_used_is_said_and_changes_nothing() {
    let (authority, folder, origin) = (Ca::new(), Folder::new(), Origin::start());
    let (first, second) = (authority.sign(&["first.test"]), authority.sign(&["first.test"]));
    written_over(&folder, &first, 0);
    let gateway = gateway(&folder, "", &origin);
    folder.write("tls.crt", "no certificate");
    said(&gateway, KEPT, 1);
    assert!(shown(&gateway, &authority) == first.der());
    // The chain of one and the key of another, as between two copies.
    folder.write("tls.crt", &second.chain);
    said(&gateway, KEPT, 2);
    assert!(shown(&gateway, &authority) == first.der());
    fs::remove_file(folder.path("tls.key")).expect("a file");
    said(&gateway, KEPT, 3);
    assert!(shown(&gateway, &authority) == first.der());
    folder.write("tls.key", &second.key);
    said(&gateway, CHANGED, 1);
    assert!(shown(&gateway, &authority) == second.der());
    let lines = gateway.process.lines().join("\n");
    for words in ["tls.crt holds no certificate", "tls.key is the key of another certificate", "tls.key cannot be read"]
    {
        assert!(lines.contains(words), "{words:?} is not in\n{lines}");
    }
}

#[test]
fn who_is_no_longer_trusted_cannot_go_on_with_an_old_session() {
    let (authority, folder, origin) = (Ca::new(), Folder::new(), Origin::start());
    let (old, new) = (Ca::new(), Ca::new());
    written_over(&folder, &authority.sign(&["first.test"]), 0);
    let file = folder.write("clients.pem", &old.pem);
    let gateway = gateway(&folder, &format!("client_ca = {file:?}"), &origin);
    let configs = [&old, &new].map(|ca| client_as(&authority, BOTH, Some(&ca.sign(&["client"]))));
    let asked = |at: usize| {
        let mut https = Https::try_connect(gateway.address(), &configs[at], "first.test")?;
        https.try_send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        https.fill()
    };
    assert!(asked(0).is_ok(), "its session may be gone on with");
    assert!(asked(1).is_err());
    folder.write("clients.pem", &new.pem);
    said(&gateway, CHANGED, 1);
    assert!(asked(0).is_err(), "neither its certificate nor its session");
    assert!(asked(1).is_ok());
    metric_is(&gateway, "ringway_tls_handshakes_total", &[("side", "client"), ("result", "certificate")], 2.0);
}

/// A provider that lets in whom `authority` has signed, tells each its certificate's last bytes, and closes.
fn provider(own: &Pair, authority: &Ca) -> SocketAddr {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("an authority")).expect("an authority");
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto.clone()).build().expect("a verifier");
    let config = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().expect("versions");
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
    let config = config.with_client_cert_verifier(verifier).with_single_cert(vec![own.der()], key).expect("a pair");
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for tcp in listener.incoming() {
            // Whoever is refused ends this with an error, as it should.
            let _ = tell(tcp.expect("a client"), &config);
        }
    });
    address
}

fn tell(tcp: TcpStream, config: &Arc<ServerConfig>) -> std::io::Result<()> {
    let session = ServerConnection::new(config.clone()).expect("a session");
    let mut stream = StreamOwned::new(session, tcp);
    let (mut held, mut piece) = (Vec::new(), [0; 4096]);
    // The test's request ends with its last brace.
    while held.last() != Some(&b'}') {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            n => held.extend_from_slice(&piece[..n]),
        }
    }
    let body = format!("{{\"shown\":\"{}\"}}", tail(&stream.conn.peer_certificates().expect("a certificate")[0]));
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn tail(certificate: &CertificateDer<'_>) -> String {
    certificate[certificate.len() - 16..].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_provider_is_shown_our_certificate_and_a_new_one_when_it_changes() {
    let (theirs, folder) = (Ca::new(), Folder::new());
    let address = provider(&theirs.sign(&["127.0.0.1"]), &theirs);
    let (first, second) = (theirs.sign(&["gateway"]), theirs.sign(&["gateway"]));
    folder.pair("own", &first);
    let (ca, chain, key) = (folder.write("ca.pem", &theirs.pem), folder.path("own.pem"), folder.path("own.key"));
    let endpoint = format!("ca = {ca:?}\nclient_certificate = {{ chain = {chain:?}, key = {key:?} }}");
    let config = Config::new(&[format!("https://{address}/v1")]);
    let gateway = Gateway::start(&config.clone().endpoint(&endpoint).admin());
    let told = |gateway: &Gateway| {
        let answer = Client::connect(gateway.address()).request("POST", PATH, &JSON, &chat("m", false));
        assert_eq!(answer.head.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["shown"].as_str().expect("what was shown").to_owned()
    };
    assert_eq!(told(&gateway), tail(&first.der()));
    folder.pair("own", &second);
    said(&gateway, CHANGED, 1);
    assert_eq!(told(&gateway), tail(&second.der()));
    metric_is(&gateway, "ringway_tls_handshakes_total", &[("side", "upstream"), ("result", "full")], 2.0);

    // Without one it does not let us in.
    let nameless = Gateway::start(&config.endpoint(&format!("ca = {ca:?}")).admin());
    let answer = nameless.connect().request("POST", PATH, &JSON, &chat("m", false));
    assert_eq!(answer.head.status, 502, "{}", String::from_utf8_lossy(&answer.body));
}
