//! Silences over HTTP in the shapes of Alertmanager's API v2, so that `amtool silence` works: `/api/v2/silences` lists and
//! makes, `/api/v2/silence/{id}` shows and ends. The same file as the command line's.
//!
//! Who asks, and whether they may, the guard has decided. A silence bears the name it was asked for in, and behind it in
//! parentheses the user whose credential it was.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use super::guard::{Role, Who};
use super::reply;
use crate::flow::matcher::Matcher;
use crate::flow::silence::{Silence, SilenceError, Silences, State};

const ALL: &str = "/api/v2/silences";
const ONE: &str = "/api/v2/silence/";
/// Largest body read, in bytes, and how long it may take.
const MAX_BODY: usize = 64 << 10;
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What a request is about; `None` when it is none of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    All,
    One(String),
}

impl Asked {
    pub fn of(path: &str) -> Option<Self> {
        if path == ALL {
            return Some(Self::All);
        }
        let id = path.strip_prefix(ONE).filter(|id| !id.is_empty() && !id.contains('/'))?;
        Some(Self::One(id.to_owned()))
    }

    /// What somebody must be to ask this way.
    pub fn needs(method: &Method) -> Role {
        if matches!(*method, Method::GET | Method::HEAD) { Role::Viewer } else { Role::Operator }
    }
}

/// A silence as it is asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    /// The one it takes the place of.
    #[serde(default)]
    id: String,
    matchers: Vec<Part>,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    comment: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    name: String,
    value: String,
    #[serde(default)]
    is_regex: bool,
    #[serde(default = "yes")]
    is_equal: bool,
}

fn yes() -> bool {
    true
}

/// Why there is no such answer.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("expected a body of application/json")]
    Kind,
    #[error("the body is larger than {MAX_BODY} bytes or did not come within {} seconds", BODY_WITHIN.as_secs())]
    Body,
    #[error("the body is no silence: {0}")]
    Shape(#[from] serde_json::Error),
    #[error("no silence `{0}`")]
    Nobody(String),
    #[error("it would have ended already, at {0}")]
    Over(DateTime<Utc>),
    #[error(transparent)]
    Silence(#[from] SilenceError),
    #[error("the file of silences could not be reached")]
    Lost,
}

impl Wrong {
    const fn code(&self) -> StatusCode {
        match self {
            Self::Kind => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Nobody(_) => StatusCode::NOT_FOUND,
            Self::Silence(SilenceError::File { .. }) | Self::Lost => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Answers `request`, which `who` made and may make.
pub async fn answer(silences: &Silences, asked: Asked, who: &Who, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let done = match (&asked, request.method()) {
        (Asked::All, &Method::GET | &Method::HEAD) => {
            let filters = filters(request.uri().query().unwrap_or_default());
            blocking(silences, move |s| list(s, &filters?, Utc::now())).await
        }
        (Asked::All, &Method::POST) => match wanted(request).await {
            Ok(wanted) => {
                let owner = owner(&wanted.created_by, who);
                blocking(silences, move |s| make(s, wanted, owner, Utc::now())).await
            }
            Err(wrong) => Err(wrong),
        },
        (Asked::One(id), &Method::GET | &Method::HEAD) => {
            let id = id.clone();
            blocking(silences, move |s| Ok(told(&one(s, &id)?, Utc::now()))).await
        }
        (Asked::One(id), &Method::DELETE) => {
            let (id, by) = (id.clone(), who.name.clone().unwrap_or_default());
            blocking(silences, move |s| end(s, &id, &by, Utc::now())).await
        }
        _ => {
            let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, "application/json", "\"not here\"\n");
            let allow = if asked == Asked::All { "GET, HEAD, POST" } else { "GET, HEAD, DELETE" };
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            return response;
        }
    };
    match done {
        Ok(value) => reply(StatusCode::OK, "application/json", value.to_string()),
        // Alertmanager's errors are a JSON text.
        Err(wrong) => reply(wrong.code(), "application/json", Value::from(wrong.to_string()).to_string()),
    }
}

async fn blocking(
    silences: &Silences,
    work: impl FnOnce(&Silences) -> Result<Value, Wrong> + Send + 'static,
) -> Result<Value, Wrong> {
    let silences = silences.clone();
    tokio::task::spawn_blocking(move || work(&silences)).await.unwrap_or(Err(Wrong::Lost))
}

async fn wanted(request: Request<Incoming>) -> Result<Wanted, Wrong> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    // A page could send a form without asking first, never JSON.
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return Err(Wrong::Kind);
    }
    let body = tokio::time::timeout(BODY_WITHIN, Limited::new(request.into_body(), MAX_BODY).collect()).await;
    let body = body.map_err(|_| Wrong::Body)?.map_err(|_| Wrong::Body)?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}

/// Every `filter=` of a query.
fn filters(query: &str) -> Result<Vec<Matcher>, Wrong> {
    let mut found = Vec::new();
    for text in query.split('&').filter_map(|pair| pair.strip_prefix("filter=")) {
        let text = percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        found.push(Matcher::parse(&text).map_err(SilenceError::from)?);
    }
    Ok(found)
}

/// The name it was asked for in cannot pass for the credential's: that stands last.
fn owner(asked: &str, who: &Who) -> String {
    match who.name.as_deref() {
        Some(name) if asked.trim().is_empty() || asked == name => name.to_owned(),
        // Changed by whoever made it.
        Some(name) if asked.ends_with(&format!(" ({name})")) => asked.to_owned(),
        Some(name) => format!("{} ({name})", asked.trim()),
        None => asked.to_owned(),
    }
}

fn list(silences: &Silences, filters: &[Matcher], now: DateTime<Utc>) -> Result<Value, Wrong> {
    let fits = |silence: &Silence| {
        let matchers: Vec<Matcher> = silence.matchers.iter().filter_map(|m| Matcher::parse(m).ok()).collect();
        filters.iter().all(|filter| {
            let same = matchers.iter().find(|m| m.field() == filter.field());
            filter.admits(same.map_or("", Matcher::value))
        })
    };
    Ok(silences.list()?.iter().filter(|s| fits(s)).map(|s| told(s, now)).collect())
}

fn one(silences: &Silences, id: &str) -> Result<Silence, Wrong> {
    let found = silences.list()?.into_iter().find(|s| s.id == id);
    found.ok_or_else(|| Wrong::Nobody(id.chars().take(64).collect()))
}

fn make(silences: &Silences, wanted: Wanted, owner: String, now: DateTime<Utc>) -> Result<Value, Wrong> {
    if wanted.ends_at <= now {
        return Err(Wrong::Over(wanted.ends_at));
    }
    // In our own words, so that the same matchers are the same text.
    let write = |p: &Part| {
        let matcher = Matcher::parse(&Matcher::write(&p.name, &p.value, p.is_regex, p.is_equal))?;
        Ok(Matcher::write(matcher.field().as_str(), &p.value, p.is_regex, p.is_equal))
    };
    let matchers = wanted.matchers.iter().map(write).collect::<Result<_, SilenceError>>()?;
    let starts = wanted.starts_at.max(now);
    let silence = Silence::new(matchers, (owner, wanted.comment), (starts, wanted.ends_at), now)?;
    let (owner, mut id) = (silence.owner.clone(), silence.id.clone());
    if wanted.id.is_empty() {
        silences.add(silence)?;
    } else {
        one(silences, &wanted.id)?;
        id = silences.replace(&wanted.id, silence)?;
    }
    tracing::info!(silence = id, owner, "silence made over the API");
    Ok(json!({ "silenceID": id }))
}

fn end(silences: &Silences, id: &str, by: &str, now: DateTime<Utc>) -> Result<Value, Wrong> {
    let id = one(silences, id)?.id;
    silences.expire(std::slice::from_ref(&id), now)?;
    tracing::info!(silence = id, by, "silence ended over the API");
    Ok(Value::Null)
}

/// A silence as Alertmanager tells of one.
fn told(silence: &Silence, now: DateTime<Utc>) -> Value {
    let matcher = |text: &String| {
        let m = Matcher::parse(text).ok()?;
        let name = m.field().as_str();
        Some(json!({ "name": name, "value": m.value(), "isRegex": m.is_pattern(), "isEqual": !m.is_negated() }))
    };
    let rfc = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    json!({
        "id": silence.id,
        "status": { "state": silence.state(now) },
        "matchers": silence.matchers.iter().filter_map(matcher).collect::<Vec<_>>(),
        "startsAt": rfc(silence.starts), "endsAt": rfc(silence.ends),
        "updatedAt": rfc(if silence.state(now) == State::Expired { silence.ends } else { silence.created }),
        "createdBy": silence.owner, "comment": silence.reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(more: Value) -> Wanted {
        let mut body = json!({ "matchers": [{ "name": "alertname", "value": "exec", "isRegex": false }],
            "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2126-01-01T00:00:00Z", "createdBy": "ann", "comment": "drill" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(body).unwrap()
    }

    fn ids(list: &Value) -> Vec<&str> {
        list.as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect()
    }

    #[test]
    fn one_is_made_listed_changed_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let silences = Silences::of(dir.path());
        let now = Utc::now();
        let made = make(&silences, wanted(json!({})), "ann".into(), now).unwrap();
        let id = made["silenceID"].as_str().unwrap();
        let all = list(&silences, &[], now).unwrap();
        assert_eq!(ids(&all), [id]);
        let first = &all[0];
        assert_eq!((&first["status"]["state"], &first["createdBy"]), (&json!("active"), &json!("ann")));
        assert_eq!(
            first["matchers"],
            json!([{ "name": "rule", "value": "exec", "isRegex": false, "isEqual": true }]),
            "Alertmanager's word is ours"
        );
        for (filter, count) in [("rule=exec", 1), ("rule=~\"ex.*\"", 1), ("rule!=exec", 0), ("actor=eve", 0)] {
            let filters = [Matcher::parse(filter).unwrap()];
            assert_eq!(list(&silences, &filters, now).unwrap().as_array().unwrap().len(), count, "{filter}");
        }

        // The same matchers: it is the same silence, that lasts longer. Others: another.
        let longer = json!({ "id": id, "endsAt": "2127-01-01T00:00:00Z" });
        assert_eq!(make(&silences, wanted(longer), "bob".into(), now).unwrap()["silenceID"], *id);
        assert!(one(&silences, id).unwrap().ends.to_rfc3339().starts_with("2127"));
        let other = json!({ "id": id, "matchers": [{ "name": "severity", "value": "low" }] });
        let second = make(&silences, wanted(other), "ann".into(), now).unwrap()["silenceID"].clone();
        assert_ne!(second, *id);
        assert_eq!(told(&one(&silences, id).unwrap(), now)["status"]["state"], "expired");

        end(&silences, second.as_str().unwrap(), "ann", now).unwrap();
        assert_eq!(told(&one(&silences, second.as_str().unwrap()).unwrap(), now)["status"]["state"], "expired");
        assert_eq!(end(&silences, "no", "ann", now).unwrap_err().code(), StatusCode::NOT_FOUND);
        let gone = json!({ "id": "no" });
        assert_eq!(make(&silences, wanted(gone), "ann".into(), now).unwrap_err().code(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn what_cannot_be_a_silence_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let silences = Silences::of(dir.path());
        for wrong in [
            json!({ "matchers": [] }),
            json!({ "matchers": [{ "name": "actor", "value": ".*", "isRegex": true }] }),
            json!({ "matchers": [{ "name": "actor", "value": "(", "isRegex": true }] }),
            json!({ "matchers": [{ "name": "instance", "value": "x" }] }),
            json!({ "matchers": vec![json!({ "name": "actor", "value": "x" }); 51] }),
            json!({ "matchers": [{ "name": "actor", "value": "x".repeat(2000) }] }),
            json!({ "endsAt": "2026-01-02T00:00:00Z" }),
            json!({ "comment": " " }),
            json!({ "comment": "x".repeat(2000) }),
        ] {
            let error = make(&silences, wanted(wrong.clone()), "ann".into(), Utc::now()).unwrap_err();
            assert_eq!(error.code(), StatusCode::BAD_REQUEST, "{wrong}: {error}");
        }
        assert!(silences.list().unwrap().is_empty());
    }

    #[test]
    fn an_owner_is_who_the_credential_says() {
        let who = |name: Option<&str>| Who { name: name.map(str::to_owned), role: Role::Operator };
        assert_eq!(owner("ann", &who(Some("soc"))), "ann (soc)");
        assert_eq!(owner("", &who(Some("soc"))), "soc");
        assert_eq!(owner("ann (soc)", &who(Some("soc"))), "ann (soc)");
        assert_eq!(owner("eve (soc)", &who(Some("intern"))), "eve (soc) (intern)");
    }

    #[test]
    fn paths_and_roles() {
        assert_eq!(Asked::of("/api/v2/silences"), Some(Asked::All));
        assert_eq!(Asked::of("/api/v2/silence/3f2c"), Some(Asked::One("3f2c".into())));
        for other in ["/api/v2/silence/", "/api/v2/silence", "/api/v2/silence/a/b", "/api/v2/alerts"] {
            assert_eq!(Asked::of(other), None);
        }
        assert_eq!((Asked::needs(&Method::GET), Asked::needs(&Method::DELETE)), (Role::Viewer, Role::Operator));
    }
}
