//! One encoding per format. Everything an alert says may have been written by an attacker (names, user
//! agents, commands), so no output builds text without going through here.
//!
//! Two promises, both property-tested: what the format can carry comes back unchanged when decoded, and one
//! record in is one record out. Characters no format needs (controls, bidirectional overrides, invisible
//! ones) become visible text: `\u001b`.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

/// Characters that move a cursor, end a record, reorder or hide text.
const fn unruly(c: char) -> bool {
    matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// `c` as JSON would escape it, with `slash` in the place of the backslash.
fn push_escape(out: &mut String, c: char, slash: &str) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "{slash}u{unit:04x}");
    }
}

fn encode(text: &str, special: impl Fn(char, &mut String) -> bool, slash: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if special(c, &mut out) {
            continue;
        }
        if unruly(c) {
            push_escape(&mut out, c, slash);
        } else {
            out.push(c);
        }
    }
    out
}

/// `text` on one line with nothing invisible in it: unruly characters become `\u001b`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().any(unruly) { Cow::Owned(encode(text, |_, _| false, "\\")) } else { Cow::Borrowed(text) }
}

/// For a terminal or a plain text mail: no escape sequence, no second line.
pub fn terminal(text: &str) -> Cow<'_, str> {
    visible(text)
}

/// At most `max` characters (at least 1), the last one `…` when something was cut.
pub fn cap(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => Cow::Borrowed(text),
        Some(_) => Cow::Owned(text.chars().take(max.saturating_sub(1)).chain(['…']).collect()),
    }
}

/// One line of JSON. Unruly characters are `\uXXXX` escapes, so the line is safe to look at and decodes to
/// the same value.
pub fn json_line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    // Raw unruly characters can only stand inside strings: the syntax of JSON has none here.
    Ok(match visible(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(escaped) => escaped,
    })
}

/// A field of the CEF header: `\` and `|` escaped. It cannot carry a new line.
pub fn cef_header(text: &str) -> String {
    let special = |c, out: &mut String| match c {
        '\\' | '|' => {
            out.push('\\');
            out.push(c);
            true
        }
        '\n' | '\r' | '\t' => {
            out.push(' ');
            true
        }
        _ => false,
    };
    encode(text, special, "\\\\")
}

/// A value of the CEF extension: `\`, `=`, CR and LF escaped; a pipe is not.
pub fn cef_value(text: &str) -> String {
    let special = |c, out: &mut String| {
        let escaped = match c {
            '\\' => "\\\\",
            '=' => "\\=",
            '\n' => "\\n",
            '\r' => "\\r",
            _ => return false,
        };
        out.push_str(escaped);
        true
    };
    encode(text, special, "\\\\")
}

/// A field of the LEEF header, which cannot carry a bar.
pub fn leef_header(text: &str) -> String {
    visible(text).replace('|', "/")
}

/// A value of LEEF 2.0 between tabs.
pub fn leef_value(text: &str) -> String {
    visible(text).into_owned()
}

/// A value of RFC 5424 structured data: `"`, `\` and `]` escaped.
pub fn sd_value(text: &str) -> String {
    let special = |c, out: &mut String| {
        let hit = matches!(c, '"' | '\\' | ']');
        if hit {
            out.push('\\');
            out.push(c);
        }
        hit
    };
    encode(text, special, "\\\\")
}

/// A field of the RFC 5424 header: printable ASCII without blanks, at most `max` bytes, `-` when empty.
pub fn syslog_token(text: &str, max: usize) -> String {
    let token: String = text.chars().take(max).map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    if token.is_empty() { "-".to_owned() } else { token }
}

fn entities(text: &str, table: &[(char, &str)]) -> String {
    let special = |c, out: &mut String| match table.iter().find(|(from, _)| *from == c) {
        Some((_, to)) => {
            out.push_str(to);
            true
        }
        None => false,
    };
    encode(text, special, "\\")
}

/// Text inside Slack's mrkdwn: `& < >` replaced, which kills `<!channel>` and `<http://…|text>`.
pub fn slack(text: &str) -> String {
    entities(text, &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;")])
}

/// Text inside an HTML element or a quoted attribute.
pub fn html(text: &str) -> String {
    entities(text, &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")])
}

/// The value of a mail header: one line, at most 150 characters.
pub fn mail_header(text: &str) -> String {
    let flat: String = text.chars().map(|c| if unruly(c) { ' ' } else { c }).collect();
    let words: Vec<&str> = flat.split_whitespace().collect();
    cap(&words.join(" "), 150).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Hostile text: what breaks formats, more often than chance would give it.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\n".to_owned()),
            Just("\r\n".to_owned()),
            Just("\x1b[31m".to_owned()),
            Just("\u{9b}2J".to_owned()),
            Just("\u{202e}".to_owned()),
            Just("\u{e0041}".to_owned()),
            Just("]|=\\\"'<>&".to_owned()),
            Just("<!channel>".to_owned()),
            Just("CEF:0|x|y|".to_owned()),
            any::<String>(),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|v| v.concat())
    }

    /// Undoes one backslash escape per backslash; `letters` maps `n` to a new line.
    fn unescape(text: &str, letters: bool) -> String {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('n') if letters => out.push('\n'),
                Some('r') if letters => out.push('\r'),
                Some(c) => out.push(c),
                None => panic!("a lone backslash at the end of {text:?}"),
            }
        }
        out
    }

    fn visible_but(text: &str, keep: &[char]) -> String {
        let special = |c, out: &mut String| {
            let hit = keep.contains(&c);
            if hit {
                out.push(c);
            }
            hit
        };
        encode(text, special, "\\")
    }

    /// Splits where an unescaped `at` stands.
    fn split_unescaped(text: &str, at: char) -> usize {
        let (mut escaped, mut hits) = (false, 0);
        for c in text.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == at => hits += 1,
                _ => {}
            }
        }
        hits
    }

    proptest! {
        #[test]
        fn nothing_unruly_leaves(text in hostile()) {
            for out in [visible(&text).into_owned(), cef_header(&text), cef_value(&text), sd_value(&text),
                        slack(&text), html(&text), mail_header(&text), terminal(&text).into_owned(),
                        leef_header(&text), leef_value(&text),
                        json_line(&text).unwrap()] {
                prop_assert!(!out.chars().any(unruly), "{out:?}");
            }
        }

        #[test]
        fn json_comes_back(text in hostile()) {
            prop_assert_eq!(serde_json::from_str::<String>(&json_line(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn cef_value_comes_back(text in hostile()) {
            let out = cef_value(&text);
            prop_assert_eq!(unescape(&out, true), visible_but(&text, &['\n', '\r']));
            prop_assert_eq!(split_unescaped(&out, '='), 0);
        }

        #[test]
        fn cef_header_comes_back(text in hostile()) {
            let out = cef_header(&text);
            prop_assert_eq!(unescape(&out, false), visible(&text.replace(['\n', '\r', '\t'], " ")).into_owned());
            prop_assert_eq!(split_unescaped(&out, '|'), 0);
        }

        #[test]
        fn sd_value_comes_back(text in hostile()) {
            let out = sd_value(&text);
            prop_assert_eq!(unescape(&out, false), visible(&text).into_owned());
            prop_assert_eq!(split_unescaped(&out, ']') + split_unescaped(&out, '"'), 0);
        }

        #[test]
        fn slack_comes_back(text in hostile()) {
            let out = slack(&text);
            prop_assert!(!out.contains(['<', '>']));
            let back = out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
            prop_assert_eq!(back, visible(&text).into_owned());
        }

        #[test]
        fn html_comes_back(text in hostile()) {
            let out = html(&text);
            prop_assert!(!out.contains(['<', '>', '"', '\'']));
            let back = out.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
            prop_assert_eq!(back.replace("&amp;", "&"), visible(&text).into_owned());
        }

        #[test]
        fn a_token_is_printable_and_short(text in hostile(), max in 1usize..64) {
            let out = syslog_token(&text, max);
            prop_assert!(!out.is_empty() && out.len() <= max && out.bytes().all(|b| b.is_ascii_graphic()));
        }

        #[test]
        fn a_cap_is_a_cap(text in any::<String>(), max in 1usize..40) {
            let out = cap(&text, max);
            prop_assert!(out.chars().count() <= max);
            prop_assert_eq!(text.chars().count() <= max, *out == text);
        }
    }

    #[test]
    fn escapes_read_as_expected() {
        assert_eq!(cef_value("a=b|c\\d\ne\x1b"), r"a\=b|c\\d\ne\\u001b");
        assert_eq!(cef_header("a=b|c\\d\ne"), r"a=b\|c\\d e");
        assert_eq!(sd_value("a\"b]c\\"), r#"a\"b\]c\\"#);
        assert_eq!(mail_header("a\r\nBcc: x@example.org"), "a Bcc: x@example.org");
        assert_eq!(visible("\u{e0041}"), "\\udb40\\udc41");
        assert_eq!(syslog_token("", 5), "-");
        assert_eq!(syslog_token("ä b", 5), "__b");
    }
}
