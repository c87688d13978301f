//! Tells the service manager how far the gateway is (sd_notify(3)): datagrams to the socket that `NOTIFY_SOCKET` names.
//!
//! Without a manager nothing is told; and one that does not listen any more keeps nothing from going on.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::control::admin;
use crate::telemetry::log;
use crate::telemetry::metrics::board::Board;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment has it. What it says wrongly is said, and means no manager.
    pub fn from_env() -> Manager {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let socket = var("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                let text = format!("the service manager cannot be told: NOTIFY_SOCKET={}: {error}", name.display());
                log::warn("serve", text).say();
                None
            }
        });
        let number = |name| var(name)?.to_str()?.parse::<u64>().ok();
        let watchdog = watchdog(number("WATCHDOG_USEC"), number("WATCHDOG_PID"), std::process::id());
        Manager { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// How often it wants to hear that all goes well, at least; `None` if it does not.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// All workers accept.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The end has begun, and may take `at_most`.
    pub fn stopping(&self, at_most: Duration, status: &str) {
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS={}", at_most.as_micros(), one_line(status)));
    }

    /// Tells its watchdog that all goes well, unless a worker of `boards` has been silent for too long. A manager that hears
    /// nothing for as long as it asked for starts the gateway anew.
    pub fn watch(&self, boards: &[Arc<Board>], now: Instant) {
        let Some(within) = self.watchdog else { return };
        if boards.iter().all(|board| board.silence(now) < admin::STUCK.max(within / 2)) {
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // A manager with a full queue, or gone, must not hold us up.
            let _ = socket.send(message.as_bytes());
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract socket")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How often the watchdog wants to hear from the process `own`.
fn watchdog(usec: Option<u64>, of: Option<u64>, own: u32) -> Option<Duration> {
    let is_ours = of.is_none_or(|of| of == u64::from(own));
    usec.filter(|usec| *usec > 0 && is_ours).map(Duration::from_micros)
}

/// A line end would begin another variable.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_counts_for_the_process_that_it_names() {
        for (usec, of, expected) in [
            (None, None, None),
            (Some(0), None, None),
            (Some(1), None, Some(1)),
            (Some(30_000_000), Some(7), Some(30_000_000)),
            (Some(30_000_000), Some(8), None),
        ] {
            assert_eq!(watchdog(usec, of, 7), expected.map(Duration::from_micros), "{usec:?} {of:?}");
        }
    }

    #[test]
    fn a_socket_is_a_path_or_abstract() {
        for name in ["", "run/notify", "vsock:2:1", "/nowhere/at/all"] {
            assert!(connect(OsStr::new(name)).is_err(), "{name}");
        }
        let name = format!("ringway-notify-test-{}", std::process::id());
        let far = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let manager = Manager { socket: connect(OsStr::new(&format!("@{name}"))).ok(), watchdog: None };
        manager.ready("one\nMAINPID=1");
        let mut message = [0; 64];
        let length = far.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"READY=1\nSTATUS=one MAINPID=1");
        drop(far);
        manager.ready("nobody listens");
    }

    #[test]
    fn the_watchdog_hears_nothing_while_a_worker_is_silent_for_too_long() {
        let name = format!("ringway-watchdog-test-{}", std::process::id());
        let far = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        far.set_nonblocking(true).unwrap();
        let now = Instant(0) + Duration::from_secs(3600);
        let [quick, slow] = [admin::STUCK, 4 * admin::STUCK];
        let least = Duration::from_nanos(1);
        for (within, silent, is_told) in [
            (quick, Duration::ZERO, true),
            (quick, admin::STUCK - least, true),
            (quick, admin::STUCK, false),
            (quick, Duration::from_secs(3600), false),
            (slow, slow / 2 - least, true),
            (slow, slow / 2, false),
        ] {
            let manager = Manager { socket: connect(OsStr::new(&format!("@{name}"))).ok(), watchdog: Some(within) };
            let boards = [(); 3].map(|()| Arc::new(Board::new(1, 1, 0)));
            for board in &boards {
                board.accepting.set(1);
                board.beat_ns.set(now.0);
            }
            let hears = || {
                manager.watch(&boards, now);
                let mut message = [0; 64];
                far.recv(&mut message).is_ok_and(|length| &message[..length] == b"WATCHDOG=1")
            };
            assert!(hears(), "{within:?}, {silent:?}: nobody is silent");
            boards[1].beat_ns.set(now.0 - silent.as_nanos() as u64);
            assert_eq!(hears(), is_told, "{within:?}, {silent:?}");
            // Whoever has drained has nothing to show any more.
            boards[1].ended.set(1);
            assert!(hears(), "{within:?}, {silent:?}: it has ended");
        }
        let unasked = Manager { socket: connect(OsStr::new(&format!("@{name}"))).ok(), watchdog: None };
        unasked.watch(&[], now);
        assert!(far.recv(&mut [0; 64]).is_err(), "a manager that has no watchdog");
    }
}
