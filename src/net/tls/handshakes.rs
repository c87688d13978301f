//! How the handshakes of one worker's clients went, counted.

use std::cell::Cell;
use std::io;

use rustls::Error;

/// Why a client's handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It spoke HTTP without TLS, and was told so.
    PlainHttp,
    /// It was not done in time.
    Timeout,
    /// The client closed or reset the connection.
    Closed,
    /// The client had to show a certificate and did not, or a wrong one.
    Certificate,
    /// The client refused what it was shown, by an alert.
    Alert,
    /// There is no version, cipher suite, group or application protocol that both sides know.
    Incompatible,
    /// What the client sent is not TLS, or breaks its rules.
    Malformed,
}

impl Failure {
    /// All of them, in the order in which they are counted.
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

    /// What an error of [`Stream::handshake`](crate::net::stream::Stream::handshake) means.
    pub fn of(error: &io::Error) -> Failure {
        let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
            return match error.kind() {
                io::ErrorKind::InvalidData => Failure::Malformed,
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

/// One worker's handshakes with clients since it started.
#[derive(Debug, Default)]
pub struct Handshakes {
    full: Cell<u64>,
    resumed: Cell<u64>,
    failed: [Cell<u64>; Failure::ALL.len()],
}

impl Handshakes {
    /// Counts one that succeeded.
    pub fn note_done(&self, resumed: bool) {
        let count = if resumed { &self.resumed } else { &self.full };
        count.set(count.get() + 1);
    }

    /// Counts one that failed.
    pub fn note_failed(&self, failure: Failure) {
        let count = &self.failed[failure as usize];
        count.set(count.get() + 1);
    }

    /// Full ones.
    pub fn full(&self) -> u64 {
        self.full.get()
    }

    /// Those that went on from an earlier session.
    pub fn resumed(&self) -> u64 {
        self.resumed.get()
    }

    /// Those that failed so.
    pub fn failed(&self, failure: Failure) -> u64 {
        self.failed[failure as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_own_count() {
        let handshakes = Handshakes::default();
        for (n, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, n, "{failure:?}");
            (0..=n).for_each(|_| handshakes.note_failed(failure));
        }
        for (n, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(handshakes.failed(failure), n as u64 + 1, "{failure:?}");
        }
        handshakes.note_done(true);
        assert_eq!((handshakes.full(), handshakes.resumed()), (0, 1));
    }
}
