//! What is asked of a socket past the runtime: to send and receive at once, to end, and whether the peer has (an unsafe
//! island).

#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use monoio::net::TcpStream;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::linger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrStorage, connect as connect_to, getsockopt, recv,
    send, setsockopt, shutdown, socket, sockopt,
};

/// True if `socket` has something to read, or to accept, or has ended. A system call.
pub fn has_input(socket: &impl AsRawFd) -> bool {
    // SAFETY: `socket` owns the descriptor and is borrowed until this returns, and the borrow does not outlive it.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    matches!(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO), Ok(1..))
}

/// The number that this process's next descriptor would have; `None` if there is none left. Two system calls.
pub fn next_descriptor(socket: &impl AsRawFd) -> Option<RawFd> {
    // SAFETY: as above.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    fd.try_clone_to_owned().ok().map(|next| next.as_raw_fd())
}

/// Runs a system call that might wait on a socket of a ring's, which the kernel lets wait. No operation may be handed to the ring
/// meanwhile: it would fail where it should wait.
pub(super) fn without_waiting<T>(socket: &TcpStream, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: as above.
    let socket = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    // Of a socket these calls do not fail, and it has no other flags that can be set.
    let _ = fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    let outcome = call(socket);
    let _ = fcntl(socket, FcntlArg::F_SETFL(OFlag::empty()));
    outcome
}

/// Takes a connection on which nothing was begun off this thread's event loop, so that it can go to another's.
pub fn detach(tcp: TcpStream) -> OwnedFd {
    // SAFETY: the runtime hands the descriptor out only as the last who has it, and never closes it after that; so it is open,
    // and ours alone. It is not known to the event loop any more: epoll has forgotten it, and a ring knows operations only,
    // of which there were none.
    unsafe { OwnedFd::from_raw_fd(tcp.into_raw_fd()) }
}

/// Gives a connection of [`detach`] to this thread's event loop, which may be of another kind.
///
/// # Errors
/// The event loop refuses it; it is closed then.
pub fn attach(socket: OwnedFd) -> io::Result<TcpStream> {
    let tcp = std::net::TcpStream::from(socket);
    tcp.set_nonblocking(monoio::utils::is_legacy())?;
    TcpStream::from_std(tcp)
}

/// Connects to `address`. Dropping the future abandons the attempt: the connection that it may have made by then is reset.
///
/// Closed like others, it would hold its local port for a minute. Who asks for something and leaves, again and again, would take all
/// ports there are towards an endpoint, and the kernel's search for one holds up the worker.
///
/// # Errors
/// What the operating system says.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    let reset_on_close = |on| linger { l_onoff: i32::from(on), l_linger: 0 };
    setsockopt(&socket, sockopt::Linger, &reset_on_close(true))?;
    let begun = connect_to(socket.as_raw_fd(), &SockaddrStorage::from(address));
    let tcp = TcpStream::from_std(socket.into())?;
    match begun {
        Ok(()) => {}
        Err(Errno::EINPROGRESS | Errno::EINTR) => tcp.writable(false).await?,
        Err(errno) => return Err(errno.into()),
    }
    // SAFETY: `tcp` owns the descriptor and outlives this borrow, which ends with the function.
    let fd = unsafe { BorrowedFd::borrow_raw(tcp.as_raw_fd()) };
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    setsockopt(&fd, sockopt::Linger, &reset_on_close(false))?;
    if !monoio::utils::is_legacy() {
        // A ring waits for what is not there yet only where the socket would.
        fcntl(fd, FcntlArg::F_SETFL(OFlag::empty()))?;
    }
    Ok(tcp)
}

/// The descriptor of a stream that lives at least as long as this.
#[derive(Debug, Clone)]
pub struct Socket(RawFd);

impl Socket {
    /// `fd` must stay open for as long as the result lives; only [`Stream`](super::stream::Stream) makes one, and
    /// keeps it beside the halves that own the descriptor.
    pub(super) fn beside(fd: RawFd) -> Socket {
        Socket(fd)
    }

    /// Sends as much of `bytes` as the socket takes now; 0 if it takes nothing.
    ///
    /// # Errors
    /// The socket's own.
    pub(super) fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match send(self.0, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => Ok(n),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads into `bytes` what is there; 0 if nothing is, or the peer has ended its side. No read may be under way.
    ///
    /// # Errors
    /// The socket's own.
    pub(super) fn receive_now(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match recv(self.0, bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(n) => Ok(n),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Another descriptor of the socket, which stays open by itself.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.borrowed().try_clone_to_owned()
    }

    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor must stay open while it is borrowed.
        // - It was read off the runtime's stream when a `Stream` took that over, and both halves of it live in
        //   that `Stream` beside `self`; the runtime closes the descriptor only when both are gone.
        // - The borrow ends with that of `self`, during which the `Stream` cannot go.
        // A `Stream` that gave a half away would break the first line.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }

    /// Resets the connection, so that the peer cannot take the end for a proper one; what it has not read is lost.
    pub fn reset(&self) {
        // Connecting to the unspecified family dissolves a connection (connect(2)), and TCP does so by a reset.
        // Closing with SO_LINGER 0 would do the same, if the runtime did not send an end before it closes.
        let nowhere = nix::libc::sockaddr { sa_family: nix::libc::AF_UNSPEC as u16, sa_data: [0; 14] };
        let len = size_of::<nix::libc::sockaddr>() as nix::libc::socklen_t;
        // SAFETY: the kernel reads `len` bytes at the pointer during the call, and `nowhere` is that long and
        // lives until after it. The descriptor is open for the reason given below; were it not, the call would fail.
        unsafe { nix::libc::connect(self.0, &raw const nowhere, len) };
    }

    /// Ends both directions at once, even while a read or write is under way.
    pub fn abort(&self) {
        // An error means that the connection is already gone.
        let _ = shutdown(self.0, Shutdown::Both);
    }

    /// Ends our direction: the peer reads the end after all that was written.
    pub fn finish(&self) {
        let _ = shutdown(self.0, Shutdown::Write);
    }

    /// True if the peer has ended or reset the connection, though bytes of it may still be unread. A system
    /// call, so it is for the rare moment when we cannot read further.
    pub fn is_peer_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.borrowed(), PollFlags::from_bits_retain(nix::libc::POLLRDHUP))];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(n) => n > 0 && fds[0].revents().is_none_or(|events| !events.is_empty()),
            Err(_) => false,
        }
    }
}
