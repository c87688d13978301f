//! Session tickets: what a client brings back to go on from an earlier session, on whichever worker it lands.
//!
//! A ticket holds the session itself, sealed under a key that all workers share, so nothing is stored here. The key is
//! exchanged for a fresh one by and by; tickets of the key before it are still taken.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::crypto::GetRandomFailed;
use rustls::server::ProducesTickets;
use rustls::ticketer::TicketRotator;

/// How a key is told from another one, in bytes.
const NAME_BYTES: usize = 8;
/// The longest that a client of TLS 1.3 may be told to keep a ticket, in seconds (RFC 8446, section 4.6.1). Over more, Go's
/// ends the connection.
const LIFETIME_MAX: u32 = 7 * 24 * 3600;

/// The tickets of one listener.
///
/// Shared by all workers. rustls' rotator holds the keys behind a read-write lock of which sealing and opening take the
/// read side: two atomic operations on a shared cache line per handshake, some tens of nanoseconds of its hundred
/// microseconds or more, and no waiting. The write side is taken once a period, for as long as two pointers are
/// exchanged; the new key is made before.
#[derive(Debug, Clone)]
pub struct Tickets(pub(super) Arc<dyn ProducesTickets>);

impl Tickets {
    /// Tickets under keys that are used for `period` and taken for another one; whole seconds, at least one.
    ///
    /// # Errors
    /// If no randomness is to be had.
    pub fn new(period: Duration) -> std::io::Result<Tickets> {
        let seconds = u32::try_from(period.as_secs().max(1)).unwrap_or(u32::MAX / 2);
        let rotator = TicketRotator::new(seconds, || Ok(Box::new(Key::new()?))).map_err(std::io::Error::other)?;
        Ok(Tickets(Arc::new(Keys(rotator))))
    }

    /// Exchanges the key if its period is over.
    pub fn exchange_key(&self) {
        // The rotator looks at the time whenever it is used, and never else.
        let _ = self.0.encrypt(&[]);
    }
}

/// The key in use and the one before it.
#[derive(Debug)]
struct Keys(TicketRotator);

impl ProducesTickets for Keys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime().min(LIFETIME_MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(ticket)
    }
}

/// One key. With random nonces of 96 bits it is good for four billion tickets, far more than a period sees.
struct Key {
    name: [u8; NAME_BYTES],
    seal: RandomizedNonceKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl Key {
    fn new() -> Result<Key, GetRandomFailed> {
        let (mut name, mut key) = ([0; NAME_BYTES], [0; 32]);
        aws_lc_rs::rand::fill(&mut name).map_err(|_| GetRandomFailed)?;
        aws_lc_rs::rand::fill(&mut key).map_err(|_| GetRandomFailed)?;
        let seal = RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| GetRandomFailed)?;
        zeroize::Zeroize::zeroize(&mut key);
        Ok(Key { name, seal })
    }
}

impl ProducesTickets for Key {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // The rotator around it knows.
        0
    }

    /// Name, nonce, sealed session, tag.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut ticket = Vec::with_capacity(NAME_BYTES + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&self.name);
        ticket.resize(NAME_BYTES + NONCE_LEN, 0);
        ticket.extend_from_slice(plain);
        let sealed = &mut ticket[NAME_BYTES + NONCE_LEN..];
        let (nonce, tag) = self.seal.seal_in_place_separate_tag(Aad::from(&self.name), sealed).ok()?;
        ticket[NAME_BYTES..NAME_BYTES + NONCE_LEN].copy_from_slice(nonce.as_ref());
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let rest = ticket.strip_prefix(&self.name)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let plain = self.seal.open_in_place(Nonce::from(nonce), Aad::from(&self.name), &mut sealed).ok()?;
        let len = plain.len();
        sealed.truncate(len);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    #[test]
    fn a_ticket_opens_under_its_own_key_and_whole_only() {
        let (key, other) = (Key::new().unwrap(), Key::new().unwrap());
        let ticket = key.encrypt(b"session").unwrap();
        assert_eq!(key.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(other.decrypt(&ticket), None);
        assert_ne!(key.encrypt(b"session"), Some(ticket.clone()), "a nonce of its own each time");
        for at in 0..ticket.len() {
            let mut bent = ticket.clone();
            bent[at] ^= 1;
            assert_eq!(key.decrypt(&bent), None, "byte {at}");
            assert_eq!(key.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn all_who_share_them_open_each_others_tickets() {
        let tickets = Tickets::new(Duration::from_secs(3600)).unwrap();
        let sealed = tickets.0.encrypt(b"session").unwrap();
        assert_eq!(tickets.clone().0.decrypt(&sealed).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets.0.lifetime(), 7200, "a period in use and one more");
        assert_eq!(Tickets::new(Duration::from_secs(3600)).unwrap().0.decrypt(&sealed), None);
    }

    #[test]
    fn no_client_is_told_to_keep_a_ticket_for_longer_than_it_may() {
        for (hours, told_hours) in [(83, 166), (84, 168), (85, 168), (168, 168)] {
            let tickets = Tickets::new(Duration::from_secs(hours * 3600)).unwrap();
            assert_eq!(tickets.0.lifetime(), told_hours * 3600, "{hours} h");
        }
    }

    #[test]
    fn a_key_is_used_for_its_period_and_taken_for_one_more() {
        const PERIOD: Duration = Duration::from_secs(1);
        let clock = Clock::new();
        'anew: for _ in 0..20 {
            let start = clock.now();
            let tickets = Tickets::new(PERIOD).unwrap();
            let seal = || tickets.0.encrypt(b"session").unwrap();
            let opens = |ticket: &[u8]| tickets.0.decrypt(ticket).is_some();
            let first = seal();
            let (mut key, mut at, mut exchanges, mut seen) = (first[..NAME_BYTES].to_vec(), start, 0, [0; 2]);
            while exchanges < 2 {
                let opened = opens(&first);
                let (before, ticket) = (clock.now(), seal());
                if clock.now() - at >= PERIOD {
                    // Held up for so long that more than one key may have gone by.
                    continue 'anew;
                }
                if ticket.starts_with(&key) {
                    assert!(opened, "after {exchanges} exchanges");
                    seen[exchanges] += 1;
                } else {
                    exchanges += 1;
                }
                assert!(before - start < PERIOD * 20, "the key is not exchanged");
                (key, at) = (ticket[..NAME_BYTES].to_vec(), before);
                std::thread::yield_now();
            }
            assert!(clock.now() - start > PERIOD * 3 / 2, "each key has its period");
            assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
            assert!(!opens(&first), "after two exchanges");
            return;
        }
        panic!("this machine is too busy to tell");
    }
}
