//! The API server's own client as the sender: what its counters do not call lost is stored, alerted and found once.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::crash::shim;
use crate::daemon::{Daemon, PATIENCE, until};
use crate::judge::judge;
use crate::sender::{Ledger, event};
use crate::{Row, Scale};

/// From the first of five tries of a batch to the second: all of them last some eight seconds.
const FIRST_BACKOFF: &str = "1s";
/// Between two troubles: what waits for its next try can succeed.
const CALM: Duration = Duration::from_secs(4);

/// `tests/apiserver`, built; `None` without Go.
fn program() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("apiserver-sender");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/local/go/bin:{}", root.join("target/venv/bin").display());
    let mut go = Command::new("sh");
    go.args(["-c", "command -v go >/dev/null || exit 3; exec go build -trimpath -o \"$0\" ."]).arg(&built);
    let status = go.env("PATH", path).current_dir(root.join("tests/apiserver")).status().expect("a shell");
    assert!(status.success() || status.code() == Some(3), "the Go program does not build");
    status.success().then_some(built)
}

/// Events to the sender until told to stop, some every now and then.
fn feed(ledger: &Ledger, mut sender: ChildStdin, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        for n in ledger.take(7) {
            writeln!(sender, "{}", event(n)).expect("the sender reads");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Down, and up again after `pause`.
fn restart(daemon: &mut Daemon, pause: Duration, row: &mut Row) {
    daemon.kill();
    std::thread::park_timeout(pause);
    let before = Instant::now();
    daemon.run();
    row.recovery.push(before.elapsed());
    std::thread::park_timeout(CALM);
}

/// Answers nothing but 503 for a while.
fn refuse(daemon: &mut Daemon, time: Duration) {
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    std::fs::write(daemon.config(), config.replace("minFree: 1MiB", "minFree: 4000TiB")).unwrap();
    assert!(daemon.stop().success());
    daemon.spawn();
    until("a refusal", || match daemon.post(b"{}") {
        Ok((503, _)) => Some(()),
        Ok((code, body)) => panic!("{code} {body}"),
        Err(_) => None,
    });
    std::thread::park_timeout(time);
    std::fs::write(daemon.config(), config).unwrap();
    daemon.kill();
    daemon.run();
    std::thread::park_timeout(CALM);
}

/// Each answer takes `delay` and more for a while.
fn answer_slowly(daemon: &mut Daemon, delay: Duration, time: Duration) {
    daemon.kill();
    daemon.env = vec![
        ("LD_PRELOAD".into(), shim().display().to_string()),
        ("LAPWING_FAULT".into(), format!("slow:{}", delay.as_millis())),
        ("LAPWING_FAULT_DIR".into(), format!("{}/journal", daemon.data_dir())),
    ];
    daemon.run();
    std::thread::park_timeout(time);
    daemon.kill();
    daemon.env.clear();
    daemon.run();
    std::thread::park_timeout(CALM);
}

/// Numbers of the events that errors cost, as the sender's log has them.
fn given_up(log: &str) -> BTreeSet<u32> {
    let ids = log.split("AUDIT: id=\"00000000-0000-4000-8000-").skip(1);
    ids.map(|rest| rest[..12].parse().expect("a number")).collect()
}

pub fn real_client(scale: &Scale) -> Row {
    let Some(program) = program() else {
        return Row::skipped("there is no Go; `scripts/need test` brings it");
    };
    let (mut row, ledger, stop) = (Row::default(), Ledger::default(), AtomicBool::new(false));
    let mut daemon = Daemon::start("");
    let config = daemon.dir.join("receiver.yaml");
    let kubeconfig = format!(
        "{{ apiVersion: v1, kind: Config, current-context: lapwing, \
         clusters: [{{ name: lapwing, cluster: {{ server: 'http://127.0.0.1:{}/audit/v1/prod' }} }}], \
         contexts: [{{ name: lapwing, context: {{ cluster: lapwing, user: '' }} }}] }}",
        daemon.webhook
    );
    std::fs::write(&config, kubeconfig).unwrap();
    let log = daemon.dir.join("sender.log");
    let mut sender = Command::new(program)
        .args(["-initial-backoff", FIRST_BACKOFF, "-batch-max-size", "100", "-batch-max-wait", "100ms", "-config-file"])
        .arg(&config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .expect("the sender starts");
    let input = sender.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| feed(&ledger, input, &stop));
        for _ in 0..scale.of(1, 5) {
            restart(&mut daemon, Duration::from_millis(300), &mut row);
            refuse(&mut daemon, Duration::from_secs(4));
            answer_slowly(&mut daemon, Duration::from_millis(1500), Duration::from_secs(5));
            answer_slowly(&mut daemon, Duration::from_secs(11), Duration::from_secs(13));
            // Longer than all tries last: what it gives up, it counts.
            restart(&mut daemon, Duration::from_secs(12), &mut row);
            row.trials += 5;
        }
        stop.store(true, Ordering::Release);
    });
    let started = Instant::now();
    while sender.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE, "the sender does not end");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let output = sender.wait_with_output().unwrap();
    let counts: Value = serde_json::from_slice(&output.stdout).expect("the counters");
    let lost = given_up(&std::fs::read_to_string(log).unwrap());
    let errors: f64 = counts["errors"].as_object().unwrap().values().filter_map(Value::as_f64).sum();
    if counts["recorded"].as_f64() != Some(f64::from(ledger.sent())) || errors != lost.len() as f64 {
        row.wrong.push(format!("{counts}, but {} were sent and {} named as lost", ledger.sent(), lost.len()));
    }
    ledger.acked.lock().unwrap().extend((0..ledger.sent()).filter(|n| !lost.contains(n)));
    judge(&mut daemon, &ledger, &mut row);
    row.note = format!("{} more the sender itself gave up; recovery: from start to ready", lost.len());
    row
}
