//! The one place that quotes text for a POSIX shell.

/// Quotes `text` so that a POSIX shell reads it back as exactly one word.
///
/// Words of plain characters stay bare, so that plans read well. A NUL byte cannot be passed to any
/// program; it is dropped.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%^".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('=') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str(r"'\''"),
            '\0' => {}
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// As [`quote`], but without a backslash of its own: for a line in which another program, as ssh in its options, looks
/// for pairs of quotes by rules of its own before a shell reads it.
pub fn quote_for_two(text: &str) -> String {
    quote(text).replace(r"'\''", "'\"'\"'")
}

/// Joins `words` into one command line, each quoted.
pub fn join<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    words.into_iter().map(|w| quote(w.as_ref())).collect::<Vec<_>>().join(" ")
}

/// Escapes what a terminal would act on: remote output is foreign text.
///
/// Tabs become a space; other control characters, and the Unicode marks that reorder text, become `\x1b`-like
/// escapes.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push_str(&format!("\\u{{{:x}}}", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_words_stay_bare() {
        assert_eq!(quote("/etc/hosts"), "/etc/hosts");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote_for_two("it's"), r#"'it'"'"'s'"#);
        assert_eq!(printable("a\x1b[31mb\u{202e}"), "a\\x1b[31mb\\u{202e}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_real_shell_reads_back_the_same(words in proptest::collection::vec("[^\0]{0,20}", 1..5)) {
            let for_two = words.iter().map(|w| quote_for_two(w)).collect::<Vec<_>>().join(" ");
            for line in [join(&words), for_two] {
                let script = format!("for w in {line}; do printf '%s\\0' \"$w\"; done");
                let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
                let expected: Vec<u8> = words.iter().flat_map(|w| w.bytes().chain([0])).collect();
                prop_assert_eq!(out.stdout, expected);
            }
        }
    }
}
