//! Certificates of the test's own, in files as an operator has them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use rustls::pki_types::{CertificateDer, pem::PemObject};

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringway-test-{}-{number}.d", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Writes a chain and its key as `NAME.pem` and `NAME.key`.
    pub fn pair(&self, name: &str, pair: &Pair) {
        self.write(&format!("{name}.pem"), &pair.chain);
        self.write(&format!("{name}.key"), &pair.key);
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

/// A certificate chain and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub chain: String,
    /// Its key.
    pub key: String,
}

impl Pair {
    /// The certificate as a peer sees it.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("a certificate")
    }
}

impl Ca {
    /// A new one.
    pub fn new() -> Ca {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Ringway test authority");
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `names`, with an ECDSA key.
    pub fn sign(&self, names: &[&str]) -> Pair {
        self.sign_with(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// A certificate for `names`, with a key of that kind.
    pub fn sign_with(&self, names: &[&str], kind: &'static SignatureAlgorithm) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate_for(kind).expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { chain: certificate.pem(), key: key.serialize_pem() }
    }
}
