//! E-mail against aiosmtpd: STARTTLS, implicit TLS, plain on loopback, passwords, temporary and final refusals.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lapwing::output::{Failure, Output, Receipt};
use lapwing_engine::alert::Status;
use serde_json::{Value, json};

use super::{Certificates, Server, alert, config, evil, lines, until};

const PACKAGES: &str = "`pip install aiosmtpd` (or apt-get install python3-aiosmtpd)";

struct Smtp {
    _server: Server,
    dir: tempfile::TempDir,
    certificates: Certificates,
    port: u16,
}

impl Smtp {
    async fn start(mode: &str, answers: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), mode, answers).await
    }

    async fn start_in(dir: tempfile::TempDir, mode: &str, answers: &[&str]) -> Self {
        Self::start_showing(dir, mode, answers, |files| &files.cert).await
    }

    /// `shown`: the certificate it has.
    async fn start_showing(
        dir: tempfile::TempDir,
        mode: &str,
        answers: &[&str],
        shown: fn(&Certificates) -> &PathBuf,
    ) -> Self {
        let certificates = Certificates::make(dir.path());
        let cert = std::fs::read(shown(&certificates)).unwrap();
        std::fs::write(&certificates.cert, cert).unwrap();
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/servers/smtp.py");
        let python = std::env::var("LAPWING_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let installed = Command::new(&python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
        assert!(installed.is_ok_and(|s| s.success()), "`{python}` has no aiosmtpd; install it: {PACKAGES}");
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(python);
        command.arg(script).arg(dir.path()).arg(mode).args(answers).stderr(log);
        let server = Server::start(&mut command, PACKAGES);
        let port =
            until(|| "the SMTP server to listen".to_owned(), || lines(&dir.path().join("port")).first()?.parse().ok())
                .await;
        Self { _server: server, dir, certificates, port }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn output(&self, more: Value) -> Output {
        let mut settings = json!({ "type": "email", "name": "mail", "host": "localhost", "port": self.port,
            "from": "Lapwing <lapwing@example.org>", "to": ["soc@example.org"], "tls": { "ca": self.certificates.ca } });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Output::new(&config(settings)).unwrap()
    }

    fn mails(&self) -> Vec<Value> {
        lines(&self.path().join("mails")).iter().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

fn reason(answer: &Result<Receipt, Failure>, retry: bool) -> String {
    match answer {
        Err(Failure::Retry { reason, .. }) if retry => reason.clone(),
        Err(Failure::Reject { reason }) if !retry => reason.clone(),
        other => panic!("{other:?}, expected {}", if retry { "another try" } else { "a refusal" }),
    }
}

#[tokio::test]
async fn each_kind_of_connection_delivers() {
    for (mode, security) in [("starttls", "starttls"), ("tls", "tls"), ("plain", "none")] {
        let server = Smtp::start(mode, &[]).await;
        let mut output = server.output(json!({ "security": security }));
        for id in ["1", "2"] {
            assert_eq!(output.deliver(&[&alert(id)]).await.unwrap().0, "250 kept as no. 1", "{mode}");
        }
        let mails = server.mails();
        assert_eq!(mails.len(), 2);
        assert_eq!(mails[0]["tls"], mode != "plain");
        assert_eq!((&mails[0]["from"], &mails[0]["to"]), (&json!("lapwing@example.org"), &json!(["soc@example.org"])));
    }
}

#[tokio::test]
async fn no_text_of_an_event_reaches_a_header_or_ends_the_mail() {
    let server = Smtp::start("starttls", &[]).await;
    let mut output = server.output(json!({}));
    let mut alert = evil("1");
    alert.evidence[0].user_agent = "\r\n.\r\nMAIL FROM:<evil@example.org>\r\n".to_owned();
    output.deliver(&[&alert]).await.unwrap();
    alert.status = Status::Update;
    output.deliver(&[&alert]).await.unwrap();
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    let text = mails[1]["mail"].as_str().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    for line in [
        "Message-ID: <1.update@example.org>",
        ".thread@example.org> <1.new@example.org>",
        "Auto-Submitted: auto-generated",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert!(!head.contains("evil") && head.lines().all(|l| !l.starts_with("MAIL")));
    assert!(body.contains("evil@example.org"), "told, as text");
}

#[tokio::test]
async fn a_temporary_refusal_is_tried_again_and_a_final_one_is_not() {
    let server = Smtp::start("starttls", &["451 later", "554 no", "drop", "ok"]).await;
    let mut output = server.output(json!({}));
    assert!(reason(&output.deliver(&[&alert("1")]).await, true).contains("later"));
    assert!(reason(&output.deliver(&[&alert("1")]).await, false).contains("no"));
    reason(&output.deliver(&[&alert("1")]).await, true);
    output.deliver(&[&alert("1")]).await.unwrap();
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn one_receiver_that_is_gone_does_not_keep_the_mail_from_the_others() {
    let server = Smtp::start("starttls", &[]).await;
    let mut output = server.output(json!({ "to": ["gone@example.org", "soc@example.org"] }));
    let told = output.deliver(&[&alert("1")]).await.unwrap().0;
    assert!(told.contains("refused: gone@example.org"), "{told}");
    assert_eq!(server.mails()[0]["to"], json!(["soc@example.org"]));

    let mut output = server.output(json!({ "to": ["gone@example.org"] }));
    assert!(reason(&output.deliver(&[&alert("2")]).await, false).contains("no such receiver"));

    let mut output = server.output(json!({ "to": ["soc@example.org", "busy@example.org"] }));
    assert!(reason(&output.deliver(&[&alert("3")]).await, true).contains("later"));
    output.deliver(&[&alert("3")]).await.unwrap();
    let mails = server.mails();
    assert_eq!((mails.len(), &mails[1]["to"]), (2, &json!(["soc@example.org", "busy@example.org"])));
}

#[tokio::test]
async fn a_wrong_password_is_tried_again_with_the_mended_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "hunter2").unwrap();
    let ours = dir.path().join("ours");
    std::fs::write(&ours, "wrong\n").unwrap();
    let server = Smtp::start_in(dir, "starttls", &[]).await;
    let mut output = server.output(json!({ "username": "alice", "passwordFile": ours }));
    assert!(!format!("{output:?}").contains("wrong"));
    let told = reason(&output.deliver(&[&alert("1")]).await, true);
    assert!(told.contains("535") || told.to_lowercase().contains("auth"), "{told}");
    std::fs::write(&ours, "hunter2\n").unwrap();
    output.deliver(&[&alert("1")]).await.unwrap();
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn without_a_trusted_session_nothing_is_sent() {
    let server = Smtp::start("plain", &[]).await;
    let told = reason(&server.output(json!({})).deliver(&[&alert("1")]).await, true);
    assert!(told.contains("STARTTLS"), "never falls back to plain text: {told}");
    for mode in ["starttls", "tls"] {
        let server = Smtp::start(mode, &[]).await;
        let tls = json!({ "ca": server.certificates.other_ca });
        let told = reason(&server.output(json!({ "security": mode, "tls": tls })).deliver(&[&alert("1")]).await, true);
        assert!(told.contains("certificate"), "{told}");
        assert_eq!(server.mails().len(), 0);
        let wrong: [fn(&Certificates) -> &PathBuf; 3] = [|f| &f.foreign, |f| &f.elsewhere, |f| &f.expired];
        for shown in wrong {
            let server = Smtp::start_showing(tempfile::tempdir().unwrap(), mode, &[], shown).await;
            let told = reason(&server.output(json!({ "security": mode })).deliver(&[&alert("1")]).await, true);
            assert!(told.contains("certificate"), "{told}");
            assert_eq!(server.mails().len(), 0);
        }
    }
}
