//! The certificate that all peers show: ECDSA on P-256, signed by itself.

use std::fs;
use std::io;
use std::path::Path;

/// Writes `cert.pem`, `key.pem` and `both.pem` to `directory`.
///
/// # Errors
/// The files can't be written.
pub fn write(directory: &Path) -> io::Result<()> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(io::Error::other)?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(directory.join("cert.pem"), &certificate)?;
    fs::write(directory.join("key.pem"), &key)?;
    fs::write(directory.join("both.pem"), certificate + &key)
}
