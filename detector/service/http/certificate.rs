//! What we read from certificates: the names a sender's certificate carries, and when ours ends.
//!
//! Nothing is verified here: rustls has done so before a name is asked for.

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const IA5: u8 = 0x16;
/// `id-at-commonName` with tag and length.
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];

/// DNS and URI subject alternative names, then common names. Unreadable parts have no names.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(leaf) = webpki::EndEntityCert::try_from(certificate) {
        names.extend(leaf.valid_dns_names().map(str::to_owned));
        names.extend(leaf.valid_uri_names().map(str::to_owned));
    }
    if let Some((_, subject)) = validity_and_subject(certificate) {
        names.extend(common_names(subject));
    }
    names
}

/// When a certificate ends, seconds since the epoch.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (mut validity, _) = validity_and_subject(certificate)?;
    next(&mut validity)?;
    let (tag, time) = next(&mut validity)?;
    let time = std::str::from_utf8(time).ok()?;
    let full = match tag {
        // RFC 5280: two digits from 50 on are of the last century.
        UTC_TIME => format!("{}{time}", if time.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => time.to_owned(),
        _ => return None,
    };
    Some(chrono::NaiveDateTime::parse_from_str(&full, "%Y%m%d%H%M%SZ").ok()?.and_utc().timestamp())
}

/// The contents of two neighbours in `TBSCertificate`.
fn validity_and_subject<'a>(certificate: &'a CertificateDer<'_>) -> Option<(&'a [u8], &'a [u8])> {
    let mut rest = certificate.as_ref();
    let mut certificate = of(SEQUENCE, next(&mut rest)?)?;
    let mut tbs = of(SEQUENCE, next(&mut certificate)?)?;
    if tbs.first() == Some(&VERSION) {
        next(&mut tbs)?;
    }
    for _serial_algorithm_issuer in 0..3 {
        next(&mut tbs)?;
    }
    Some((of(SEQUENCE, next(&mut tbs)?)?, of(SEQUENCE, next(&mut tbs)?)?))
}

fn common_names(mut subject: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((SET, mut set)) = next(&mut subject) {
        while let Some((SEQUENCE, attribute)) = next(&mut set) {
            let Some(mut value) = attribute.strip_prefix(COMMON_NAME) else { continue };
            if let Some((UTF8 | PRINTABLE | IA5, text)) = next(&mut value) {
                names.extend(std::str::from_utf8(text).ok().map(str::to_owned));
            }
        }
    }
    names
}

/// The content when the tag is the one wanted.
fn of(wanted: u8, (tag, content): (u8, &[u8])) -> Option<&[u8]> {
    (tag == wanted).then_some(content)
}

/// Takes one DER element off the front: its tag and content.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, length], after) = rest.split_first_chunk()?;
    let (length, after) = match length {
        0..=0x7f => (usize::from(length), after),
        0x81..=0x84 => {
            let (bytes, after) = after.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), after)
        }
        _ => return None,
    };
    let (content, after) = after.split_at_checked(length)?;
    *rest = after;
    Some((tag, content))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["api.prod.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://prod/api".try_into().unwrap()));
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver-prod");
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn names_are_alternative_names_and_common_name_but_not_the_organization() {
        assert_eq!(names(&certificate()), ["api.prod.example", "spiffe://prod/api", "kube-apiserver-prod"]);
    }

    #[test]
    fn the_end_is_read_in_both_notations() {
        assert_eq!(not_after(&certificate()), Some(1_927_843_200));
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2060, 1, 1);
        let late = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(not_after(late.der()), Some(2_840_140_800));
    }

    #[test]
    fn every_cut_and_flip_is_an_answer_not_a_panic() {
        let whole = certificate();
        for at in 0..whole.len() {
            let cut = CertificateDer::from(whole[..at].to_vec());
            assert!(names(&cut).is_empty());
            let mut flipped = whole.to_vec();
            flipped[at] ^= 0xff;
            let flipped = CertificateDer::from(flipped);
            let _ = (names(&flipped), not_after(&flipped));
        }
    }
}
