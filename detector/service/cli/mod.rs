//! The command line: what can be typed, and what every command shares (global flags, exit codes, logs,
//! quiet on a closed pipe). A command lives in its own file, exports `Args` and `run`, and decides nothing.

pub mod alert;
pub mod baseline;
pub mod config;
mod csv;
pub mod explain;
pub mod journal;
pub mod log;
pub mod output;
pub mod receive;
pub mod replay;
pub mod rules;
pub mod scan;
pub mod schema;
pub mod search;
pub mod serve;
pub mod show;
pub mod silence;
pub mod terminal;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

/// What the process answers. A command returns it; problems that stop it are errors and become `CouldNotRun`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, and nothing asked for was found.
    Good = 0,
    /// What was asked for was found: findings, problems in a rule or configuration.
    Found = 1,
    /// Could not run.
    CouldNotRun = 2,
    /// Ran, but some input was unreadable or undeliverable.
    Partial = 3,
}

impl Exit {
    /// The outcome whose code this is.
    fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Good,
            1 => Self::Found,
            3 => Self::Partial,
            _ => Self::CouldNotRun,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

const EXIT_CODES: &str = "\
EXIT CODES
  0  done, nothing asked for was found
  1  found: findings (with --fail-on), problems in a rule or in the configuration;
     search and show: nothing was found
  2  could not run: wrong usage, wrong configuration, no such file
  3  ran, but some input was unreadable (and is named)";

const EXAMPLES: &str = "\
EXAMPLES
  Look at an audit log once:      lapwing scan audit.log
  Write a first configuration:    lapwing config init > lapwing.yaml
  Tell what is wrong with it:     lapwing config check --config lapwing.yaml
  Run the service:                lapwing serve --config lapwing.yaml
  What happened lately:           lapwing search 'kind:alert level:>=high' --since 1d
  Why, and what next:             lapwing show 3f2c9a7e
  Send it a recorded audit log:   lapwing replay audit.log --to http://127.0.0.1:8443";

/// Where the help lists the flags of every command.
const GLOBAL: &str = "Options of every command";

/// The configuration when nothing names another.
const CONFIG_FILE: &str = "/etc/lapwing/lapwing.yaml";

/// Finds attacks in Kubernetes audit logs, as they happen.
#[derive(Debug, Parser)]
#[command(name = "lapwing", version, max_term_width = 100, arg_required_else_help = true, propagate_version = true)]
#[command(after_help = "Each command explains itself: lapwing help <COMMAND>")]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// The configuration file
    #[arg(
        long,
        global = true, help_heading = GLOBAL,
        env = "LAPWING_CONFIG",
        default_value = CONFIG_FILE,
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// The data directory, instead of the configuration's
    #[arg(long, global = true, help_heading = GLOBAL, env = "LAPWING_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Colours: never also when NO_COLOR is set
    #[arg(long, global = true, help_heading = GLOBAL, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// Only results: no progress, no summary
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
    /// What is logged: off, error, warn, info, debug, trace, or per module as in `lapwing=debug` [default: info for serve and receive, else warn]
    #[arg(long, global = true, help_heading = GLOBAL, env = "LAPWING_LOG", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// Whether to colour what goes to a stream that is (not) a terminal.
    pub fn wanted(self, terminal: bool) -> bool {
        self.decide(terminal, std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()))
    }

    const fn decide(self, terminal: bool, no_color: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !no_color,
        }
    }
}

impl Globals {
    /// The configuration, checked.
    ///
    /// # Errors
    /// When it cannot be read or has problems.
    pub fn load(&self) -> Result<crate::config::Loaded, crate::config::ConfigError> {
        crate::config::Config::load(&self.config, self.data_dir.as_deref())
    }

    /// Where a command that only reads finds the data: the flag, else the configuration, else the default
    /// place when there is no configuration at all.
    ///
    /// # Errors
    /// When there is a configuration and it cannot be used.
    pub fn data_dir(&self) -> Result<PathBuf, crate::config::ConfigError> {
        match &self.data_dir {
            Some(dir) => Ok(dir.clone()),
            None if self.config == Path::new(CONFIG_FILE) && !self.config.exists() => {
                Ok(crate::config::Config::default().data_dir)
            }
            None => Ok(self.load()?.config.data_dir),
        }
    }

    /// The flags a command to type next must repeat to mean the same data; empty when the environment or
    /// the defaults say it already.
    pub fn again(&self) -> String {
        let quoted = |path: &Path| {
            let text = path.display().to_string();
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
            if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
        };
        let given = |name: &str, path: &Path| std::env::var_os(name).is_some_and(|v| Path::new(&v) == path);
        match &self.data_dir {
            Some(dir) if given("LAPWING_DATA_DIR", dir) => String::new(),
            Some(dir) => format!(" --data-dir {}", quoted(dir)),
            None if self.config == Path::new(CONFIG_FILE) || given("LAPWING_CONFIG", &self.config) => String::new(),
            None => format!(" --config {}", quoted(&self.config)),
        }
    }

    /// Whether to colour standard output.
    pub fn color_stdout(&self) -> bool {
        self.color.wanted(std::io::stdout().is_terminal())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Receive(receive::Args),
    Scan(scan::Args),
    Search(search::Args),
    Show(show::Args),
    Journal(journal::Args),
    Output(output::Args),
    Rules(rules::Args),
    Baseline(baseline::Args),
    Alert(alert::Args),
    Silence(silence::Args),
    Config(config::Args),
    Replay(Box<replay::Args>),
    Schema(schema::Args),
    Completions(Completions),
    Version(Version),
}

/// Print shell completions
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing completions bash > /etc/bash_completion.d/lapwing
  lapwing completions zsh > \"${fpath[1]}/_lapwing\"")]
struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

/// Print the version and what it was built with
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing version")]
struct Version {}

/// Parses the command line, runs the command, and turns every outcome into an exit code.
pub fn main() -> ExitCode {
    quiet_on_closed_pipe();
    execute(std::env::args_os()).into()
}

/// `main` without the process around it.
fn execute(args: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => {
            let exit = if usage.use_stderr() { Exit::CouldNotRun } else { Exit::Good };
            let _ = usage.print();
            return exit;
        }
    };
    settle(run(cli))
}

fn settle(outcome: anyhow::Result<Exit>) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(error) if is_closed_pipe(&error) => Exit::Good,
        Err(error) => {
            eprintln!("lapwing: {error:#}");
            Exit::CouldNotRun
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { globals, command } = cli;
    let usual = if matches!(command, Command::Serve(_) | Command::Receive(_)) { "info" } else { "warn" };
    log::init(globals.log_level.as_deref().unwrap_or(usual), globals.color)?;
    // One provider for every TLS connection, in and out; a second call would be a no-op.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match command {
        Command::Serve(args) => serve::run(args, &globals),
        Command::Receive(args) => receive::run(args, &globals),
        Command::Scan(args) => scan::run(args, &globals),
        Command::Search(args) => {
            let args = search::Args { again: globals.again(), quiet: globals.quiet, ..args };
            Ok(Exit::from_code(search::run(&args, &globals.data_dir()?)?))
        }
        Command::Show(args) => {
            let args = show::Args { again: globals.again(), ..args };
            Ok(Exit::from_code(show::run(&args, &globals.data_dir()?)?))
        }
        Command::Journal(args) => Ok(Exit::from_code(journal::run(&args, &globals.data_dir()?)?)),
        Command::Output(args) => run_output(args, &globals),
        Command::Rules(args) => rules::run(args, &globals),
        Command::Alert(args) => alert::run(args, &globals),
        Command::Silence(args) => silence::run(args, &globals),
        Command::Baseline(args) => baseline::run(args, &globals),
        Command::Config(args) => config::run(args, &globals),
        Command::Replay(args) => replay::run(*args, &globals),
        Command::Schema(args) => schema::run(args),
        Command::Completions(Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lapwing", &mut text);
            print(&text)
        }
        Command::Version(Version {}) => print(format!("lapwing {}\n", env!("CARGO_PKG_VERSION")).as_bytes()),
    }
}

fn run_output(args: output::Args, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?.config;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(output::run(args, &config))?;
    Ok(Exit::from_code(code))
}

/// Writes a result to standard output.
///
/// # Errors
/// When it cannot be written; a closed pipe ends the program quietly.
pub fn print(bytes: &[u8]) -> anyhow::Result<Exit> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(Exit::Good)
}

/// `lapwing … | head` closes our output early: that is success, not a crash.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == broken)
            || cause.downcast_ref::<serde_json::Error>().is_some_and(|e| e.io_error_kind() == Some(broken))
    })
}

/// The same for `println!`, which panics: Rust ignores SIGPIPE, and taking that back needs unsafe code.
fn quiet_on_closed_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to std") && text.contains("Broken pipe") {
            std::process::exit(Exit::Good as i32);
        }
        usual(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn walk(command: &clap::Command, path: &str) {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("EXAMPLES"), "`{path}` has no examples");
            for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
                walk(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        walk(&Cli::command(), "lapwing");
    }

    #[test]
    fn exit_codes_are_as_the_help_says() {
        let fixture = |name| format!("{}/fixtures/config/{name}", env!("CARGO_MANIFEST_DIR"));
        let check = |name| execute(["lapwing", "-q", "config", "check", "--config", &fixture(name)]);
        assert_eq!(check("good-loopback.yaml"), Exit::Good);
        assert_eq!(check("units.yaml"), Exit::Found);
        assert_eq!(check("absent.yaml"), Exit::CouldNotRun);
        assert_eq!(execute(["lapwing", "config", "show", "--config", &fixture("units.yaml")]), Exit::CouldNotRun);
        assert_eq!(execute(["lapwing", "config", "chekc"]), Exit::CouldNotRun);
        assert_eq!(execute(["lapwing", "version"]), Exit::Good);
        assert_eq!(execute(["lapwing", "--help"]), Exit::Good);
        assert_eq!(execute(["lapwing", "--log-level", "lapwing=loud", "version"]), Exit::CouldNotRun);
        let codes = [Exit::Good, Exit::Found, Exit::CouldNotRun, Exit::Partial].map(|e| e as u8);
        assert_eq!(codes, [0, 1, 2, 3]);
    }

    #[test]
    fn a_closed_pipe_is_recognised() {
        let pipe = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&anyhow::Error::from(pipe()).context("writing the table")));
        assert!(is_closed_pipe(&serde_json::Error::io(pipe()).into()));
        assert_eq!(settle(Err(pipe().into())), Exit::Good);
        assert_eq!(settle(Err(std::io::Error::from(std::io::ErrorKind::NotFound).into())), Exit::CouldNotRun);
    }

    #[test]
    fn the_next_command_means_the_same_data() {
        let again = |args: &[&str]| Cli::try_parse_from([&["lapwing"], args].concat()).unwrap().globals.again();
        assert_eq!(again(&["show", "x", "--data-dir", "/d"]), " --data-dir /d");
        assert_eq!(again(&["show", "x", "--config", "my lapwing's.yaml"]), " --config 'my lapwing'\\''s.yaml'");
        assert_eq!(again(&["show", "x"]), "");
    }

    #[test]
    fn colours_follow_the_flag() {
        for (color, terminal, no_color, wanted) in [
            (Color::Always, false, true, true),
            (Color::Never, true, false, false),
            (Color::Auto, true, false, true),
            (Color::Auto, true, true, false),
            (Color::Auto, false, false, false),
        ] {
            assert_eq!(color.decide(terminal, no_color), wanted, "{color:?} {terminal} {no_color}");
        }
    }
}
