//! A Rust source file as far as the architecture rules need it: which paths it names, and on which line.
//!
//! This is a lexer with a memory for `use` trees, not a parser: it knows nothing of types or scopes, so a
//! rule can be evaded on purpose. It is here to catch what happens by accident.
//!
//! Comments, literals, `#[cfg(test)]` items and `#[test]` functions are left out: tests may name anything.

/// One source file.
pub struct Source {
    /// Path below `src`, with `/`: `wire/http1.rs`.
    pub path: String,
    /// Number of lines, tests included.
    pub lines: usize,
    /// Every path it names, in order, tests left out.
    pub names: Vec<Name>,
    /// The text of its `//!` lines, without the mark.
    pub header: Vec<String>,
}

/// A path as it is named somewhere: `crate::net::dns`, `unwrap`, `std::sync::Mutex`.
#[derive(Debug)]
pub struct Name {
    /// Its segments. `super`, `self` and `crate` at the front are resolved to `crate` and the module's own path.
    pub segments: Vec<String>,
    /// Line, from 1.
    pub line: usize,
    /// Whether it stands in a `use` declaration.
    pub is_use: bool,
    /// The token before it: `.` for a method.
    before: Token,
    /// The two tokens after it: `(` and `)` for a call without arguments.
    after: [Token; 2],
}

impl Name {
    /// True if the path is `path` or lies below it; `path` is written with `::`.
    pub fn is_below(&self, path: &str) -> bool {
        let mut own = self.segments.iter();
        path.split("::").all(|segment| own.next().is_some_and(|own| own == segment))
    }

    /// True if the path ends in `end`, written with `::`.
    pub fn ends_in(&self, end: &str) -> bool {
        let mut own = self.segments.iter().rev();
        end.rsplit("::").all(|segment| own.next().is_some_and(|own| own == segment))
    }

    /// The first segment.
    pub fn first(&self) -> &str {
        &self.segments[0]
    }

    /// The last segment.
    pub fn last(&self) -> &str {
        &self.segments[self.segments.len() - 1]
    }

    /// True for `.name(…)`.
    pub fn is_method_call(&self) -> bool {
        self.before == Token::Mark('.') && self.after[0] == Token::Mark('(')
    }

    /// True for `name(…)`, `path::name(…)`, `.name(…)` and `name::<T>(…)`, but not for `fn name(…)`.
    pub fn is_call(&self) -> bool {
        let opens = matches!(self.after[0], Token::Mark('(') | Token::Path);
        opens && !self.is_use && self.before != Token::Word("fn".into())
    }

    /// True for a call that passes nothing, as far as that can be seen without types.
    pub fn is_call_without_arguments(&self) -> bool {
        self.is_call() && (self.after[0] == Token::Path || self.after[1] == Token::Mark(')'))
    }

    /// True for `Name { … }`, a struct written out, and for `impl … Name {`.
    pub fn is_before_brace(&self) -> bool {
        self.after[0] == Token::Mark('{')
    }

    /// True if the word before it is `word`.
    pub fn follows(&self, word: &str) -> bool {
        self.before == Token::Word(word.into())
    }

    /// The path as written, with `::`.
    pub fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// A token that matters: words, `::`, and single marks. Literals are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Path,
    Mark(char),
    End,
}

impl Source {
    /// Reads the file `path` (below `src`) whose text is `text`.
    pub fn read(path: &str, text: &str) -> Source {
        let tokens = without_tests(&lex(text));
        let names = names(&tokens, &module_of(path));
        let header = text.lines().filter_map(|line| line.strip_prefix("//!")).map(str::to_owned).collect();
        Source { path: path.to_owned(), lines: text.lines().count(), names, header }
    }

    /// The folder or file of the first level that it belongs to: `wire`, `redis`; `""` for `lib.rs` and `main.rs`.
    pub fn room(&self) -> &str {
        match self.path.split_once('/') {
            Some((room, _)) => room,
            None if matches!(self.path.as_str(), "lib.rs" | "main.rs") => "",
            None => self.path.trim_end_matches(".rs"),
        }
    }

    /// True for `tests.rs` and files in a folder `tests`, which hold unit tests only.
    pub fn is_tests(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// True if it is `home` itself (`net/tls.rs`), or lies in the folder `home` or in the folder of that file's module.
    pub fn lives_in(&self, home: &str) -> bool {
        let folder = home.trim_end_matches(".rs");
        self.path == home || self.path == format!("{folder}.rs") || self.path.starts_with(&format!("{folder}/"))
    }
}

/// `wire/http1.rs` → `wire`, `http1`; `wire/mod.rs` → `wire`.
fn module_of(path: &str) -> Vec<String> {
    let stem = path.trim_end_matches(".rs");
    let stem = stem.trim_end_matches("/mod");
    match stem {
        "lib" | "main" => Vec::new(),
        stem => stem.split('/').map(str::to_owned).collect(),
    }
}

fn lex(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut tokens) = (0, 1, Vec::new());
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while at < chars.len() {
        let start = at;
        let next = chars.get(at + 1).copied().unwrap_or(' ');
        match chars[at] {
            '/' if next == '/' => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            '/' if next == '*' => at = after_block_comment(&chars, at),
            '"' => at = after_string(&chars, at + 1),
            '\'' => at = after_quote(&chars, at),
            ':' if next == ':' => {
                tokens.push((Token::Path, line));
                at += 2;
            }
            c if is_word(c) => {
                at += chars[at..].iter().take_while(|c| is_word(**c)).count();
                let word: String = chars[start..at].iter().collect();
                at = match (word.as_str(), chars.get(at)) {
                    ("r" | "br" | "cr", Some('#' | '"')) => match after_raw_string(&chars, at) {
                        Some(end) => end,
                        None => at + 1, // `r#type`: the word follows
                    },
                    ("b" | "c", Some('"')) => after_string(&chars, at + 1),
                    ("b", Some('\'')) => after_quote(&chars, at),
                    _ => {
                        tokens.push((Token::Word(word), line));
                        at
                    }
                };
            }
            c if c.is_whitespace() => at += 1,
            c => {
                tokens.push((Token::Mark(c), line));
                at += 1;
            }
        }
        line += chars[start..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn after_block_comment(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn after_string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `at` is on the first `#` or `"` after `r`. `None` if no string begins there.
fn after_raw_string(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let mut at = at + hashes + 1;
    while at < chars.len() {
        let closed = chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        at += 1;
        if closed {
            return Some(at + hashes);
        }
    }
    Some(at)
}

/// A character literal, or else a lifetime, of which only the quote is skipped.
fn after_quote(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => at + 3 + chars[(at + 3).min(chars.len())..].iter().take_while(|c| **c != '\'').count() + 1,
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// Cuts every item that carries `#[cfg(test)]`, `#[cfg(all(test, …))]` or `#[test]`.
fn without_tests(tokens: &[(Token, usize)]) -> Vec<(Token, usize)> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        match attribute(tokens, at) {
            Some(end) if is_test_attribute(&tokens[at..end]) => {
                at = end;
                while let Some(end) = attribute(tokens, at) {
                    at = end;
                }
                at = after_item(tokens, at);
            }
            _ => {
                kept.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    kept
}

/// The end of the attribute that begins at `at`, if one does.
fn attribute(tokens: &[(Token, usize)], at: usize) -> Option<usize> {
    let is = |at: usize, c| tokens.get(at).is_some_and(|(token, _)| *token == Token::Mark(c));
    if !is(at, '#') || !is(at + 1, '[') {
        return None;
    }
    let mut depth = 0;
    for (end, (token, _)) in tokens.iter().enumerate().skip(at + 1) {
        match token {
            Token::Mark('[') => depth += 1,
            Token::Mark(']') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(end + 1);
        }
    }
    None
}

fn is_test_attribute(attribute: &[(Token, usize)]) -> bool {
    let words: Vec<&str> = attribute
        .iter()
        .filter_map(|(token, _)| match token {
            Token::Word(word) => Some(word.as_str()),
            _ => None,
        })
        .collect();
    matches!(words.as_slice(), ["test"] | ["cfg", "test"] | ["cfg", "all", "test", ..])
}

/// The end of the item at `at`: its closing brace, or its semicolon.
fn after_item(tokens: &[(Token, usize)], at: usize) -> usize {
    let mut depth = 0;
    for (end, (token, _)) in tokens.iter().enumerate().skip(at) {
        match token {
            Token::Mark('{' | '(' | '[') => depth += 1,
            Token::Mark(')' | ']') => depth -= 1,
            Token::Mark('}') => {
                depth -= 1;
                if depth == 0 {
                    return end + 1;
                }
            }
            Token::Mark(';') if depth == 0 => return end + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn names(tokens: &[(Token, usize)], module: &[String]) -> Vec<Name> {
    let token = |at: usize| tokens.get(at).map_or(Token::End, |(token, _)| token.clone());
    let mut names = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match token(at) {
            Token::Word(word) if word == "use" && token(at + 1) != Token::Mark('<') => {
                at = use_tree(tokens, at + 1, &mut Vec::new(), module, &mut names);
            }
            Token::Word(first) => {
                let before = if at == 0 { Token::End } else { token(at - 1) };
                let (line, mut segments) = (tokens[at].1, vec![first]);
                at += 1;
                while let (Token::Path, Token::Word(next)) = (token(at), token(at + 1)) {
                    segments.push(next);
                    at += 2;
                }
                // After `<T as Trait>::` comes the end of a path, not the beginning of one.
                if before != Token::Path {
                    let after = [token(at), token(at + 1)];
                    names.push(Name { segments: resolve(segments, module), line, is_use: false, before, after });
                }
            }
            _ => at += 1,
        }
    }
    names
}

/// Reads one branch of a `use` tree, up to and without the mark that ends it.
fn use_tree(
    tokens: &[(Token, usize)],
    mut at: usize,
    prefix: &mut Vec<String>,
    module: &[String],
    names: &mut Vec<Name>,
) -> usize {
    let depth = prefix.len();
    let mut line = tokens.get(at).map_or(0, |(_, line)| *line);
    let mut grouped = false;
    while let Some((token, here)) = tokens.get(at) {
        match token {
            Token::Word(word) if word == "as" => at += 2,
            Token::Word(word) => {
                prefix.push(word.clone());
                line = *here;
                at += 1;
            }
            Token::Path => at += 1,
            Token::Mark('*') => {
                prefix.push("*".to_owned());
                at += 1;
            }
            Token::Mark('{') => {
                grouped = true;
                at += 1;
                while !matches!(tokens.get(at), None | Some((Token::Mark('}'), _))) {
                    at = use_tree(tokens, at, prefix, module, names);
                    at += usize::from(matches!(tokens.get(at), Some((Token::Mark(','), _))));
                }
                at += 1;
            }
            _ => break,
        }
    }
    if !grouped && prefix.len() > depth {
        let segments = resolve(prefix.clone(), module);
        names.push(Name { segments, line, is_use: true, before: Token::End, after: [Token::End, Token::End] });
    }
    prefix.truncate(depth);
    at
}

/// Turns `super::x` and `self::x` into `crate::…::x`, seen from the file's own module.
fn resolve(segments: Vec<String>, module: &[String]) -> Vec<String> {
    let ups = segments.iter().take_while(|segment| *segment == "super").count();
    let rest = match segments[0].as_str() {
        // A lone `self` is a receiver, not a path.
        "self" if segments.len() > 1 => 1,
        "super" => ups,
        _ => return segments,
    };
    let own = &module[..module.len().saturating_sub(ups)];
    let front = std::iter::once("crate".to_owned()).chain(own.iter().cloned());
    front.chain(segments[rest..].iter().cloned()).collect()
}
