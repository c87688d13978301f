//! A descriptor as something that can be borrowed (the crate's one unsafe island).

#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, RawFd};

use super::stream::Stream;

/// The socket of `owner`, for as long as `owner` is borrowed.
pub(super) fn borrow(owner: &Stream, fd: RawFd) -> BorrowedFd<'_> {
    let _ = owner;
    // SAFETY: the descriptor must stay open while it is borrowed.
    // - `fd` was read off the runtime's stream when `owner` took it over, and both halves of that stream live in
    //   `owner`; the runtime closes the descriptor only when both are gone.
    // - The lifetime of the result is that of the borrow of `owner`, so neither half can go while it is in use.
    // A `Stream` that gave one of its halves away would break the second line.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
