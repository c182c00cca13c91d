//! What people tell the running service about baselines: one file per order in `state/orders`, put there by the
//! command line, taken by the engine thread into the journal. Who may write there may give orders.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lapwing_engine::baseline::{Baselines, Order, Snapshot};

/// Orders waiting at once that are read.
const MAX: usize = 100;
/// Largest order, bytes.
const MAX_BYTES: u64 = 1 << 20;

fn dir(state: &Path) -> PathBuf {
    state.join("orders")
}

/// Gives an order: whole or not at all, under a name that sorts by time.
pub fn give(state: &Path, order: &Order, now: i64) -> io::Result<()> {
    let dir = dir(state);
    fs::create_dir_all(&dir)?;
    let name = format!("{now:020}-{}", std::process::id());
    let temporary = dir.join(format!("{name}.tmp"));
    fs::write(&temporary, serde_json::to_vec(order)?)?;
    fs::rename(temporary, dir.join(format!("{name}.json")))
}

/// The waiting orders, oldest first: file and content. What is no order is removed and named.
pub fn waiting(state: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(dir(state)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    files.truncate(MAX);
    files.into_iter().filter_map(|path| read(&path).map(|bytes| (path, bytes))).collect()
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= MAX_BYTES);
    let bytes = fs::read(path).ok().filter(|b| small && serde_json::from_slice::<Order>(b).is_ok());
    if bytes.is_none() {
        tracing::error!(path = %path.display(), "this is no order to the baselines; it is removed");
        let _ = fs::remove_file(path);
    }
    bytes
}

/// Where baselines wait that the next start takes over.
pub fn import_file(state: &Path) -> PathBuf {
    state.join("baseline-import.zst")
}

/// Where identities lie that memory has no room for.
pub fn cold_dir(state: &Path) -> PathBuf {
    state.join("baselines")
}

/// Writes baselines as `export` prints them: zstd of JSON.
pub fn write_baselines(path: &Path, baselines: &Baselines) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, zstd::encode_all(serde_json::to_vec(baselines)?.as_slice(), 3)?)?;
    fs::rename(temporary, path)
}

/// Reads what [`write_baselines`] wrote.
pub fn read_baselines(path: &Path) -> io::Result<Snapshot> {
    Ok(serde_json::from_slice(&zstd::decode_all(fs::File::open(path)?)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_in_the_order_they_were_given_and_rubbish_is_removed() {
        let state = tempfile::tempdir().expect("a directory");
        assert!(waiting(state.path()).is_empty());
        let reset = |name: &str| Order::Reset { cluster: None, principal: Some(name.to_owned()) };
        give(state.path(), &reset("late"), 20).expect("given");
        give(state.path(), &reset("early"), 3).expect("given");
        fs::write(dir(state.path()).join("0.json"), "rubbish").expect("written");
        let found = waiting(state.path());
        let orders: Vec<Order> = found.iter().map(|(_, b)| serde_json::from_slice(b).expect("an order")).collect();
        assert_eq!(orders, [reset("early"), reset("late")]);
        assert!(!dir(state.path()).join("0.json").exists());
    }
}
