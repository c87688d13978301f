//! Names to addresses, for every worker.
//!
//! Asks the system's resolver over and over, off the workers, and publishes what it learns. A name that stops
//! resolving keeps its last good addresses.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Task;
use crate::net::dns::Names;

/// How often names are asked for again.
const EVERY: Duration = Duration::from_secs(30);
/// How soon after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// How long one name may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Resolves `hosts` for ever, handing each new view to `publish`. IP literals need no resolving; without any name there
/// is nothing to do.
pub fn task(
    hosts: impl IntoIterator<Item = String>,
    publish: impl Fn(Arc<Names>) + Send + Sync + 'static,
) -> Option<Task> {
    let hosts: BTreeSet<String> = hosts.into_iter().filter(|host| host.parse::<IpAddr>().is_err()).collect();
    if hosts.is_empty() {
        return None;
    }
    Some(Box::pin(async move { resolve_for_ever(&hosts, publish).await }))
}

async fn resolve_for_ever(hosts: &BTreeSet<String>, publish: impl Fn(Arc<Names>)) {
    let mut known = Names::new();
    loop {
        let mut failed = false;
        for host in hosts {
            match lookup(host).await {
                Ok(addresses) => {
                    // Published one by one: a name that hangs must not hold back the others.
                    if known.get(host) != Some(&addresses) {
                        known.insert(host.clone(), addresses);
                        publish(Arc::new(known.clone()));
                    }
                }
                Err(error) => {
                    failed = true;
                    let kept = if known.contains_key(host) { "; its last addresses stay in use" } else { "" };
                    eprintln!("ringway: the name {host} does not resolve: {error}{kept}");
                }
            }
        }
        tokio::time::sleep(if failed { RETRY } else { EVERY }).await;
    }
}

async fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, 0))).await;
    let found =
        found.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}")))??;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_published_and_literals_need_no_task() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        assert!(task(["127.0.0.1".to_owned()], |_| {}).is_none());
        let hosts = ["127.0.0.1", "localhost"].map(str::to_owned);
        let task = task(hosts, move |names| drop(sender.send(names))).unwrap();
        super::super::start(vec![task]).unwrap();
        let names = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(names["localhost"].iter().all(IpAddr::is_loopback));
        assert_eq!(names.len(), 1);
    }
}
