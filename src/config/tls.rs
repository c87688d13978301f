//! TLS as the operator wants it: which files, which versions, which clients.

use std::path::PathBuf;
use std::time::Duration;

/// A certificate with those between it and an authority, and its key: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPair {
    /// The chain, its end first.
    pub chain: PathBuf,
    /// The key of the first certificate.
    pub key: PathBuf,
}

/// A listener that speaks HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificates; never empty. The first is for clients that name no host, or one that none is for.
    pub certificates: Vec<KeyPair>,
    /// The lowest version spoken.
    pub min_version: TlsVersion,
    /// How keys are agreed on, best first; never empty.
    pub groups: Vec<TlsGroup>,
    /// How long a key of session tickets is in use. It is taken for as long again.
    pub ticket_rotation: Duration,
    /// Who clients must be; `None` asks for no certificate.
    pub client_auth: Option<ClientAuth>,
    /// How long browsers are to remember that there is HTTPS here; `None` says nothing.
    pub hsts: Option<Duration>,
}

/// The certificates that clients show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM file of the authorities that sign them.
    pub authorities: PathBuf,
    /// PEM file of lists of those that are revoked.
    pub revoked: Option<PathBuf>,
    /// False lets clients in that show none.
    pub required: bool,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// How keys are agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsGroup {
    /// X25519 and ML-KEM-768 together.
    X25519MlKem768,
    /// X25519.
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
}
