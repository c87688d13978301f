//! Two sessions that speak to one another in memory, and what strangers may send.

use std::time::Duration;

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair as Key, SignatureAlgorithm};

use super::*;
use crate::base::clock::{Clock, UnixTime};

/// An authority of the test's own.
struct Authority {
    issuer: Issuer<'static, Key>,
    pem: String,
}

/// A certificate chain and its key, PEM.
struct Pair {
    chain: String,
    key: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = Key::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, names: &[&str]) -> Pair {
        self.sign_with(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn sign_with(&self, names: &[&str], kind: &'static SignatureAlgorithm) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = Key::generate_for(kind).unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        Pair { chain: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    fn of(&self) -> KeyPair<'_> {
        KeyPair { chain: self.chain.as_bytes(), key: self.key.as_bytes() }
    }
}

fn now() -> UnixTime {
    Clock::new().unix()
}

fn tickets() -> Tickets {
    Tickets::new(Duration::from_secs(3600)).unwrap()
}

const ALL_GROUPS: [Group; 4] = [Group::X25519MlKem768, Group::X25519, Group::Secp256r1, Group::Secp384r1];

fn server_with(pairs: &[&Pair], change: impl FnOnce(&mut ServerOptions<'_>)) -> Result<Arc<ServerConfig>, Faulty> {
    let (certificates, tickets) = (pairs.iter().map(|pair| pair.of()).collect::<Vec<_>>(), tickets());
    let mut options = ServerOptions {
        certificates: &certificates,
        version: Version::Tls12,
        http2: false,
        groups: &ALL_GROUPS,
        client_auth: None,
        tickets: &tickets,
    };
    change(&mut options);
    server_config(&options, now())
}

fn server(pairs: &[&Pair]) -> Arc<ServerConfig> {
    server_with(pairs, |_| {}).unwrap()
}

/// A client that trusts `authority` alone and speaks `versions`.
fn client(authority: &Authority, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Two sessions and what each has received.
struct Talk {
    client: Session,
    server: Session,
    heard: [Vec<u8>; 2],
    buffers: Buffers,
    /// Bytes handed over at a time.
    piece: usize,
}

impl Talk {
    fn new(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Talk {
        let (client, server) =
            (Session::client(client.clone(), name).unwrap(), Session::server(server.clone()).unwrap());
        let mut talk =
            Talk { client, server, heard: Default::default(), buffers: Buffers::default(), piece: usize::MAX };
        talk.client.begin(&talk.buffers).unwrap();
        talk
    }

    /// Carries everything over that either has to say, until both are silent.
    fn run(&mut self) -> Result<(), (&'static str, Broken)> {
        let Talk { client, server, heard: [by_client, by_server], buffers, piece } = self;
        loop {
            let said = (client.take_unsent(), server.take_unsent());
            if said.0.is_empty() && said.1.is_empty() {
                return Ok(());
            }
            for (mut bytes, to, heard, name) in
                [(said.0, &mut *server, &mut *by_server, "server"), (said.1, &mut *client, &mut *by_client, "client")]
            {
                for piece in bytes.chunks_mut(*piece) {
                    to.receive(piece, heard, buffers).map_err(|broken| (name, broken))?;
                }
            }
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.client.seal(bytes, &self.buffers).unwrap();
        self.server.seal(bytes, &self.buffers).unwrap();
    }
}

#[test]
fn both_versions_carry_bytes_in_pieces_of_any_size() {
    let authority = Authority::new();
    for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        let server = server(&[&authority.sign_with(&["a.test"], kind)]);
        for versions in [TLS12, TLS13] {
            for piece in [1, 2, 7, 1000, usize::MAX] {
                let mut talk = Talk::new(&client(&authority, versions), &server, "a.test");
                talk.piece = piece;
                talk.run().unwrap();
                assert!(!talk.client.is_handshaking() && !talk.server.is_handshaking());
                let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
                talk.say(&bytes);
                talk.say(b"end");
                talk.run().unwrap();
                for heard in &talk.heard {
                    assert_eq!(heard.len(), bytes.len() + 3);
                    assert!(heard.starts_with(&bytes) && heard.ends_with(b"end"));
                }
                assert!(talk.server.partial.capacity() == 0 && talk.server.unsent.capacity() == 0, "nothing is kept");
            }
        }
    }
}

#[test]
fn each_name_gets_its_certificate_and_every_other_the_first() {
    let authority = Authority::new();
    let first = authority.sign(&["one.test", "www.one.test"]);
    let wild = authority.sign(&["*.two.test", "two.test"]);
    let exact = authority.sign(&["x.two.test"]);
    let server = server(&[&first, &wild, &exact]);
    for (name, shown) in [
        ("one.test", &first),
        ("WWW.one.TEST", &first),
        ("two.test", &wild),
        ("a.two.test", &wild),
        ("x.two.test", &exact),
        ("a.b.two.test", &first),
        ("nobody.test", &first),
        ("127.0.0.1", &first),
    ] {
        // The client's own judgement does not matter here.
        let mut talk = Talk::new(&client(&authority, TLS13), &server, name);
        let outcome = talk.run();
        let certificate = rcgen_der(&shown.chain);
        match outcome {
            Ok(()) => assert_eq!(talk.client.common().peer_certificates().unwrap()[0], certificate, "{name}"),
            Err((who, broken)) => {
                assert_eq!(who, "client", "{name}: {broken:?}");
                assert!(std::ptr::eq(shown, &first), "{name}: {broken:?}");
            }
        }
    }
}

fn rcgen_der(pem: &str) -> rustls::pki_types::CertificateDer<'static> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn of_several_certificates_for_a_name_the_client_gets_one_it_can_check() {
    let authority = Authority::new();
    let ecdsa = authority.sign(&["a.test"]);
    let rsa = authority.sign_with(&["a.test"], &rcgen::PKCS_RSA_SHA256);
    let server = server(&[&ecdsa, &rsa]);
    // In TLS 1.2 the cipher suites say which kinds of key the client takes; in both the signature schemes do.
    for (suite, shown) in [("ECDHE_ECDSA", &ecdsa), ("ECDHE_RSA", &rsa)] {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|known| format!("{known:?}").contains(suite));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rcgen_der(&authority.pem)).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider));
        let config = builder.with_protocol_versions(TLS12).unwrap().with_root_certificates(roots).with_no_client_auth();
        let mut talk = Talk::new(&Arc::new(config), &server, "a.test");
        talk.run().unwrap();
        assert_eq!(talk.client.common().peer_certificates().unwrap()[0], rcgen_der(&shown.chain), "{suite}");
    }
}

#[test]
fn a_session_goes_on_wherever_its_tickets_are_known() {
    let authority = Authority::new();
    let (pair, shared, other) = (authority.sign(&["a.test"]), tickets(), tickets());
    let server = |tickets: &Tickets| {
        let options = ServerOptions {
            certificates: &[pair.of()],
            version: Version::Tls12,
            http2: false,
            groups: &ALL_GROUPS,
            client_auth: None,
            tickets,
        };
        server_config(&options, now()).unwrap()
    };
    let (one, two, stranger) = (server(&shared), server(&shared), server(&other));
    for versions in [TLS12, TLS13] {
        let client = client(&authority, versions);
        for (server, resumed) in [(&one, false), (&two, true), (&one, true), (&stranger, false)] {
            let mut talk = Talk::new(&client, server, "a.test");
            talk.run().unwrap();
            talk.say(b"x");
            talk.run().unwrap();
            assert_eq!((talk.client.is_resumed(), talk.server.is_resumed()), (resumed, resumed));
        }
    }
}

#[test]
fn the_last_words_of_a_handshake_wait_only_where_the_peer_does_not() {
    let authority = Authority::new();
    let server = server(&[&authority.sign(&["a.test"])]);
    for (versions, by_server) in [(TLS12, false), (TLS13, true)] {
        let mut talk = Talk::new(&client(&authority, versions), &server, "a.test");
        let mut heard = Vec::new();
        for _ in 0..2 {
            talk.server.receive(&mut talk.client.take_unsent(), &mut heard, &talk.buffers).unwrap();
            if talk.server.is_handshaking() {
                talk.client.receive(&mut talk.server.take_unsent(), &mut heard, &talk.buffers).unwrap();
            }
        }
        assert!(!talk.server.is_handshaking() && !talk.server.unsent().is_empty(), "tickets, or the last flight");
        assert_eq!(talk.server.may_hold(), by_server);
        talk.server.seal(b"with it", &talk.buffers).unwrap();
        talk.run().unwrap();
        assert_eq!(talk.heard[0], b"with it");
    }
}

#[test]
fn the_end_is_said_once_and_with_the_last_bytes() {
    let authority = Authority::new();
    let server = server(&[&authority.sign(&["a.test"])]);
    for versions in [TLS12, TLS13] {
        let mut talk = Talk::new(&client(&authority, versions), &server, "a.test");
        talk.run().unwrap();
        talk.server.end_with_next();
        talk.server.seal(b"last", &talk.buffers).unwrap();
        let mut sealed = talk.server.take_unsent();
        talk.server.end(&talk.buffers);
        assert!(talk.server.unsent().is_empty(), "once");
        talk.client.receive(&mut sealed, &mut talk.heard[0], &talk.buffers).unwrap();
        assert!(talk.client.closed_cleanly());
        assert_eq!(talk.heard[0], b"last");
        // The other direction is still open.
        talk.client.seal(b"more", &talk.buffers).unwrap();
        talk.client.end(&talk.buffers);
        talk.run().unwrap();
        assert_eq!(talk.heard[1], b"more");
        assert!(talk.server.closed_cleanly());
    }
}

#[test]
fn clients_show_a_certificate_where_they_must() {
    let (authority, ours, theirs) = (Authority::new(), Authority::new(), Authority::new());
    let shown = authority.sign(&["a.test"]);
    let config = |required| {
        let client_auth = ClientAuth { authorities: ours.pem.as_bytes(), revoked: None, required };
        let (certificates, tickets) = ([shown.of()], tickets());
        let options = ServerOptions {
            certificates: &certificates,
            version: Version::Tls12,
            http2: false,
            groups: &ALL_GROUPS,
            client_auth: Some(client_auth),
            tickets: &tickets,
        };
        server_config(&options, now()).unwrap()
    };
    let identities = [None, Some(ours.sign(&["client"])), Some(theirs.sign(&["client"]))];
    for (required, passes) in [(true, [false, true, false]), (false, [true, true, false])] {
        for (identity, passes) in identities.iter().zip(passes) {
            let own = identity.as_ref().map(|pair| Identity { chain: pair.chain.as_bytes(), key: pair.key.as_bytes() });
            let client = client_config(Some(authority.pem.as_bytes()), own, &[b"http/1.1"]).unwrap();
            let mut talk = Talk::new(&client, &config(required), "a.test");
            match talk.run() {
                Ok(()) => assert!(passes),
                Err((who, broken)) => {
                    assert!(!passes && who == "server", "{broken:?}");
                    assert_eq!(Failure::of(&broken.into()), Failure::Certificate);
                    assert!(!talk.server.unsent().is_empty(), "the client is told");
                }
            }
        }
    }
}

#[test]
fn the_lowest_version_and_the_groups_are_kept_to() {
    let authority = Authority::new();
    let pair = authority.sign(&["a.test"]);
    let strict = server_with(&[&pair], |options| options.version = Version::Tls13).unwrap();
    let mut talk = Talk::new(&client(&authority, TLS12), &strict, "a.test");
    let (who, broken) = talk.run().unwrap_err();
    assert_eq!((who, Failure::of(&broken.into())), ("server", Failure::Incompatible));
    Talk::new(&client(&authority, TLS13), &strict, "a.test").run().unwrap();

    for group in &ALL_GROUPS {
        let server = server_with(&[&pair], |options| options.groups = std::slice::from_ref(group)).unwrap();
        let mut talk = Talk::new(&client(&authority, TLS13), &server, "a.test");
        talk.run().unwrap();
        let agreed = talk.server.common().negotiated_key_exchange_group().unwrap();
        assert_eq!(format!("{:?}", agreed.name()).to_lowercase(), format!("{group:?}").to_lowercase());
    }
}

#[test]
fn a_hello_that_stops_at_any_byte_is_waited_for_and_one_that_is_bent_is_told() {
    let authority = Authority::new();
    let server = server(&[&authority.sign(&["a.test"])]);
    let buffers = Buffers::default();
    let hello = Talk::new(&client(&authority, TLS13), &server, "a.test").client.take_unsent();
    for at in 0..hello.len() {
        let mut session = Session::server(server.clone()).unwrap();
        session.receive(&mut hello[..at].to_vec(), &mut Vec::new(), &buffers).unwrap();
        assert!(session.is_handshaking() && session.unsent().is_empty(), "cut at {at}");
        session.receive(&mut hello[at..].to_vec(), &mut Vec::new(), &buffers).unwrap();
        assert!(!session.unsent().is_empty(), "whole after a cut at {at}");
    }
    for at in 0..hello.len() {
        let mut bent = hello.clone();
        bent[at] ^= 0x80;
        let mut session = Session::server(server.clone()).unwrap();
        if session.receive(&mut bent, &mut Vec::new(), &buffers).is_err() {
            assert!(session.seal(b"x", &buffers).is_err(), "nothing goes out after a failure");
            session.end(&buffers);
            session.receive(&mut hello.clone(), &mut Vec::new(), &buffers).unwrap();
        }
    }
}

#[test]
fn what_is_no_tls_is_left_as_it_came() {
    let authority = Authority::new();
    let server = server(&[&authority.sign(&["a.test"])]);
    let mut session = Session::server(server.clone()).unwrap();
    let mut request = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    let outcome = session.receive(&mut request, &mut Vec::new(), &Buffers::default());
    assert!(matches!(outcome, Err(Broken::NotTls)), "{outcome:?}");
    assert_eq!(request, b"GET / HTTP/1.1\r\n\r\n");
    // Only the first byte tells.
    let mut session = Session::server(server).unwrap();
    session.receive(&mut [0x16], &mut Vec::new(), &Buffers::default()).unwrap();
    let outcome = session.receive(&mut b"GET".to_vec(), &mut Vec::new(), &Buffers::default());
    assert!(!matches!(outcome, Err(Broken::NotTls)), "{outcome:?}");
}

#[test]
fn a_handshake_message_without_end_is_not_held() {
    let authority = Authority::new();
    let mut session = Session::server(server(&[&authority.sign(&["a.test"])])).unwrap();
    let (buffers, mut held, mut sent) = (Buffers::default(), 0, 0);
    // A ClientHello that says it is 16 MiB long, in records of 16 KiB.
    let mut body = vec![1, 0xff, 0xff, 0xff];
    body.resize(16 << 10, 0);
    let broken = loop {
        let mut record = vec![0x16, 3, 1, 0x40, 0];
        record.append(&mut body);
        sent += record.len();
        match session.receive(&mut record, &mut Vec::new(), &buffers) {
            Ok(()) => held = session.partial.len(),
            Err(broken) => break broken,
        }
        body.resize(16 << 10, 0);
        assert!(sent < 1 << 20, "still taken after {sent} bytes");
    };
    assert!(held <= PARTIAL_BYTES_MAX, "{held}: {broken:?}");
    assert!(session.seal(b"x", &buffers).is_err());
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
    let authority = Authority::new();
    let (one, two) = (authority.sign(&["one.test"]), authority.sign(&["two.test"]));
    let mut params = CertificateParams::new(["old.test".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2020, 2, 1));
    let key = Key::generate().unwrap();
    let old = Pair { chain: params.signed_by(&key, &authority.issuer).unwrap().pem(), key: key.serialize_pem() };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (chain, key, is_chain, what) in [
        (one.chain.as_str(), two.key.as_str(), false, "is the key of another certificate"),
        (&old.chain, &old.key, true, "its certificate has expired: Feb  1"),
        ("", &one.key, true, "holds no certificate"),
        (&one.key, &one.key, true, "holds no certificate"),
        (broken, &one.key, true, "its certificate cannot be read"),
        (&one.chain[..one.chain.len() / 2], &one.key, true, "is not whole: -----END CERTIFICATE----- is missing"),
        (&one.chain, "", false, "holds no private key"),
        (&one.chain, &one.chain, false, "holds no private key"),
        (&one.chain, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", false, "cannot be used"),
    ] {
        let pair = KeyPair { chain: chain.as_bytes(), key: key.as_bytes() };
        let (found, text) = match check_key_pair(&pair, now()).expect_err(what) {
            Faulty::Chain(0, text) => (true, text),
            Faulty::Key(0, text) => (false, text),
            other => panic!("{what}: {other:?}"),
        };
        assert!(found == is_chain && text.starts_with(what), "{text:?}, not {what:?}");
    }
    check_key_pair(&one.of(), now()).unwrap();
    let second = server_with(&[&one, &old], |_| {}).unwrap_err();
    assert!(matches!(&second, Faulty::Chain(1, _)), "{second:?}");
    assert!(matches!(check_authorities(b"", None), Err(Faulty::Authorities(_))));
    assert!(matches!(check_authorities(authority.pem.as_bytes(), Some(b"")), Err(Faulty::Revoked(_))));
    check_authorities(authority.pem.as_bytes(), None).unwrap();
}

#[test]
fn a_certificate_that_is_revoked_lets_nobody_in() {
    let (authority, ours) = (Authority::new(), Authority::new());
    let shown = authority.sign(&["a.test"]);
    let mut params = CertificateParams::new(["client".to_owned()]).unwrap();
    params.serial_number = Some(rcgen::SerialNumber::from(7));
    let key = Key::generate().unwrap();
    let revoked = Pair { chain: params.signed_by(&key, &ours.issuer).unwrap().pem(), key: key.serialize_pem() };
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: rcgen::SerialNumber::from(7),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&ours.issuer).unwrap().pem().unwrap();
    let (certificates, tickets) = ([shown.of()], tickets());
    let options = ServerOptions {
        certificates: &certificates,
        version: Version::Tls12,
        http2: false,
        groups: &ALL_GROUPS,
        client_auth: Some(ClientAuth {
            authorities: ours.pem.as_bytes(),
            revoked: Some(list.as_bytes()),
            required: true,
        }),
        tickets: &tickets,
    };
    let server = server_config(&options, now()).unwrap();
    for (pair, passes) in [(ours.sign(&["client"]), true), (revoked, false)] {
        let own = Identity { chain: pair.chain.as_bytes(), key: pair.key.as_bytes() };
        let client = client_config(Some(authority.pem.as_bytes()), Some(own), &[b"http/1.1"]).unwrap();
        assert_eq!(Talk::new(&client, &server, "a.test").run().is_ok(), passes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Nothing that a stranger sends, before, in the middle of or after a handshake, does more than end his session.
    #[test]
    fn no_bytes_break_more_than_their_session(
        at in 0usize..3,
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
        header in any::<bool>(),
    ) {
        thread_local! {
            static WORLD: (Arc<ClientConfig>, Arc<ServerConfig>) = {
                let authority = Authority::new();
                (client(&authority, TLS13), server(&[&authority.sign(&["a.test"])]))
            };
        }
        let (client, server) = WORLD.with(Clone::clone);
        let mut talk = Talk::new(&client, &server, "a.test");
        match at {
            0 => {}
            1 => {
                let mut hello = talk.client.take_unsent();
                talk.server.receive(&mut hello, &mut Vec::new(), &talk.buffers).unwrap();
            }
            _ => talk.run().unwrap(),
        }
        for mut piece in pieces {
            if header {
                let len = piece.len() as u16;
                piece.splice(0..0, [20 + (len % 5) as u8, 3, 3, (len >> 8) as u8, len as u8]);
            }
            let _ = talk.server.receive(&mut piece, &mut talk.heard[1], &talk.buffers);
        }
        let _ = talk.server.seal(b"x", &talk.buffers);
        talk.server.end(&talk.buffers);
        prop_assert!(talk.heard[1].is_empty());
    }
}
