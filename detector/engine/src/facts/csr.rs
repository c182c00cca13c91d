//! The subject a certificate signing request asks for.

use base64::Engine;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::tree::Tree;

/// A CertificateSigningRequest object as a request writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Csr {
    pub signer: Option<String>,
    pub cn: Option<String>,
    pub organizations: Vec<String>,
    pub usages: Vec<String>,
}

/// Reads `spec` of a CertificateSigningRequest; a request that cannot be decoded has no subject.
pub fn read(object: &Tree<'_>) -> Csr {
    let spec = object.get("spec").unwrap_or(&Tree::Null);
    let mut csr = Csr {
        signer: spec.get("signerName").and_then(Tree::as_str).map(str::to_owned),
        usages: spec.each("usages").filter_map(Tree::as_str).map(str::to_owned).collect(),
        ..Csr::default()
    };
    if let Some(der) = spec.get("request").and_then(Tree::as_str).and_then(der) {
        csr.read_subject(&der);
    }
    csr
}

/// `spec.request` is base64 of PEM, which is base64 of DER.
fn der(request: &str) -> Option<Vec<u8>> {
    let engine = base64::engine::general_purpose::STANDARD;
    let pem = String::from_utf8(engine.decode(request).ok()?).ok()?;
    let body: String = pem
        .lines()
        .skip_while(|l| !l.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|l| !l.starts_with("-----END"))
        .map(str::trim)
        .collect();
    engine.decode(body).ok()
}

impl Csr {
    fn read_subject(&mut self, der: &[u8]) {
        let Ok((_, request)) = X509CertificationRequest::from_der(der) else { return };
        let subject = &request.certification_request_info.subject;
        self.cn = subject.iter_common_name().find_map(|a| a.as_str().ok()).map(str::to_owned);
        self.organizations = subject.iter_organization().filter_map(|a| a.as_str().ok()).map(str::to_owned).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=system:masters/O=devs/CN=mallory"`
    const PEM: &str = include_str!("../../testdata/mallory.csr");

    #[test]
    fn the_subject_is_decoded() {
        let request = base64::engine::general_purpose::STANDARD.encode(PEM);
        let csr = read(
            &json!({"spec": {"request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}}).into(),
        );
        assert_eq!(csr.cn.as_deref(), Some("mallory"));
        assert_eq!(csr.organizations, ["system:masters", "devs"]);
        assert_eq!(csr.signer.as_deref(), Some("kubernetes.io/kube-apiserver-client"));
    }

    #[test]
    fn rubbish_has_no_subject() {
        for request in ["", "!!!", "AAAA", "LS0tLS1CRUdJTi0tLS0tCkFBQUEKLS0tLS1FTkQtLS0tLQo="] {
            assert_eq!(read(&json!({"spec": {"request": request}}).into()).cn, None);
        }
    }
}
