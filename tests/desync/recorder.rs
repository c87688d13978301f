//! An origin that takes nothing but what the RFC leaves no doubt about, and keeps the bytes of each request until the client
//! to whom the answer goes has told that it came.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::reader::{self, Read};
use super::view::View;

#[derive(Default)]
pub struct Log {
    next: u64,
    /// The requests whose answers have not come to a client.
    pub untold: HashMap<u64, Vec<u8>>,
    /// What was no request, and why.
    pub faults: Vec<(&'static str, Vec<u8>)>,
}

#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    pub log: Rc<RefCell<Log>>,
}

impl Recorder {
    /// Starts one within a `LocalSet`; with `keeps`, requests are kept until they are told.
    pub async fn start(keeps: bool) -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let log = Rc::new(RefCell::new(Log::default()));
        let kept = Rc::clone(&log);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(serve(stream, Rc::clone(&kept), keeps));
            }
        });
        Recorder { address, log }
    }
}

async fn serve(mut stream: TcpStream, log: Rc<RefCell<Log>>, keeps: bool) {
    let _ = stream.set_nodelay(true);
    let mut held = Vec::with_capacity(8 << 10);
    loop {
        let (request, len) = match reader::request(&held) {
            Read::Whole(request, len) if request.target.starts_with('/') && held[0] != b'\r' => (request, len),
            Read::Partial => {
                if !matches!(stream.read_buf(&mut held).await, Ok(1..)) {
                    return;
                }
                continue;
            }
            other => {
                let why = if let Read::Fault(why) = other { why } else { "not as a proxy writes it" };
                log.borrow_mut().faults.push((why, held));
                return;
            }
        };
        let number = {
            let mut log = log.borrow_mut();
            let number = log.next;
            log.next += 1;
            if keeps {
                log.untold.insert(number, held[..len].to_vec());
            }
            number
        };
        held.drain(..len);
        let told = View::of(&request).told(number);
        let length = told.len();
        let body = if request.method == "HEAD" { "" } else { &told };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nx-seen: {told}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
