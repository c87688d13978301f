//! What to trust when speaking to an endpoint, and who we are there.

use std::io;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use rustls::ClientConfig;

/// A certificate of ours for an endpoint that asks for one, and its key; both PEM.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The certificate, and those between it and an authority.
    pub chain: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
}

/// What to trust when speaking to an endpoint: the system's authorities, else the bundled ones, and `extra_pem`
/// (a PEM file's contents) on top; who we are there; and which application protocols are offered, best first.
///
/// # Errors
/// If `extra_pem` holds no certificate or a broken one, or the identity cannot be used.
pub fn client_config(
    extra_pem: Option<&[u8]>,
    identity: Option<Identity<'_>>,
    protocols: &[&[u8]],
) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        // A container image may have no store at all.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(pem) = extra_pem {
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(invalid)?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(Identity { chain, key }) => {
            builder.with_client_auth_cert(certificates(chain)?, private_key(key)?).map_err(invalid)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The same, and nothing offered but HTTP/1.1.
pub fn over_http1(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Every certificate of a PEM file, at least one.
pub(super) fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| invalid(broken(&error)))?;
    if found.is_empty() { Err(invalid("holds no certificate")) } else { Ok(found) }
}

/// The first private key of a PEM file.
pub(super) fn private_key(pem: &[u8]) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => invalid("holds no private key"),
        error => invalid(broken(&error)),
    })
}

/// What is wrong with a PEM file, said of it.
pub(super) fn broken(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("is not whole: -----END {}----- is missing", String::from_utf8_lossy(end_marker))
        }
        error => format!("is no sound PEM file: {error}"),
    }
}

pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
