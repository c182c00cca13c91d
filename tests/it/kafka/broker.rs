//! Apache Kafka in one process (KRaft), with plain, TLS and SASL SCRAM listeners on loopback, and TLS listeners with a
//! certificate for another host, with one that has ended, and that want a client certificate.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::daemon::{free_port, until};
use crate::outputs::Certificates;

pub const PASSWORD: &str = "correct horse";

/// One broker at a time: each is a Java machine.
static ONE: Mutex<()> = Mutex::new(());

pub struct Broker {
    child: Option<Child>,
    pub dir: tempfile::TempDir,
    pub certificates: Certificates,
    pub plain: u16,
    pub tls: u16,
    pub scram: u16,
    pub elsewhere: u16,
    pub expired: u16,
    pub mutual: u16,
    _one: MutexGuard<'static, ()>,
}

/// Where `scripts/need test` puts the jars.
fn jars() -> PathBuf {
    let there = std::env::var_os("LAPWING_TEST_KAFKA").map(PathBuf::from);
    let jars = there.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kafka"));
    assert!(jars.is_dir(), "no Kafka in {}; run scripts/need test", jars.display());
    jars.join("*")
}

impl Broker {
    /// `partitions`: of each topic, which the first record makes.
    pub fn start(partitions: u32) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a directory");
        let certificates = Certificates::make(dir.path());
        let [plain, tls, scram, elsewhere, expired, mutual, controller] = std::array::from_fn(|_| free_port());
        let base = dir.path().display();
        let listeners = format!(
            "PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{scram},\
             ELSEWHERE://127.0.0.1:{elsewhere},EXPIRED://127.0.0.1:{expired},MUTUAL://127.0.0.1:{mutual}"
        );
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={listeners},CONTROLLER://127.0.0.1:{controller}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,\
             ELSEWHERE:SSL,EXPIRED:SSL,MUTUAL:SSL\n\
             log.dirs={base}/logs\nnum.partitions={partitions}\noffsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=1\n\
             group.initial.rebalance.delay.ms=0\nsasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             ssl.keystore.type=PEM\nssl.keystore.location={base}/server.pem\n\
             listener.name.elsewhere.ssl.keystore.type=PEM\n\
             listener.name.elsewhere.ssl.keystore.location={base}/elsewhere-server.pem\n\
             listener.name.expired.ssl.keystore.type=PEM\n\
             listener.name.expired.ssl.keystore.location={base}/expired-server.pem\n\
             ssl.truststore.type=PEM\nssl.truststore.location={base}/ca.pem\n\
             listener.name.mutual.ssl.client.auth=required\n"
        );
        std::fs::write(dir.path().join("server.properties"), properties).expect("written");
        let mut broker =
            Self { child: None, dir, certificates, plain, tls, scram, elsewhere, expired, mutual, _one: one };
        broker.shows("server.pem", &broker.certificates.cert);
        broker.shows("elsewhere-server.pem", &broker.certificates.elsewhere);
        broker.shows("expired-server.pem", &broker.certificates.expired);
        let user = format!("SCRAM-SHA-512=[name=lapwing,password={PASSWORD}]");
        let format = ["format", "-t", "bGFwd2luZy10ZXN0LWthZg", "-c", "server.properties", "--add-scram", &user];
        let done = broker.java("kafka.tools.StorageTool").args(format).output().expect("java runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        broker.run();
        broker
    }

    /// The keystore `name` holds this certificate.
    fn shows(&self, name: &str, certificate: &Path) {
        let pem = [&self.certificates.key, certificate].map(|path| std::fs::read_to_string(path).expect("PEM"));
        std::fs::write(self.dir.path().join(name), pem.concat()).expect("written");
    }

    /// Starts anew with the right certificate everywhere, and asks nobody for one.
    pub fn mend(&mut self) {
        self.kill();
        self.shows("elsewhere-server.pem", &self.certificates.cert);
        self.shows("expired-server.pem", &self.certificates.cert);
        let file = self.dir.path().join("server.properties");
        let properties = std::fs::read_to_string(&file).expect("read");
        std::fs::write(file, properties.replace("client.auth=required", "client.auth=none")).expect("written");
        self.run();
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.current_dir(self.dir.path()).args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.arg(jars()).arg(class).stdin(Stdio::null());
        command
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts the process and waits until it serves.
    pub fn run(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log");
        let mut command = self.java("kafka.Kafka");
        command.arg("server.properties").stdout(log.try_clone().expect("a handle")).stderr(log);
        self.child = Some(command.spawn().expect("java starts; install openjdk-17-jre-headless"));
        until("Kafka to start", || {
            let log = self.log();
            assert!(!log.contains("Exiting Kafka") && !log.contains("Exception in thread"), "{log}");
            log.contains("Kafka Server started").then_some(())
        });
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.plain)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("end of Kafka's log:\n{}", &log[log.floor_char_boundary(log.len().saturating_sub(3000))..]);
        }
    }
}
