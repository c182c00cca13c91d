//! What the process may do once it knows its configuration: read what that names and the system's own files, write below
//! `dataDir` and where its outputs write, and run nothing. Where the kernel has Landlock and seccomp, and as far as it has
//! them; who got into the process gains that much less.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::config::{Config, output};

/// Name resolution, trusted authorities, shared libraries, the process itself.
const SYSTEM: [&str; 9] =
    ["/etc", "/usr", "/lib", "/lib64", "/proc", "/sys/fs/cgroup", "/dev", "/run/systemd/resolve", "/run/secrets"];

/// Calls no part of Lapwing makes.
const REFUSED: [i64; 28] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_settimeofday,
];

/// Why there is no sandbox. Nothing ends because of it.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("file system rules: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("system call filter: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("system call filter: {0}")]
    Seccomp(#[from] seccompiler::Error),
}

/// Directories and files by what may be done with them.
#[derive(Debug, PartialEq, Eq)]
pub struct Places {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

impl Places {
    /// Of a configuration in `file`. `dataDir` must exist.
    pub fn of(config: &Config, file: &Path) -> Self {
        let mut read: BTreeSet<PathBuf> = SYSTEM.into_iter().map(PathBuf::from).collect();
        around(file, &mut read);
        named(&serde_json::to_value(config).unwrap_or_default(), &mut read);
        let mut write = BTreeSet::from([config.data_dir.clone()]);
        for output in &config.outputs {
            if let output::Config::File(file) = output {
                write.extend(file.path.parent().map(Path::to_path_buf));
            }
        }
        Self { read, write }
    }

    /// Restricts this thread and those it starts from now on, for good. Whether the kernel could do all of it.
    ///
    /// # Errors
    /// When the kernel refuses what it says it has.
    pub fn enter(&self) -> Result<bool, SandboxError> {
        let all = AccessFs::from_all(ABI::V5);
        let status = Ruleset::default()
            .handle_access(all)?
            .create()?
            .add_rules(path_beneath_rules(&self.read, AccessFs::ReadFile | AccessFs::ReadDir))?
            .add_rules(path_beneath_rules(&self.write, all & !AccessFs::Execute))?
            .restrict_self()?;
        refuse_calls()?;
        Ok(status.ruleset == RulesetStatus::FullyEnforced)
    }
}

/// Every path in the configuration.
fn named(part: &serde_json::Value, read: &mut BTreeSet<PathBuf>) {
    match part {
        serde_json::Value::String(text) if text.starts_with('/') => around(Path::new(text), read),
        serde_json::Value::Array(parts) => parts.iter().for_each(|part| named(part, read)),
        serde_json::Value::Object(parts) => parts.values().for_each(|part| named(part, read)),
        _ => {}
    }
}

/// The directory itself, or the one a file is in, where its successor will be; also behind links.
fn around(path: &Path, read: &mut BTreeSet<PathBuf>) {
    for path in [path.canonicalize().ok(), std::path::absolute(path).ok()].into_iter().flatten() {
        let place = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
        read.extend(place.map(Path::to_path_buf));
    }
}

fn refuse_calls() -> Result<(), SandboxError> {
    let Ok(machine) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(()) };
    let rules: BTreeMap<i64, _> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refused, machine)?.try_into()?;
    Ok(seccompiler::apply_filter(&filter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_names_may_be_read_and_its_data_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["etc", "data", "rules", "out", "secret"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("file"), "x").unwrap();
        }
        let yaml = format!(
            "dataDir: {0}/data\nsources: {{ webhook: {{ insecureLoopback: true }} }}\nrules: {{ paths: [{0}/rules] }}\n\
             outputs: [{{ name: out, type: file, path: {0}/out/alerts.ndjson }}]\n",
            dir.path().display()
        );
        let loaded = Config::read(&yaml, &at("etc").join("lapwing.yaml"), &|_| None).unwrap();
        let places = Places::of(&loaded.config, &loaded.file);
        let inside = || {
            let complete = places.enter().unwrap();
            let read = |name: &str| std::fs::read(at(name).join("file")).is_ok();
            let write = |name: &str| std::fs::write(at(name).join("new"), "x").is_ok();
            let runs = std::process::Command::new("/bin/true").status().is_ok();
            (complete, ["etc", "data", "rules", "out", "secret"].map(|name| (read(name), write(name))), runs)
        };
        // Of this thread only: the other tests go on outside.
        let (complete, files, runs) = std::thread::scope(|scope| scope.spawn(inside).join().unwrap());
        assert!(!runs, "a program could be run");
        if complete {
            assert_eq!(files, [(true, false), (true, true), (true, false), (true, true), (false, false)]);
        } else {
            eprintln!("SKIPPED: this kernel has no complete Landlock");
        }
    }
}
