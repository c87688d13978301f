//! How handshakes end.

use std::io;

use rustls::Error;

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The client spoke HTTP without TLS, and was told so.
    PlainHttp,
    /// It was not done in time.
    Timeout,
    /// The peer closed or reset the connection.
    Closed,
    /// The peer had to show a certificate and did not, or a wrong one.
    Certificate,
    /// The peer refused what it was shown, by an alert.
    Alert,
    /// There is no version, cipher suite, group or application protocol that both sides know.
    Incompatible,
    /// What the peer sent is not TLS, or breaks its rules.
    Malformed,
}

impl Failure {
    /// All of them, each at its own place.
    pub const ALL: [Failure; 7] = [
        Failure::PlainHttp,
        Failure::Timeout,
        Failure::Closed,
        Failure::Certificate,
        Failure::Alert,
        Failure::Incompatible,
        Failure::Malformed,
    ];

    /// Its name, as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::PlainHttp => "plain_http",
            Failure::Timeout => "timeout",
            Failure::Closed => "closed",
            Failure::Certificate => "certificate",
            Failure::Alert => "alert",
            Failure::Incompatible => "incompatible",
            Failure::Malformed => "malformed",
        }
    }

    /// True if `error` says that the peer did not take our certificate, or wanted one. Over TLS 1.3 a client hears of it only
    /// after its handshake, when it reads; the peer has looked at nothing else that it was sent (RFC 8446, section 4.4.2.4).
    pub fn refuses_us(error: &io::Error) -> bool {
        use rustls::AlertDescription as Alert;
        let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
        matches!(
            error,
            Some(Error::AlertReceived(
                Alert::CertificateRequired
                    | Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::AccessDenied
            ))
        )
    }

    /// What an error of [`Stream::handshake`](crate::net::stream::Stream::handshake) means.
    pub fn of(error: &io::Error) -> Failure {
        let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
            return match error.kind() {
                io::ErrorKind::InvalidData => Failure::Malformed,
                io::ErrorKind::TimedOut => Failure::Timeout,
                _ => Failure::Closed,
            };
        };
        match error {
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => {
                Failure::Certificate
            }
            Error::AlertReceived(_) => Failure::Alert,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failure::Incompatible,
            _ => Failure::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_stands_at_its_place() {
        for (at, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, at, "{failure:?}");
        }
    }
}
