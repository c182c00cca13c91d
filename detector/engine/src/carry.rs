//! What the source of an event cannot carry: "this log has no such field" is not "the request had none".
//!
//! A decoder of a poorer log form writes the mark at the very start of the event's text. Only those bytes there count,
//! so that finding it costs one comparison, and what a sender wrote elsewhere or otherwise is no mark. Whoever takes
//! events from senders removes theirs with [`strip`].

use crate::field::Field;

/// What an event's text begins with when its source cannot carry everything.
const MARK: &str = "{\"lapwing.dev/not-carried\":\"";

macro_rules! parts {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// A part of an event that some sources cannot carry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Part {
            $($(#[$doc])* $variant,)*
        }

        impl Part {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

parts! {
    Groups "user.groups",
    Uid "user.uid",
    /// With it the credential and the pod it is bound to.
    Extra "user.extra",
    /// Whom the request acts as, or whether it does at all.
    Impersonated "impersonatedUser",
    /// Groups and uid of the impersonated user; the name is told.
    ImpersonatedGroups "impersonatedUser.groups",
    /// With it the options of an exec, the tail of a proxied request and whether it was a rehearsal.
    Uri "requestURI",
    /// The addresses a client claims, before the peer's own.
    Claims "sourceIPs",
    Agent "userAgent",
    /// `objectRef.uid` and `objectRef.resourceVersion`.
    ObjectIds "objectRef.uid",
    Status "responseStatus",
    RequestBody "requestObject",
    ResponseBody "responseObject",
    Annotations "annotations",
}

/// A set of [`Part`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotCarried(u16);

impl NotCarried {
    pub const fn none(self) -> bool {
        self.0 == 0
    }

    pub const fn bits(self) -> u16 {
        self.0
    }

    pub const fn has(self, part: Part) -> bool {
        self.0 & (1 << part as u16) != 0
    }

    pub const fn with(self, part: Part) -> Self {
        Self(self.0 | (1 << part as u16))
    }

    /// What the text of an event is marked with.
    pub fn of(text: &str) -> Self {
        let Some((names, _)) = text.strip_prefix(MARK).and_then(|rest| rest.split_once('"')) else {
            return Self::default();
        };
        let known = |name: &str| Part::ALL.iter().find(|part| part.as_str() == name).copied();
        names.split(' ').filter_map(known).fold(Self::default(), Self::with)
    }

    /// The text of an event, `{"member"…}`, with this mark.
    pub fn mark(self, text: &str) -> String {
        if self.none() {
            return text.to_owned();
        }
        let names: Vec<&str> = Part::ALL.iter().filter(|part| self.has(**part)).map(|part| part.as_str()).collect();
        let rest = text.strip_prefix('{').unwrap_or(text);
        let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
        format!("{MARK}{}\"{comma}{rest}", names.join(" "))
    }

    /// Whether `field` is told by a part that is not carried, so that its absence says nothing.
    pub fn hides(self, field: &Field) -> bool {
        !self.none() && part_of(field).is_some_and(|part| self.has(part))
            || (self.has(Part::Impersonated) && part_of(field) == Some(Part::ImpersonatedGroups))
    }
}

/// The text without any mark at its start, as a sender's must be read; `None` where there is none.
pub fn strip(text: &str) -> Option<String> {
    let mut rest = text.strip_prefix('{')?;
    let mut found = false;
    while let Some((_, behind)) = rest.strip_prefix(&MARK[1..]).and_then(|names| names.split_once('"')) {
        let behind = behind.trim_start();
        rest = behind.strip_prefix(',').unwrap_or(behind).trim_start();
        found = true;
    }
    found.then(|| format!("{{{rest}"))
}

fn part_of(field: &Field) -> Option<Part> {
    Some(match field {
        Field::UserGroups | Field::ActorGroups | Field::ActorAdmin => Part::Groups,
        Field::UserUid => Part::Uid,
        Field::UserExtra(_)
        | Field::ActorCloudIdentity
        | Field::CredentialKind
        | Field::CredentialId
        | Field::CredentialPod
        | Field::CredentialNode => Part::Extra,
        other if other.is_of_credential() => Part::Extra,
        Field::ImpersonatedName | Field::ActorAs | Field::ActorImpersonating => Part::Impersonated,
        Field::ImpersonatedUid | Field::ImpersonatedGroups | Field::ActorAsGroups => Part::ImpersonatedGroups,
        Field::RequestUri
        | Field::TargetPath
        | Field::DryRun
        | Field::ExecCommand
        | Field::ExecArgs
        | Field::ExecContainer
        | Field::ExecStdin
        | Field::ExecTty
        | Field::ProxyPath
        | Field::ProxyPort
        | Field::ProxyKubelet => Part::Uri,
        Field::SourceIps | Field::ClientClaims => Part::Claims,
        Field::UserAgent | Field::ClientFamily | Field::ClientVersion => Part::Agent,
        Field::RefUid | Field::RefResourceVersion => Part::ObjectIds,
        Field::StatusCode | Field::StatusStatus | Field::StatusReason | Field::StatusMessage | Field::Outcome => {
            Part::Status
        }
        Field::Annotation(_)
        | Field::AnnotationKeys
        | Field::RightReason
        | Field::RightBinding
        | Field::RightRole
        | Field::PsaViolations
        | Field::AdmissionFailedOpen => Part::Annotations,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    const EVENT: &str = r#"{"auditID":"a","verb":"get"}"#;

    #[test]
    fn a_mark_is_read_back_and_can_be_removed() {
        for part in Part::ALL {
            let marked = NotCarried::default().with(*part).mark(EVENT);
            let event = Event::parse(&marked).expect("an event");
            assert_eq!(event.not_carried, NotCarried::default().with(*part));
            assert_eq!(&*event.verb, "get");
            assert_eq!(strip(&marked).as_deref(), Some(EVENT));
        }
        let all = Part::ALL.iter().copied().fold(NotCarried::default(), NotCarried::with);
        assert_eq!(NotCarried::of(&all.mark(EVENT)), all);
        assert_eq!(NotCarried::default().mark(EVENT), EVENT);
        assert_eq!(NotCarried::of(&all.mark("{}")), all);
        assert!(serde_json::from_str::<serde_json::Value>(&all.mark("{}")).is_ok());
    }

    #[test]
    fn a_mark_written_otherwise_is_none() {
        for text in [
            r#"{"auditID":"a","lapwing.dev/not-carried":"user.groups"}"#,
            r#"{ "lapwing.dev/not-carried":"user.groups","auditID":"a"}"#,
            r#" {"lapwing.dev/not-carried":"user.groups","auditID":"a"}"#,
            r#"{"lapwing\u002edev/not-carried":"user.groups","auditID":"a"}"#,
        ] {
            assert!(Event::parse(text).expect(text).not_carried.none(), "{text}");
            assert_eq!(strip(text), None);
        }
        let marked = NotCarried::default().with(Part::Groups).mark(EVENT);
        let twice = NotCarried::default().with(Part::Uri).mark(&marked);
        assert_eq!(strip(&twice).as_deref(), Some(EVENT), "nothing is left behind a removed one");
    }
}
