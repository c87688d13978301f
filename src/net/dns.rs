//! This core's view of resolved names: the control thread resolves, workers read.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Addresses of every name that the configuration mentions; a name that never resolved is absent.
pub type Names = HashMap<String, Vec<IpAddr>>;

/// What one worker knows.
#[derive(Debug, Default)]
pub struct Resolved {
    names: Arc<Names>,
}

impl Resolved {
    /// Takes a newer set of names over.
    pub fn adopt(&mut self, names: Arc<Names>) {
        self.names = names;
    }

    /// The addresses of `host`, an IP literal or a name, in the order to try; empty while it is unknown.
    pub fn addresses(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return vec![SocketAddr::new(ip, port)];
        }
        match self.names.get(host) {
            Some(addresses) => addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_need_no_resolving_and_newer_names_replace_older_ones() {
        let mut resolved = Resolved::default();
        assert_eq!(resolved.addresses("::1", 80), ["[::1]:80".parse().unwrap()]);
        assert!(resolved.addresses("api.test", 443).is_empty());
        for octet in [1, 2] {
            let ip = IpAddr::from([127, 0, 0, octet]);
            resolved.adopt(Arc::new(Names::from([("api.test".to_owned(), vec![ip])])));
            assert_eq!(resolved.addresses("api.test", 443), [SocketAddr::new(ip, 443)]);
        }
    }
}
