//! `lapwing rules import`: rules of other products as ours.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::coverage::Matrix;
use crate::cli::terminal::clean;
use crate::cli::{Exit, Globals, print};
use crate::import::falco;

/// Translate rules of another product
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing rules import falco k8s_audit_rules.yaml --output my-rules/")]
pub struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    /// Translate Falco rules for Kubernetes audit events
    ///
    /// The rules go to standard output or, one file each, into a directory. What the originals do not see,
    /// and what cannot be translated, is told on standard error.
    #[command(after_long_help = "EXAMPLES
  lapwing rules import falco k8s_audit_rules.yaml --output my-rules/
  lapwing rules import falco k8s_audit_rules.yaml k8s_audit_rules.local.yaml > falco.yml

EXIT CODES
  0  every rule was translated, or is switched off    1  one could not be, and is named    2  a file cannot be read")]
    Falco {
        /// Rule files in the order Falco reads them
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Write one file per rule into this directory
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
}

/// # Errors
/// When a file cannot be read or written.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let From::Falco { files, output } = &args.from;
    let texts: Result<Vec<_>, _> = files.iter().map(|p| fs::read_to_string(p).map(|t| (p.clone(), t))).collect();
    let import = falco::import(&texts.context("cannot read the rules to import")?)?;
    match output {
        Some(dir) => write_files(dir, &import)?,
        None => {
            let texts: Vec<&str> = import.rules.iter().map(|r| r.text.as_str()).collect();
            print(texts.join("---\n").as_bytes())?;
        }
    }
    report(&import, globals)?;
    let nothing = import.rules.is_empty();
    Ok(if import.is_partial() || nothing { Exit::Found } else { Exit::Good })
}

/// Writes nothing when one of the files is there already.
fn write_files(dir: &Path, import: &falco::Import) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make directory `{}`", dir.display()))?;
    let path = |id: &str| dir.join(format!("{id}.yml"));
    if let Some(there) = import.rules.iter().map(|r| path(&r.id)).find(|p| p.exists()) {
        bail!("`{}` is there already; move it away or choose another directory", there.display());
    }
    for rule in &import.rules {
        let path = path(&rule.id);
        fs::write(&path, &rule.text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

fn report(import: &falco::Import, globals: &Globals) -> anyhow::Result<()> {
    let mut out = std::io::stderr().lock();
    let matrix = Matrix::built_in()?;
    let rules = if globals.quiet { &[] } else { import.rules.as_slice() };
    // The same remark on many rules is one line.
    let mut remarks: Vec<(&str, Vec<String>)> = Vec::new();
    for rule in rules {
        let name = format!("`{}`", rule.name);
        for blind in &rule.blind {
            match remarks.iter_mut().find(|(b, _)| b == blind) {
                Some((_, names)) => names.push(name.clone()),
                None => remarks.push((blind, vec![name.clone()])),
            }
        }
    }
    for (blind, names) in remarks {
        writeln!(out, "blind: {blind}\n  {}", clean(&names.join(", ")))?;
    }
    for rule in rules {
        let ours = matrix.ours("falco", &rule.name);
        if !ours.is_empty() {
            writeln!(out, "built-in beside `{}`: {}", clean(&rule.name), ours.join(" "))?;
        }
    }
    for left in &import.left_out {
        if left.why.is_failure() || !globals.quiet {
            let (at, why) = (left.at.to_string(), left.why.to_string());
            writeln!(out, "{}: `{}` is left out: {}", clean(&at), clean(&left.name), clean(&why))?;
        }
    }
    if !globals.quiet {
        let failed = import.left_out.iter().filter(|l| l.why.is_failure()).count();
        let off = import.left_out.len() - failed;
        writeln!(out, "{} rules translated, {off} left out on purpose, {failed} not translated", import.rules.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "- rule: T\n  desc: d\n  condition: ka.verb=get\n  priority: INFO\n  source: k8s_audit\n- rule: U\n  desc: d\n  condition: ka.verb=list\n  priority: INFO\n  source: k8s_audit\n";

    #[test]
    fn nothing_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let import = falco::import(&[("f.yaml".into(), RULE.to_owned())]).unwrap();
        let out = dir.path().join("new");
        write_files(&out, &import).unwrap();
        assert_eq!(fs::read_to_string(out.join("falco-u.yml")).unwrap(), import.rules[1].text);
        fs::remove_file(out.join("falco-t.yml")).unwrap();
        let e = write_files(&out, &import).unwrap_err().to_string();
        assert!(e.contains("falco-u.yml") && e.contains("is there already"), "{e}");
        assert!(!out.join("falco-t.yml").exists(), "all or nothing");
    }
}
