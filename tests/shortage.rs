//! What the machine has too little of: descriptors, open files, locked memory. The gateway waits without spinning, says what
//! is the matter, and goes on by itself.

mod common;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use common::metrics::{ask, samples, scrape_when, sum};
use common::{Client, Config, Dns, Gateway, JSON, Mock, PATIENCE, chat, metric, metric_is};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a gateway may use of a core that has nothing left and nothing to do.
const IDLE_SHARE_MAX: f64 = 0.1;

/// CPU time that all threads of a process have had.
fn cpu(process: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("a running process");
    let ran = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok());
    ran.filter_map(|ran| ran.split(' ').next()?.parse().ok()).map(Duration::from_nanos).sum()
}

/// Lets the process that `command` starts have so much of `resource`, and no more.
#[allow(unsafe_code)]
fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, max: u64) {
    let limit = libc::rlimit { rlim_cur: max, rlim_max: max };
    // SAFETY: between fork and exec only a system call is made, which reads what was moved into the closure.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(resource, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Lets a running process have `max` descriptors from now on; those that it has stay open.
#[allow(unsafe_code)]
fn limit_descriptors(process: u32, max: u64) {
    let limit = libc::rlimit { rlim_cur: max, rlim_max: 20_000 };
    // SAFETY: the kernel reads one struct during the call and writes nothing.
    let done =
        unsafe { libc::prlimit(process as libc::pid_t, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Runs a stream of a second over `client`, and returns the share of a core that the gateway used meanwhile.
fn share_of_a_core(gateway: &Gateway, client: &mut Client) -> f64 {
    let body = chat("mock:ttft=1ms,gap=100ms,tokens=11", true);
    client.send_request("POST", "/v1/chat/completions", &JSON, &body);
    let head = client.head();
    assert_eq!(head.status, 200);
    let (start, before) = (Instant::now(), cpu(gateway.process.id()));
    assert!(client.body("POST", head).text().contains("[DONE]"));
    let used = cpu(gateway.process.id()) - before;
    used.as_secs_f64() / start.elapsed().as_secs_f64()
}

#[test]
fn with_more_clients_than_descriptors_the_rest_waits_until_some_have_left() {
    const CLIENTS: usize = 200;
    let mock = Mock::start(&[]);
    for driver in ["deferred", "epoll"] {
        let config = Config::new(&[mock.url()]).admin().and(&format!("[ring]\ndriver = \"{driver}\""));
        let gateway = Gateway::start_by(&config, |command| limit(command, libc::RLIMIT_NOFILE, 128));
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|_| {
                let mut client = gateway.connect();
                client.send_request("GET", "/v1/models", &JSON[..1], b"");
                client
            })
            .collect();
        let paused = [("reason", "descriptors")];
        scrape_when(&gateway, "accepting has paused", |all| {
            sum(all, "ringway_accept_paused_total", &paused) == 1.0 && sum(all, "ringway_listeners_paused", &[]) == 1.0
        });
        gateway.process.lines_until("no more clients are accepted for now: Ringway has no descriptors left");
        assert!(gateway.process.lines().iter().any(|line| line.contains("LimitNOFILE")));

        // Those that were taken are served, for there are some left for providers.
        let mut first = clients.remove(0);
        assert_eq!(first.response("GET").head.status, 200);
        let share = share_of_a_core(&gateway, &mut first);
        println!("{driver}: {:.2} % of a core while it is out of descriptors", share * 100.0);
        assert!(share <= IDLE_SHARE_MAX, "{driver}: {share} of a core while it waits");
        let open = metric(&gateway, "ringway_client_connections_open", &[]);
        assert!(open < 100.0, "{open} clients are open");
        assert_eq!(metric(&gateway, "ringway_accept_paused_total", &paused), 1.0, "one pause");

        // As clients leave, others are taken, each of them in the end.
        let mut last = clients.split_off(CLIENTS * 2 / 3);
        drop(clients);
        for client in &mut last {
            assert_eq!(client.response("GET").head.status, 200);
        }
        metric_is(&gateway, "ringway_listeners_paused", &[], 0.0);
        gateway.process.lines_until("clients are accepted again, after ");
        drop((first, last));
        metric_is(&gateway, "ringway_client_connections_open", &[], 0.0);
    }
}

#[test]
fn providers_that_cannot_be_reached_for_want_of_descriptors_are_not_blamed() {
    let mock = Mock::start(&[]);
    // Of 128 descriptors 88 are for clients, and those up to 112 for providers as well.
    let gateway = Gateway::start_by(&Config::new(&[mock.url()]).admin(), |command| {
        limit(command, libc::RLIMIT_NOFILE, 128);
    });
    // First as many clients as are taken, then a request of each.
    let is_paused = || metric(&gateway, "ringway_listeners_paused", &[]) > 0.0;
    let mut clients = Vec::new();
    while !is_paused() {
        let mut client = gateway.connect();
        client.send_request("GET", "/v1/models", &JSON[..1], b"");
        if !is_paused() {
            assert_eq!(client.response("GET").head.status, 200);
            clients.push(client);
        }
        assert!(clients.len() < 128, "one more client than there are descriptors");
    }
    let body = chat("mock:ttft=1ms,gap=10m,tokens=2", true);
    let mut held = Vec::new();
    let refused = clients.into_iter().find_map(|mut client| {
        client.send_request("POST", "/v1/chat/completions", &JSON, &body);
        let head = client.head();
        match head.status {
            200 => held.push(client.events(&head)),
            _ => return Some(client.body("POST", head)),
        }
        None
    });
    let refused = refused.expect("fewer descriptors for providers than clients");
    assert_eq!(refused.head.status, 503, "{}", refused.text());
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "descriptors_exhausted", "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("no descriptors left")), "{error}");
    assert_eq!(refused.head.get("retry-after"), Some("1"));
    assert_eq!(refused.head.get("x-ringway-error-origin"), Some("gateway"));
    gateway.process.lines_until("Ringway has no descriptors left (while connecting): raise the limit of open files");
    // Whoever looks in still can.
    assert_eq!(ask(&gateway, "/healthz").0, 200);
    println!("{} streams before the first refusal", held.len());

    drop(held);
    metric_is(&gateway, "ringway_requests_in_flight", &[], 0.0);
    let response = gateway.connect().request("POST", "/v1/chat/completions", &JSON, &chat("mock", false));
    assert_eq!(response.head.status, 200, "{}", response.text());
}

#[test]
fn without_any_descriptor_every_part_waits_and_goes_on_when_there_are_some() {
    let (mock, dns) = (Mock::start(&[]), Dns::start());
    dns.has("named.test", &["127.0.0.1"]);
    let log = std::env::temp_dir().join(format!("ringway-shortage-{}.jsonl", std::process::id()));
    let _ = std::fs::remove_file(&log);
    let config = Config::new(&[format!("http://named.test:{}/v1", mock.address.port())]).admin().and(&format!(
        "[access_log]\npath = {log:?}\n[pool]\nidle = \"1ms\"\n[resolver]\nservers = [\"{}\"]\nttl_min = \"100ms\"\nttl_max = \"100ms\"",
        dns.address
    ));
    let gateway = Gateway::start(&config);
    let call = |client: &mut Client| client.request("POST", "/v1/chat/completions", &JSON, &chat("mock", false));
    let (mut client, streaming) = (gateway.connect(), gateway.connect());
    assert_eq!(call(&mut client).head.status, 200);
    let mut admin = Client::connect(gateway.admin());
    let mut scrape = || samples(&admin.request("GET", "/metrics", &[], b"").text());
    assert_eq!(sum(&scrape(), "ringway_accept_paused_total", &[]), 0.0);

    let lookups =
        |samples: &[common::metrics::Sample], result| sum(samples, "ringway_dns_lookups_total", &[("result", result)]);
    let mut streaming = streaming;
    let body = chat("mock:ttft=1ms,gap=100ms,tokens=16", true);
    streaming.send_request("POST", "/v1/chat/completions", &JSON, &body);
    let head = streaming.head();
    limit_descriptors(gateway.process.id(), 4);

    // What needs none goes on; what needs one says so, or waits.
    let (start, before) = (Instant::now(), cpu(gateway.process.id()));
    let mut waiting = gateway.connect();
    waiting.send_request("GET", "/v1/models", &JSON[..1], b"");
    let mut looking_in = Client::connect(gateway.admin());
    looking_in.send_request("GET", "/healthz", &[], b"");
    let refused = call(&mut client);
    assert_eq!((refused.head.status, &refused.json()["error"]["code"]), (503, &"descriptors_exhausted".into()));
    kill(Pid::from_raw(gateway.process.id() as i32), Signal::SIGHUP).expect("a running process");
    gateway.process.lines_until("the access log cannot be opened anew");
    assert!(streaming.events(&head).all().len() > 10);
    let share = (cpu(gateway.process.id()) - before).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("{:.2} % of a core without any descriptor", share * 100.0);
    assert!(share <= IDLE_SHARE_MAX, "{share} of a core while it waits");
    gateway.process.lines_until("no more clients are accepted for now");
    let all = scrape();
    assert_eq!(sum(&all, "ringway_accept_paused_total", &[("reason", "descriptors")]), 1.0);
    // The name was asked for again meanwhile, in vain.
    let found = lookups(&all, "found");
    assert!(sum(&all, "ringway_dns_lookups_total", &[]) > found, "{all:?}");

    limit_descriptors(gateway.process.id(), 1024);
    assert_eq!(waiting.response("GET").head.status, 200);
    assert_eq!(looking_in.response("GET").head.status, 200);
    assert_eq!(call(&mut client).head.status, 200);
    scrape_when(&gateway, "names are found again", |all| lookups(all, "found") > found);
    metric_is(&gateway, "ringway_listeners_paused", &[], 0.0);
    // Nothing of the log was lost.
    metric_is(&gateway, "ringway_log_records_dropped_total", &[], 0.0);
    drop((client, waiting));
    let (mut records, start) = (0, Instant::now());
    while records < 4 {
        records = std::fs::read_to_string(&log).expect("the access log").lines().count();
        assert!(start.elapsed() < PATIENCE, "{records} records");
        std::thread::yield_now();
    }
    let _ = std::fs::remove_file(&log);
}

#[test]
fn whatever_accepting_fails_for_it_goes_on_when_that_is_over() {
    let mock = Mock::start(&[]);
    for (error, reason) in [("ENFILE", "files"), ("ENOBUFS", "sockets"), ("ENOMEM", "sockets")] {
        // On a ring accepting is no system call.
        let config = Config::new(&[mock.url()]).admin().and("[ring]\ndriver = \"epoll\"");
        let gateway = Gateway::start_by(&config, |command| {
            let traced = std::mem::replace(command, Command::new("strace"));
            let inject = format!("inject=accept4:error={error}:when=1..8");
            command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=accept4", "-e", &inject]);
            command.arg(traced.get_program()).args(traced.get_args());
            for (name, value) in traced.get_envs() {
                command.env(name, value.expect("nothing is taken out"));
            }
        });
        let response = gateway.connect().request("POST", "/v1/chat/completions", &JSON, &chat("mock", false));
        assert_eq!(response.head.status, 200, "{error}: {}", response.text());
        // The admin listener has met it as well.
        metric_is(&gateway, "ringway_accept_paused_total", &[("reason", reason)], 1.0);
        metric_is(&gateway, "ringway_listeners_paused", &[], 0.0);
    }
}

/// Lets the process that `command` starts be without the capability to lock as much memory as it likes.
#[allow(unsafe_code)]
fn without_ipc_lock(command: &mut Command) {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    // SAFETY: between fork and exec only a system call is made. A program that root starts gets the capabilities of the
    // bounding set; who is not root does not have this one, and may not drop it.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) {
            0 => Ok(()),
            _ if libc::geteuid() != 0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[test]
fn with_too_little_locked_memory_epoll_serves_and_the_start_says_what_to_do() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start_by(&Config::new(&[mock.url()]), |command| {
        limit(command, libc::RLIMIT_MEMLOCK, 64 << 10);
        without_ipc_lock(command);
    });
    let lines = gateway.process.lines_until("ringway: ready");
    assert!(lines.last().is_some_and(|line| line.ends_with(", epoll")), "{lines:?}");
    let refused: Vec<_> = lines.iter().filter(|line| line.contains("not available here: io_uring")).collect();
    assert_eq!(refused.len(), 3, "one for each rung above: {lines:?}");
    for line in refused {
        let says = |words| line.contains(words);
        assert!(says("(RLIMIT_MEMLOCK) is 64 KiB") && says("LimitMEMLOCK") && says("ring.entries = 1024"), "{line}");
    }
    for stream in [true, false] {
        let response = gateway.connect().request("POST", "/v1/chat/completions", &JSON, &chat("mock", stream));
        assert_eq!(response.head.status, 200, "{}", response.text());
    }
}
