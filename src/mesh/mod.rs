//! The only way threads talk; knows no message's meaning.

pub mod inbox;
pub mod mailbox;
pub mod port;
