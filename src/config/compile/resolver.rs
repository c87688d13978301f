//! `[resolver]`.

use core::net::{IpAddr, SocketAddr};

use super::super::{Method, Resolver};
use super::*;

const SERVER_FORM: &str = r#"an IP address, with a port unless that is 53: "127.0.0.1:5353", "192.0.2.1", "[::1]:53""#;

pub(super) fn resolver(mut resolver: Section) -> Option<Resolver> {
    let words = [("dns", Method::Dns), ("getaddrinfo", Method::Getaddrinfo)];
    let method = resolver.choice("method", &words).unwrap_or(Method::Dns);
    let list = resolver.get("servers");
    let servers = match &list {
        None => Some(Vec::new()),
        Some(item) if method == Method::Getaddrinfo => {
            item.wrong(r#"has no effect beside method = "getaddrinfo""#, r#"no servers, or method = "dns""#)
        }
        Some(item) => item.list(SERVERS_MAX, "a list of name servers").and_then(|items| all(items, server)),
    };
    let timeout = resolver.duration("timeout", ResolverSchema::TIMEOUT);
    let ttl_min = resolver.duration("ttl_min", ResolverSchema::TTL_MIN);
    let ttl_max = resolver.duration("ttl_max", ResolverSchema::TTL_MAX);
    // A default yields; a value that was written is a fault.
    if ttl_max < ttl_min
        && let Some(item) = resolver.get("ttl_max")
    {
        let shown = values::show_duration(ttl_min);
        item.wrong::<()>("is below ttl_min", &format!("at least {shown}, which is ttl_min"));
    }
    resolver.finish();
    Some(Resolver { method, servers: servers?, timeout, ttl_min, ttl_max: ttl_max.max(ttl_min) })
}

fn server(item: &Item) -> Option<SocketAddr> {
    let text = item.text()?;
    let address = text.value.parse::<SocketAddr>().ok();
    let address = address.or_else(|| text.value.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)));
    match address.filter(|address| address.port() != 0) {
        Some(address) => Some(address),
        None => text.wrong("is no name server's address", SERVER_FORM),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{OPEN, around, only, sound};
    use super::*;

    #[test]
    fn name_servers_are_addresses_with_or_without_a_port() {
        let servers = r#"["127.0.0.1:5353", "192.0.2.1", "::1", "[::1]:53"]"#;
        let config = sound(&around("", &format!("[resolver]\nservers = {servers}\n")));
        let shown: Vec<String> = config.resolver.servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:5353", "192.0.2.1:53", "[::1]:53", "[::1]:53"]);
        assert!(sound(OPEN).resolver.servers.is_empty());
        for (value, at, what) in [
            (r#"["dns.example"]"#, "resolver.servers[0]", "is no name server's address"),
            (r#"["127.0.0.1:0"]"#, "resolver.servers[0]", "is no name server's address"),
            ("[]", "resolver.servers", "is empty"),
            (&format!("[{}]", "\"::1\",".repeat(SERVERS_MAX + 1)), "resolver.servers", "has 9 entries"),
            ("[\"::1\"]\nmethod = \"getaddrinfo\"", "resolver.servers", "has no effect beside"),
        ] {
            let (path, text) = only(&around("", &format!("[resolver]\nservers = {value}\n")));
            assert_eq!(path, at);
            assert!(text.contains(what), "{text}");
        }
        sound(&around("", &format!("[resolver]\nservers = [{}]\n", "\"::1\",".repeat(SERVERS_MAX))));
    }

    #[test]
    fn the_greatest_time_to_live_is_not_below_the_least() {
        let (path, text) = only(&around("", "[resolver]\nttl_min = \"10s\"\nttl_max = \"9999ms\"\n"));
        assert_eq!((path.as_str(), text.contains("is below ttl_min | at least 10s")), ("resolver.ttl_max", true));
        let config = sound(&around("", "[resolver]\nttl_min = \"1h\"\n"));
        assert_eq!(config.resolver.ttl_max, Duration::from_secs(3600), "a default yields");
    }
}
