//! `[access_log]`, `[log]` and `[trace]`.

use super::*;

/// `Some(None)` where no access log is wanted.
pub(super) fn access_log(file: &mut Section) -> Option<Option<AccessLog>> {
    let Some(item) = file.get("access_log") else { return Some(None) };
    let mut table = item.section()?;
    let path = table.require("path", r#"a file, or "stdout" or "stderr""#);
    let target = path.and_then(|item| match item.text()?.value.as_str() {
        "stdout" => Some(LogTarget::Stdout),
        "stderr" => Some(LogTarget::Stderr),
        _ => secrets::path(&item).map(LogTarget::File),
    });
    let rotate_bytes = table.size("rotate_bytes", AccessLogSchema::ROTATE_BYTES) as u64;
    let rotate_every = table.duration("rotate_every", AccessLogSchema::ROTATE_EVERY);
    let keep = table.whole("keep", AccessLogSchema::KEEP) as usize;
    let compress = table.boolean("compress", false);
    table.finish();
    Some(Some(AccessLog {
        target: target?,
        rotate_bytes: (rotate_bytes > 0).then_some(rotate_bytes),
        rotate_every: (!rotate_every.is_zero()).then_some(rotate_every),
        keep,
        compress,
    }))
}

pub(super) fn log(mut table: Section) -> Log {
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels =
        [("error", LogLevel::Error), ("warn", LogLevel::Warn), ("info", LogLevel::Info), ("debug", LogLevel::Debug)];
    let format = table.choice("format", &formats).unwrap_or(LogFormat::Auto);
    let level = table.choice("level", &levels).unwrap_or(LogLevel::Info);
    table.finish();
    Log { format, level }
}

pub(super) fn trace(mut table: Section) -> TraceStart {
    let starts = [("unsampled", TraceStart::Unsampled), ("sampled", TraceStart::Sampled), ("never", TraceStart::Never)];
    let start = table.choice("start", &starts).unwrap_or(TraceStart::Unsampled);
    table.finish();
    start
}
