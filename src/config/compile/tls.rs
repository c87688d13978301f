//! `tls = { … }` of a listener, and `client_certificate = { … }`.

use std::path::PathBuf;

use super::*;
use crate::base::Secret;
use crate::config::{ClientAuth, KeyPair, ListenerTls, TlsGroup, TlsVersion};

const PEM_FORM: &str = "a PEM file; a relative path starts at the folder of this file";
const CHAIN_FORM: &str = "a PEM file: the certificate, then those between it and an authority";
const KEY_FORM: &str = "a PEM file: the private key of the chain's first certificate";

const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
const GROUPS: [(&str, TlsGroup); GROUPS_MAX] = [
    ("x25519mlkem768", TlsGroup::X25519MlKem768),
    ("x25519", TlsGroup::X25519),
    ("secp256r1", TlsGroup::Secp256r1),
    ("secp384r1", TlsGroup::Secp384r1),
];

pub(super) fn listener(mut tls: Section) -> Option<ListenerTls> {
    let list = tls.require("certificates", r#"[{ chain = "cert.pem", key = "cert.key" }]"#);
    let certificates = list
        .and_then(|list| list.list(CERTIFICATES_MAX, r#"[{ chain = "cert.pem", key = "cert.key" }]"#))
        .and_then(|items| all(items, key_pair));
    let min_version = tls.choice("min_version", &VERSIONS).unwrap_or(TlsVersion::Tls12);
    let groups = tls.get("groups").map_or(Some(GROUPS.map(|(_, group)| group).to_vec()), |list| groups(&list));
    let ticket_rotation = tls.duration("ticket_rotation", ListenerTlsSchema::TICKET_ROTATION);
    let client_auth = client_auth(&mut tls);
    // Read even where it is absent, so that it counts as known.
    let hsts = tls.duration("hsts", ListenerTlsSchema::HSTS);
    let hsts = tls.get("hsts").map(|_| hsts);
    tls.finish();
    Some(ListenerTls {
        certificates: certificates?,
        min_version,
        groups: groups?,
        ticket_rotation,
        client_auth: client_auth?,
        hsts,
    })
}

fn groups(list: &Item) -> Option<Vec<TlsGroup>> {
    let mut seen = Vec::new();
    all(list.list(GROUPS_MAX, r#"["x25519", "secp256r1"]"#)?, |item| {
        let group = item.choice(&GROUPS)?;
        if seen.contains(&group) {
            return item.wrong("is named twice", "each group once");
        }
        seen.push(group);
        Some(group)
    })
}

/// `Some(None)` if clients are asked for nothing.
fn client_auth(tls: &mut Section) -> Option<Option<ClientAuth>> {
    let (ca, auth_item, crl) = (tls.get("client_ca"), tls.get("client_auth"), tls.get("client_crl"));
    let required = tls.choice("client_auth", &[("required", true), ("optional", false)]);
    let Some(ca) = ca else {
        return match auth_item.or(crl) {
            Some(item) => item.wrong("has no effect without client_ca", "client_ca, a PEM file of authorities"),
            None => Some(None),
        };
    };
    let authorities = file(&ca);
    let revoked = crl.as_ref().map_or(Some(None), |crl| file(crl).map(Some));
    let ((authorities, authorities_pem), revoked) = (authorities?, revoked?);
    let revoked_pem = revoked.as_ref().map(|(_, pem)| pem.expose());
    match (ca.reading.sources.authorities(authorities_pem.expose(), revoked_pem), &crl) {
        (Err(PemFault::First(what)), _) => return ca.wrong(&format!("the file {what}"), PEM_FORM),
        (Err(PemFault::Second(what)), Some(crl)) => return crl.wrong(&format!("the file {what}"), PEM_FORM),
        _ => {}
    }
    // Said, but not a known word: reported by now.
    if auth_item.is_some() && required.is_none() {
        return None;
    }
    let revoked = revoked.map(|(path, _)| path);
    Some(Some(ClientAuth { authorities, revoked, required: required.unwrap_or(true) }))
}

/// A certificate and its key that go together.
pub(super) fn key_pair(item: &Item) -> Option<KeyPair> {
    let mut pair = item.section()?;
    let chain = pair.require("chain", CHAIN_FORM);
    let key = pair.require("key", KEY_FORM);
    pair.finish();
    let (chain_file, key_file) = (chain.as_ref().and_then(file), key.as_ref().and_then(file));
    let ((chain_path, chain_pem), (key_path, key_pem)) = (chain_file?, key_file?);
    match item.reading.sources.key_pair(chain_pem.expose(), key_pem.expose()) {
        Ok(()) => Some(KeyPair { chain: chain_path, key: key_path }),
        Err(PemFault::First(what)) => chain?.wrong(&format!("the file {what}"), CHAIN_FORM),
        Err(PemFault::Second(what)) => key?.wrong(&format!("the file {what}"), KEY_FORM),
    }
}

/// A file's path and text, which may be a key.
fn file(item: &Item) -> Option<(PathBuf, Secret)> {
    let path = secrets::path(item)?;
    match item.reading.sources.file(&path) {
        Ok(text) => Some((path, Secret::new(text))),
        Err(error) => item.wrong(&format!("the file cannot be read: {error}"), PEM_FORM),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use crate::config::compile::tests::{OPEN, only, replaced, sound};
    use crate::config::schema::{CERTIFICATES_MAX, ListenerTlsSchema};
    use crate::config::{ListenerTls, TlsGroup, TlsVersion};

    const PAIR: &str = r#"certificates = [{ chain = "tls/a.pem", key = "tls/a.key" }]"#;

    fn listener(tls: &str) -> String {
        replaced("[[providers]]", &format!("[listeners.tls]\n{tls}\n[[providers]]"))
    }

    fn compiled(tls: &str) -> ListenerTls {
        sound(&listener(tls)).listeners.remove(0).tls.expect("https")
    }

    #[test]
    fn a_certificate_is_enough_and_everything_has_its_default() {
        assert!(sound(OPEN).listeners[0].tls.is_none());
        let tls = compiled(PAIR);
        assert_eq!(tls.certificates[0].chain, Path::new("/etc/ringway/tls/a.pem"));
        assert_eq!(tls.certificates[0].key, Path::new("/etc/ringway/tls/a.key"));
        assert_eq!((tls.min_version, tls.groups.len()), (TlsVersion::Tls12, 4));
        assert_eq!((tls.ticket_rotation, tls.hsts), (Duration::from_secs(6 * 3600), None));
        assert_eq!(tls.client_auth, None);
    }

    #[test]
    fn what_is_said_counts() {
        let tls = compiled(&format!(
            "{PAIR}\nmin_version = \"1.3\"\ngroups = [\"secp256r1\", \"x25519\"]\nhsts = \"365d\"\n\
             ticket_rotation = \"1s\"\nclient_ca = \"tls/ca.pem\"\nclient_crl = \"tls/crl.pem\""
        ));
        assert_eq!((tls.min_version, tls.hsts), (TlsVersion::Tls13, Some(Duration::from_secs(365 * 86400))));
        assert_eq!(tls.groups, [TlsGroup::Secp256r1, TlsGroup::X25519]);
        let auth = tls.client_auth.expect("a client's certificate");
        assert!(auth.required, "unless it is said otherwise");
        assert_eq!(auth.authorities, Path::new("/etc/ringway/tls/ca.pem"));
        assert_eq!(auth.revoked.as_deref(), Some(Path::new("/etc/ringway/tls/crl.pem")));
        let tls = compiled(&format!("{PAIR}\nclient_ca = \"tls/ca.pem\"\nclient_auth = \"optional\""));
        assert!(!tls.client_auth.expect("a client's certificate").required);
    }

    #[test]
    fn a_certificate_of_ours_is_the_providers_unless_an_endpoint_has_its_own() {
        let own = r#"client_certificate = { chain = "tls/b.pem", key = "tls/b.key" }"#;
        let https = "\nclient_certificate = { chain = \"tls/a.pem\", key = \"tls/a.key\" }\n[[providers.endpoints]]\n\
                     url = \"https://a\"\n";
        let text = replaced(
            "\n[[providers.endpoints]]",
            &format!(
                "{https}{own}\n{https_only}[[providers.endpoints]]",
                https_only = "[[providers.endpoints]]\nurl = \"https://b\"\n"
            ),
        );
        let chains: Vec<_> = sound(&text).endpoints.into_iter().map(|endpoint| endpoint.client_certificate).collect();
        let chains: Vec<_> = chains.iter().map(|pair| pair.as_ref().and_then(|pair| pair.chain.to_str())).collect();
        assert_eq!(chains, [Some("/etc/ringway/tls/b.pem"), Some("/etc/ringway/tls/a.pem"), None]);
        let (path, what) = only(&replaced("9000/v1\"", &format!("9000/v1\"\n{own}")));
        assert_eq!(path, "providers[0].endpoints[0].client_certificate");
        assert!(what.contains("has no effect on an http URL"), "{what}");
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        let with = |line: &str| format!("{PAIR}\n{line}");
        let pair = |chain: &str, key: &str| format!("certificates = [{{ chain = \"{chain}\", key = \"{key}\" }}]");
        for (tls, path, what) in [
            (String::new(), "certificates", "is missing"),
            ("certificates = []".into(), "certificates", "is empty"),
            ("certificates = [{ chain = \"tls/a.pem\" }]".into(), "certificates[0].key", "is missing"),
            (pair("gone.pem", "tls/a.key"), "certificates[0].chain", "the file cannot be read: entity not found"),
            (pair("tls/a.pem", "gone.key"), "certificates[0].key", "the file cannot be read: entity not found"),
            (pair("tls/expired.pem", "tls/a.key"), "certificates[0].chain", "the file holds nothing of use"),
            (pair("tls/a.pem", "tls/other.key"), "certificates[0].key", "the file is another's"),
            (with("min_version = \"1.1\""), "min_version", "\"1.1\" is not known here | allowed: 1.2, 1.3"),
            (with("groups = []"), "groups", "is empty"),
            (with("groups = [\"x448\"]"), "groups[0]", "\"x448\" is not known here"),
            (with("groups = [\"x25519\", \"x25519\"]"), "groups[1]", "is named twice"),
            (with("ticket_rotation = \"999ms\""), "ticket_rotation", "is out of range | at least 1s, at most 168h"),
            (with("ticket_rotation = \"169h\""), "ticket_rotation", "is out of range"),
            (with("hsts = \"3651d\""), "hsts", "is out of range"),
            (with("hsts = 1"), "hsts", "is a whole number"),
            (with("client_auth = \"required\""), "client_auth", "has no effect without client_ca"),
            (with("client_crl = \"tls/crl.pem\""), "client_crl", "has no effect without client_ca"),
            (with("client_ca = \"tls/none.pem\""), "client_ca", "the file holds no certificate"),
            (with("client_ca = \"gone.pem\""), "client_ca", "the file cannot be read"),
            (with("client_ca = \"tls/ca.pem\"\nclient_auth = \"maybe\""), "client_auth", "is not known here"),
            (with("client_ca = \"tls/ca.pem\"\nclient_crl = \"tls/none\""), "client_crl", "the file holds no list"),
        ] {
            let (found, text) = only(&listener(&tls));
            assert_eq!(found, format!("listeners[0].tls.{path}"), "{tls}: {text}");
            assert!(text.contains(what), "{tls}: {text}");
        }
        for line in ["ticket_rotation = \"168h\"", "hsts = \"3650d\"", "hsts = \"0s\""] {
            compiled(&with(line));
        }
        assert_eq!(only(&listener("").replace("[listeners.tls]\n", "tls = true\n")).0, "listeners[0].tls");
    }

    #[test]
    fn every_bound_of_https_holds_at_it_and_one_past_it() {
        let pairs = |count: usize| {
            format!("certificates = [{}]", r#"{ chain = "tls/a.pem", key = "tls/a.key" },"#.repeat(count))
        };
        let with = |line: &str| format!("{PAIR}\n{line}");
        let ms = |name: &str, bound: Duration, past: i64| format!("{name} = \"{}ms\"", bound.as_millis() as i64 + past);
        let (rotation, hsts) = (ListenerTlsSchema::TICKET_ROTATION, ListenerTlsSchema::HSTS);
        for (at, past) in [
            (pairs(CERTIFICATES_MAX), pairs(CERTIFICATES_MAX + 1)),
            (with(&ms("ticket_rotation", rotation.min, 0)), with(&ms("ticket_rotation", rotation.min, -1))),
            (with(&ms("ticket_rotation", rotation.max, 0)), with(&ms("ticket_rotation", rotation.max, 1))),
            (with("hsts = \"0s\""), with("hsts = \"-1s\"")),
            (with(&ms("hsts", hsts.max, 0)), with(&ms("hsts", hsts.max, 1))),
        ] {
            compiled(&at);
            assert!(only(&listener(&past)).0.starts_with("listeners[0].tls."));
        }
    }
}
