//! `lapwing replay`: sends recorded events to a webhook exactly as kube-apiserver's webhook backend does:
//! same requests, same batches, same retries. It does not imitate the order in which an API server's
//! concurrent batches overtake each other: batches go one after another.

mod body;
mod input;
mod sender;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;

use super::{Exit, Globals, print};
use crate::config::HumanDuration;
use body::EventList;
use sender::{Delivery, Sender};

/// Send recorded audit events to a webhook as kube-apiserver would
///
/// Posts event lists of up to 400 events and tries each list 5 times, 10 s, 15 s, 22.5 s and 34 s apart; a
/// Retry-After on 429 or 5xx is waited for without using up a try. A list that is refused 5 times is lost,
/// as it would be in a cluster. Exits with 3 when events were unreadable or lost, 2 when none arrived.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing replay audit.log --to http://127.0.0.1:8443
  lapwing replay events.jsonl.zst --to https://lapwing:8443 --cluster prod --token-file token --ca ca.crt
  lapwing replay audit.log --to http://127.0.0.1:8443 --batch 100 --rate 500/s
  lapwing replay audit.log --to http://127.0.0.1:8443 --wait-scale 0.1   # retry ten times as fast")]
pub struct Args {
    /// Audit logs, one JSON event a line, plain, gzip or zstd; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The webhook; a query is dropped, as kube-apiserver does
    #[arg(long, value_name = "URL")]
    to: Url,
    /// Send as this cluster: to /audit/v1/NAME, when the URL has no path of its own
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Most events in one request
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    batch: u32,
    /// Most events a second
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// File with a bearer token; sent over HTTPS only, as kube-apiserver does
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust only this authority's certificates (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with a client certificate and its key (PEM)
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// Longest time for one try
    #[arg(long, default_value = "30s", value_name = "TIME")]
    timeout: HumanDuration,
    /// Multiply every wait between tries, for tests: 0.1 is ten times as fast
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    wait_scale: f64,
}

/// Events a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rate(f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("/s").unwrap_or(text).trim();
        let rate = number.parse::<f64>().ok().filter(|r| r.is_finite() && *r > 0.0);
        rate.map(Self).ok_or_else(|| format!("expected events a second such as `500/s`, found `{text}`"))
    }
}

/// What became of the events.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    events: u64,
    batches: u64,
    retries: u64,
    lost: u64,
    unreadable: u64,
}

/// # Errors
/// When a file cannot be read or nothing could be delivered.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    ensure!(args.wait_scale.is_finite() && args.wait_scale >= 0.0, "`--wait-scale`: expected 0 or more");
    let url = target(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let talk = !globals.quiet;
    let tally = runtime.block_on(replay(&args, url.clone(), talk))?;
    if talk {
        print(format!("{}\n", report(&tally, &url)).as_bytes())?;
    }
    match tally {
        Tally { batches: 0, lost: 1.., .. } => Ok(Exit::CouldNotRun),
        Tally { lost: 0, unreadable: 0, .. } => Ok(Exit::Good),
        _ => Ok(Exit::Partial),
    }
}

fn report(tally: &Tally, url: &Url) -> String {
    let Tally { events, batches, retries, lost, unreadable } = tally;
    let mut url = url.clone();
    url.set_query(None);
    let count = |n: u64, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let mut text = format!(
        "sent {} in {} to {url}, {}",
        count(*events, "event", "events"),
        count(*batches, "batch", "batches"),
        count(*retries, "retry", "retries")
    );
    if *lost > 0 {
        text += &format!(", {} lost", count(*lost, "event", "events"));
    }
    if *unreadable > 0 {
        text += &format!(", {} unreadable", count(*unreadable, "line", "lines"));
    }
    text
}

/// The address client-go would post to: path as given without a last slash, own query dropped, timeout added.
fn target(args: &Args) -> anyhow::Result<Url> {
    let mut url = args.to.clone();
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        bail!("`--to {url}`: expected an address such as `https://lapwing:8443`");
    }
    if url.scheme() == "http" && (args.token_file.is_some() || args.client_cert.is_some()) {
        bail!("credentials are sent over HTTPS only, by kube-apiserver too; use an `https://` address");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    if let (Some(cluster), true) = (&args.cluster, path.is_empty())
        && let Ok(mut segments) = url.path_segments_mut()
    {
        segments.clear().extend(["audit", "v1", cluster]);
    }
    url.set_fragment(None);
    url.set_query(Some(&format!("timeout={}s", args.timeout.get().as_secs().max(1))));
    Ok(url)
}

async fn replay(args: &Args, url: Url, talk: bool) -> anyhow::Result<Tally> {
    let sender = Sender::new(url, args)?;
    let progress = progress(talk);
    let mut tally = Tally::default();
    let mut list = EventList::default();
    let start = tokio::time::Instant::now();
    for file in &args.files {
        let mut lines = input::Lines::open(file)?;
        while let Some(line) = lines.next_line().with_context(|| format!("cannot read `{}`", file.display()))? {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if let Err(why) = list.push(line) {
                tally.unreadable += 1;
                say(&progress, talk, &unreadable(file, lines.number(), &why));
                continue;
            }
            if list.len() >= u64::from(args.batch) {
                flush(&sender, &mut list, &mut tally, &progress, talk).await;
                pace(start, tally.events, args.rate).await;
            }
        }
    }
    flush(&sender, &mut list, &mut tally, &progress, talk).await;
    progress.finish_and_clear();
    Ok(tally)
}

fn unreadable(file: &Path, line: u64, why: &impl std::fmt::Display) -> String {
    format!("{}:{line}: not an event, left out: {why}", file.display())
}

async fn flush(sender: &Sender, list: &mut EventList, tally: &mut Tally, progress: &ProgressBar, talk: bool) {
    if list.len() == 0 {
        return;
    }
    let (count, body) = list.take();
    let Delivery { arrived, retries } = sender.deliver(body, &mut |text| say(progress, talk, text)).await;
    tally.retries += retries;
    if arrived {
        tally.events += count;
        tally.batches += 1;
    } else {
        tally.lost += count;
    }
    progress.set_message(format!("{} events, {} retries", tally.events, tally.retries));
    progress.tick();
}

/// Waits until `events` are due at `rate`.
async fn pace(start: tokio::time::Instant, events: u64, rate: Option<Rate>) {
    if let Some(Rate(rate)) = rate {
        tokio::time::sleep_until(start + Duration::from_secs_f64(events as f64 / rate)).await;
    }
}

fn progress(talk: bool) -> ProgressBar {
    if !talk || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{spinner} {msg} {elapsed}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

fn say(progress: &ProgressBar, talk: bool, text: &str) {
    if talk {
        progress.suspend(|| eprintln!("{text}"));
    }
}

#[cfg(test)]
mod tests;
