use super::*;
use std::io::Write;
use std::sync::Mutex;

use lapwing_engine::batch::Item;

use crate::metrics::Metrics;

struct Log {
    dir: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("audit.log")
    }

    fn write(&self, text: &str) {
        let mut file = File::options().create(true).append(true).open(self.path()).expect("open");
        file.write_all(text.as_bytes()).expect("write");
    }

    /// As lumberjack does, with a time that orders the files.
    fn rotate(&self, to: &str, second: u64) {
        let to = self.dir.path().join(to);
        fs::rename(self.path(), &to).expect("rename");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        File::options().append(true).open(to).and_then(|f| f.set_modified(time)).expect("set the time");
    }

    fn tail(&self, resume: Option<Position>) -> Tail {
        Tail::new(self.path(), Start::Beginning, resume)
    }
}

/// Everything there is now, accepted.
fn drain(tail: &mut Tail) -> (String, Option<Position>) {
    let (mut text, mut last) = (Vec::new(), None);
    while let Some(chunk) = tail.poll().expect("readable") {
        text.extend(&chunk.bytes);
        last = Some(chunk.end);
        tail.accepted(chunk.end);
    }
    (String::from_utf8(text).expect("text"), last)
}

#[test]
fn an_incomplete_line_waits() {
    let log = Log::new();
    let mut tail = log.tail(None);
    assert_eq!(tail.poll().expect("no file yet"), None);
    log.write("a\nb");
    assert_eq!(drain(&mut tail).0, "a\n");
    log.write("c\n");
    assert_eq!(drain(&mut tail).0, "bc\n");
}

#[test]
fn what_is_not_accepted_comes_again() {
    let log = Log::new();
    log.write("a\n");
    let mut tail = log.tail(None);
    let first = tail.poll().expect("readable");
    assert_eq!(tail.poll().expect("readable"), first);
    log.write("b\n");
    assert_eq!(drain(&mut tail).0, "a\nb\n");
}

#[test]
fn rotation_by_rename_loses_nothing() {
    let log = Log::new();
    log.write("a\n");
    let mut tail = log.tail(None);
    assert_eq!(drain(&mut tail).0, "a\n");
    log.write("b\nhalf");
    log.rotate("audit-2026-11-20T16-02-37.089.log", 1);
    log.write("c\n");
    // The last line of a finished file ends with the file.
    assert_eq!(drain(&mut tail).0, "b\nhalfc\n");
    // Twice while nobody looked.
    log.write("d\n");
    log.rotate("audit-2026-11-20T16-03-37.089.log", 2);
    log.write("e\n");
    log.rotate("audit-2026-11-20T16-04-37.089.log", 3);
    log.write("f\n");
    assert_eq!(drain(&mut tail).0, "d\ne\nf\n");
}

#[test]
fn copytruncate_starts_again() {
    let log = Log::new();
    log.write("aaaa\nbbbb\n");
    let mut tail = log.tail(None);
    drain(&mut tail);
    fs::write(log.path(), "c\n").expect("truncate");
    assert_eq!(drain(&mut tail).0, "c\n");
    fs::write(log.path(), "d\nlonger than before\n").expect("truncate and grow");
    assert_eq!(drain(&mut tail).0, "d\nlonger than before\n");
}

#[test]
fn restart_goes_on_where_it_was() {
    let log = Log::new();
    log.write("a\nb\n");
    let mut tail = log.tail(None);
    let (_, position) = drain(&mut tail);
    log.write("c\n");
    assert_eq!(drain(&mut log.tail(position)).0, "c\n");
    log.rotate("audit.log.1", 1);
    log.write("d\n");
    assert_eq!(drain(&mut log.tail(position)).0, "c\nd\n", "rotated meanwhile");
    fs::remove_file(log.dir.path().join("audit.log.1")).expect("remove");
    assert_eq!(drain(&mut log.tail(position)).0, "d\n", "rotated away");
    let within = Some(Position { offset: 1, identity: identity(&fs::metadata(log.path()).expect("meta")) });
    assert_eq!(drain(&mut log.tail(within)).0, "d\n", "a position within a line is another file's");
}

#[test]
fn start_at_the_end() {
    let log = Log::new();
    log.write("a\nb");
    let mut tail = Tail::new(log.path(), Start::End, None);
    assert_eq!(drain(&mut tail).0, "");
    log.write("c\n");
    assert_eq!(drain(&mut tail).0, "bc\n");
    let later = Log::new();
    let mut tail = Tail::new(later.path(), Start::End, None);
    assert_eq!(drain(&mut tail).0, "");
    later.write("a\n");
    assert_eq!(drain(&mut tail).0, "a\n", "a file that appears later is new");
}

#[test]
fn batches_are_bounded_and_long_lines_are_not_lost() {
    let log = Log::new();
    log.write(&"x\n".repeat(1200));
    let mut tail = log.tail(None);
    let first = tail.poll().expect("readable").expect("lines");
    assert_eq!(first.bytes.len(), 2 * BATCH_LINES);
    let long = "y".repeat(3 * BATCH_BYTES) + "\n";
    log.write(&long);
    let all = drain(&mut tail).0;
    assert!(all.len() == 2400 + long.len() && all.ends_with(&long));
}

#[test]
fn only_rotated_files_are_family() {
    let is = |name| is_rotated(Path::new("/v/audit.log"), Path::new(name));
    for yes in ["/v/audit-2026-11-20T16-02-37.089.log", "/v/audit.log.1", "/v/audit.log-20261120"] {
        assert!(is(yes), "{yes}");
    }
    for no in ["/v/audit.log", "/v/audit-webhook.log", "/v/audit.log.1.gz", "/v/audit2.log", "/v/other.log"] {
        assert!(!is(no), "{no}");
    }
}

/// Refuses the first batch, keeps the others.
#[derive(Default)]
struct Journal {
    seen: Mutex<(usize, Vec<Batch>)>,
    stop: CancellationToken,
}

impl Sink for Journal {
    async fn accept(&self, batch: Batch) -> Result<(), Refused> {
        let mut seen = self.seen.lock().expect("lock");
        seen.0 += 1;
        if seen.0 == 1 {
            return Err(Refused::Busy);
        }
        seen.1.push(batch);
        if seen.1.len() == 2 {
            self.stop.cancel();
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_refused_batch_is_offered_again() {
    let log = Log::new();
    let lines: String = (0..600).map(|n| format!("{{\"auditID\":\"{n}\",\"verb\":\"get\"}}\n")).collect();
    log.write(&lines);
    let sink = Arc::new(Journal::default());
    let config = Config { path: log.path(), cluster: "prod".into(), start: Start::Beginning };
    run(config, None, Splitter::new(Arc::new(Metrics::new([""; 0]))), Arc::clone(&sink), sink.stop.clone()).await;
    let batches = &sink.seen.lock().expect("lock").1;
    let sizes: Vec<usize> = batches.iter().map(|b| b.items.len()).collect();
    assert_eq!(sizes, [500, 100]);
    assert!(batches.iter().flat_map(|b| &b.items).all(|i| matches!(i, Item::Event(_))));
    assert_eq!((batches[1].cluster.as_str(), batches[1].received > 0), ("prod", true));
    assert!(matches!(&batches[1].origin, Origin::File { offset, .. } if *offset == lines.len() as u64));
}
