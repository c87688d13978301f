//! nginx and HAProxy as origins: each passes what it understood on to a recorder, which is how we learn of it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::common::PATIENCE;
use super::recorder::Recorder;

/// A running peer, ended when it is dropped.
pub struct Peer {
    child: Child,
    folder: PathBuf,
    pub name: &'static str,
    pub address: SocketAddr,
    /// What it understood.
    pub recorder: Recorder,
}

impl Peer {
    pub fn nginx() -> Peer {
        Peer::start("nginx", |folder, port, origin| {
            let at = folder.display();
            let text = format!(
                "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\n\
                 events {{ worker_connections 512; }}\n\
                 http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
                 uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; keepalive_requests 100000;\n\
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{origin}; proxy_http_version 1.1;\n\
                 proxy_set_header Connection \"\"; }} }} }}\n"
            );
            let file = folder.join("nginx.conf");
            std::fs::write(&file, text).expect("a file for nginx");
            let mut command = Command::new(program("nginx"));
            command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
            command
        })
    }

    pub fn haproxy() -> Peer {
        Peer::start("haproxy", |folder, port, origin| {
            let text = format!(
                "global\n  maxconn 512\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
                 frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server r {origin}\n"
            );
            let file = folder.join("haproxy.cfg");
            std::fs::write(&file, text).expect("a file for HAProxy");
            let mut command = Command::new(program("haproxy"));
            command.arg("-db").arg("-f").arg(file);
            command
        })
    }

    fn start(name: &'static str, prepare: impl Fn(&Path, u16, SocketAddr) -> Command) -> Peer {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ringway-test-{}-{name}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the peer");
        let recorder = Recorder::start();
        // Someone else may take the port between our probe and the peer's bind: then it ends, and another is tried.
        for _ in 0..8 {
            let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = probe.local_addr().expect("its address");
            drop(probe);
            let mut command = prepare(&folder, address.port(), recorder.address);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
            let start = Instant::now();
            while start.elapsed() < PATIENCE {
                if child.try_wait().expect("its status").is_some() {
                    break;
                }
                if TcpStream::connect(address).is_ok() {
                    return Peer { child, folder, name, address, recorder };
                }
                thread::park_timeout(Duration::from_millis(2));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("{name} does not start; see {}", folder.display());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Where a program lies: in the PATH, or where Debian puts servers.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: install it (tests/run does)"))
}
