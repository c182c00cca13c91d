//! What a listener knows its peers by: certificates, keys and tokens, out of files.
//!
//! Who a credential stands for is the listener's business.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq};

use super::certificate;

const MIN_TOKEN: usize = 16;

/// Files of a listener's TLS, PEM. Relative paths start at the configuration file. Read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tls {
    /// Certificate chain, the listener's own first.
    pub cert: PathBuf,
    /// Private key of the first certificate.
    pub key: PathBuf,
    /// Certificates of the authorities that sign client certificates. Needed for `clientNames`.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of these authorities. With it, a certificate whose authority has no list here is refused, and so is
    /// one whose list has expired.
    #[serde(default)]
    pub client_crl_file: Option<PathBuf>,
}

/// A file of certificates, keys or tokens that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not PEM", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("`{}` holds no certificate; expected a PEM block `BEGIN CERTIFICATE`", path.display())]
    NoCertificate { path: PathBuf },
    #[error("`{}` holds no private key in PEM (PKCS #8, PKCS #1 or SEC 1, not encrypted)", path.display())]
    NoKey { path: PathBuf, source: pem::Error },
    #[error("`{}` holds a certificate that is no authority", path.display())]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("`{}` holds no revocation list; expected a PEM block `BEGIN X509 CRL`", path.display())]
    NoList { path: PathBuf },
    #[error("`{}` cannot verify clients", path.display())]
    Verifier { path: PathBuf, source: VerifierBuilderError },
    #[error("`{}` and its key cannot be used; does the key belong to the certificate?", path.display())]
    Identity { path: PathBuf, source: rustls::Error },
    #[error("`{}` holds no token; write one a line, for example from `openssl rand -hex 32`", path.display())]
    NoToken { path: PathBuf },
    #[error("`{}` line {line}: a token has at least 16 characters and no blanks; make one with `openssl rand -hex 32`", path.display())]
    WeakToken { path: PathBuf, line: usize },
    #[error("`{}` line {line}: this token also belongs to `{owner}`; a token stands for one", path.display())]
    SharedToken { path: PathBuf, line: usize, owner: String },
}

/// Tokens by their hashes, and whom each stands for.
#[derive(Default)]
pub struct Tokens(Vec<(blake3::Hash, String)>);

impl Tokens {
    /// Adds the tokens in `path`, one a line.
    ///
    /// # Errors
    /// When the file cannot be read, holds none, a weak one, or one of somebody else.
    pub fn read(&mut self, path: &Path, owner: &str, files: &mut Files<'_>) -> Result<(), LoadError> {
        let bytes = files.read(path)?;
        let before = self.0.len();
        for (at, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let (token, line) = (line.trim_ascii(), at + 1);
            if token.is_empty() {
                continue;
            }
            if token.len() < MIN_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
                return Err(LoadError::WeakToken { path: path.to_owned(), line });
            }
            let digest = blake3::hash(token);
            if let Some((_, other)) = self.0.iter().find(|(known, other)| *known == digest && other != owner) {
                return Err(LoadError::SharedToken { path: path.to_owned(), line, owner: other.clone() });
            }
            self.0.push((digest, owner.to_owned()));
        }
        if self.0.len() == before { Err(LoadError::NoToken { path: path.to_owned() }) } else { Ok(()) }
    }

    /// Whom `token` stands for. Looks at every known token, so that the time taken says nothing about which one was near.
    pub fn owner(&self, token: &[u8]) -> Option<&str> {
        let digest = blake3::hash(token);
        let mut found = None;
        for (known, owner) in &self.0 {
            let same: Choice = known.as_bytes().ct_eq(digest.as_bytes());
            if bool::from(same) {
                found = Some(owner.as_str());
            }
        }
        found
    }
}

/// The token of an `Authorization: Bearer` header; a different scheme counts as no token.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Reads files and remembers what was in them.
pub struct Files<'a> {
    base: &'a Path,
    hash: blake3::Hasher,
}

impl<'a> Files<'a> {
    /// Relative paths start at `base`.
    pub fn below(base: &'a Path) -> Self {
        Self { base, hash: blake3::Hasher::new() }
    }

    /// Of all that was read.
    pub fn fingerprint(&self) -> blake3::Hash {
        self.hash.finalize()
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, LoadError> {
        let bytes = std::fs::read(self.base.join(path))
            .map_err(|source| LoadError::Read { path: self.base.join(path), source })?;
        self.hash.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        Ok(bytes)
    }

    fn certificates(&mut self, path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
        let bytes = self.read(path)?;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|source| LoadError::Pem { path: path.to_owned(), source })?;
        if found.is_empty() { Err(LoadError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
    }

    fn revocation_lists(&mut self, path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, LoadError> {
        let bytes = self.read(path)?;
        let found: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|source| LoadError::Pem { path: path.to_owned(), source })?;
        if found.is_empty() { Err(LoadError::NoList { path: path.to_owned() }) } else { Ok(found) }
    }
}

/// What a listener shows and asks for, and when its certificate ends, seconds since the epoch. `without`: a client may come
/// without a certificate, because a token will do.
///
/// # Errors
/// The first file that cannot be used.
pub fn server_config(
    tls: &Tls,
    without: bool,
    http2: bool,
    files: &mut Files<'_>,
) -> Result<(ServerConfig, Option<i64>), LoadError> {
    let chain = files.certificates(&tls.cert)?;
    let key = files.read(&tls.key)?;
    let key =
        PrivateKeyDer::from_pem_slice(&key).map_err(|source| LoadError::NoKey { path: tls.key.clone(), source })?;
    let expiry = chain.first().and_then(certificate::not_after);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match &tls.client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in files.certificates(path)? {
                roots.add(authority).map_err(|source| LoadError::Authority { path: path.clone(), source })?;
            }
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let builder = if without { builder.allow_unauthenticated() } else { builder };
            let lists = tls.client_crl_file.as_ref().map_or(Ok(Vec::new()), |file| files.revocation_lists(file))?;
            // Only the certificate itself: who revokes an authority takes it out of `clientCa`.
            let builder = builder.with_crls(lists).only_check_end_entity_revocation().enforce_revocation_expiration();
            builder.build().map_err(|source| LoadError::Verifier { path: path.clone(), source })?
        }
    };
    let identity = |source| LoadError::Identity { path: tls.cert.clone(), source };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(identity)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(identity)?;
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    server.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    // A resumed session would outlive the certificate it was opened with.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Ok((server, expiry))
}
