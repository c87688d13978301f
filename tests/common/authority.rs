//! Certificates of the tests' own making, and a provider's side of TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

/// A certificate and its key.
pub type Certificate = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A certificate authority, and its certificate in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM; removed with the authority.
    pub file: PathBuf,
}

impl Authority {
    /// One that nobody knows yet, called `name`.
    pub fn new(name: &str) -> Authority {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("ringway-test-{}-{name}-{number}.pem", std::process::id()));
        std::fs::write(&file, certificate.pem()).expect("a file for the certificate");
        Authority { issuer: Issuer::new(params, key), file }
    }

    /// A certificate for `host`, a name or an address; one that was good in January 2020 only if `expired`.
    pub fn sign(&self, host: &str, expired: bool) -> Certificate {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// As [`server_config`], for clients whose certificate `clients` has signed.
pub fn server_config_for_known_clients(
    (certificate, key): Certificate,
    version: &'static SupportedProtocolVersion,
    clients: &Authority,
) -> Arc<ServerConfig> {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&clients.file).expect("a certificate")).expect("an authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto.clone()).build();
    let config = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[version])
        .expect("a version the provider speaks")
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(vec![certificate], key)
        .expect("a certificate that fits its key");
    Arc::new(config)
}

/// A provider that shows `certificate` and speaks `version`.
pub fn server_config((certificate, key): Certificate, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[version])
        .expect("a version the provider speaks")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate that fits its key");
    Arc::new(config)
}
