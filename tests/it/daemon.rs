//! The real program as a process, and ways to talk to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: these machines are shared, and only what fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The program under test: as built, or another that `LAPWING_BIN` names.
fn program() -> PathBuf {
    std::env::var_os("LAPWING_BIN").map_or_else(|| env!("CARGO_BIN_EXE_lapwing").into(), PathBuf::from)
}

/// Runs the program to its end.
pub fn lapwing(args: &[&str]) -> Output {
    lapwing_with(args, b"")
}

/// Runs the program to its end with something on standard input.
pub fn lapwing_with(args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(program())
        .args(args)
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let input = stdin.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that stops reading early is no failure of the test.
        let _ = pipe.write_all(&input);
    });
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("the writer ends");
    output
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lines of `text` as JSON.
pub fn ndjson(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// A file's content, decompressed where its name says so.
pub fn read(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if path.extension().is_some_and(|e| e == "zst") { zstd::decode_all(bytes.as_slice()).expect("zstd") } else { bytes }
}

/// A port nobody listens on right now, and which no connection takes meanwhile: from below those the kernel gives out. Each
/// process begins elsewhere and asks for none twice.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(7919);
    (0..PORTS)
        .map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port")
}

/// Waits until `done` gives something.
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// One HTTP exchange over a fresh connection: status and body.
pub fn http(port: u16, request: &[u8]) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    read_answer(&mut stream)
}

fn read_answer(stream: &mut TcpStream) -> std::io::Result<(u16, String)> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length, mut code) = (String::new(), 0, 0);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.to_lowercase();
        if let Some(rest) = lower.strip_prefix("http/1.1 ") {
            code = rest[..3].parse().unwrap_or_default();
        } else if let Some(rest) = lower.strip_prefix("content-length:") {
            length = rest.trim().parse().unwrap_or_default();
        } else if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}

pub fn get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    http(port, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Posts a body as kube-apiserver's webhook backend does.
pub fn post(port: u16, path: &str, body: &[u8]) -> std::io::Result<(u16, String)> {
    let mut request = format!(
        "POST {path}?timeout=30s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\n\
         Accept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    http(port, &request)
}

/// `lapwing serve` with a plain webhook on loopback, an NDJSON file output and a data directory of its own.
pub struct Daemon {
    pub child: Option<Child>,
    /// The subcommand it runs.
    pub command: &'static str,
    /// Environment of the process, beside what it inherits.
    pub env: Vec<(String, String)>,
    /// A program, with its arguments, that starts it in its own place.
    pub under: Vec<String>,
    pub dir: PathBuf,
    pub webhook: u16,
    pub admin: u16,
    _owned: Option<tempfile::TempDir>,
}

impl Daemon {
    /// Starts one in a new directory; `extra` is YAML added to the configuration.
    pub fn start(extra: &str) -> Self {
        let owned = tempfile::tempdir().expect("a directory");
        let mut daemon = Self::prepare(owned.path(), extra);
        daemon._owned = Some(owned);
        daemon.run();
        daemon
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(dir: &Path, extra: &str) -> Self {
        let (webhook, admin) = (free_port(), free_port());
        let config = format!(
            "dataDir: {dir}/data\ndisk: {{ minFree: 1MiB, reserve: 1MiB }}\nadmin: {{ listen: 127.0.0.1:{admin} }}\nsources:\n  webhook:\n    listen: 127.0.0.1:{webhook}\n    \
             insecureLoopback: true\noutputs:\n  - {{ name: out, type: file, path: {dir}/alerts.ndjson, minLevel: informational }}\n{extra}",
            dir = dir.display()
        );
        std::fs::write(dir.join("lapwing.yaml"), config).expect("written");
        Self {
            child: None,
            command: "serve",
            env: Vec::new(),
            under: Vec::new(),
            dir: dir.to_owned(),
            webhook,
            admin,
            _owned: None,
        }
    }

    pub fn config(&self) -> String {
        self.dir.join("lapwing.yaml").display().to_string()
    }

    pub fn data_dir(&self) -> String {
        self.dir.join("data").display().to_string()
    }

    /// Starts the process and waits until it is ready.
    pub fn run(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    pub fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("a log");
        let mut words = self.under.iter().map(Into::into).chain([program().into_os_string()]);
        let child = Command::new(words.next().expect("a program"))
            .args(words)
            .args([self.command, "--config", &self.config()])
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        self.child = Some(child);
    }

    pub fn wait_ready(&mut self) {
        until("readiness", || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            matches!(get(self.admin, "/readyz"), Ok((200, _))).then_some(())
        });
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    pub fn post(&self, body: &[u8]) -> std::io::Result<(u16, String)> {
        post(self.webhook, "/audit/v1/prod", body)
    }

    pub fn metrics(&self) -> String {
        get(self.admin, "/metrics").expect("metrics").1
    }

    /// The value of the metric whose line starts with `series`.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.metrics();
        let line =
            text.lines().filter(|l| l.starts_with(series)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
        line.sum()
    }

    /// Alerts the file output has written.
    pub fn alerts(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.dir.join("alerts.ndjson")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |at| &text[..at]);
        ndjson(whole)
    }

    /// Ends it as a supervisor would, and waits.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let pid = self.pid();
        let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let mut child = self.child.take().expect("running");
        until("the daemon to end", || child.try_wait().expect("a status"))
    }

    /// Ends it as a power cut would end the process.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of the daemon:\n{}", self.log());
        }
    }
}
