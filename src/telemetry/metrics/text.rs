//! Metrics as text, in the two forms that scrapers ask for.

use std::fmt::Write;

use super::{Family, Kind};

/// The form of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The form that suits an Accept header best; what asks for nothing that we know gets Prometheus text.
    pub fn of_accept(accept: &str) -> Format {
        let weight = |media: &str| accept.split(',').filter_map(|range| weight_of(range, media)).max().unwrap_or(0);
        match weight("application/openmetrics-text") {
            open if open > 0 && open >= weight("text/plain") => Format::OpenMetrics,
            _ => Format::Prometheus,
        }
    }

    /// The Content-Type of the text.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The weight in thousandths that a range of an Accept header gives to `media`, if it names that. A version of OpenMetrics
/// other than 1 is another media type.
fn weight_of(range: &str, media: &str) -> Option<u32> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(media) {
        return None;
    }
    let mut weight = 1000;
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => weight = (value.trim().parse::<f64>().unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u32,
            "version" if media.ends_with("openmetrics-text") && !matches!(value.trim(), "1.0.0" | "0.0.1") => {
                return None;
            }
            _ => {}
        }
    }
    Some(weight)
}

/// Text under way.
#[derive(Debug)]
pub struct Text {
    out: String,
    format: Format,
}

impl Text {
    /// No text yet.
    pub fn new(format: Format) -> Text {
        Text { out: String::new(), format }
    }

    /// Bytes that were written and not taken out.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Takes out what was written since the last time.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    /// Begins a metric.
    pub fn family(&mut self, family: &Family) {
        let open = self.format == Format::OpenMetrics;
        let (name, kind) = match family.kind {
            Kind::Counter if open => (family.name.trim_end_matches("_total"), "counter"),
            Kind::Info if open => (family.name.trim_end_matches("_info"), "info"),
            Kind::Info => (family.name, "gauge"),
            kind => (family.name, kind.as_str()),
        };
        let _ = writeln!(self.out, "# HELP {name} {}", Escaped { text: family.help, quotes: open });
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        if open && let Some(unit) = ["seconds", "bytes", "ratio"].into_iter().find(|unit| name.ends_with(unit)) {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
    }

    /// A line: the family's name with `suffix`, its labels with `values` and perhaps one `more`, and the value.
    pub fn line(&mut self, family: &Family, suffix: &str, values: &[&str], more: Option<(&str, &str)>, value: Value) {
        debug_assert_eq!(values.len(), family.labels.len(), "{}", family.name);
        self.out.push_str(family.name);
        self.out.push_str(suffix);
        let mut before = '{';
        for (label, text) in family.labels.iter().copied().zip(values.iter().copied()).chain(more) {
            let _ = write!(self.out, "{before}{label}=\"{}\"", Escaped { text, quotes: true });
            before = ',';
        }
        self.out.push_str(if before == ',' { "} " } else { " " });
        let _ = match value {
            Value::Whole(whole) => writeln!(self.out, "{whole}"),
            Value::Nanos(nanos) => writeln!(self.out, "{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000),
            Value::Float(float) => writeln!(self.out, "{float}"),
        };
    }

    /// The text's end.
    pub fn end(&mut self) {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
    }
}

/// A number to be written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// As it is.
    Whole(u64),
    /// Nanoseconds, written as seconds.
    Nanos(u64),
    /// With a fraction.
    Float(f64),
}

/// Text in a line of its own or in quotes.
struct Escaped<'a> {
    text: &'a str,
    quotes: bool,
}

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for piece in self.text.split_inclusive(['\\', '\n', '"']) {
            let (plain, special) = match piece.as_bytes().last() {
                Some(b'\\') => (&piece[..piece.len() - 1], "\\\\"),
                Some(b'\n') => (&piece[..piece.len() - 1], "\\n"),
                Some(b'"') if self.quotes => (&piece[..piece.len() - 1], "\\\""),
                _ => (piece, ""),
            };
            f.write_str(plain)?;
            f.write_str(special)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::scrape::families;

    const FAMILY: Family =
        Family { name: "x_seconds_total", kind: Kind::Counter, labels: &["a", "b"], help: "say \"\\\n\"" };

    fn written(format: Format) -> String {
        let mut text = Text::new(format);
        text.family(&FAMILY);
        text.line(&FAMILY, "", &["\\ \" \n é", ""], Some(("le", "+Inf")), Value::Nanos(1_000_000_001));
        text.end();
        text.take()
    }

    #[test]
    fn both_forms_escape_and_name_as_they_must() {
        let sample = "x_seconds_total{a=\"\\\\ \\\" \\n é\",b=\"\",le=\"+Inf\"} 1.000000001\n";
        assert_eq!(
            written(Format::Prometheus),
            format!("# HELP x_seconds_total say \"\\\\\\n\"\n# TYPE x_seconds_total counter\n{sample}")
        );
        assert_eq!(
            written(Format::OpenMetrics),
            format!(
                "# HELP x_seconds say \\\"\\\\\\n\\\"\n# TYPE x_seconds counter\n# UNIT x_seconds seconds\n{sample}# EOF\n"
            )
        );
    }

    #[test]
    fn the_form_is_the_one_that_was_asked_for() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
            ("application/openmetrics-text;version=2.0.0", Format::Prometheus),
            ("application/openmetrics-text;q=0.1,text/plain;q=0.2", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=nonsense", Format::Prometheus),
            // What Prometheus sends.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::of_accept(accept), format, "{accept}");
        }
    }

    #[test]
    fn every_metric_is_named_once_and_by_the_rules() {
        let mut names = std::collections::HashSet::new();
        for family in families() {
            let name = family.name;
            // OpenMetrics names a family without the suffix of its series.
            let bare = name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name);
            assert!(names.insert(bare), "{bare} twice");
            assert!(name.starts_with("ringway_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), family.kind == Kind::Info, "{name}");
            assert!(family.help.ends_with('.') && family.help.len() > 20, "{name}: {}", family.help);
            assert!(!family.help.contains("  "), "{name}: {}", family.help);
            if let Kind::Histogram(bounds) = family.kind {
                assert!(name.ends_with("_seconds") && bounds.len() <= super::super::histogram::BOUNDS_MAX, "{name}");
                assert!(bounds.is_sorted_by(|(_, a), (_, b)| a < b), "{name}");
                for (written, nanos) in bounds {
                    assert_eq!((written.parse::<f64>().unwrap() * 1e9).round() as u64, *nanos, "{name} {written}");
                }
            }
        }
    }
}
