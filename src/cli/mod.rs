//! (in progress)

pub mod check;
//! The command line.
pub mod mock;
