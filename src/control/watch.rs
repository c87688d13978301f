//! Certificates that change: files are watched, and what is made of them is published to the workers.
//!
//! What is watched is folders, not files: tools put a new file in an old one's place by renaming it, or, as Kubernetes
//! does, by turning a symbolic link to another folder; each shows in a folder that lies on the way to the file. What the
//! kernel tells is only a reason to look: whether something is new is seen from what the files hold. File systems that tell
//! nothing (some network mounts) are looked at every [`LOOK`] all the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::Task;
use super::credentials::{Loader, News};
use crate::base::clock::Clock;
use crate::net::tls::Credentials;
use crate::telemetry::log;

/// How often files are looked at of which nothing was heard.
const LOOK: Duration = Duration::from_secs(60);
/// How often keys of tickets are looked at, whose period may be as short.
const EXCHANGE: Duration = Duration::from_secs(1);
/// How long files must have been left alone before they are read: chain and key are seldom written in one go.
const SETTLE: Duration = Duration::from_millis(100);
/// How often in a row that is waited for; then they are read all the same.
const SETTLE_MAX: u32 = 20;
/// Symbolic links that are followed one after another, as the kernel does.
const LINKS_MAX: u32 = 40;

/// Looks at the files of `loader` when they may have changed, for ever, and hands all that is made of them to `publish`.
/// What cannot be used is said, once, and leaves what there was. `None` without any file.
pub fn task(loader: Loader, clock: Clock, publish: impl Fn(Arc<Credentials>) + Send + Sync + 'static) -> Option<Task> {
    let (paths, config) = (loader.paths(), loader.config().clone());
    if paths.is_empty() {
        return None;
    }
    Some(Box::pin(async move {
        let heard = Arc::new(Notify::new());
        let mut watched = Watched::new(heard.clone());
        let mut loader = loader;
        loop {
            watched.renew(&paths);
            settle(&heard).await;
            // A link may have been turned meanwhile.
            watched.renew(&paths);
            let now = clock.unix();
            let looked = tokio::task::spawn_blocking(move || (loader.look(now), loader)).await;
            loader = match looked {
                Ok((news, loader)) => {
                    tell(news, &publish);
                    loader
                }
                // What was made is with the workers; tickets begin anew with the next look that goes well.
                Err(error) => {
                    log::error("certificates", format!("reading the files failed: {error}")).say();
                    Loader::new(config.clone())
                }
            };
            // That nothing was heard for so long is a reason to look too.
            let mut wait = pin!(tokio::time::timeout(LOOK, heard.notified()));
            while tokio::time::timeout(EXCHANGE, &mut wait).await.is_err() {
                loader.exchange_keys();
            }
        }
    }))
}

/// Waits until nothing is heard any more.
async fn settle(heard: &Notify) {
    for _ in 0..SETTLE_MAX {
        if tokio::time::timeout(SETTLE, heard.notified()).await.is_err() {
            return;
        }
    }
}

fn tell(news: News, publish: &impl Fn(Arc<Credentials>)) {
    for fault in news.faults {
        log::error("certificates", format!("{fault}; what was there before stays in use")).say();
    }
    if let Some(credentials) = news.credentials {
        publish(credentials);
    }
    for renewed in news.renewed {
        log::info("certificates", format!("{renewed}: files have changed; connections from now on go by them")).say();
    }
}

/// The folders of which the kernel tells.
struct Watched {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Watched {
    fn new(heard: Arc<Notify>) -> Watched {
        // Reading a file is an event too, our own reading included.
        let of_interest = |event: &notify::Event| !matches!(event.kind, notify::EventKind::Access(_));
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.as_ref().map_or(true, of_interest) {
                heard.notify_one();
            }
        });
        let watcher = watcher.map_err(|error| {
            let text = format!("files cannot be watched: {error}; they are looked at each minute");
            log::warn("certificates", text).say();
        });
        Watched { watcher: watcher.ok(), folders: BTreeSet::new() }
    }

    /// Follows `paths` anew: a link may point elsewhere now, and a folder that was exchanged is another one.
    fn renew(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let folders: BTreeSet<PathBuf> = paths.iter().flat_map(|path| on_the_way(path)).collect();
        // First, for two paths may be of one folder, which is then forgotten under both.
        for gone in self.folders.difference(&folders) {
            // It may not even exist any more.
            let _ = watcher.unwatch(gone);
        }
        self.folders = folders;
        // One that is watched already is found again under the same number, or as the new folder that it is.
        self.folders.retain(|folder| watcher.watch(folder, RecursiveMode::NonRecursive).is_ok());
    }
}

/// The folders in which a change may give `path` other contents: its own, and that of each link it leads over.
fn on_the_way(path: &Path) -> Vec<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut left = LINKS_MAX;
    let mut ahead = vec![path.to_owned()];
    while let Some(path) = ahead.pop() {
        // Each part of the path may be a link.
        for part in path.ancestors() {
            let parent = match part.parent() {
                Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
                Some(parent) => parent,
                None => break,
            };
            let link = std::fs::read_link(part).ok();
            if part == path || link.is_some() {
                folders.insert(parent.to_owned());
            }
            if let Some(link) = link
                && left > 0
            {
                left -= 1;
                let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
                let target = parent.join(link);
                ahead.push(if rest.as_os_str().is_empty() { target } else { target.join(rest) });
                break;
            }
        }
    }
    folders.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_folder_is_watched_in_which_a_path_may_be_turned() {
        let root = std::env::temp_dir().join(format!("ringway-watch-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("mount/..2026")).unwrap();
        std::fs::create_dir_all(root.join("plain")).unwrap();
        std::fs::write(root.join("mount/..2026/tls.crt"), "x").unwrap();
        // As Kubernetes mounts a secret.
        symlink("..2026", root.join("mount/..data")).unwrap();
        symlink("..data/tls.crt", root.join("mount/tls.crt")).unwrap();
        symlink("../mount/tls.crt", root.join("plain/far")).unwrap();
        // A loop ends.
        symlink("loop", root.join("plain/loop")).unwrap();
        // The path of the root itself may hold links, which is the system's affair and watched too.
        let of = |path: &str| -> Vec<String> {
            let folders = on_the_way(&root.join(path)).into_iter();
            let own = folders.filter_map(|folder| folder.strip_prefix(&root).ok().map(Path::to_owned));
            own.map(|folder| folder.display().to_string()).collect()
        };
        assert_eq!(of("mount/..2026/tls.crt"), ["mount/..2026"]);
        assert_eq!(of("mount/tls.crt"), ["mount", "mount/..2026", "mount/..data"]);
        let far = of("plain/far");
        assert!(far.contains(&"plain".to_owned()), "{far:?}");
        assert!(far.contains(&"plain/../mount".to_owned()), "{far:?}");
        assert!(far.iter().any(|folder| folder.ends_with("..2026")), "{far:?}");
        assert_eq!(of("plain/loop"), ["plain"]);
        assert_eq!(of("plain/missing"), ["plain"]);
        assert_eq!(on_the_way(Path::new("key.pem")), [Path::new(".")]);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
