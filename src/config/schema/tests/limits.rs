//! `config/limits.md` says what is: bounds, constants, and tests that exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::config::values::{duration, show_duration, size};

const DOCUMENT: &str = include_str!("../../../../config/limits.md");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Bounds that are no part of a table of their own: key, default and range as the document writes them.
const OTHERS: [(&str, Option<Duration>, Bound<Duration>); 2] = [
    (
        "listeners.tls.ticket_rotation",
        Some(ListenerTlsSchema::TICKET_ROTATION.default),
        ListenerTlsSchema::TICKET_ROTATION,
    ),
    ("listeners.tls.hsts", None, ListenerTlsSchema::HSTS),
];

/// Where a constant that ends in `_MAX` is a bound that somebody may meet.
const ROOMS: [&str; 7] = ["control", "listener", "net", "telemetry", "upstream", "wire", "worker"];

/// One line of a table.
struct Row<'d> {
    line: &'d str,
    limit: &'d str,
    default: &'d str,
    range: &'d str,
    tests: &'d str,
}

fn rows() -> Vec<Row<'static>> {
    let lines = DOCUMENT.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| limit |"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [limit, default, range, _, tests] = cells[..] else { panic!("no five cells: {line}") };
            Row { line, limit, default, range, tests }
        })
        .collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The key of a limit that is configured.
fn key(limit: &str) -> Option<&str> {
    quoted(limit).next().filter(|word| limit.starts_with('`') && word.contains('.') && !word.contains('/'))
}

/// The file and the constant that a fixed limit is.
fn fixed(range: &str) -> Option<(&str, &str)> {
    let mut words = quoted(range.strip_prefix("fixed: ")?);
    Some((words.next()?, words.next()?))
}

fn source(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_bound_stands_in_the_table_of_limits_with_its_default_and_range() {
    let schema = schema();
    let mut expected = BTreeMap::new();
    for (section, field, [min, max, ..]) in BOUNDS {
        let property = &schema["definitions"][title(section)]["properties"][field]["default"];
        let default = property.as_str().map_or(property.to_string(), str::to_owned);
        expected.insert(format!("{section}.{field}"), (default, format!("{min} to {max}")));
    }
    for (name, default, bound) in OTHERS {
        let default = default.map_or("—".to_owned(), show_duration);
        expected.insert(
            name.to_owned(),
            (default, format!("{} to {}", show_duration(bound.min), show_duration(bound.max))),
        );
    }
    let mut listed = BTreeMap::new();
    for row in rows() {
        let Some(key) = key(row.limit) else { continue };
        let said = (row.default.to_owned(), row.range.to_owned());
        assert!(listed.insert(key.to_owned(), said).is_none(), "{key} stands there twice");
    }
    // Spans of time in days look like the others.
    let plain = |(default, range): &(String, String)| {
        let same = |word: &str| duration(word).map_or(word.to_owned(), show_duration);
        let (min, max) = range.split_once(" to ").expect("a range");
        (same(default), same(min), same(max))
    };
    assert_eq!(listed.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (key, said) in &listed {
        assert_eq!(plain(said), plain(&expected[key]), "{key}");
    }
}

#[test]
fn every_constant_in_the_table_of_limits_has_the_value_it_says() {
    let mut count = 0;
    for row in rows() {
        let Some((path, name)) = fixed(row.range) else {
            // Such as cannot be read here, or are those of another row.
            let is_told = key(row.limit).is_some() || row.range.starts_with("fixed, ") || row.range.starts_with("as ");
            assert!(is_told, "neither configured nor fixed: {}", row.line);
            continue;
        };
        count += 1;
        let (source, is_time) = (source(path), |kind: &str| kind.contains("Duration"));
        let (kind, value) = constant(&source, name).unwrap_or_else(|| panic!("{path} has no {name}"));
        let said = match is_time(kind) {
            true => duration(row.default).map(|time| time.as_nanos()),
            false => size(&row.default.replace(',', "")).map(u128::from),
        };
        let is = evaluate(value, &source)
            .unwrap_or_else(|| panic!("{path}: {name} = {value} is more than this test can read"));
        assert_eq!(said, Some(is), "{path}: {name} = {value}, not {}", row.default);
    }
    assert!(count > 40, "{count}");
}

#[test]
fn every_test_in_the_table_of_limits_exists() {
    for row in rows() {
        let mut count = 0;
        for word in quoted(row.tests) {
            let (path, name) = word.split_once("::").unwrap_or_else(|| panic!("no test: {word}"));
            count += 1;
            let source = source(path);
            let is_test = match path.ends_with(".py") {
                true => name.starts_with("test_") && source.contains(&format!("def {name}(")),
                // A proptest has its arguments.
                false => source.split("#[test]").skip(1).any(|rest| {
                    let end = rest.find('(').unwrap_or(0);
                    rest[..end].split_whitespace().last() == Some(name)
                }),
            };
            assert!(is_test, "{path} has no test {name}");
        }
        assert!(count > 0 || row.tests.starts_with("none: "), "no test, and no reason for that: {}", row.line);
    }
}

#[test]
fn every_constant_that_is_a_bound_stands_in_the_document() {
    let mut missing = Vec::new();
    let mut found = 0;
    for room in ROOMS {
        let mut folders = vec![Path::new(ROOT).join("src").join(room)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.extend((path.file_name() != Some("tests".as_ref())).then_some(path));
                } else if path.file_name() != Some("tests.rs".as_ref()) {
                    let text = fs::read_to_string(&path).unwrap();
                    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                    let path = path.strip_prefix(ROOT).unwrap().display().to_string();
                    for rest in text.split("const ").skip(1) {
                        let Some((name, rest)) = rest.split_once(": ") else { continue };
                        // A bound is a number, a list of such, or a time; and there are names of metrics.
                        let is_number = ["u", "i", "[u", "Duration"].iter().any(|kind| rest.starts_with(kind));
                        if is_number && is_name(name) && name.ends_with("_MAX") {
                            found += 1;
                            let stands = DOCUMENT.contains(&format!("`{path}` `{name}`"));
                            missing.extend((!stands).then(|| format!("`{path}` `{name}`")));
                        }
                    }
                }
            }
        }
    }
    assert!(found > 50, "{found}");
    assert!(missing.is_empty(), "say in config/limits.md what a peer gets at them:\n{}", missing.join("\n"));
}

/// Type and value of the constant `name`.
fn constant<'s>(source: &'s str, name: &str) -> Option<(&'s str, &'s str)> {
    let rest = source.split("const ").find_map(|rest| rest.strip_prefix(name)?.strip_prefix(": "))?;
    rest.split(';').next()?.split_once(" = ")
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// The value of sums, products and shifts of plain numbers and of constants in `source`, and of durations in nanoseconds.
fn evaluate(text: &str, source: &str) -> Option<u128> {
    let text = text.trim();
    for (name, factor) in [("secs", 1_000_000_000), ("millis", 1_000_000), ("micros", 1_000)] {
        if let Some(rest) = text.strip_prefix(&format!("Duration::from_{name}(")) {
            return Some(evaluate(rest.strip_suffix(')')?, source)? * factor);
        }
    }
    if let Some((left, right)) = text.split_once(" + ") {
        return Some(evaluate(left, source)? + evaluate(right, source)?);
    }
    if let Some((left, right)) = text.split_once(" << ") {
        return Some(evaluate(left, source)? << evaluate(right, source)?);
    }
    if let Some((left, right)) = text.split_once(" * ") {
        return Some(evaluate(left, source)? * evaluate(right, source)?);
    }
    if is_name(text) {
        return evaluate(constant(source, text)?.1, source);
    }
    text.replace('_', "").parse().ok()
}

#[test]
fn a_value_is_read_as_the_compiler_reads_it() {
    const SOURCE: &str = "pub const A: u32 = 5;\nconst A_B: usize = 1 << 2;";
    for (text, value) in [
        ("4096", Some(4096)),
        ("10_000", Some(10_000)),
        ("64 << 10", Some(65_536)),
        ("16 * 1024", Some(16_384)),
        ("7 * 24 * 3600", Some(604_800)),
        ("Duration::from_millis(250)", Some(250_000_000)),
        ("Duration::from_secs(3)", Some(3_000_000_000)),
        ("64 * 1024 + A_B", Some(65_540)),
        ("OTHER", None),
        ("u32::MAX", None),
    ] {
        assert_eq!(evaluate(text, SOURCE), value, "{text}");
    }
    assert_eq!(constant(SOURCE, "A_B"), Some(("usize", "1 << 2")));
    assert_eq!(constant("const A_B: usize = 1;", "A"), None);
}
