//! Reaching an endpoint: address, connection, TLS.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{Connection, ErrorKind, Phase, Place, Slot, UpstreamError, Upstreams};
use crate::base::EndpointId;
use crate::net::buf::Buffers;
use crate::net::stream::Stream;
use crate::net::tls::Session;

impl Upstreams {
    /// The host and port of `endpoint`, to look its addresses up.
    pub fn host(&self, endpoint: EndpointId) -> (&str, u16) {
        let slot = self.slot(endpoint);
        (&slot.host, slot.port)
    }

    /// Connects to `endpoint` at the first of `addresses` that answers, each but the last having its share of
    /// `within`. Bounding the whole is the caller's; dropping the future abandons the attempt.
    ///
    /// # Errors
    /// The last address's failure; no address at all; too many connections open.
    pub async fn connect(
        &self,
        endpoint: EndpointId,
        addresses: &[SocketAddr],
        within: Duration,
        buffers: &Rc<Buffers>,
    ) -> Result<Connection, UpstreamError> {
        let slot = self.slot(endpoint);
        let fail = |kind| UpstreamError { endpoint: slot.name.clone(), phase: Phase::Connect, kind };
        let is_full = || slot.board.open.get() >= self.connections_max as u64;
        if is_full() {
            // One that nobody uses makes room; the caller may not want a used one.
            let mut idle = slot.idle.borrow_mut();
            drop(idle.pop());
            slot.board.idle.set(idle.len() as u64);
        }
        if is_full() {
            return Err(fail(ErrorKind::Exhausted));
        }
        let place = Place::take(slot);
        let mut last = ErrorKind::Unresolved;
        // One that swallows what is sent to it must not use up the time of all.
        let share = within / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for (at, address) in addresses.iter().enumerate() {
            let dialled = if at + 1 < addresses.len() {
                let late = |_| Err(io::ErrorKind::TimedOut.into());
                monoio::time::timeout(share, dial(slot, *address, buffers)).await.unwrap_or_else(late)
            } else {
                dial(slot, *address, buffers).await
            };
            match dialled {
                Ok(stream) => {
                    slot.board.opened.add(1);
                    return Ok(Connection { stream, reused: false, slot: slot.clone(), _place: place });
                }
                Err(error) => last = ErrorKind::Io(error),
            }
        }
        Err(fail(last))
    }
}

async fn dial(slot: &Slot, address: SocketAddr, buffers: &Rc<Buffers>) -> io::Result<Stream> {
    let session = slot.tls.clone().map(|config| Session::client(config, &slot.host)).transpose()?;
    let tcp = Stream::connect(address).await?;
    let mut stream = Stream::new(tcp, session, buffers.clone());
    stream.handshake().await?;
    Ok(stream)
}
