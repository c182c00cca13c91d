//! Which names promise a credential: of variables, keys, flags and query parameters.

/// Last words that turn a credential into something about it (`TOKEN_FILE`, `secretName`).
const ABOUT: [&str; 34] = [
    "file",
    "path",
    "name",
    "names",
    "dir",
    "url",
    "uri",
    "ttl",
    "expiry",
    "expiration",
    "timeout",
    "enabled",
    "type",
    "ref",
    "id",
    "endpoint",
    "header",
    "mode",
    "policy",
    "size",
    "length",
    "min",
    "max",
    "issuer",
    "audience",
    "rotation",
    "count",
    "interval",
    "version",
    "namespace",
    "kind",
    "seconds",
    "provider",
    "format",
];

const WORDS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pwd",
    "secret",
    "secrets",
    "token",
    "credential",
    "credentials",
    "auth",
    "apikey",
];

const PARTS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "secretkey",
    "accesskey",
    "privatekey",
    "encryptionkey",
    "signingkey",
    "accountkey",
    "clientsecret",
];

/// Keys whose string value is a credential wherever they stand in a body.
const KEYS: [&str; 24] = [
    "password",
    "passwd",
    "passphrase",
    "token",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "bearertoken",
    "authtoken",
    "sessiontoken",
    "apikey",
    "apitoken",
    "clientsecret",
    "secretkey",
    "secretaccesskey",
    "accesskeysecret",
    "privatekey",
    "accountkey",
    "auth",
    "authorization",
    "encryptionkey",
    "webhooksecret",
    "rootpassword",
    "pwd",
];

/// Of [`KEYS`].
const LONGEST_KEY: usize = 15;

/// `DB_PASSWORD`, `apiKey`, `client-secret`; not `TOKEN_FILE`, `secretName`, `tokenizer`.
pub(super) fn promises_credential(name: &str) -> bool {
    if name.len() > 256 {
        return false;
    }
    let words = words(name);
    if words.last().is_none_or(|last| ABOUT.contains(&last.as_str())) {
        return false;
    }
    if words.iter().any(|w| WORDS.contains(&w.trim_end_matches(|c: char| c.is_ascii_digit()))) {
        return true;
    }
    let joined = words.concat();
    PARTS.iter().any(|p| joined.contains(p)) || joined.ends_with("token") || joined.ends_with("secret")
}

/// Exactly a key that holds a credential: `token`, `clientSecret`, `api-key`.
pub(super) fn is_credential_key(key: &str) -> bool {
    let mut letters = [0u8; LONGEST_KEY];
    let mut length = 0;
    for letter in key.bytes().filter(u8::is_ascii_alphanumeric) {
        let Some(place) = letters.get_mut(length).filter(|_| key.len() <= 32) else { return false };
        *place = letter.to_ascii_lowercase();
        length += 1;
    }
    KEYS.iter().any(|k| k.as_bytes() == &letters[..length])
}

/// A flag whose argument follows as its own word: `--password`, `-token`.
pub(super) fn is_credential_flag(argument: &str) -> bool {
    argument.strip_prefix('-').is_some_and(|rest| !rest.contains(['=', ' ', '%']) && promises_credential(rest))
}

/// `dbApi-KEY_2` to `db api key 2`; a run of capitals is one word.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() {
            before = ' ';
            continue;
        }
        let starts = before == ' ' || (c.is_ascii_uppercase() && !before.is_ascii_uppercase());
        if starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for yes in [
            "PASSWORD",
            "DB_PASSWORD",
            "MYSQLPASSWORD",
            "dbPassword",
            "API_KEY",
            "apiKey",
            "X-Api-Key",
            "TOKEN",
            "GITHUB_TOKEN",
            "authtoken",
            "CLIENT_SECRET",
            "clientSecret",
            "AWS_SECRET_ACCESS_KEY",
            "REDIS_AUTH",
            "DB_PASS",
            "credentials",
            "SECRET_KEY_BASE_SECRET",
            "password2",
        ] {
            assert!(promises_credential(yes), "{yes}");
        }
        for no in [
            "",
            "TOKEN_FILE",
            "secretName",
            "PASSWORD_PATH",
            "TOKENIZERS_PARALLELISM",
            "MAX_TOKENS",
            "tokenizer",
            "COMPASS_MODE",
            "authority",
            "DB_HOST",
            "AWS_ACCESS_KEY_ID",
            "tokenExpirationSeconds",
            "KEYBOARD",
        ] {
            assert!(!promises_credential(no), "{no}");
        }
        assert!(KEYS.iter().all(|k| k.len() <= LONGEST_KEY && is_credential_key(k)));
        assert!(is_credential_key("Client-Secret") && is_credential_key("SECRET_ACCESS_KEY"));
        assert!(!is_credential_key("secretName") && !is_credential_key("tokens") && !is_credential_key(""));
        assert!(is_credential_flag("--password") && is_credential_flag("-token") && is_credential_flag("--api-key"));
        assert!(!is_credential_flag("--password=x") && !is_credential_flag("password") && !is_credential_flag("-"));
    }
}
