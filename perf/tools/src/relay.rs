//! Bytes from here to there and back, on one monoio thread with a deferred ring: the physical reference.
//!
//! It parses nothing, pools nothing and limits nothing: what it spends, any proxy on this machine must spend.

use std::io;
use std::net::SocketAddr;

use io_uring::IoUring;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

/// `LISTEN=UPSTREAM`; for clap.
///
/// # Errors
/// A sentence for the command line.
pub fn parse_pair(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    let (listen, upstream) = text.split_once('=').ok_or("LISTEN=UPSTREAM, as 127.0.0.1:0=127.0.0.1:9000")?;
    let address = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    Ok((address(listen)?, address(upstream)?))
}

/// Relays until it is killed. Prints `ringway-perf relay: listening on http://ADDRESS` for each pair.
///
/// # Errors
/// The ring can't be built (no fallback: the reference is the deferred ring), or an address can't be bound.
pub fn run(pairs: &[(SocketAddr, SocketAddr)], entries: u32) -> io::Result<()> {
    let mut ring = IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    let mut runtime =
        RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring).with_entries(entries).enable_timer().build()?;
    runtime.block_on(async {
        let mut accepting = Vec::new();
        for &(listen, upstream) in pairs {
            let options = ListenerOpts::new().reuse_port(false).backlog(4096);
            let listener = TcpListener::bind_with_config(listen, &options)?;
            println!("ringway-perf relay: listening on http://{}", listener.local_addr()?);
            accepting.push(monoio::spawn(accept(listener, upstream)));
        }
        for task in accepting {
            task.await?;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, upstream: SocketAddr) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        monoio::spawn(async move {
            // A failed connection shows at the load generator as an error; there is nobody else to tell.
            relay(client, upstream).await.ok();
        });
    }
}

async fn relay(client: TcpStream, upstream: SocketAddr) -> io::Result<()> {
    let upstream = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_upstream, to_upstream) = upstream.into_split();
    // One task per direction, so that no read in flight is ever dropped.
    monoio::spawn(copy(from_client, to_upstream));
    copy(from_upstream, to_client).await;
    Ok(())
}

async fn copy(mut from: impl AsyncReadRent, mut to: impl AsyncWriteRent) {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let (read, filled) = from.read(buffer).await;
        if !matches!(read, Ok(1..)) {
            break;
        }
        let (written, emptied) = to.write_all(filled).await;
        if written.is_err() {
            break;
        }
        buffer = emptied;
        buffer.clear();
    }
    to.shutdown().await.ok();
}
