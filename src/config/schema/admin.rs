//! Who may look in.

use schemars::JsonSchema;

use super::*;

/// The listener for operators and their tools: `/healthz`, `/readyz`, `/metrics`, `/status`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Admin")]
pub struct AdminSchema {
    /// IP address and port, `127.0.0.1:9464`; port 0 takes a free one.
    pub address: String,
    /// Who may connect. There are no keys here, so more than `loopback` must be said. Default `loopback`.
    #[schemars(extend("default" = "loopback"))]
    pub access: Option<AdminAccessSchema>,
    /// The most series that metrics of exchanges may make up, all combinations of model, endpoint, dialect and streamed
    /// together; what comes beyond is counted as `other`: 1000 to 10000000. Default 100000.
    #[schemars(range(min = AdminSchema::SERIES_MAX.min, max = AdminSchema::SERIES_MAX.max), extend("default" = 100_000))]
    pub series_max: Option<u32>,
}

impl AdminSchema {
    /// See the field.
    pub const SERIES_MAX: Bound<u64> = between(1000, 100_000, 10_000_000);
}

/// Who may connect to the admin listener.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "AdminAccess")]
pub enum AdminAccessSchema {
    /// This machine only: the address must be a loopback one.
    Loopback,
    /// Anyone who can reach the address.
    Open,
}
