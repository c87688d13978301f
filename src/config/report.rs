//! What is wrong with a configuration file, told to the person who wrote it.
//!
//! Every finding has a place in the text, the path of the key, what is wrong there and what would be
//! right. Not here: finding the faults (`read`, `compile`). A finding never quotes the value of a secret;
//! those who report must see to that, for this module prints what it is given.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// How many names a hint lists before it says "and N more".
const NAMES_LISTED_MAX: usize = 24;

/// Names longer than this get no suggestion; comparing them would cost more than it tells.
const NAME_COMPARED_MAX: usize = 64;

/// How many faults are kept. A file with more has one that repeats itself.
pub(super) const FINDINGS_MAX: usize = 1000;

/// One fault, by its byte offset in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub at: usize,
    pub path: String,
    pub what: String,
    pub allowed: String,
}

/// The faults of a file, the first 1000 that were found, in the order of their places; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    list: Vec<Located>,
}

/// One fault of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// Path of the key at fault, `models[3].route[1].provider`; empty if the text is not TOML there.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What would be right; empty if `what` says it already.
    pub allowed: String,
}

impl Errors {
    /// Finds line and column of each finding in `text` and puts them in order.
    pub(super) fn locate(text: &str, mut findings: Vec<Finding>) -> Errors {
        findings.sort_by_key(|finding| finding.at);
        findings.dedup();
        let (mut line, mut column, mut reached) = (1, 1, 0);
        let mut list = Vec::with_capacity(findings.len());
        for finding in findings {
            let at = text.floor_char_boundary(finding.at);
            // A single walk through the text serves all findings, as they are sorted.
            for c in text[reached..at].chars() {
                (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
            }
            reached = at;
            let Finding { path, what, allowed, .. } = finding;
            list.push(Located { line, column, path, what, allowed });
        }
        Errors { list }
    }

    /// The faults, in the order of their places.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Located> {
        self.list.iter()
    }

    /// The report for a terminal: a headline, then each fault with its place; ends with a newline.
    pub fn render(&self, file_name: &str) -> String {
        let count = self.list.len();
        let noun = if count == 1 { "error" } else { "errors" };
        let more = if count >= FINDINGS_MAX { " or more" } else { "" };
        let mut out = format!("ringway: {file_name} has {count}{more} {noun}\n\n");
        let places: Vec<String> = self.list.iter().map(|error| format!("{}:{}", error.line, error.column)).collect();
        let width = places.iter().map(String::len).max().unwrap_or(0);
        for (error, place) in self.list.iter().zip(&places) {
            let gap = if error.path.is_empty() { "" } else { "  " };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {place:<width$}  {}{gap}{}", error.path, error.what);
            if !error.allowed.is_empty() {
                let _ = writeln!(out, "{:26}{}", "", error.allowed);
            }
        }
        out
    }
}

/// Puts a value in quotes for a report: control characters escaped, no more than 64 characters of it.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// `intro: a, b, c.` and, if one of them is close to `written`, `Did you mean "b"?`
pub(super) fn hint<'n>(intro: &str, written: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let names: BTreeSet<&str> = names.into_iter().collect();
    if names.is_empty() {
        return format!("{intro}: none");
    }
    let listed: Vec<String> = names.iter().take(NAMES_LISTED_MAX).map(|name| bare(name)).collect();
    let mut out = format!("{intro}: {}", listed.join(", "));
    if names.len() > NAMES_LISTED_MAX {
        let _ = write!(out, " and {} more", names.len() - NAMES_LISTED_MAX);
    }
    if let Some(name) = nearest(written, names.iter().copied()) {
        let _ = write!(out, ". Did you mean {}?", quoted(name));
    }
    out
}

/// A name as it stands if it is plain, else in quotes.
fn bare(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_graphic() && b != b',' && b != b'"';
    if !name.is_empty() && name.len() <= NAME_COMPARED_MAX && name.bytes().all(plain) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// The name that `written` was most likely meant to be: at most one edit in three characters away, letter case
/// aside. Among equals the first.
pub(super) fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if written.len() > NAME_COMPARED_MAX {
        return None;
    }
    let written: Vec<char> = written.to_lowercase().chars().collect();
    let mut best: Option<(usize, &str)> = None;
    for name in names.into_iter().filter(|name| name.len() <= NAME_COMPARED_MAX) {
        let other: Vec<char> = name.to_lowercase().chars().collect();
        let reach = (written.len().max(other.len()) / 3).max(1);
        if written.len().abs_diff(other.len()) > reach {
            continue;
        }
        let distance = edits(&written, &other);
        if distance <= reach && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment).
fn edits(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (above[j + 1] + 1).min(row[j] + 1).min(above[j] + usize::from(x != y));
            if i > 0 && j > 0 && a[i - 1] == *y && *x == b[j - 1] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_close_or_there_is_none() {
        let names = ["anthropic-us", "openai-eu", "chat", "a"];
        for (written, expected) in [
            ("anthropic-eu", Some("anthropic-us")),
            ("opnai-eu", Some("openai-eu")),
            ("OPENAI-EU", Some("openai-eu")),
            ("caht", Some("chat")),
            ("b", Some("a")),
            ("deepseek", None),
            ("", Some("a")),
            ("ä", Some("a")),
            ("chatter-box", None),
        ] {
            assert_eq!(nearest(written, names), expected, "{written}");
        }
        assert_eq!(nearest(&"x".repeat(NAME_COMPARED_MAX + 1), names), None);
    }

    #[test]
    fn edits_are_counted_and_a_swap_is_one() {
        for (a, b, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("abc", "xbc", 1),
            ("kitten", "sitting", 3),
        ] {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            assert_eq!(edits(&a, &b), distance, "{a:?} {b:?}");
            assert_eq!(edits(&b, &a), distance, "{b:?} {a:?}");
        }
    }

    #[test]
    fn places_are_lines_and_characters_even_at_and_past_the_end() {
        let text = "a\näö = 1\r\nend";
        for (at, line, column) in
            [(0, 1, 1), (1, 1, 2), (2, 2, 1), (4, 2, 2), (5, 2, 2), (6, 2, 3), (15, 3, 4), (999, 3, 4)]
        {
            let finding = Finding { at, path: String::new(), what: String::new(), allowed: String::new() };
            let errors = Errors::locate(text, vec![finding]);
            let error = errors.iter().next().map(|error| (error.line, error.column));
            assert_eq!(error, Some((line, column)), "{at}");
        }
    }

    #[test]
    fn long_values_and_long_lists_are_cut() {
        assert_eq!(quoted("a\n\u{1b}"), r#""a\n\u{1b}""#);
        assert_eq!(quoted(&"é".repeat(65)), format!("\"{}\"…", "é".repeat(64)));
        let names: Vec<String> = (0..30).map(|i| format!("name-{i:02}")).collect();
        let hint = hint("defined", "zzz", names.iter().map(String::as_str));
        assert!(hint.ends_with("name-23 and 6 more"), "{hint}");
    }
}
