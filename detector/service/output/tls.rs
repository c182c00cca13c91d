//! TLS towards a receiver: rustls with ring, the system's roots or one pinned CA. Verification cannot be
//! turned off; to trust a private receiver, name its CA.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How to trust the receiver and how to show who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// PEM file of the certificate authorities to trust; with it no other is trusted. Default: the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate (and its chain) to show to the receiver.
    pub cert: Option<PathBuf>,
    /// PEM file of the key of `cert`.
    pub key: Option<PathBuf>,
    /// Name expected in the receiver's certificate, when it is not the host of the address.
    pub server_name: Option<String>,
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read `{}`: {source}; expected a PEM file", path.display())]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("`{}` holds no certificate; expected a PEM file", path.display())]
    NoCertificate { path: PathBuf },
    #[error("this machine has no trusted certificate authorities; install `ca-certificates` or set `tls.ca`")]
    NoRoots,
    #[error("`tls.cert` and `tls.key` belong together; set both")]
    Half,
    #[error("cannot use the configured certificates: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("`{0}` is not a host name; set `tls.serverName` to the name in the receiver's certificate")]
    Name(String),
}

impl Config {
    /// Makes relative paths relative to `base`.
    pub fn resolve(&mut self, base: &Path) {
        for path in [&mut self.ca, &mut self.cert, &mut self.key].into_iter().flatten() {
            *path = base.join(&*path);
        }
    }

    /// The name to verify for a receiver reached as `host`.
    pub fn name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))
    }

    /// A client configuration; reads the files again, so renewed certificates are picked up.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        match (&self.cert, &self.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(cert), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key);
                let private = private.map_err(|source| TlsError::Pem { path: key.clone(), source })?;
                Ok(builder.with_client_auth_cert(certificates(cert)?, private)?)
            }
            _ => Err(TlsError::Half),
        }
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_file_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let config = Config { ca: Some(ca.clone()), ..Config::default() };
        assert!(matches!(config.client(), Err(TlsError::Pem { .. })));
        std::fs::write(&ca, "no certificate here").unwrap();
        assert!(matches!(config.client(), Err(TlsError::NoCertificate { .. })));
        let cert = rcgen::generate_simple_self_signed(vec!["siem".to_owned()]).unwrap();
        std::fs::write(&ca, cert.cert.pem()).unwrap();
        assert!(config.client().is_ok());
        let half = Config { cert: Some(ca), ..config };
        assert!(matches!(half.client(), Err(TlsError::Half)));
    }

    #[test]
    fn the_name_is_the_host_unless_told() {
        let mut config = Config::default();
        assert_eq!(config.name("siem").unwrap().to_str(), "siem");
        config.server_name = Some("collector".to_owned());
        assert_eq!(config.name("siem").unwrap().to_str(), "collector");
        assert!(matches!(Config::default().name("not a name"), Err(TlsError::Name(_))));
    }
}
