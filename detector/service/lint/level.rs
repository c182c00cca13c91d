//! The least audit level at which a rule can be decided, from the fields it reads.

use lapwing_engine::event::AuditLevel;
use lapwing_engine::field::Field;
use lapwing_engine::rule::Rule;
use lapwing_engine::rule::correlation::{Correlation, Part};
use lapwing_engine::rule::set::RuleSet;

/// The level the rule and its filters need.
pub fn of_rule(rule: &Rule) -> AuditLevel {
    let mut level = AuditLevel::Metadata;
    rule.visit_fields(&mut |field| level = level.max(of_field(field)));
    level
}

/// The level the rules below a correlation need. Correlations do not refer to each other in circles.
pub fn of_correlation(set: &RuleSet, correlation: &Correlation) -> AuditLevel {
    let of_part = |part: &Part| match part {
        Part::Rule(i) => of_rule(&set.rules()[*i]),
        Part::Correlation(i) => of_correlation(set, &set.correlations()[*i]),
    };
    correlation.parts.iter().map(of_part).max().unwrap_or(AuditLevel::Metadata)
}

/// The level at which an event carries this field.
pub fn of_field(field: &Field) -> AuditLevel {
    match field {
        Field::Response(_) | Field::ResponseBody | Field::TargetManagers => AuditLevel::RequestResponse,
        Field::Request(_) | Field::RequestBody | Field::PsaEnforce | Field::ConfigEntries => AuditLevel::Request,
        Field::TargetLabels | Field::TargetAnnotations => AuditLevel::Request,
        // The kind of role object is the resource's name.
        Field::RbacKind => AuditLevel::Metadata,
        removed if removed.is_of_removed_binding() => AuditLevel::Metadata,
        // What earlier requests wrote.
        Field::PodPowers | Field::PodServiceAccount => AuditLevel::Request,
        _ => match field.name().split('.').next() {
            Some("workload" | "rbac" | "csr" | "former") => AuditLevel::Request,
            _ => AuditLevel::Metadata,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_need_more_than_metadata() {
        for (name, want) in [
            ("verb", AuditLevel::Metadata),
            ("exec.command", AuditLevel::Metadata),
            ("rbac.kind", AuditLevel::Metadata),
            ("workload.privileged", AuditLevel::Request),
            ("rbac.powers", AuditLevel::Request),
            ("rbac.used", AuditLevel::Metadata),
            ("pod.powers", AuditLevel::Request),
            ("former.growth", AuditLevel::Request),
            ("config.entries", AuditLevel::Request),
            ("target.annotations", AuditLevel::Request),
            ("annotation.keys", AuditLevel::Metadata),
            ("target.managers", AuditLevel::RequestResponse),
            ("requestObject.spec.tls", AuditLevel::Request),
            ("responseObject.metadata.name", AuditLevel::RequestResponse),
        ] {
            assert_eq!(of_field(&Field::parse(name).unwrap()), want, "{name}");
        }
    }
}
