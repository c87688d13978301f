//! Notations inside values: durations, sizes, lists of CPUs, `${ENV}`.
//!
//! Not here: URLs (`url`), and what a value may be where (`schema` has the bounds, `compile` applies them).

use std::time::Duration;

/// The highest CPU number that a list may name; the kernel's own CPU set ends there.
const CPU_MAX: usize = 1023;

/// Units of time, in milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The unit that is read and never written: a bound of `24h` looks like one.
const DAY: (&str, u64) = ("d", 86_400_000);

/// Units of size, in bytes, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// What a duration looks like.
pub(super) const DURATION_FORM: &str = r#"a number and a unit: "500ms", "75s", "30m", "2h""#;

/// What a size looks like.
pub(super) const SIZE_FORM: &str = r#"bytes as a number, or a number and a unit: "64KiB", "32MiB", "1GiB""#;

/// Reads `500ms`, `75s`, `30m`, `2h` or `7d`. `None` if it is none of these or does not fit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    scaled(text, &TIME_UNITS).or_else(|| scaled(text, &[DAY])).map(Duration::from_millis)
}

/// Reads `64KiB`, `32MiB`, `1GiB`, `512B` or plain digits, in bytes. `None` if it is none of these or does not fit.
pub(super) fn size(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    scaled(text, &SIZE_UNITS)
}

/// Writes a duration as the file would, in the largest unit that is exact.
pub(super) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS)
}

/// Writes a size as the file would, in the largest unit that is exact.
pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let exact = units.iter().find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor));
    match exact.or(units.last()) {
        Some((name, factor)) => format!("{}{name}", amount / factor),
        None => amount.to_string(),
    }
}

/// Reads a list of CPUs, `0-3,8`, in the order written.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with the value.
pub(super) fn cpu_list(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = match (cpu(first), cpu(last)) {
            (Some(first), Some(last)) if first <= last => (first, last),
            (Some(_), Some(_)) => return Err("has a range that runs backwards".into()),
            _ => return Err("is not a list of CPUs".into()),
        };
        if last > CPU_MAX {
            return Err(format!("names a CPU above {CPU_MAX}"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("names CPU {cpu} twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

fn cpu(text: &str) -> Option<usize> {
    let text = text.trim();
    // `parse` alone would take "+3".
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Writes a list of CPUs the short way, `0-3,8`.
pub(super) fn show_cpus(cpus: &[usize]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let show = |&(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(show).collect::<Vec<_>>().join(",")
}

/// True for what may be the name of an environment variable: letters, digits and `_`, no digit first.
pub(super) fn is_env_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.bytes().all(word) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// Fills `${NAME}` and `${NAME:-default}` from the environment. The default also stands in for an empty
/// variable, as in a shell. `$${` is a literal `${`; what a variable holds is not looked at again.
///
/// # Errors
/// One line for each `${` that could not be filled.
pub(super) fn interpolate(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<String, Vec<String>> {
    let (mut out, mut wrong) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        if rest[..at].ends_with('$') {
            out.pop();
            out.push_str("${");
            rest = inside;
            continue;
        }
        let Some(end) = inside.find('}') else {
            wrong.push("has a ${ without its }".to_owned());
            rest = "";
            break;
        };
        let (name, default) = match inside[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        rest = &inside[end + 1..];
        if !is_env_name(name) {
            // Not quoted: what was pasted here by mistake may be the secret itself.
            wrong.push("has a ${…} that holds no name of an environment variable".to_owned());
            continue;
        }
        match (env(name).filter(|value| default.is_none() || !value.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => wrong.push(format!("needs the environment variable {name}, which is not set")),
        }
    }
    out.push_str(rest);
    if wrong.is_empty() { Ok(out) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [
            ("500ms", Some(500)),
            ("75s", Some(75_000)),
            ("30m", Some(1_800_000)),
            ("2h", Some(7_200_000)),
            ("0s", Some(0)),
            ("75", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("1S", None),
            ("1h30m", None),
            ("5124095576031h", None),
            ("18446744073709551616ms", None),
        ] {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary_or_plain() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("64KiB", Some(64 << 10)),
            ("32MiB", Some(32 << 20)),
            ("1GiB", Some(1 << 30)),
            ("", None),
            ("KiB", None),
            ("1KB", None),
            ("1kib", None),
            ("-1", None),
            ("1.5MiB", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("17179869184GiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for (ms, shown) in
            [(0, "0ms"), (1, "1ms"), (1500, "1500ms"), (75_000, "75s"), (120_000, "2m"), (86_400_000, "24h")]
        {
            assert_eq!(show_duration(Duration::from_millis(ms)), shown);
            assert_eq!(duration(shown), Some(Duration::from_millis(ms)));
        }
        for (bytes, shown) in [(0, "0B"), (1000, "1000B"), (1 << 10, "1KiB"), (3 << 20, "3MiB"), (1 << 40, "1024GiB")] {
            assert_eq!(show_size(bytes), shown);
            assert_eq!(size(shown), Some(bytes));
        }
    }

    #[test]
    fn cpu_lists_keep_their_order_and_name_a_cpu_once() {
        for (text, cpus) in [
            ("0", Ok(vec![0])),
            ("0-3,8", Ok(vec![0, 1, 2, 3, 8])),
            ("8, 0 - 1", Ok(vec![8, 0, 1])),
            ("1023", Ok(vec![1023])),
            ("1024", Err("names a CPU above 1023")),
            ("0-18446744073709551615", Err("names a CPU above 1023")),
            ("99999999999999999999", Err("is not a list of CPUs")),
            ("", Err("is not a list of CPUs")),
            ("0,", Err("is not a list of CPUs")),
            ("1-2-3", Err("is not a list of CPUs")),
            ("+1", Err("is not a list of CPUs")),
            ("3-1", Err("has a range that runs backwards")),
            ("0-3,2", Err("names CPU 2 twice")),
        ] {
            assert_eq!(cpu_list(text), cpus.map_err(str::to_owned), "{text}");
        }
        assert_eq!(show_cpus(&[8, 2, 0, 1, 5, 4]), "0-2,4-5,8");
    }

    #[test]
    fn variables_are_filled_once_and_missing_ones_named() {
        let env = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        for (text, filled) in [
            ("plain $A {A} $", Ok("plain $A {A} $")),
            ("${A}-${A}", Ok("1-1")),
            ("é${A}é", Ok("é1é")),
            ("${NO:-x:-y}", Ok("x:-y")),
            ("${A:-x}", Ok("1")),
            ("${EMPTY:-x}", Ok("x")),
            ("${EMPTY}", Ok("")),
            ("${NO:-}", Ok("")),
            ("${NESTED}", Ok("${A}")),
            ("$${A}", Ok("${A}")),
            ("$$${A}", Ok("$${A}")),
            ("${NO} ${NO2}", Err("NO, NO2,")),
            ("${A", Err("has a ${ without its }")),
            ("${}", Err("holds no name")),
            ("${sk-live}", Err("holds no name")),
            ("${1A}", Err("holds no name")),
        ] {
            match (interpolate(text, env), filled) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{text}"),
                (Err(got), Err("NO, NO2,")) => {
                    assert_eq!(got.len(), 2, "{text}");
                    assert!(got[0].contains(" NO,") && got[1].contains(" NO2,"), "{got:?}");
                }
                (Err(got), Err(want)) => assert!(got[0].contains(want) && !got[0].contains("sk-"), "{text}: {got:?}"),
                (got, want) => panic!("{text}: {got:?}, not {want:?}"),
            }
        }
    }
}
