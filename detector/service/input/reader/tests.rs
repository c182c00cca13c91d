use super::*;
use proptest::prelude::*;
use std::io::Write;

/// Gives its bytes in pieces of `step`, and never more.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(self.0.len()).min(buf.len());
        let (now, later) = self.0.split_at(n);
        buf[..n].copy_from_slice(now);
        self.0 = later;
        Ok(n)
    }
}

/// Items as they are, rejects as `!reason`.
fn read(mut events: Events<impl Read>) -> Vec<String> {
    let mut out = Vec::new();
    while let Some(found) = events.next() {
        out.push(match found {
            Ok(text) => text.to_owned(),
            Err(e) => format!("!{} {}", e.reason.as_str(), e.line),
        });
        assert!(out.len() < 10_000, "no end");
    }
    assert!(events.next().is_none(), "the end stays the end");
    out
}

fn all(text: &str) -> Vec<String> {
    let whole = read(Events::new(text.as_bytes(), Limits::default()));
    for step in [1, 7] {
        assert_eq!(read(Events::new(Slow(text.as_bytes(), step), Limits::default())), whole, "in pieces of {step}");
    }
    whole
}

fn ev(n: usize) -> String {
    format!(
        r#"{{"level":"Metadata","auditID":"{n}","verb":"get","requestURI":"/a?b={{[\"","user":{{"groups":["x"]}}}}"#
    )
}

#[test]
fn every_shape_gives_the_same_events() {
    let (a, b, c) = (ev(1), ev(2), ev(3));
    let expected = [a.clone(), b.clone(), c.clone()];
    for text in [
        format!("{a}\n{b}\n{c}\n"),
        format!("{a}\r\n\r\n{b}\r\n{c}"),
        format!("\u{feff}{a}{b} {c}"),
        format!("[{a},{b},{c}]"),
        format!("[\n  {a},\n  {b},\n{c}\n]\n"),
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{a},{b},{c}]}}"#),
        format!(r#"{{"items" : [{a},{b}],"x":{{"items":[1]}},"kind":"EventList"}}{c}"#),
        format!(r#"{{"kind":"EventList","items":[{a}]}}"#) + "\n" + &format!(r#"{{"items":[{b},{c}]}}"#),
        format!(r#"[{{"kind":"EventList","items":[{a},{b}]}},{c}]"#),
        format!(r#"{{"kind":"EventList","items":null}}{{"items":[]}}[]{a}{b}{c}"#),
    ] {
        assert_eq!(all(&text), expected, "{text}");
    }
    assert!(all("").is_empty());
    assert!(all(" \n ").is_empty());
}

#[test]
fn pretty_printed_and_other_key_orders() {
    let pretty = "{\n  \"auditID\": \"1\",\n  \"user\": {\n    \"groups\": [\n      \"a\"\n    ]\n  }\n}";
    let other = r#"{"annotations":{},"auditID":"2"}"#;
    assert_eq!(all(&format!("{pretty}\n{other}\n{pretty}")), [pretty, other, pretty]);
}

#[test]
fn a_cut_line_costs_only_itself() {
    let (a, b) = (ev(1), ev(2));
    for cut in 1..a.len() {
        let text = format!("{b}\n{}\n{b}\n{b}\n", &a[..cut]);
        let mut got = all(&text);
        // A line that looks whole is handed out; `Event::parse` refuses it.
        if serde_json::from_str::<serde_json::Value>(&got[1]).is_err() {
            got[1] = "!not_json 2".into();
        }
        assert_eq!(got, [b.clone(), "!not_json 2".into(), b.clone(), b.clone()], "{text}");
    }
    let text = format!("{a}\nI1120 10:00:00 klog\n{b}\n");
    assert_eq!(all(&text), [a, "!not_json 2".into(), b]);
}

#[test]
fn a_cut_list_costs_only_its_rest() {
    let (a, b) = (ev(1), ev(2));
    let whole = format!(r#"{{"kind":"EventList","items":[{a},{b}]}}"#);
    for cut in 1..whole.len() {
        let head = &whole[..cut];
        let complete = usize::from(cut >= whole.find(&b).expect("b") - 1) + usize::from(cut >= whole.len() - 2);
        let expected: Vec<String> =
            [&a, &b].into_iter().take(complete).cloned().chain(["!not_json 1".to_owned()]).collect();
        assert_eq!(all(head), expected, "{head}");
        let got = all(&format!("{head}\n{whole}\n"));
        let after = [a.clone(), b.clone()];
        assert!(got.ends_with(&after), "{head}: {got:?}");
        assert_eq!(got.iter().filter(|g| g.starts_with('!')).count(), 1, "{head}: {got:?}");
        assert_eq!(got.len(), complete + 3, "{head}: {got:?}");
    }
}

#[test]
fn a_list_cut_behind_an_item_does_not_swallow_the_next_lines() {
    let (a, b) = (ev(1), ev(2));
    let text = format!("{{\"kind\":\"EventList\",\"items\":[{a}\n{b}\n{b}\n");
    assert_eq!(all(&text), [a, "!not_json 2".into(), b.clone(), b]);
}

#[test]
fn hostile_items_cost_no_neighbour() {
    let (a, b) = (ev(1), ev(2));
    let deep = format!(r#"{{"auditID":"d","requestObject":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    for bad in [
        deep.as_str(),
        r#"{"auditID":"x","requestObject":1e999}"#,
        r#"{"auditID":"\ud800"}"#,
        r#"{"auditID":nonsense}"#,
        "[[1],[2]]",
        "\"a string, [\"",
    ] {
        let got = read(Events::new(format!("[{a},{bad},{b}]").as_bytes(), Limits::default()));
        assert_eq!(got, [&a, bad, &b]);
    }
    assert_eq!(all(&format!("[{a},7,nonsense,{b}]")), [&a, "!not_an_event 1", "!not_an_event 1", &b]);
    let mut bytes = format!("{a}\n").into_bytes();
    bytes.extend(b"{\"auditID\":\"u\",\"userAgent\":\"\xff\xfe\"}\n");
    bytes.extend(b.as_bytes());
    let got = read(Events::new(&bytes[..], Limits::default()));
    assert_eq!(got, [&a, "{\"auditID\":\"u\",\"userAgent\":\"\u{fffd}\u{fffd}\"}", &b]);
}

#[test]
fn too_large_events_lose_their_bodies() {
    let limits = Limits { item: 1000 };
    let big = "x,{[\\\"".repeat(200_000);
    let marked = r#""annotations":{"lapwing.dev/bodies-dropped":"true""#;
    for (text, expected) in [
        (
            format!(r#"{{"auditID":"1","requestObject":{{"a":"{big}"}},"verb":"get","responseObject":["{big}"]}}"#),
            format!(r#"{{"auditID":"1","requestObject":null,"verb":"get","responseObject":null,{marked}}}}}"#),
        ),
        (
            format!(r#"{{"auditID":"1","annotations":{{"a":"b"}},"requestObject":"{big}"}}"#),
            format!(r#"{{"auditID":"1",{marked},"a":"b"}},"requestObject":null}}"#),
        ),
        (
            format!(r#"{{"requestObject":"{big}","annotations":{{ }},"auditID":"1"}}"#),
            format!(r#"{{"requestObject":null,{marked} }},"auditID":"1"}}"#),
        ),
        (
            format!(r#"{{"auditID":"1","requestObject":"{}"}}"#, "x".repeat(1100)),
            format!(r#"{{"auditID":"1","requestObject":null,{marked}}}}}"#),
        ),
        (format!(r#"{{"auditID":"1","userAgent":"{big}"}}"#), "!too_large 1".into()),
        (format!(r#"{{"auditID":"1","userAgent":"{}"}}"#, "x".repeat(1100)), "!too_large 1".into()),
    ] {
        for list in [format!("[{text},{}]", ev(2)), format!("{text}\n{}\n", ev(2))] {
            for step in [977, usize::MAX] {
                let got = read(Events::new(Slow(list.as_bytes(), step), limits));
                assert_eq!(got, [expected.clone(), ev(2)], "{}", &list[..60]);
            }
        }
        if !expected.starts_with('!') {
            serde_json::from_str::<serde_json::Value>(&expected).expect("valid");
        }
    }
}

#[test]
fn memory_does_not_grow_with_the_stream() {
    let list = format!("{{\"items\":[{}]}}", vec![ev(1); 40_000].join(","));
    let mut events = Events::new(list.as_bytes(), Limits::default());
    let mut n = 0;
    while let Some(Ok(_)) = events.next() {
        n += 1;
    }
    assert_eq!(n, 40_000);
    assert!(list.len() > 3_000_000 && events.buf.len() <= 4 * CHUNK, "{}", events.buf.len());
}

#[test]
fn compressed_files_and_damage_in_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let text: String = (0..2000).map(|n| ev(n) + "\n").collect();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).expect("write");
    let gz = gz.finish().expect("finish");
    let zst = zstd::encode_all(text.as_bytes(), 1).expect("encode");
    let double = [gz.clone(), gz.clone()].concat();
    for (name, bytes, expected) in
        [("a.gz", &gz, 2000), ("a.zst", &zst, 2000), ("two.gz", &double, 4000), ("a", &text.clone().into_bytes(), 2000)]
    {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        let events = Events::open(&path, Limits::default()).expect("open");
        let progress = events.progress();
        assert_eq!(read(events).len(), expected, "{name}");
        assert_eq!((progress.read(), progress.total), (bytes.len() as u64, Some(bytes.len() as u64)), "{name}");
        if name != "a" {
            std::fs::write(&path, &bytes[..bytes.len() - 9]).expect("write");
            let mut got = read(Events::open(&path, Limits::default()).expect("open"));
            assert!(got.pop().is_some_and(|last| last.starts_with("!bad_body")), "{name}");
            assert!(got.iter().all(|g| g.starts_with('{')), "{name}");
        }
    }
    assert!(Events::open(dir.path(), Limits::default()).is_err());
    assert!(Events::open(&dir.path().join("none"), Limits::default()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_come_to_an_end(bytes: Vec<u8>, step in 1usize..9) {
        let whole = read(Events::new(&bytes[..], Limits { item: 64 }));
        let _ = (whole, read(Events::new(Slow(&bytes, step), Limits { item: 64 })));
    }

    #[test]
    fn any_json_like_text_comes_to_an_end(text in r#"([\[\]{},:"\\ \n]|"items":\[|\{"level":"|"requestObject":|"annotations":\{|1e9|null){0,60}"#, step in 1usize..9) {
        let whole = read(Events::new(text.as_bytes(), Limits { item: 40 }));
        let _ = (whole, read(Events::new(Slow(text.as_bytes(), step), Limits { item: 40 })));
    }
}

#[test]
fn a_body_that_ends_where_its_item_does_is_damage() {
    let text = r#"{"level":"{"level":"}{"level":"{"level":""requestObject":"annotations":{]]"#;
    for step in 1..9 {
        let got = read(Events::new(Slow(text.as_bytes(), step), Limits { item: 40 }));
        assert!(got.last().is_some_and(|g| g.starts_with('!')), "{got:?}");
    }
}
