//! The access log that a gateway under test writes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::PATIENCE;

/// A file of records, removed when it is dropped.
pub struct Records {
    file: PathBuf,
}

impl Records {
    /// A file that nobody writes yet.
    pub fn new() -> Records {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringway-test-{}-{}.jsonl", std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
        let file = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&file);
        Records { file }
    }

    /// The line at the top of a config that has them written.
    pub fn line(&self) -> String {
        format!("access_log = {{ path = {:?} }}", self.file.display().to_string())
    }

    /// All records, once they are `enough`. A worker's records are written in order.
    ///
    /// # Panics
    /// If they are still not after [`PATIENCE`].
    pub fn when(&self, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            let records: Vec<Value> =
                whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
            if enough(&records) {
                return records;
            }
            assert!(start.elapsed() < PATIENCE, "{} records after {PATIENCE:?}: {text}", records.len());
            thread::yield_now();
        }
    }

    /// All records, once that of the exchange `id` is among them.
    pub fn until(&self, id: &str) -> Vec<Value> {
        self.when(|records| records.iter().any(|record| record["request_id"] == id))
    }

    /// The record of the exchange `id`, which must come.
    pub fn of(&self, id: &str) -> Value {
        let records = self.until(id);
        records.into_iter().find(|record| record["request_id"] == id).expect("it is among them")
    }

    /// Throws away what was written so far.
    pub fn forget(&self) {
        let _ = std::fs::write(&self.file, "");
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
