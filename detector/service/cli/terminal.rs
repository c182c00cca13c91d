//! Text of others on our terminal.
//!
//! Names, user agents and commands in audit events are chosen by whoever sent the request. On a
//! terminal they could move the cursor, repaint lines, set the title or show themselves in another
//! order. What can do so is shown as an escape instead. This is for terminals only: JSON and
//! piped output have their own encoding.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};

/// `text` in one line in which every character is what it looks like: control characters (C0, DEL,
/// C1, so also ESC), line separators, bidirectional and invisible formatting characters become
/// `\n`, `\x1b` or `\u{202e}`. Borrowed when there is nothing to do.
pub fn clean(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_unsafe) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail.
            c if is_unsafe(c) && (c as u32) < 0x100 => drop(write!(out, "\\x{:02x}", c as u32)),
            c if is_unsafe(c) => drop(write!(out, "\\u{{{:x}}}", c as u32)),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// [`clean`], with at most `most` characters; a cut is shown as `…`.
pub fn clean_cut(text: &str, most: usize) -> String {
    let cleaned = clean(text);
    match cleaned.char_indices().nth(most) {
        None => cleaned.into_owned(),
        Some(_) => {
            let keep = cleaned.char_indices().nth(most.saturating_sub(1)).map_or(0, |(i, _)| i);
            format!("{}…", &cleaned[..keep])
        }
    }
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            // Zero width, marks, separators, embeddings, invisible operators, isolates.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            // Tags: invisible copies of ASCII.
            | '\u{e0000}'..='\u{e007f}')
}

/// A person reads standard output.
pub fn is_interactive() -> bool {
    io::stdout().is_terminal()
}

/// Colours are wanted: a terminal, no `NO_COLOR`, not a dumb one.
pub fn wants_color() -> bool {
    is_interactive()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// A reader that went away (`| head`) is no error of ours.
pub fn quiet_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_left_alone() {
        for text in ["", "alice@example.com", "système:ünïcode 名前 🚀", "a\\x1b", "'\"<>&"] {
            assert!(matches!(clean(text), Cow::Borrowed(t) if t == text), "{text}");
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        for (text, want) in [
            ("a\u{1b}[2Jb", "a\\x1b[2Jb"),
            ("\u{1b}]0;title\u{7}", "\\x1b]0;title\\x07"),
            ("\u{9b}31m", "\\x9b31m"),
            ("a\r\nb\tc\u{0}", "a\\r\\nb\\tc\\x00"),
            ("x\u{7f}", "x\\x7f"),
            ("nimda\u{202e}x", "nimda\\u{202e}x"),
            ("a\u{2066}b\u{2069}", "a\\u{2066}b\\u{2069}"),
            ("ad\u{200b}min", "ad\\u{200b}min"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("a\u{e0041}b", "a\\u{e0041}b"),
            ("\u{feff}a\u{ad}", "\\u{feff}a\\xad"),
        ] {
            assert_eq!(clean(text), want);
        }
    }

    #[test]
    fn cuts_show() {
        assert_eq!(clean_cut("abcdef", 6), "abcdef");
        assert_eq!(clean_cut("abcdefg", 6), "abcde…");
        assert_eq!(clean_cut("äöüß", 2), "ä…");
        assert_eq!(clean_cut("\u{1b}\u{1b}", 5), "\\x1b…");
    }

    proptest::proptest! {
        #[test]
        fn nothing_unsafe_is_left(text: String) {
            proptest::prop_assert!(!clean(&text).chars().any(is_unsafe));
        }
    }
}
