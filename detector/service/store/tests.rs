//! The store as its users see it: what goes in is found again.

use std::fs;
use std::path::Path;

use lapwing_engine::alert::{Alert, Evidence, Level, RuleRef, Status, Verdict};
use lapwing_engine::event::to_datetime;

use super::search::TIME_LIMIT;
use super::*;

/// 2026-11-20T16:02:37Z.
pub(crate) const NOW: i64 = 1_795_190_557_000_000;
const MINUTE: i64 = 60_000_000;

pub(crate) fn clock() -> Clock {
    Clock { now: NOW, utc: true }
}

pub(crate) fn exec() -> EventDoc<'static> {
    EventDoc {
        time: NOW - 10 * MINUTE,
        cluster: "prod",
        actor: "alice@example.com",
        actor_kind: "human",
        acting_as: "system:admin",
        verb: "create",
        action: "exec",
        resource: "pods",
        subresource: "exec",
        namespace: "shop",
        name: "web-0",
        outcome: "allowed",
        code: Some(101),
        address: "10.1.2.3",
        client: "kubectl",
        audit_id: "0f0f0f0f-1111-2222-3333-444444444444",
        text: &["/api/v1/namespaces/shop/pods/web-0/exec?command=id", "kubectl/v1.32 (Linux)", "sh -c id"],
    }
}

pub(crate) fn secret() -> EventDoc<'static> {
    EventDoc {
        time: NOW - 60 * MINUTE,
        cluster: "dev",
        actor: "system:serviceaccount:shop:ci",
        actor_kind: "serviceaccount",
        verb: "get",
        action: "get",
        resource: "secrets",
        namespace: "kube-system",
        name: "Token-A",
        outcome: "denied",
        code: Some(403),
        address: "2001:db8::7",
        client: "curl",
        audit_id: "aaaaaaaa-1111-2222-3333-444444444444",
        text: &["/api/v1/namespaces/kube-system/secrets/Token-A", "curl/8.5"],
        ..EventDoc::default()
    }
}

pub(crate) fn alert(id: &str, count: u64, minutes_ago: i64) -> Alert {
    let time = to_datetime(NOW - minutes_ago * MINUTE);
    let evidence = |resource: &str, name: &str| Evidence {
        time,
        audit_id: "0f0f0f0f-1111-2222-3333-444444444444".into(),
        position: "7:0".into(),
        actor: "alice@example.com".into(),
        action: "exec".into(),
        verb: "create".into(),
        resource: resource.into(),
        namespace: "shop".into(),
        name: name.into(),
        outcome: "allowed".into(),
        code: Some(101),
        address: "10.1.2.3".into(),
        user_agent: "kubectl/v1.32".into(),
        right: "RoleBinding shop/debuggers".into(),
        details: vec!["command: whoami".into()],
        ..Evidence::default()
    };
    Alert {
        id: id.into(),
        status: if count > 1 { Status::Update } else { Status::New },
        rule: RuleRef { id: "exec-into-pod".into(), title: "Exec into a pod".into(), level: Level::High, tags: vec![] },
        level: Level::High,
        verdict: Verdict::Match,
        cluster: "prod".into(),
        actor: "alice@example.com".into(),
        actor_kind: "human".into(),
        first: time,
        last: time,
        count,
        summary: "alice@example.com opened a shell in pod shop/web-0".into(),
        why: "A shell in a running container is rarely needed.".into(),
        false_positives: vec!["A developer debugging.".into()],
        next_steps: vec!["Ask alice.".into()],
        audit_ids: vec!["0f0f0f0f-1111-2222-3333-444444444444".into(), "b-2".into()],
        evidence: vec![evidence("pods/exec", "web-0"), evidence("pods/attach", "db-0")],
        anomaly: None,
    }
}

pub(crate) fn filled(dir: &Path) -> Index {
    let index = Index::open(dir).unwrap();
    let mut w = index.writer().unwrap();
    w.add_event(&exec(), 7, 0).unwrap();
    w.add_event(&secret(), 7, 1).unwrap();
    let reject = RejectDoc {
        time: NOW - MINUTE,
        cluster: "dev",
        reason: "not_json",
        detail: "cut off at byte 12",
        excerpt: "{\"kind\":\"Broken",
    };
    w.add_reject(&reject, 8, 0).unwrap();
    w.add_alert(&alert("f00dcafe00", 1, 5), 3).unwrap();
    w.commit(Progress { journal_lsn: 8, alert_lsn: 3 }).unwrap();
    index
}

fn found(index: &Index, query: &str) -> Vec<String> {
    let query = Query::parse(query, clock()).unwrap_or_else(|e| panic!("{e}"));
    let answer =
        index.searcher().unwrap().search(&Ask { query, limit: 100, order: Order::Newest, within: TIME_LIMIT }).unwrap();
    assert_eq!(answer.hits.len(), answer.total);
    answer.hits.iter().map(|h| if h.kind == Kind::Alert { h.id.clone() } else { h.position.to_string() }).collect()
}

#[test]
fn every_field_finds_what_was_put_in() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    const EXEC: &str = "7:0";
    const SECRET: &str = "7:1";
    const REJECT: &str = "8:0";
    const ALERT: &str = "f00dcafe00";
    let cases: &[(&str, &[&str])] = &[
        ("", &[REJECT, ALERT, EXEC, SECRET]),
        ("actor:alice@example.com", &[ALERT, EXEC]),
        ("user:alice*", &[ALERT, EXEC]),
        ("actor:Alice*", &[]),
        ("actor:system:serviceaccount:shop:ci", &[SECRET]),
        ("actorkind:human", &[ALERT, EXEC]),
        ("as:system:admin", &[EXEC]),
        ("verb:get", &[SECRET]),
        ("verb:GET", &[SECRET]),
        ("action:exec", &[ALERT, EXEC]),
        ("resource:pods", &[ALERT, EXEC]),
        ("resource:pods/exec", &[ALERT, EXEC]),
        ("resource:pods/attach", &[ALERT]),
        ("subresource:attach", &[ALERT]),
        ("ns:kube-*", &[SECRET]),
        ("namespace:shop", &[ALERT, EXEC]),
        ("name:Token-A", &[SECRET]),
        ("name:token-a", &[]),
        ("name:db-0", &[ALERT]),
        ("outcome:denied", &[SECRET]),
        ("outcome:not_json", &[REJECT]),
        ("code:403", &[SECRET]),
        ("code:4xx", &[SECRET]),
        ("code:>=101 code:<200", &[ALERT, EXEC]),
        ("code:<0", &[]),
        ("address:10.1.2.3", &[ALERT, EXEC]),
        ("address:10.0.0.0/8", &[ALERT, EXEC]),
        ("address:10.2.0.0/16", &[]),
        ("ip:2001:db8::/32", &[SECRET]),
        ("client:kubectl", &[EXEC]),
        ("rule:exec-into-pod", &[ALERT]),
        ("rule:exec*", &[ALERT]),
        ("rule:*", &[ALERT]),
        ("level:high", &[ALERT]),
        ("level:>=medium", &[ALERT]),
        ("level:>high", &[]),
        ("level:>critical", &[]),
        ("kind:alert", &[ALERT]),
        ("kind:event", &[EXEC, SECRET]),
        ("type:reject", &[REJECT]),
        ("cluster:dev", &[REJECT, SECRET]),
        ("audit:0f0f0f0f-1111-2222-3333-444444444444", &[ALERT, EXEC]),
        ("audit:aaaaaaaa*", &[SECRET]),
        ("audit:b-2", &[ALERT]),
        ("id:f00dcafe00", &[ALERT]),
        ("alert:f00d*", &[ALERT]),
        ("since:7m", &[REJECT, ALERT]),
        ("until:30m", &[SECRET]),
        ("since:2026-11-20T15:50Z until:2026-11-20T15:55Z", &[EXEC]),
        ("\"web-0\"", &[ALERT, EXEC]),
        ("WHOAMI", &[ALERT]),
        ("\"id sh\"", &[EXEC]),
        ("kubec*", &[ALERT, EXEC]),
        ("text:curl", &[SECRET]),
        ("broken", &[REJECT]),
        ("zebra", &[]),
        ("-kind:event", &[REJECT, ALERT]),
        ("NOT kind:event NOT kind:alert", &[REJECT]),
        ("NOT (kind:event OR kind:alert)", &[REJECT]),
        ("-(kind:event OR kind:alert) cluster:dev", &[REJECT]),
        ("kind:event AND NOT verb:get", &[EXEC]),
        ("NOT NOT verb:get", &[SECRET]),
        ("verb:get OR kind:alert cluster:prod", &[ALERT, SECRET]),
        ("(verb:get OR kind:alert) cluster:prod", &[ALERT]),
        ("-verb:get OR verb:get", &[REJECT, ALERT, EXEC, SECRET]),
    ];
    for (query, want) in cases {
        assert_eq!(found(&index, query), *want, "{query}");
    }
}

#[test]
fn a_hit_carries_the_columns_and_the_position() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    let searcher = index.searcher().unwrap();
    let one = |query: &str| {
        let query = Query::parse(query, clock()).unwrap();
        searcher.search(&Ask { query, limit: 1, order: Order::Newest, within: TIME_LIMIT }).unwrap().hits.remove(0)
    };
    let event = serde_json::to_value(one("verb:create kind:event")).unwrap();
    assert_eq!(
        event,
        serde_json::json!({
            "time": "2026-11-20T15:52:37Z", "kind": "event", "position": "7:0", "cluster": "prod",
            "actor": "alice@example.com", "actingAs": "system:admin", "action": "exec", "verb": "create",
            "resource": "pods/exec", "namespace": "shop", "name": "web-0", "outcome": "allowed", "code": 101,
            "address": "10.1.2.3", "auditIDs": ["0f0f0f0f-1111-2222-3333-444444444444"]
        })
    );
    let alert = one("kind:alert");
    assert_eq!((alert.position, alert.level, alert.count), (Position { lsn: 3, index: 0 }, Some(Level::High), 1));
    assert_eq!((alert.resource.as_str(), alert.name.as_str()), ("pods/exec", "web-0"));
    assert_eq!(alert.title, "Exec into a pod");
    assert_eq!(one("kind:reject").summary, "cut off at byte 12");
}

#[test]
fn limit_order_and_total() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    let ask = |limit, order| {
        let answer =
            index.searcher().unwrap().search(&Ask { query: Query::All, limit, order, within: TIME_LIMIT }).unwrap();
        (answer.hits.iter().map(|h| h.position.lsn).collect::<Vec<_>>(), answer.total)
    };
    assert_eq!(ask(2, Order::Newest), (vec![8, 3], 4));
    assert_eq!(ask(2, Order::Oldest), (vec![7, 7], 4));
    assert_eq!(ask(0, Order::Oldest), (vec![], 4));
    assert_eq!(ask(usize::MAX, Order::Oldest), (vec![7, 7, 3, 8], 4));
}

#[test]
fn an_update_replaces_the_earlier_notice() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    let mut w = index.writer().unwrap();
    w.add_alert(&alert("f00dcafe00", 4, 2), 4).unwrap();
    w.add_alert(&alert("f00dcafe00", 9, 1), 5).unwrap();
    w.add_alert(&alert("beef", 1, 1), 6).unwrap();
    w.commit(Progress::default()).unwrap();
    let query = Query::parse("kind:alert", clock()).unwrap();
    let answer =
        index.searcher().unwrap().search(&Ask { query, limit: 9, order: Order::Newest, within: TIME_LIMIT }).unwrap();
    let mut seen: Vec<_> = answer.hits.iter().map(|h| (h.id.as_str(), h.count, h.position.lsn)).collect();
    seen.sort();
    assert_eq!(seen, [("beef", 1, 6), ("f00dcafe00", 9, 5)]);
}

#[test]
fn progress_survives_and_uncommitted_documents_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let (index, opened) = Index::open_or_rebuild(&path).unwrap();
    assert_eq!((index.progress(), opened), (Progress::default(), Opened::Fresh));
    drop(index);
    drop(filled(&path));
    let (index, opened) = Index::open_or_rebuild(&path).unwrap();
    assert_eq!((index.progress(), opened), (Progress { journal_lsn: 8, alert_lsn: 3 }, Opened::Resumed));
    let mut w = index.writer().unwrap();
    w.add_event(&exec(), 9, 0).unwrap();
    assert_eq!(w.pending(), 1);
    drop(w);
    let index = Index::open(&path).unwrap();
    assert_eq!(index.progress().journal_lsn, 8);
    assert_eq!(index.searcher().unwrap().len(), 4);
}

#[test]
fn retention_forgets_what_is_older() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    let mut w = index.writer().unwrap();
    w.delete_before(NOW - 10 * MINUTE).unwrap();
    w.commit(index.progress()).unwrap();
    assert_eq!(found(&index, ""), ["8:0", "f00dcafe00", "7:0"]);
}

#[test]
fn what_the_journal_no_longer_has_is_forgotten_and_alerts_stay() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    let mut w = index.writer().unwrap();
    w.delete_records_before(8).unwrap();
    w.commit(index.progress()).unwrap();
    assert_eq!(found(&index, ""), ["8:0", "f00dcafe00"], "the alert lies in a journal of its own");
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    let mut w = index.writer().unwrap();
    assert!(matches!(Index::open(dir.path()).unwrap().writer(), Err(StoreError::Busy { .. })));
    let reader = Index::open_read_only(dir.path()).unwrap();
    let before = reader.searcher().unwrap();
    for i in 0..20 {
        w.add_event(&exec(), 10 + i, 0).unwrap();
        w.commit(Progress { journal_lsn: 10 + i, alert_lsn: 3 }).unwrap();
        assert_eq!(reader.searcher().unwrap().len(), 5 + i);
    }
    w.close().unwrap();
    assert_eq!(before.len(), 4, "a view does not change");
    assert_eq!(found(&reader, "verb:get"), ["7:1"]);
    assert!(matches!(reader.writer(), Err(StoreError::Busy { .. } | StoreError::Index(_))), "a reader cannot write");
}

#[test]
fn reading_while_another_thread_writes_never_fails() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    let mut w = index.writer().unwrap();
    std::thread::scope(|s| {
        let writing = s.spawn(move || {
            for i in 0..30 {
                w.add_event(&secret(), 10 + i, 0).unwrap();
                w.commit(Progress { journal_lsn: 10 + i, alert_lsn: 3 }).unwrap();
            }
            w.close().unwrap();
        });
        while !writing.is_finished() {
            let reader = Index::open_read_only(dir.path()).unwrap();
            assert!(found(&reader, "kind:event").len() >= 2);
        }
    });
    let reader = Index::open_read_only(dir.path()).unwrap();
    assert_eq!(found(&reader, "kind:event").len(), 32);
}

#[test]
fn a_reader_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let names = || {
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    fs::remove_file(dir.path().join(".tantivy-meta.lock")).unwrap();
    let before = names();
    let reader = Index::open_read_only(dir.path()).unwrap();
    assert_eq!(found(&reader, "kind:alert").len(), 1);
    drop(reader);
    assert_eq!(names(), before);
}

#[test]
fn no_index_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("none")] {
        assert!(matches!(Index::open_read_only(&path), Err(StoreError::NoIndex { .. })));
    }
}

/// The list of segments as a version wrote it that gave it no checksum.
fn unsealed(dir: &Path) -> String {
    let meta = fs::read_to_string(dir.join("meta.json")).unwrap();
    meta.trim_end().rsplit_once('\n').unwrap().0.to_owned()
}

#[test]
fn damage_is_named_and_rebuilt_from_nothing() {
    type Harm = fn(&Path);
    let harms: &[(&str, Harm)] = &[
        ("meta is no JSON", |d| fs::write(d.join("meta.json"), "{").unwrap()),
        ("meta is another JSON", |d| fs::write(d.join("meta.json"), "{\"segments\":7}").unwrap()),
        ("meta is empty", |d| fs::write(d.join("meta.json"), "").unwrap()),
        ("meta is gone", |d| fs::remove_file(d.join("meta.json")).unwrap()),
        ("list of files is no JSON", |d| fs::write(d.join(".managed.json"), "[").unwrap()),
        ("a bit flipped in meta", |d| {
            let meta = fs::read_to_string(d.join("meta.json")).unwrap();
            fs::write(d.join("meta.json"), meta.replace("journalLsn\\\":", "journalLsn\\\":1")).unwrap();
        }),
        ("payload is something else", |d| {
            let meta = unsealed(d);
            fs::write(d.join("meta.json"), meta.replace("journalLsn", "journalLns")).unwrap();
        }),
        ("another schema", |d| {
            let meta = unsealed(d);
            fs::write(d.join("meta.json"), meta.replace("\"actor\"", "\"aktor\"")).unwrap();
        }),
        ("a segment file is gone", |d| fs::remove_file(segment_file(d)).unwrap()),
        ("a segment file is cut", |d| fs::write(segment_file(d), "").unwrap()),
        ("a bit flipped behind a segment", |d| {
            let mut bytes = fs::read(segment_file(d)).unwrap();
            let minor = bytes.windows(8).rposition(|w| w == b"\"minor\":").unwrap() + 8;
            bytes[minor] ^= 1;
            fs::write(segment_file(d), bytes).unwrap();
        }),
        ("a bit flipped in a segment", |d| {
            let mut bytes = fs::read(segment_file(d)).unwrap();
            let middle = bytes.len() / 3;
            bytes[middle] ^= 4;
            fs::write(segment_file(d), bytes).unwrap();
        }),
    ];
    for (what, harm) in harms {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("index");
        drop(filled(&dir));
        harm(&dir);
        match Index::open(&dir) {
            Err(e @ StoreError::Damaged { .. }) => assert!(e.to_string().contains("rebuilt from the journal"), "{e}"),
            Err(StoreError::OtherFormat { .. }) => assert_eq!(*what, "another schema"),
            Err(e) => panic!("{what}: {e}"),
            Ok(_) => panic!("{what}: opened"),
        }
        let (index, opened) = Index::open_or_rebuild(&dir).unwrap();
        assert!(matches!(&opened, Opened::Rebuilt { moved_to, .. } if moved_to.is_dir()), "{what}: {opened:?}");
        assert_eq!((index.progress(), index.searcher().unwrap().len()), (Progress::default(), 0), "{what}");
        drop(index);
        drop(filled(&dir));
        assert_eq!(Index::open(&dir).unwrap().searcher().unwrap().len(), 4, "{what}: usable again");
    }
}

/// Whatever bit is wrong, the answer is an answer or an error, and writing goes on.
#[test]
fn a_flipped_bit_anywhere_never_ends_the_process() {
    let parent = tempfile::tempdir().unwrap();
    let whole = parent.path().join("whole");
    drop(filled(&whole));
    let mut files: Vec<_> = fs::read_dir(&whole).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let (mut tried, mut refused) = (0, 0);
    for file in files {
        let bytes = fs::read(&file).unwrap();
        // An odd step touches every kind of place and bit without trying all of them.
        for at in (0..bytes.len()).step_by((bytes.len() / 6).max(1) | 1) {
            let dir = parent.path().join("index");
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).unwrap();
            for e in fs::read_dir(&whole).unwrap() {
                let path = e.unwrap().path();
                fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
            }
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(dir.join(file.file_name().unwrap()), flipped).unwrap();
            tried += 1;
            let ask = Ask {
                query: Query::parse("verb:* OR level:high", clock()).unwrap(),
                limit: 9,
                order: Order::Newest,
                within: TIME_LIMIT,
            };
            let read = Index::open_read_only(&dir).and_then(|i| i.searcher()).and_then(|s| s.search(&ask));
            refused += usize::from(read.is_err());
            let (index, _) = Index::open_or_rebuild(&dir).unwrap_or_else(|e| panic!("{} at {at}: {e}", file.display()));
            let mut w = index.writer().unwrap();
            w.add_event(&exec(), 20, 0).unwrap();
            w.commit(Progress::default()).unwrap();
        }
    }
    assert!(tried > 30 && refused > 0, "{refused} of {tried}");
}

fn segment_file(dir: &Path) -> std::path::PathBuf {
    let mut files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.find(|p| p.extension().is_some_and(|e| e == "term")).unwrap()
}

#[test]
fn long_and_odd_values_are_kept_findable() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let mut w = index.writer().unwrap();
    let long = format!("/{}", "ä".repeat(100_000));
    let odd = "a\u{0}b\u{1b}[31m\u{202e}\n";
    w.add_event(&EventDoc { time: NOW, resource: &long, text: &[&long], ..EventDoc::default() }, 1, 0).unwrap();
    w.add_event(&EventDoc { time: NOW - 1, actor: odd, address: "nonsense", ..EventDoc::default() }, 1, 1).unwrap();
    w.commit(Progress::default()).unwrap();
    assert_eq!(found(&index, "resource:/ä*"), ["1:0"]);
    assert_eq!(found(&index, &format!("actor:\"{odd}\"")), ["1:1"]);
    let hits = index
        .searcher()
        .unwrap()
        .search(&Ask { query: Query::All, limit: 9, order: Order::Newest, within: TIME_LIMIT })
        .unwrap();
    assert!(hits.hits[0].resource.len() <= doc::MAX_VALUE);
    assert_eq!((hits.hits[1].actor.as_str(), hits.hits[1].address.as_str()), (odd, "nonsense"));
}

#[test]
fn the_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("index");
    drop(Index::open(&dir).unwrap());
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_search_that_takes_too_long_is_given_up() {
    use std::time::{Duration, Instant};
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let mut w = index.writer().unwrap();
    for n in 0..3_000_u64 {
        let (name, text) = (format!("a{n:x}"), format!("b{n} c{n} d{}", n % 100));
        w.add_event(&EventDoc { time: NOW, name: &name, text: &[&text], ..exec() }, n, 0).unwrap();
    }
    w.commit(Progress::default()).unwrap();
    // Each half of it looks at every document; within all limits of the language.
    let hostile = ["name:a*", "-b*", "c*", "NOT d*"].map(|q| format!("({q} OR NOT x*) ")).join("").repeat(30);
    let query = Query::parse(&hostile, clock()).unwrap();
    let searcher = index.searcher().unwrap();
    let ask = |within| {
        let started = Instant::now();
        let answer = searcher.search(&Ask { query: query.clone(), limit: 9, order: Order::Newest, within });
        (answer, started.elapsed())
    };
    let (whole, took) = ask(Duration::from_secs(300));
    assert!(whole.is_ok() && took > Duration::from_millis(100), "took {took:?}, which is not hostile");
    let (given_up, after) = ask(took / 20);
    let said = given_up.unwrap_err();
    assert!(matches!(said, StoreError::TooSlow { .. }) && said.to_string().contains("--timeout"), "{said}");
    assert!(after < took / 2, "given up after {after:?} of {took:?}");
    assert_eq!(found(&index, "name:a1"), ["1:0"], "and the next is answered");
}
