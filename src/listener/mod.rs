//! Downstream: clients. Binds the listening sockets, accepts, and speaks HTTP/1.1 or HTTP/2 to whoever connected.

pub mod client;
pub mod http1;
pub mod http2;
pub mod plain;
pub mod websocket;

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use monoio::net::TcpStream;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, shutdown, sockopt,
};

use crate::base::ListenerId;
use crate::net::shortage::Shortage;
use crate::net::socket;

/// Connections that the kernel may queue for one worker's socket before it drops new ones.
const BACKLOG: i32 = 4096;

/// Binds one listening socket for each of `workers` to `address`; with port 0, all to the same free port.
///
/// The kernel spreads new connections over them (SO_REUSEPORT). That option would also let another process
/// bind the same port in silence, so the address is first bound without it.
///
/// # Errors
/// The address is in use, not ours, or not allowed.
pub fn bind_all(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    if address.port() != 0 {
        drop(bind_one(address, false)?);
    }
    let first = bind_one(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(bind_one(address, true)?);
    }
    Ok((address, sockets))
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = nix::sys::socket::socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if shared {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(fd))
}

/// How a client came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where it connected to.
    pub listener: ListenerId,
    /// Where it connected from.
    pub peer: SocketAddr,
    /// True if requests need no key there.
    pub open: bool,
}

/// One worker's side of a listening socket.
pub struct Acceptor {
    listener: monoio::net::TcpListener,
    closed: Cell<bool>,
}

impl Acceptor {
    /// Takes a socket of [`bind_all`] over, on the thread that will accept. An event loop on `epoll` asks a socket that
    /// does not wait; a ring waits itself, and in kernels before 5.18 took the other kind at its word.
    ///
    /// # Errors
    /// If the event loop refuses it.
    pub fn new(socket: TcpListener, epoll: bool) -> io::Result<Acceptor> {
        socket.set_nonblocking(epoll)?;
        Ok(Acceptor { listener: monoio::net::TcpListener::from_std(socket)?, closed: Cell::new(false) })
    }

    /// The next client, and where it connected from; `None` once it is closed. Must not be dropped while it waits: a connection accepted meanwhile
    /// would be lost.
    ///
    /// # Errors
    /// There is nothing left for another client; it stays in the queue. Trying again at once would spin.
    pub async fn accept(&self) -> Result<Option<(TcpStream, SocketAddr)>, Shortage> {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(_) if self.closed.get() => return Ok(None),
                Err(error) => match Shortage::of(&error) {
                    Some(shortage) => return Err(shortage),
                    // A client that has left again, mostly.
                    None => monoio::time::sleep(Duration::from_millis(10)).await,
                },
            }
        }
    }

    /// The number that the next descriptor would have; `None` if there is none left.
    pub fn next_descriptor(&self) -> Option<RawFd> {
        socket::next_descriptor(&self.listener)
    }

    /// True if a connection has come that was not yet accepted.
    pub fn has_waiting(&self) -> bool {
        socket::has_input(&self.listener)
    }

    /// Takes no more connections; those that have come and were not accepted are reset.
    pub fn close(&self) {
        self.closed.set(true);
        // Ends the accepts that wait. An error means that it does not listen any more.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_one_port_and_a_second_gateway_is_refused_it() {
        let (address, sockets) = bind_all("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_ne!(address.port(), 0);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert_eq!(bind_all(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert_eq!(bind_all(address, 1).unwrap().0, address);
    }
}
