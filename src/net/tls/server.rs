//! What a listener shows its clients, and what it asks of them.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, SupportedProtocolVersion};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

pub use super::tickets::Tickets;
pub use rustls::ServerConfig;

use super::PROTOCOLS;
use super::client::{broken, certificates, private_key};
use crate::base::clock::UnixTime;

/// TLS 1.3 tickets sent after a full handshake, and after a resumed one. Each costs a key derivation, a sealing and some
/// 250 bytes. One is enough for a client that comes back, for it is given the next one then; one that opens several
/// connections at once may ask for more (RFC 9149).
const TICKETS: usize = 1;
const TICKETS_MAX: usize = 4;

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// How keys are agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// X25519 and ML-KEM-768 together: safe against a recording that is opened by a quantum computer.
    X25519MlKem768,
    /// X25519.
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
}

impl Group {
    fn of_rustls(self) -> &'static dyn SupportedKxGroup {
        match self {
            Group::X25519MlKem768 => kx_group::X25519MLKEM768,
            Group::X25519 => kx_group::X25519,
            Group::Secp256r1 => kx_group::SECP256R1,
            Group::Secp384r1 => kx_group::SECP384R1,
        }
    }
}

/// A certificate with those between it and an authority, and its key; both PEM.
#[derive(Debug, Clone, Copy)]
pub struct KeyPair<'a> {
    /// The chain, its end first.
    pub chain: &'a [u8],
    /// The key of the first certificate.
    pub key: &'a [u8],
}

/// Who clients must be.
#[derive(Debug, Clone, Copy)]
pub struct ClientAuth<'a> {
    /// PEM of the authorities that sign their certificates.
    pub authorities: &'a [u8],
    /// PEM of lists of certificates that are revoked; the list of the authority that signed a client's must be there.
    pub revoked: Option<&'a [u8]>,
    /// False lets clients in that show no certificate.
    pub required: bool,
}

/// What a listener's TLS is made of.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions<'a> {
    /// Certificates; the first is shown to clients that name no host, or one that none is for.
    pub certificates: &'a [KeyPair<'a>],
    /// The lowest version spoken.
    pub version: Version,
    /// True if HTTP/2 is spoken too.
    pub http2: bool,
    /// Groups, best first.
    pub groups: &'a [Group],
    /// Who clients must be; `None` asks for nothing.
    pub client_auth: Option<ClientAuth<'a>>,
    /// Where tickets come from. Sessions of another listener, or with other demands on clients, must not share them.
    pub tickets: &'a Tickets,
}

/// What is wrong with a listener's files: a sentence without its subject, the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Faulty {
    /// The chain of the certificate with this number.
    Chain(usize, String),
    /// The key of the certificate with this number.
    Key(usize, String),
    /// The clients' authorities.
    Authorities(String),
    /// The lists of revoked certificates.
    Revoked(String),
    /// None of them.
    Other(String),
}

/// A listener's configuration.
///
/// # Errors
/// What is wrong, and with which file.
pub fn server_config(options: &ServerOptions<'_>, now: UnixTime) -> Result<Arc<ServerConfig>, Faulty> {
    let other = |error: Error| Faulty::Other(error.to_string());
    let kx_groups = options.groups.iter().map(|group| group.of_rustls()).collect();
    let provider = Arc::new(CryptoProvider { kx_groups, ..default_provider() });
    let versions: &[&'static SupportedProtocolVersion] = match options.version {
        Version::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    let mut shown = Vec::new();
    for (at, pair) in options.certificates.iter().enumerate() {
        shown.push(certified(at, pair, &provider, now)?);
    }
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).map_err(other)?;
    let builder = match options.client_auth {
        Some(ClientAuth { authorities, revoked, required }) => {
            let roots = roots(authorities).map_err(Faulty::Authorities)?;
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if let Some(pem) = revoked {
                verifier = verifier.with_crls(lists(pem).map_err(Faulty::Revoked)?).only_check_end_entity_revocation();
            }
            if !required {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|error| match revoked {
                Some(_) => Faulty::Revoked(error.to_string()),
                None => Faulty::Authorities(error.to_string()),
            })?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Shown::new(shown)));
    // A client that offers none of these is refused (RFC 7301); one that offers nothing is taken to speak HTTP/1.1.
    let spoken = if options.http2 { &PROTOCOLS[..] } else { &PROTOCOLS[1..] };
    config.alpn_protocols = spoken.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = options.tickets.0.clone();
    // Clients of TLS 1.2 without tickets are rare; a store of their sessions would be a lock for all workers.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS;
    config.max_tls13_tickets = TICKETS_MAX;
    Ok(Arc::new(config))
}

/// Holds a certificate and its key against each other and the time.
///
/// # Errors
/// What is wrong, and with which of both.
pub fn check_key_pair(pair: &KeyPair<'_>, now: UnixTime) -> Result<(), Faulty> {
    certified(0, pair, &default_provider(), now).map(drop)
}

/// Reads what [`ClientAuth`] takes.
///
/// # Errors
/// What is wrong, and with which of both.
pub fn check_authorities(authorities: &[u8], revoked: Option<&[u8]>) -> Result<(), Faulty> {
    roots(authorities).map_err(Faulty::Authorities)?;
    revoked.map_or(Ok(()), |pem| lists(pem).map(drop).map_err(Faulty::Revoked))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).map_err(|error| error.to_string())? {
        roots.add(certificate).map_err(|error| format!("holds a certificate that is no authority's: {error}"))?;
    }
    Ok(roots)
}

fn lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("holds no list of revoked certificates".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(broken(&error)),
    }
}

fn certified(at: usize, pair: &KeyPair<'_>, provider: &CryptoProvider, now: UnixTime) -> Result<Named, Faulty> {
    let chain = certificates(pair.chain).map_err(|error| Faulty::Chain(at, error.to_string()))?;
    let key = private_key(pair.key).map_err(|error| Faulty::Key(at, error.to_string()))?;
    let names = names(&chain[0], now).map_err(|what| Faulty::Chain(at, what))?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            Faulty::Key(at, "is the key of another certificate".into())
        }
        Error::InvalidCertificate(error) => Faulty::Chain(at, format!("cannot be read: {error}")),
        error => Faulty::Key(at, format!("cannot be used: {error}")),
    })?;
    Ok(Named { names, key: Arc::new(key) })
}

/// The DNS names of a certificate, in lower case; an error if its time is over.
fn names(der: &[u8], now: UnixTime) -> Result<Vec<String>, String> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| format!("its certificate cannot be read: {error}"))?;
    let end = certificate.validity().not_after;
    // One whose time is still to come passes: a clock may be a little slow, and nobody would try again.
    if ASN1Time::from_timestamp((now.0 / 1_000_000).cast_signed()).is_ok_and(|now| now > end) {
        return Err(format!("its certificate has expired: {end}"));
    }
    let names = certificate.subject_alternative_name().map_err(|error| format!("its names cannot be read: {error}"))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok(names.collect())
}

/// A certificate and the names it is for.
struct Named {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

type Keys = Vec<Arc<CertifiedKey>>;

/// Which certificate is shown to whom.
#[derive(Debug)]
struct Shown {
    exact: HashMap<String, Keys>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Keys>,
    /// The first certificate, and others for a name of its: of another kind of key, maybe.
    default: Keys,
}

impl Shown {
    fn new(certificates: Vec<Named>) -> Shown {
        let (mut exact, mut wildcard) = (HashMap::<String, Keys>::new(), HashMap::<String, Keys>::new());
        let mut default = Keys::new();
        let first = certificates.first().map(|first| first.names.clone()).unwrap_or_default();
        for Named { names, key } in certificates {
            if default.is_empty() || names.iter().any(|name| first.contains(name)) {
                default.push(key.clone());
            }
            for name in names {
                match name.strip_prefix("*.") {
                    Some(rest) => wildcard.entry(rest.to_owned()).or_default().push(key.clone()),
                    None => exact.entry(name).or_default().push(key.clone()),
                }
            }
        }
        Shown { exact, wildcard, default }
    }

    /// The certificates for `name`; those of the name itself before those of a wildcard, which stands for one label.
    fn find(&self, name: Option<&str>) -> &Keys {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.default };
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(wildcard).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.find(hello.server_name());
        let can_sign = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        // If the client knows none of our algorithms, rustls finds the words for it.
        keys.iter().find(can_sign).or(keys.first()).cloned()
    }
}
