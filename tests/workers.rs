//! Workers: pinned and named threads, each rung of the ladder, and a start that says no.

mod common;

use std::os::unix::process::CommandExt;

use common::{Config, Gateway, JSON, Mock, chat};

/// The threads of a process: name, and the CPUs it may run on.
fn threads(process: u32) -> Vec<(String, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("a running process");
    let mut threads: Vec<_> = tasks
        .map(|task| {
            let task = task.expect("a thread").path();
            let name = std::fs::read_to_string(task.join("comm")).expect("its name").trim().to_owned();
            let status = std::fs::read_to_string(task.join("status")).expect("its status");
            let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
            (name, cpus.trim().to_owned())
        })
        .collect();
    threads.sort();
    threads
}

fn serves(gateway: &Gateway) {
    for stream in [true, false] {
        let body = chat("mock:ttft=1ms,gap=1ms,tokens=3", stream);
        let response = gateway.connect().request("POST", "/v1/chat/completions", &JSON, &body);
        assert_eq!(response.head.status, 200, "{}", response.text());
    }
}

#[test]
fn each_worker_has_a_name_and_a_core() {
    let mock = Mock::start(&[]);
    let cores = std::thread::available_parallelism().expect("a number of CPUs").get().min(2);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).top(&format!("cores = \"0-{}\"", cores - 1)));
    let workers: Vec<_> = threads(gateway.process.id())
        .into_iter()
        .filter(|(name, _)| name.strip_prefix("ringway-").is_some_and(|rest| rest.parse::<u16>().is_ok()))
        .collect();
    let expected: Vec<_> = (0..cores).map(|core| (format!("ringway-{core}"), core.to_string())).collect();
    assert_eq!(workers, expected);
    // Connections are spread by the kernel; whoever gets one serves it.
    (0..8).for_each(|_| serves(&gateway));
}

#[test]
fn each_kind_of_event_loop_serves_and_is_named_at_start() {
    let mock = Mock::start(&[]);
    for (driver, rung) in [
        ("deferred", "io_uring (deferred task run, single issuer)"),
        ("cooperative", "io_uring (cooperative task run)"),
        ("plain", "io_uring (no flags)"),
        ("epoll", "epoll"),
    ] {
        let gateway = Gateway::start(&Config::new(&[mock.url()]).and(&format!("[ring]\ndriver = \"{driver}\"")));
        let lines = gateway.process.lines_until("ringway: ready");
        // The one asked for, not one further down that serves as well.
        let last = lines.last().map(String::as_str).unwrap_or_default();
        assert!(last.ends_with(&format!(" info  ringway: ready: 1 worker on core 0, {rung}")), "{last}");
        assert!(!lines.iter().any(|line| line.contains("not available")), "{driver}: {lines:?}");
        serves(&gateway);
    }
}

/// Lets the process that `command` starts get EPERM from io_uring_setup, as a container's seccomp profile does.
#[allow(unsafe_code)]
fn deny_io_uring(command: &mut std::process::Command) {
    use nix::libc::{
        BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, EPERM, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP,
        SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SYS_io_uring_setup, prctl, sock_filter, sock_fprog,
    };
    let step = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The system call's number is the first word of what the filter is shown.
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_io_uring_setup as u32),
        step(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM as u32),
        step(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW),
    ];
    // SAFETY: between fork and exec only system calls are made, and the filter is moved into the closure, so the
    // pointer that the kernel copies from stays valid.
    unsafe {
        command.pre_exec(move || {
            let program = sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

#[test]
fn where_io_uring_is_forbidden_epoll_serves_and_the_start_says_why() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start_by(&Config::new(&[mock.url()]), deny_io_uring);
    let lines = gateway.process.lines_until("ringway: ready").join("\n");
    assert!(lines.contains("epoll"), "{lines}");
    assert!(lines.contains("not permitted"), "{lines}");
    (0..5).for_each(|_| serves(&gateway));
    let denied = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).expect("its status");
    assert!(denied.lines().any(|line| line.trim_end() == "Seccomp:\t2"), "{denied}");
}

#[test]
fn a_taken_port_is_refused_in_a_line_with_exit_code_1() {
    let mock = Mock::start(&[]);
    let text = Config::new(&[mock.url()]).text().replace("127.0.0.1:0", &mock.address.to_string());
    let (status, said) = Gateway::start_in_vain(&Config::raw(&text));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&mock.address.to_string()) && said.contains("in use"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
