//! Secrets come from files and are read again on each use, so that a rotated one needs no restart.
//! A [`Secret`] never shows itself in logs or `Debug`.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest secret file read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The text of a secret file without surrounding white space.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a secret could not be read. Never holds its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secret file `{}`: {source}; check the path and who may read it", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the secret file `{}` is empty; write the secret into it", path.display())]
    Empty { path: PathBuf },
    #[error("the secret file `{}` is larger than 64 KiB; expected one secret", path.display())]
    Large { path: PathBuf },
}

/// The secret in the file `path`.
pub fn read(path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(SecretError::Large { path: path.to_owned() });
    }
    match text.trim() {
        "" => Err(SecretError::Empty { path: path.to_owned() }),
        secret => Ok(Secret(secret.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_and_never_shows_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        let secret = read(&path).unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    #[test]
    fn says_what_is_wrong_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(matches!(read(&path), Err(SecretError::Read { .. })));
        std::fs::write(&path, " \n").unwrap();
        assert!(matches!(read(&path), Err(SecretError::Empty { .. })));
        std::fs::write(&path, "x".repeat(70_000)).unwrap();
        assert!(matches!(read(&path), Err(SecretError::Large { .. })));
    }
}
