//! Asks for one name: the hosts file, then name servers along the search list, or the C library.

use std::io;
use std::net::IpAddr;
use std::net::ToSocketAddrs;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;

use super::hosts::{HostsFile, Watched};
use super::roster::Answer;
use crate::config::Resolver;
use crate::net::dns::Missing;

/// How long an answer holds that tells no time to live.
const UNTOLD: Duration = Duration::from_secs(30);
/// Times that a name server is asked before it counts as silent.
const ATTEMPTS: usize = 3;
/// The families, as their answers are listed.
pub const FAMILIES: [RecordType; 2] = [RecordType::AAAA, RecordType::A];

/// Name servers, and what is looked at before they are asked.
pub struct NameServers {
    config: Resolver,
    hosts: HostsFile,
    system: Watched,
    /// `Err` while `/etc/resolv.conf` cannot be used.
    current: Result<Zone, String>,
}

/// Whom to ask, and which names to try for one that is not whole.
#[derive(Clone)]
struct Zone {
    resolver: TokioResolver,
    search: Arc<[Name]>,
    ndots: usize,
}

impl NameServers {
    /// Those of `config`, or of the system.
    pub fn new(config: &Resolver) -> NameServers {
        NameServers {
            config: config.clone(),
            hosts: HostsFile::new("/etc/hosts"),
            system: Watched::new("/etc/resolv.conf"),
            current: Err("/etc/resolv.conf cannot be read".to_owned()),
        }
    }

    /// Looks whether the system's files have changed.
    pub fn refresh(&mut self) {
        self.hosts.refresh();
        // At the first look an existing file has changed; a missing one has not, but is then an error already.
        if !self.config.servers.is_empty() {
            if self.current.is_err() {
                self.current = self.configured();
            }
        } else if self.system.is_to_be_read() {
            self.current = self.systems();
        }
    }

    /// What the hosts file says of `host`: IPv6, IPv4.
    pub fn in_hosts_file(&self, host: &str) -> Option<[Option<Answer>; 2]> {
        let name = Name::from_str(host).ok()?;
        let answers = FAMILIES.map(|family| {
            let lookup = self.hosts.hosts.lookup_static_host(&Query::query(name.clone(), family))?;
            let addresses: Vec<IpAddr> = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
            (!addresses.is_empty()).then_some(Answer::Found(addresses, UNTOLD))
        });
        let found = answers.iter().any(Option::is_some);
        found.then(|| answers.map(|answer| answer.or_else(|| Some(missing(Missing::NoAddress, "it has no address")))))
    }

    /// Asks for the addresses of `host` of one family.
    pub fn ask(&self, host: &str, family: RecordType) -> impl Future<Output = Answer> + Send + 'static {
        let (zone, timeout) = (self.current.clone(), self.config.timeout);
        let name = Name::from_str_relaxed(host).map_err(|_| "it is no name that DNS can hold".to_owned());
        async move {
            let (zone, name) = match (zone, name) {
                (Ok(zone), Ok(name)) => (zone, name),
                (Err(text), _) | (_, Err(text)) => return Answer::Missing(Missing::Failed, text),
            };
            let late = |_| missing(Missing::NoAnswer, &format!("no name server answered within {timeout:?}"));
            tokio::time::timeout(timeout, zone.ask(name, family)).await.unwrap_or_else(late)
        }
    }

    fn configured(&self) -> Result<Zone, String> {
        let servers = self.config.servers.iter().map(|address| {
            let at = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections = connections;
            server
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        self.zone(config, ResolverOpts::default(), ATTEMPTS)
    }

    fn systems(&self) -> Result<Zone, String> {
        let (config, options) =
            read_system_conf().map_err(|error| format!("/etc/resolv.conf cannot be used: {error}"))?;
        let attempts = options.attempts.clamp(1, ATTEMPTS);
        self.zone(config, options, attempts)
    }

    fn zone(&self, config: ResolverConfig, options: ResolverOpts, attempts: usize) -> Result<Zone, String> {
        // The host's own domain stands in for a search list.
        let domain = config.domain().filter(|_| config.search().is_empty());
        let search: Arc<[Name]> = config.search().iter().chain(domain).cloned().collect();
        let ndots = options.ndots;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let own = builder.options_mut();
        // One that is silent must leave time for the repetitions.
        own.timeout = options.timeout.min(self.config.timeout / attempts as u32);
        // It counts repetitions.
        own.attempts = attempts - 1;
        own.use_hosts_file = ResolveHosts::Never;
        own.edns0 = options.edns0;
        let resolver = builder.build().map_err(|error| format!("the name servers cannot be used: {error}"))?;
        Ok(Zone { resolver, search, ndots })
    }
}

impl Zone {
    /// Asks for the first of the candidates that exists. Both families stop at the same one, so that a host's
    /// addresses are never mixed with those of another.
    async fn ask(&self, name: Name, family: RecordType) -> Answer {
        let mut failed = None;
        for candidate in candidates(&name, &self.search, self.ndots) {
            // Whoever asks again wants to know anew.
            self.resolver.clear_lookup_cache(candidate.clone(), family);
            match self.ask_whole(candidate, family).await {
                Answer::Missing(Missing::NoName, _) => {}
                // A dead zone of the search list must not hide the name itself.
                answer @ Answer::Missing(Missing::Failed, _) => failed = Some(answer),
                answer => return answer,
            }
        }
        failed.unwrap_or_else(|| missing(Missing::NoName, "it does not exist (NXDOMAIN)"))
    }

    async fn ask_whole(&self, name: Name, family: RecordType) -> Answer {
        let error = match self.resolver.lookup(name, family).await {
            Ok(lookup) => {
                let addresses: Vec<IpAddr> =
                    lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
                if addresses.is_empty() {
                    return missing(Missing::NoAddress, "it has no address");
                }
                let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
                return Answer::Found(addresses, Duration::from_secs(ttl.into()));
            }
            Err(error) => error,
        };
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => missing(Missing::NoName, "it does not exist (NXDOMAIN)"),
                ResponseCode::NoError => missing(Missing::NoAddress, "it has no address"),
                code => missing(Missing::Failed, &format!("the name server says: {code}")),
            },
            NetError::Dns(DnsError::ResponseCode(code)) => {
                missing(Missing::Failed, &format!("the name server says: {code}"))
            }
            NetError::Timeout => missing(Missing::NoAnswer, "no name server answered in time"),
            error => missing(Missing::Failed, &format!("the name servers failed: {error}")),
        }
    }
}

/// The whole names to try for `name`, in order: as resolv.conf(5) has it with `search` and `ndots`.
fn candidates(name: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut whole = name.clone();
    whole.set_fqdn(true);
    let mut names: Vec<Name> = Vec::with_capacity(search.len() + 1);
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    if dots >= ndots || name.is_localhost() {
        names.push(whole.clone());
    }
    names.extend(search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()));
    names.push(whole);
    let mut seen = Vec::with_capacity(names.len());
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    names
}

fn missing(missing: Missing, text: &str) -> Answer {
    Answer::Missing(missing, text.to_owned())
}

/// Asks the C library for both families of `host`. It cannot be told to give up, so while it goes on with `host`, which
/// `busy` tells, it is not asked for it again.
pub async fn ask_library(host: String, timeout: Duration, busy: Arc<AtomicBool>) -> [Option<Answer>; 2] {
    let silent = || [None, Some(missing(Missing::NoAnswer, &format!("getaddrinfo gave no answer within {timeout:?}")))];
    if busy.swap(true, Ordering::Relaxed) {
        return silent();
    }
    let asking = tokio::task::spawn_blocking(move || {
        let found = (host.as_str(), 0).to_socket_addrs();
        busy.store(false, Ordering::Relaxed);
        found.map(|addresses| addresses.map(|address| address.ip()).collect::<Vec<IpAddr>>())
    });
    match tokio::time::timeout(timeout, asking).await {
        Ok(Ok(found)) => from_library(found),
        Ok(Err(_)) => [None, Some(missing(Missing::Failed, "getaddrinfo panicked"))],
        Err(_) => silent(),
    }
}

fn from_library(found: io::Result<Vec<IpAddr>>) -> [Option<Answer>; 2] {
    let all = match found {
        Ok(all) => all,
        // The standard library hides the code, so what failed and what is missing cannot be told apart.
        Err(error) => return [None, Some(missing(Missing::Failed, &error.to_string()))],
    };
    [IpAddr::is_ipv6, IpAddr::is_ipv4].map(|is_of_family: fn(&IpAddr) -> bool| {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in all.iter().filter(|address| is_of_family(address)) {
            // One comes for each kind of socket.
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        Some(match addresses.is_empty() {
            true => missing(Missing::NoAddress, "it has no address"),
            false => Answer::Found(addresses, UNTOLD),
        })
    })
}
