//! Ringway: an io_uring, thread-per-core gateway for LLM APIs.
//!
//! Modules in layer order; imports point down only (`tests/architecture.rs` holds them to it):
//!
//! ```text
//! cli                        the command line: serve, check, schema, demo, mock
//! mock                       the simulated provider (hyper, tokio); imports only base
//! control                    the control plane: names, certificates, the admin listener, logs; never on a request's path
//! worker                     the data plane: one pinned thread per core; decisions meet IO here only
//! ─────────────────────────────
//! listener  upstream         edges: clients and providers
//! net  mesh  telemetry       mechanisms, free of domain words
//! ─────────────────────────────
//! admission  routing         decisions, pure
//! wire  config  base         vocabulary, pure
//! ```
#![deny(unsafe_code, clippy::await_holding_refcell_ref)]
#![warn(missing_docs, clippy::todo, clippy::dbg_macro)]

/// So that unit tests can see what is held.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: net::heap::Counted<std::alloc::System> = net::heap::Counted(std::alloc::System);

pub mod admission;
pub mod base;
pub mod cli;
pub mod config;
pub mod control;
pub mod listener;
pub mod mesh;
pub mod mock;
pub mod net;
pub mod routing;
pub mod telemetry;
pub mod upstream;
pub mod wire;
pub mod worker;
