//! A cursor over the parsed file that never stops at a fault.
//!
//! serde would end at the first error. Here each [`Section`] hands out its fields one by one; a value of the
//! wrong type is noted with its place and reads as absent, and the walk goes on. What a section was not asked
//! for is an unknown field.
//!
//! Not here: which fields there are and what they mean (`compile`).

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::compile::Sources;
use super::report::{FINDINGS_MAX, Finding, hint, quoted};
use super::schema::Bound;
use super::values;

/// One reading of one file: what it may ask its surroundings, and what it found wrong so far.
pub(super) struct Reading<'r> {
    /// The environment, files and CPUs.
    pub sources: &'r dyn Sources,
    /// Relative paths start here.
    pub base: &'r Path,
    findings: RefCell<Vec<Finding>>,
}

impl<'r> Reading<'r> {
    pub fn new(sources: &'r dyn Sources, base: &'r Path) -> Reading<'r> {
        Reading { sources, base, findings: RefCell::default() }
    }

    /// Notes a fault at a byte offset.
    pub fn report(&self, at: usize, path: &str, what: impl Into<String>, allowed: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let finding = Finding { at, path: path.to_owned(), what: what.into(), allowed: allowed.into() };
        self.findings.borrow_mut().push(finding);
    }

    /// True if no more faults are kept, so that there is no use in working out a hint.
    fn is_full(&self) -> bool {
        self.findings.borrow().len() >= FINDINGS_MAX
    }

    pub fn into_findings(self) -> Vec<Finding> {
        self.findings.into_inner()
    }
}

/// A table of the file, or an optional one that is not there.
pub(super) struct Section<'r> {
    pub reading: &'r Reading<'r>,
    pub path: String,
    at: usize,
    table: Option<&'r DeTable<'r>>,
    asked: Vec<&'static str>,
}

/// A value of the file, its place and its path.
#[derive(Clone)]
pub(super) struct Item<'r> {
    pub reading: &'r Reading<'r>,
    pub path: String,
    pub at: usize,
    value: &'r DeValue<'r>,
}

/// A string of the file, filled from the environment.
#[derive(Clone)]
pub(super) struct Text<'r> {
    pub item: Item<'r>,
    /// With every `${ENV}` filled in.
    pub value: String,
    /// As written: what an error may show, for a variable can hold a secret.
    pub written: &'r str,
}

impl<'r> Section<'r> {
    /// The file itself.
    pub fn root(reading: &'r Reading<'r>, table: &'r DeTable<'r>) -> Section<'r> {
        Section { reading, path: String::new(), at: 0, table: Some(table), asked: Vec::new() }
    }

    /// The field's value, if it is there.
    pub fn get(&mut self, field: &'static str) -> Option<Item<'r>> {
        self.asked.push(field);
        let value = self.table?.get(field)?;
        Some(self.item(field, value))
    }

    /// The field's value; an error if it is not there.
    pub fn require(&mut self, field: &'static str, allowed: &str) -> Option<Item<'r>> {
        let item = self.get(field);
        if item.is_none() {
            self.reading.report(self.at, &self.path_of(field), "is missing", allowed);
        }
        item
    }

    /// The table of that name; an empty one stands for one that is absent or no table.
    pub fn section(&mut self, field: &'static str) -> Section<'r> {
        let absent =
            Section { reading: self.reading, path: self.path_of(field), at: self.at, table: None, asked: Vec::new() };
        self.get(field).and_then(|item| item.section()).unwrap_or(absent)
    }

    /// A number within `bound`, else its default.
    pub fn whole(&mut self, field: &'static str, bound: Bound<u64>) -> u64 {
        let read = |item: Item<'r>| {
            let DeValue::Integer(number) = item.value else {
                return item.wrong_type("a whole number");
            };
            // What does not fit here is out of any range that we have.
            let value = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
            item.in_range(value, &number.to_string(), bound.map(i128::from), |value| value.to_string())
        };
        self.get(field).and_then(read).map_or(bound.default, |value| u64::try_from(value).unwrap_or(bound.max))
    }

    /// A number of bytes within `bound`, else its default.
    pub fn size(&mut self, field: &'static str, bound: Bound<u64>) -> usize {
        let read = |item: Item<'r>| match item.value {
            DeValue::Integer(number) => {
                let value = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
                let show = |value: i128| values::show_size(u64::try_from(value).unwrap_or(u64::MAX));
                let value = item.in_range(value, &number.to_string(), bound.map(i128::from), show)?;
                u64::try_from(value).ok()
            }
            DeValue::String(_) => {
                let text = item.text()?;
                let Some(value) = values::size(&text.value) else {
                    return text.wrong("is not a size", values::SIZE_FORM);
                };
                item.in_range(value, &quoted(text.written), bound, values::show_size)
            }
            _ => item.wrong_type(values::SIZE_FORM),
        };
        let value = self.get(field).and_then(read).unwrap_or(bound.default);
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// A duration within `bound`, else its default.
    pub fn duration(&mut self, field: &'static str, bound: Bound<Duration>) -> Duration {
        let read = |item: Item<'r>| match item.value {
            DeValue::String(_) => {
                let text = item.text()?;
                let Some(value) = values::duration(&text.value) else {
                    return text.wrong("is not a duration", values::DURATION_FORM);
                };
                item.in_range(value, &quoted(text.written), bound, values::show_duration)
            }
            _ => item.wrong_type(values::DURATION_FORM),
        };
        self.get(field).and_then(read).unwrap_or(bound.default)
    }

    /// `true` or `false`, else the default.
    pub fn boolean(&mut self, field: &'static str, default: bool) -> bool {
        let read = |item: Item<'r>| match item.value {
            DeValue::Boolean(value) => Some(*value),
            _ => item.wrong_type("true or false"),
        };
        self.get(field).and_then(read).unwrap_or(default)
    }

    /// One of some words. `None` if it is absent or another word.
    pub fn choice<T: Copy>(&mut self, field: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.get(field)?.choice(words)
    }

    /// Names every field that was not asked for; true if there is none.
    pub fn finish(self) -> bool {
        let mut is_known = true;
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !self.asked.contains(&name) {
                is_known = false;
                if self.reading.is_full() {
                    break;
                }
                let allowed = hint("allowed", name, self.asked.iter().copied());
                self.reading.report(key.span().start, &self.path_of(name), "is not a known field", allowed);
            }
        }
        is_known
    }

    /// Reports a fault of the table as a whole.
    pub fn wrong<T>(&self, what: &str, allowed: &str) -> Option<T> {
        self.reading.report(self.at, &self.path, what, allowed);
        None
    }

    /// The names of the fields that are there.
    pub fn present(&self) -> impl Iterator<Item = &'r str> {
        self.table.into_iter().flatten().map(|(key, _)| key.get_ref().as_ref())
    }

    fn item(&self, field: &str, value: &'r Spanned<DeValue<'r>>) -> Item<'r> {
        Item { reading: self.reading, path: self.path_of(field), at: value.span().start, value: value.get_ref() }
    }

    fn path_of(&self, field: &str) -> String {
        let is_bare = !field.is_empty()
            && field.len() <= 64
            && field.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let field = if is_bare { field.to_owned() } else { quoted(field) };
        if self.path.is_empty() { field } else { format!("{}.{field}", self.path) }
    }
}

impl<'r> Item<'r> {
    /// The value as a string, filled from the environment.
    pub fn text(&self) -> Option<Text<'r>> {
        let DeValue::String(written) = self.value else {
            return self.wrong_type("a string");
        };
        match values::interpolate(written, |name| self.reading.sources.env(name)) {
            Ok(value) => Some(Text { item: self.clone(), value, written }),
            Err(faults) => {
                for fault in faults {
                    self.wrong::<()>(&fault, "${NAME} or ${NAME:-default}; $${ stands for ${ itself");
                }
                None
            }
        }
    }

    /// One of some words. `None` if it is another one.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        match words.iter().find(|(word, _)| *word == text.value) {
            Some((_, value)) => Some(*value),
            None => {
                let allowed = hint("allowed", text.written, words.iter().map(|(word, _)| *word));
                text.wrong("is not known here", &allowed)
            }
        }
    }

    /// As [`Item::text`], but what is wrong goes unreported: someone else reads the same value.
    pub fn quiet_text(&self) -> Option<String> {
        match self.value {
            DeValue::String(written) => values::interpolate(written, |name| self.reading.sources.env(name)).ok(),
            _ => None,
        }
    }

    /// The value as a table.
    pub fn section(&self) -> Option<Section<'r>> {
        let DeValue::Table(table) = self.value else {
            return self.wrong_type("a table");
        };
        Some(Section {
            reading: self.reading,
            path: self.path.clone(),
            at: self.at,
            table: Some(table),
            asked: Vec::new(),
        })
    }

    /// The values of a list of 1 to `max`.
    pub fn list(&self, max: usize, form: &str) -> Option<Vec<Item<'r>>> {
        let DeValue::Array(array) = self.value else {
            return self.wrong_type(form);
        };
        if array.is_empty() {
            return self.wrong("is empty", &format!("at least one: {form}"));
        }
        if array.len() > max {
            return self.wrong(&format!("has {} entries", array.len()), &format!("at most {max}"));
        }
        let item = |(i, value): (usize, &'r Spanned<DeValue<'r>>)| Item {
            reading: self.reading,
            path: format!("{}[{i}]", self.path),
            at: value.span().start,
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// True for a string.
    pub fn is_string(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    /// Reports a fault of this value.
    pub fn wrong<T>(&self, what: &str, allowed: &str) -> Option<T> {
        self.reading.report(self.at, &self.path, what, allowed);
        None
    }

    /// Reports that the value's type is another one. Does not show the value: it may be a secret.
    pub fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = match self.value {
            DeValue::String(_) => "is a string",
            DeValue::Integer(_) => "is a whole number",
            DeValue::Float(_) => "is a number with a fraction",
            DeValue::Boolean(_) => "is true or false",
            DeValue::Datetime(_) => "is a date or time",
            DeValue::Array(_) => "is a list",
            DeValue::Table(_) => "is a table",
        };
        self.wrong(found, &format!("expected {expected}"))
    }

    fn in_range<T: PartialOrd + Copy>(
        &self,
        value: T,
        shown: &str,
        bound: Bound<T>,
        show: impl Fn(T) -> String,
    ) -> Option<T> {
        if (bound.min..=bound.max).contains(&value) {
            return Some(value);
        }
        let (min, max, default) = (show(bound.min), show(bound.max), show(bound.default));
        self.wrong(&format!("{shown} is out of range"), &format!("at least {min}, at most {max}; default {default}"))
    }
}

impl Text<'_> {
    /// Reports a name that no definition has, with those that there are.
    pub fn undefined<'n, T>(&self, names: impl IntoIterator<Item = &'n str>) -> Option<T> {
        if self.item.reading.is_full() {
            return None;
        }
        self.wrong("is not defined", &hint("defined", self.written, names))
    }

    /// Reports a fault of this string and quotes it as written; not for secrets.
    pub fn wrong<T>(&self, what: &str, allowed: &str) -> Option<T> {
        self.item.wrong(&format!("{} {what}", quoted(self.written)), allowed)
    }
}
