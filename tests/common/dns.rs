//! A name server played by hand: it says what the test last told it, over UDP and TCP, and counts what it is asked.
//!
//! The few bytes of RFC 1035 that this takes are written out here, so that it shares no code with who asks.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::PATIENCE;

/// What the name server says of a name.
#[derive(Debug, Clone)]
pub enum Says {
    /// These addresses, each with its time to live in seconds; of the other family, none.
    Addresses(Vec<IpAddr>, u32),
    /// The same, but over UDP only that there is more than fits.
    Truncated(Vec<IpAddr>, u32),
    /// The name does not exist.
    NxDomain,
    /// The name server is at fault.
    ServFail,
    /// Nothing.
    Silence,
}

/// A running name server.
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    says: HashMap<String, Says>,
    /// Questions, by name and whether they came over TCP.
    asked: HashMap<(String, bool), usize>,
}

const A: u16 = 1;
const AAAA: u16 = 28;

impl Dns {
    /// Listens on a free port, of both protocols. What it was told nothing of does not exist.
    pub fn start() -> Dns {
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
                let tcp = TcpListener::bind(udp.local_addr().expect("its address")).ok()?;
                Some((udp, tcp))
            })
            .expect("a port that is free for both protocols");
        let address = udp.local_addr().expect("its address");
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let over_udp = state.clone();
        thread::spawn(move || {
            let mut question = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut question) {
                if let Some(answer) = answer(&over_udp, &question[..length], false) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let over_tcp = state.clone();
        thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                let state = over_tcp.clone();
                thread::spawn(move || -> std::io::Result<()> {
                    loop {
                        let mut length = [0; 2];
                        stream.read_exact(&mut length)?;
                        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                        stream.read_exact(&mut question)?;
                        if let Some(answer) = answer(&state, &question, true) {
                            stream.write_all(&(answer.len() as u16).to_be_bytes())?;
                            stream.write_all(&answer)?;
                        }
                    }
                });
            }
        });
        Dns { address, state }
    }

    /// What it says of `name` from now on.
    pub fn says(&self, name: &str, says: Says) -> &Dns {
        self.state.0.lock().expect("not poisoned").says.insert(name.to_owned(), says);
        self
    }

    /// It has these addresses, for one second.
    pub fn has(&self, name: &str, addresses: &[&str]) -> &Dns {
        self.says(name, Says::Addresses(addresses.iter().map(|address| address.parse().expect("an IP")).collect(), 1))
    }

    /// How often it was asked for `name`, over TCP or UDP.
    pub fn asked(&self, name: &str, tcp: bool) -> usize {
        self.state.0.lock().expect("not poisoned").asked.get(&(name.to_owned(), tcp)).copied().unwrap_or_default()
    }

    /// Waits until it was asked for `name` so many times in all over UDP.
    pub fn wait_asked(&self, name: &str, until: usize) {
        let key = (name.to_owned(), false);
        let asked = |state: &State| state.asked.get(&key).copied().unwrap_or_default();
        let state = self.state.0.lock().expect("not poisoned");
        let (state, _) =
            self.state.1.wait_timeout_while(state, PATIENCE, |state| asked(state) < until).expect("not poisoned");
        assert!(asked(&state) >= until, "{name} was asked for {} times, not {until}", asked(&state));
    }
}

/// The answer to `question`; `None` is silence.
fn answer((state, more): &(Mutex<State>, Condvar), question: &[u8], tcp: bool) -> Option<Vec<u8>> {
    // The head is 12 bytes long; then come labels, each behind its length, up to an empty one; then type and class.
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = question.get(at..at + length)?;
        name += if name.is_empty() { "" } else { "." };
        name += &String::from_utf8_lossy(label).to_ascii_lowercase();
        at += length;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let end = at + 4;
    let says = {
        let mut state = state.lock().expect("not poisoned");
        *state.asked.entry((name.clone(), tcp)).or_default() += 1;
        more.notify_all();
        state.says.get(&name).cloned().unwrap_or(Says::NxDomain)
    };
    let (mut truncated, mut code, mut records) = (false, 0, Vec::new());
    match says {
        Says::Silence => return None,
        Says::NxDomain => code = 3,
        Says::ServFail => code = 2,
        Says::Truncated(..) if !tcp => truncated = true,
        Says::Addresses(addresses, ttl) | Says::Truncated(addresses, ttl) => {
            records = addresses.into_iter().map(|address| (address, ttl)).collect();
        }
    }
    let records: Vec<Vec<u8>> = records
        .into_iter()
        .filter(|(address, _)| kind == if address.is_ipv6() { AAAA } else { A })
        .map(|(address, ttl)| {
            let data = match address {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            // The name is the question's, at byte 12.
            let mut record = vec![0xc0, 12];
            record.extend(kind.to_be_bytes());
            record.extend(1_u16.to_be_bytes());
            record.extend(ttl.to_be_bytes());
            record.extend((data.len() as u16).to_be_bytes());
            record.extend(data);
            record
        })
        .collect();
    let mut answer = question.get(..2)?.to_vec();
    // A response; recursion was desired and is available.
    answer.extend([0x81 | if truncated { 2 } else { 0 }, 0x80 | code]);
    for count in [1, records.len() as u16, 0, 0] {
        answer.extend(count.to_be_bytes());
    }
    answer.extend(question.get(12..end)?);
    answer.extend(records.concat());
    Some(answer)
}
