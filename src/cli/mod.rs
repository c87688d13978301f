//! (in progress)

pub mod check;
