//! Certificates, keys and authorities: from files into memory at start, and again when the files change.
//!
//! Lives on: whoever starts the gateway, then a thread of its own. What it makes is published to the workers whole; what
//! cannot be used is told and leaves what was there before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use crate::base::clock::UnixTime;
use crate::config::EndpointHttp2;
use crate::config::{Config, KeyPair, ListenerTls, TlsGroup, TlsVersion};
use crate::net::tls::{self, ClientConfig, Credentials, Faulty, Group, Identity, ServerConfig, Tickets, Version};

/// The longest file taken, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Files by path, each read once, or why it could not be.
type Files = BTreeMap<PathBuf, Result<Vec<u8>, String>>;
type Digest = [u8; 32];

/// What is made of the files of one configuration.
pub struct Loader {
    config: Arc<Config>,
    listeners: Vec<Option<Front>>,
    endpoints: Vec<Option<Made<ClientConfig>>>,
}

/// What was made of some files, and what they held.
struct Made<T> {
    seen: Option<Digest>,
    made: Option<Arc<T>>,
}

impl<T> Default for Made<T> {
    fn default() -> Made<T> {
        Made { seen: None, made: None }
    }
}

struct Front {
    shown: Made<ServerConfig>,
    /// Tickets, and the demands on clients under which they were given: a session must not outlive these.
    tickets: Option<(Digest, Tickets)>,
}

/// What a look at the files has brought.
pub struct News {
    /// The whole, if anything of it is new.
    pub credentials: Option<Arc<Credentials>>,
    /// The listeners and endpoints whose files have changed and can be used.
    pub renewed: Vec<String>,
    /// A sentence for each listener or endpoint whose files cannot be used.
    pub faults: Vec<String>,
}

impl Loader {
    /// Nothing is read yet.
    pub fn new(config: Arc<Config>) -> Loader {
        let listeners = config.listeners.iter();
        let listeners = listeners
            .map(|listener| listener.tls.as_ref().map(|_| Front { shown: Made::default(), tickets: None }))
            .collect();
        let endpoints = config.endpoints.iter().map(|endpoint| endpoint.tls.then(Made::default)).collect();
        Loader { config, listeners, endpoints }
    }

    /// What it reads the files of.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Every file that is read.
    pub fn paths(&self) -> Vec<PathBuf> {
        let fronts = self.config.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(front_files);
        let endpoints = self.config.endpoints.iter();
        let endpoints = endpoints.flat_map(|endpoint| back_files(&endpoint.ca, &endpoint.client_certificate));
        let mut paths: Vec<PathBuf> = fronts.chain(endpoints).map(Path::to_owned).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Reads all files, and makes anew what they have changed of.
    pub fn look(&mut self, now: UnixTime) -> News {
        let files: Files = self.paths().into_iter().map(|path| (path.clone(), read(&path))).collect();
        let (mut renewed, mut faults) = (Vec::new(), Vec::new());
        for (listener, front) in self.config.listeners.iter().zip(&mut self.listeners) {
            let (Some(tls), Some(front)) = (&listener.tls, front) else { continue };
            let seen = digest(front_files(tls), &files);
            if front.shown.seen.replace(seen) == Some(seen) {
                continue;
            }
            match front.make(tls, listener.http2, &files, now) {
                Ok(made) => {
                    front.shown.made = Some(made);
                    renewed.push(format!("listener {}", listener.address));
                }
                Err(what) => faults.push(format!("listener {}: {what}", listener.address)),
            }
        }
        // Many endpoints share what they trust; reading the system's store takes its time.
        let mut made = BTreeMap::new();
        for (endpoint, back) in self.config.endpoints.iter().zip(&mut self.endpoints) {
            let Some(back) = back else { continue };
            let parts = (&endpoint.ca, &endpoint.client_certificate);
            let seen = digest(back_files(parts.0, parts.1), &files);
            if back.seen.replace(seen) == Some(seen) {
                continue;
            }
            let offered: &[&[u8]] = match endpoint.http2 {
                EndpointHttp2::Auto => &[b"h2", b"http/1.1"],
                EndpointHttp2::Never => &[b"http/1.1"],
                EndpointHttp2::PriorKnowledge => &[b"h2"],
            };
            let make = || client_config(parts.0.as_deref(), parts.1.as_ref(), offered, &files);
            match made.entry((seen, offered)).or_insert_with(make) {
                Ok(config) => {
                    back.made = Some(config.clone());
                    renewed.push(format!("endpoint {}", endpoint.name));
                }
                Err(what) => faults.push(format!("endpoint {}: {what}", endpoint.name)),
            }
        }
        News { credentials: (!renewed.is_empty()).then(|| self.credentials()), renewed, faults }
    }

    /// Exchanges the keys of tickets that are due. Tickets do so too as they come and go, but a listener to which nobody
    /// comes would keep its key, and open with it what was recorded long ago.
    pub fn exchange_keys(&self) {
        let tickets = self.listeners.iter().flatten().filter_map(|front| front.tickets.as_ref());
        tickets.for_each(|(_, tickets)| tickets.exchange_key());
    }

    /// The whole of what was made so far.
    pub fn credentials(&self) -> Arc<Credentials> {
        let listeners = self.listeners.iter().map(|front| front.as_ref().and_then(|front| front.shown.made.clone()));
        let endpoints = self.endpoints.iter().map(|back| back.as_ref().and_then(|back| back.made.clone()));
        Arc::new(Credentials { listeners: listeners.collect(), endpoints: endpoints.collect() })
    }
}

impl Front {
    fn make(
        &mut self,
        tls: &ListenerTls,
        http2: bool,
        files: &Files,
        now: UnixTime,
    ) -> Result<Arc<ServerConfig>, String> {
        let mut certificates = Vec::new();
        for KeyPair { chain, key } in &tls.certificates {
            certificates.push(tls::KeyPair { chain: contents(files, chain)?, key: contents(files, key)? });
        }
        let client_auth = match &tls.client_auth {
            Some(auth) => Some(tls::ClientAuth {
                authorities: contents(files, &auth.authorities)?,
                revoked: auth.revoked.as_ref().map(|path| contents(files, path)).transpose()?,
                required: auth.required,
            }),
            None => None,
        };
        let demands = digest(demand_files(tls), files);
        let tickets = match &self.tickets {
            Some((under, tickets)) if *under == demands => tickets.clone(),
            _ => Tickets::new(tls.ticket_rotation).map_err(|error| error.to_string())?,
        };
        let options = tls::ServerOptions {
            certificates: &certificates,
            version: match tls.min_version {
                TlsVersion::Tls12 => Version::Tls12,
                TlsVersion::Tls13 => Version::Tls13,
            },
            http2,
            groups: &tls.groups.iter().map(|group| self::group(*group)).collect::<Vec<_>>(),
            client_auth,
            tickets: &tickets,
        };
        let made = tls::server_config(&options, now).map_err(|fault| blame(&fault, tls))?;
        self.tickets = Some((demands, tickets));
        Ok(made)
    }
}

fn group(group: TlsGroup) -> Group {
    match group {
        TlsGroup::X25519MlKem768 => Group::X25519MlKem768,
        TlsGroup::X25519 => Group::X25519,
        TlsGroup::Secp256r1 => Group::Secp256r1,
        TlsGroup::Secp384r1 => Group::Secp384r1,
    }
}

/// The sentence with its subject.
fn blame(fault: &Faulty, tls: &ListenerTls) -> String {
    let revoked = tls.client_auth.as_ref().and_then(|auth| auth.revoked.as_ref());
    let (path, what) = match fault {
        Faulty::Chain(at, what) => (tls.certificates.get(*at).map(|pair| &pair.chain), what),
        Faulty::Key(at, what) => (tls.certificates.get(*at).map(|pair| &pair.key), what),
        Faulty::Authorities(what) => (tls.client_auth.as_ref().map(|auth| &auth.authorities), what),
        Faulty::Revoked(what) => (revoked, what),
        Faulty::Other(what) => (None, what),
    };
    match path {
        Some(path) => format!("{} {what}", path.display()),
        None => what.clone(),
    }
}

fn client_config(
    ca: Option<&Path>,
    own: Option<&KeyPair>,
    offered: &[&[u8]],
    files: &Files,
) -> Result<Arc<ClientConfig>, String> {
    let authority = ca.map(|path| contents(files, path)).transpose()?;
    let identity = match own {
        Some(KeyPair { chain, key }) => Some(Identity { chain: contents(files, chain)?, key: contents(files, key)? }),
        None => None,
    };
    tls::client_config(authority, identity, offered).map_err(|error| {
        let names: Vec<String> = ca.into_iter().map(|path| path.display().to_string()).collect();
        let own = own.into_iter().flat_map(|pair| [&pair.chain, &pair.key]).map(|path| path.display().to_string());
        format!("{}: {error}", names.into_iter().chain(own).collect::<Vec<_>>().join(", "))
    })
}

fn front_files(tls: &ListenerTls) -> impl Iterator<Item = &Path> {
    tls.certificates.iter().flat_map(|pair| [pair.chain.as_path(), pair.key.as_path()]).chain(demand_files(tls))
}

/// The files that say who clients must be.
fn demand_files(tls: &ListenerTls) -> impl Iterator<Item = &Path> {
    let auth = tls.client_auth.iter();
    auth.flat_map(|auth| std::iter::once(auth.authorities.as_path()).chain(auth.revoked.as_deref()))
}

fn back_files<'p>(ca: &'p Option<PathBuf>, own: &'p Option<KeyPair>) -> impl Iterator<Item = &'p Path> {
    let own = own.iter().flat_map(|pair| [pair.chain.as_path(), pair.key.as_path()]);
    ca.iter().map(PathBuf::as_path).chain(own)
}

fn contents<'f>(files: &'f Files, path: &Path) -> Result<&'f [u8], String> {
    match files.get(path) {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(what)) => Err(what.clone()),
        None => Err(format!("{} was not read", path.display())),
    }
}

/// Of names and contents; two lists of files have one digest only if they are the same.
fn digest<'p>(paths: impl Iterator<Item = &'p Path>, files: &Files) -> Digest {
    let mut context = Context::new(&SHA256);
    for path in paths {
        let (bytes, whole) = match files.get(path) {
            Some(Ok(bytes)) => (bytes.as_slice(), 1),
            Some(Err(what)) => (what.as_bytes(), 0),
            None => (&[][..], 0),
        };
        let name = path.as_os_str().as_encoded_bytes();
        for part in [name, &[whole], bytes] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let read = read.and_then(|n| match n as u64 > FILE_BYTES_MAX {
        true => Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes"))),
        false => Ok(()),
    });
    read.map(|()| bytes).map_err(|error| format!("{shown} cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_bound_and_one_that_is_longer_not_at_all() {
        let path = std::env::temp_dir().join(format!("ringway-credentials-{}.pem", std::process::id()));
        for (more, is_read) in [(0, true), (1, false)] {
            std::fs::write(&path, vec![b'a'; FILE_BYTES_MAX as usize + more]).unwrap();
            assert_eq!(
                read(&path).map_err(|why| why.contains("longer than 1048576 bytes")).map(|bytes| bytes.len()),
                match is_read {
                    true => Ok(FILE_BYTES_MAX as usize),
                    false => Err(true),
                }
            );
        }
        let _ = std::fs::remove_file(&path);
    }
}
