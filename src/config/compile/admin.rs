//! `[admin]`.

use core::net::SocketAddr;

use super::*;

pub(super) fn admin(mut admin: Section) -> Option<Admin> {
    let text = admin.require("address", r#"IP address and port, "127.0.0.1:9464""#).and_then(|item| item.text());
    let access = admin.choice("access", &[("loopback", false), ("open", true)]);
    let series_max = admin.whole("series_max", AdminSchema::SERIES_MAX) as usize;
    admin.finish();
    let text = text?;
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        return text.wrong("is not an address", r#"IP address and port: "127.0.0.1:9464", "[::1]:9464""#);
    };
    if !address.ip().to_canonical().is_loopback() && access != Some(true) {
        return text.wrong(
            "is not a loopback address, and whoever reaches it may read all figures",
            r#"listen on 127.0.0.1, or say access = "open""#,
        );
    }
    Some(Admin { address, series_max })
}
