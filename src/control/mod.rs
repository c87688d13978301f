//! The control plane: what must be done and may wait; never on a request's path.
//!
//! Lives on: one thread with a current-thread tokio runtime (names), and one plain thread for each file that is
//! written. Workers are known here only as mailboxes and a queue.

pub mod resolver;
pub mod usage_log;
