//! Resolved names: what the control thread has learned, and what the workers read.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Serialize, Serializer};

/// What is known of every name that was asked for; a name whose first asking goes on is absent.
pub type Names = HashMap<String, Found>;

/// What is known of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its addresses, never empty: those of the last good answer.
    Addresses(Arc<[IpAddr]>),
    /// It never had one; it is asked for again and again.
    Missing(Missing),
}

impl Serialize for Found {
    /// A list of addresses, or the reason for which there is none.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Found::Addresses(addresses) => serializer.collect_seq(addresses.iter()),
            Found::Missing(missing) => serializer.collect_str(missing),
        }
    }
}

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It does not exist.
    NoName,
    /// It exists and has no address.
    NoAddress,
    /// No name server answered in time.
    NoAnswer,
    /// The name servers failed or refused.
    Failed,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::NoName => "does not exist (NXDOMAIN)",
            Missing::NoAddress => "has no address",
            Missing::NoAnswer => "could not be resolved: no name server answered in time",
            Missing::Failed => "could not be resolved: the name servers failed",
        })
    }
}

/// How the asking for names went.
///
/// Lives on: the control thread writes; any thread reads, relaxed.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Askings of one name, for both families, that brought an address.
    pub found: AtomicU64,
    /// Those that brought none: [`Missing::NoName`].
    pub no_name: AtomicU64,
    /// [`Missing::NoAddress`].
    pub no_address: AtomicU64,
    /// [`Missing::NoAnswer`].
    pub no_answer: AtomicU64,
    /// [`Missing::Failed`].
    pub failed: AtomicU64,
    /// Names that are asked for.
    pub names: AtomicU64,
    /// Names whose last asking brought no address, whether an older answer is in use or not.
    pub failing: AtomicU64,
    /// When the oldest answer in use was given, in nanoseconds of the process's clock; `u64::MAX` without any.
    pub oldest: AtomicU64,
}

impl Lookups {
    /// Counts one asking.
    pub fn count(&self, missing: Option<Missing>) {
        let counter = match missing {
            None => &self.found,
            Some(Missing::NoName) => &self.no_name,
            Some(Missing::NoAddress) => &self.no_address,
            Some(Missing::NoAnswer) => &self.no_answer,
            Some(Missing::Failed) => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
    }
}
