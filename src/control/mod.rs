//! The control plane: what must be done and may wait; never on a request's path.
//!
//! Lives on: one thread with a current-thread tokio runtime, on which each concern is a task ([`start`]), and one plain
//! thread for each file that is written. Workers are known here only as mailboxes, boards and a queue.

pub mod access_log;
pub mod admin;
pub mod credentials;
mod process;
pub mod program_log;
pub mod resolver;
pub mod watch;

use std::io;
use std::pin::Pin;

/// One concern of the control loop, such as names; it may run for as long as the process.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs `tasks` beside each other on the control thread. Without any there is no thread.
///
/// None may block, for the others wait meanwhile. One that panics ends alone.
///
/// # Errors
/// If the thread or its runtime cannot be made.
pub fn start(tasks: Vec<Task>) -> io::Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("ringway-control".into()).spawn(move || {
        runtime.block_on(async {
            let running: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
            for task in running {
                // The runtime has reported a panic; what else could end a task is not done here.
                let _ = task.await;
            }
        });
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn tasks_run_beside_each_other_and_a_panic_ends_one_alone() {
        let (said, heard) = sync_channel(1);
        let (ask, asked) = tokio::sync::oneshot::channel();
        start(vec![
            Box::pin(async { panic!("on purpose") }),
            Box::pin(async move { said.send(asked.await).unwrap() }),
            Box::pin(async { ask.send(7).unwrap() }),
        ])
        .unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)).unwrap(), Ok(7));
    }
}
