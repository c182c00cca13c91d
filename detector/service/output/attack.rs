//! Sigma's tags of MITRE ATT&CK (`attack.execution`, `attack.t1609`) as tactics and techniques.

/// A tactic, a technique, or both as they stand in one tag each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tactic {
    /// Id and name.
    pub tactic: Option<(&'static str, &'static str)>,
    /// `T1609` or `T1552.007`.
    pub technique: Option<String>,
}

const TACTICS: [(&str, &str, &str); 14] = [
    ("reconnaissance", "TA0043", "Reconnaissance"),
    ("resource-development", "TA0042", "Resource Development"),
    ("initial-access", "TA0001", "Initial Access"),
    ("execution", "TA0002", "Execution"),
    ("persistence", "TA0003", "Persistence"),
    ("privilege-escalation", "TA0004", "Privilege Escalation"),
    ("defense-evasion", "TA0005", "Defense Evasion"),
    ("credential-access", "TA0006", "Credential Access"),
    ("discovery", "TA0007", "Discovery"),
    ("lateral-movement", "TA0008", "Lateral Movement"),
    ("collection", "TA0009", "Collection"),
    ("command-and-control", "TA0011", "Command and Control"),
    ("exfiltration", "TA0010", "Exfiltration"),
    ("impact", "TA0040", "Impact"),
];

/// What the tags say, in their order; other tags are passed over.
pub fn attacks(tags: &[String]) -> Vec<Tactic> {
    tags.iter().filter_map(|tag| read(tag.strip_prefix("attack.")?)).collect()
}

fn read(name: &str) -> Option<Tactic> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    if let Some((_, id, title)) = TACTICS.iter().find(|(known, ..)| *known == name) {
        return Some(Tactic { tactic: Some((id, title)), technique: None });
    }
    let digits = name.strip_prefix('t')?;
    let technique = digits.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    technique.then(|| Tactic { tactic: None, technique: Some(name.to_ascii_uppercase()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_tactics_and_techniques() {
        let tags = ["attack.execution", "attack.t1552.007", "attack.t", "cve.2020-1", "attack.privilege_escalation"];
        let found = attacks(&tags.map(str::to_owned));
        let ids: Vec<_> =
            found.iter().map(|t| t.tactic.map_or(t.technique.as_deref().unwrap_or(""), |t| t.0)).collect();
        assert_eq!(ids, ["TA0002", "T1552.007", "TA0004"]);
    }
}
