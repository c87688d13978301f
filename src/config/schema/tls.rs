//! HTTPS to clients, and certificates of our own for providers.

use std::time::Duration;

use schemars::JsonSchema;

use super::*;

/// HTTPS on a listener.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "ListenerTls")]
pub struct ListenerTlsSchema {
    /// Certificates, 1 to 1000, shown by the names in them (`*.` for one label included) to the client that asks for such a
    /// name; the first to all others. Several for one name: the first whose kind of key the client can check.
    #[schemars(length(min = 1, max = CERTIFICATES_MAX))]
    pub certificates: Vec<KeyPairSchema>,
    /// The lowest version of TLS spoken. Default `1.2`.
    #[schemars(extend("default" = "1.2"))]
    pub min_version: Option<TlsVersionSchema>,
    /// How keys are agreed on, best first, 1 to 4, each once. Default: all, in this order.
    #[schemars(length(min = 1, max = GROUPS_MAX), extend("default" = ["x25519mlkem768", "x25519", "secp256r1", "secp384r1"]))]
    pub groups: Option<Vec<TlsGroupSchema>>,
    /// Session tickets are sealed with a key that is exchanged after this: 1s to 168h. Those of the key before it are still
    /// taken. Default 6h.
    #[schemars(extend("default" = "6h"))]
    pub ticket_rotation: Option<HumanDuration>,
    /// PEM file of the authorities whose certificates clients show.
    #[schemars(length(min = 1))]
    pub client_ca: Option<String>,
    /// Whether a client must show a certificate that one of `client_ca` has signed. Default `required` where there is a
    /// `client_ca`.
    pub client_auth: Option<ClientAuthSchema>,
    /// PEM file of lists of revoked certificates; that of the authority that signed a client's certificate must be in it.
    #[schemars(length(min = 1))]
    pub client_crl: Option<String>,
    /// How long browsers are to remember that there is HTTPS here (`strict-transport-security` on every answer), 0s to 3650d;
    /// `365d` is usual. Without it nothing is said.
    pub hsts: Option<HumanDuration>,
}

impl ListenerTlsSchema {
    /// See the field.
    pub const TICKET_ROTATION: Bound<Duration> = ms(SECOND, 6 * HOUR, 168 * HOUR);
    /// See the field. An absent one says nothing.
    pub const HSTS: Bound<Duration> = ms(0, 0, 3650 * 24 * HOUR);
}

/// A certificate and its key.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "KeyPair")]
pub struct KeyPairSchema {
    /// PEM file of the certificate, and of those between it and an authority, in that order.
    #[schemars(length(min = 1))]
    pub chain: String,
    /// PEM file of its private key: RSA, ECDSA or Ed25519; PKCS#8, PKCS#1 or SEC 1; not encrypted.
    #[schemars(length(min = 1))]
    pub key: String,
}

/// A version of TLS.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename = "TlsVersion")]
pub enum TlsVersionSchema {
    /// 1.2 and 1.3.
    #[schemars(rename = "1.2")]
    Tls12,
    /// 1.3 only.
    #[schemars(rename = "1.3")]
    Tls13,
}

/// How keys are agreed on.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "TlsGroup")]
pub enum TlsGroupSchema {
    /// X25519 and ML-KEM-768 together: safe against a recording that is opened by a quantum computer one day.
    X25519MlKem768,
    /// X25519.
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "ClientAuth")]
pub enum ClientAuthSchema {
    /// Who shows none is refused.
    Required,
    /// Who shows none is let in; who shows a wrong one is refused.
    Optional,
}
