//! Which requests a webhook or a policy is about: rules, selectors, and whether other versions count.

use std::sync::Arc;

use api::Resource;
use apimachinery::{Selector, Status, Value};

use super::request::Request;
use super::rules::Rule;

/// What a webhook says beside its address, and what a policy calls `matchConstraints`.
pub(crate) struct Constraints {
    rules: Vec<Rule>,
    exclude: Vec<Rule>,
    /// No rules at all mean everything: bindings of policies, but not webhooks.
    all_without_rules: bool,
    namespaces: Result<Selector, String>,
    objects: Result<Selector, String>,
    /// `matchPolicy: Equivalent`
    equivalent: bool,
}

/// How a request matches.
pub(crate) enum Match {
    /// As it came.
    Own,
    /// As this other version of the same objects.
    Equivalent(Arc<Resource>),
}

impl Match {
    pub fn resource<'a>(&'a self, own: &'a Resource) -> &'a Resource {
        match self {
            Self::Own => own,
            Self::Equivalent(other) => other,
        }
    }
}

impl Constraints {
    /// Of one webhook.
    pub fn of_webhook(hook: &Value) -> Self {
        let rules = hook.array_at(&["rules"]).iter().map(Rule::from_value).collect();
        Self { rules, exclude: Vec::new(), all_without_rules: false, ..Self::selectors(hook) }
    }

    /// `MatchResources` of a policy or a binding.
    pub fn of_policy(resources: &Value) -> Self {
        let rules = |key: &str| resources.array_at(&[key]).iter().map(Rule::from_value).collect();
        Self {
            rules: rules("resourceRules"),
            exclude: rules("excludeResourceRules"),
            all_without_rules: true,
            ..Self::selectors(resources)
        }
    }

    fn selectors(from: &Value) -> Self {
        let selector = |key: &str| match &from[key] {
            Value::Null => Ok(Selector::everything()),
            given => Selector::from_value(given).map_err(|error| error.to_string()),
        };
        Self {
            rules: Vec::new(),
            exclude: Vec::new(),
            all_without_rules: false,
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            equivalent: from.str_at(&["matchPolicy"]) == "Equivalent",
        }
    }

    /// Hot path. An error in a selector counts only where the rules match.
    pub fn matches(&self, request: &Request<'_>, object: Option<&Value>) -> Result<Option<Match>, Status> {
        // Rules first: they are cheapest and rule out most.
        let matched = if self.rules.is_empty() && self.all_without_rules {
            Some(Match::Own)
        } else {
            self.rule_of(&self.rules, request)
        };
        let Some(matched) = matched else { return Ok(None) };
        if !self.exclude.is_empty() && self.rule_of(&self.exclude, request).is_some() {
            return Ok(None);
        }
        let selector = |own: &Result<Selector, String>| own.clone().map_err(Status::internal);
        let in_namespace = match &self.namespaces {
            Ok(namespaces) => request.namespace_matches(namespaces, object),
            failed => selector(failed).map(|_| false),
        };
        if matches!(in_namespace, Ok(false)) {
            return Ok(None);
        }
        let objects = match &self.objects {
            Ok(objects) => Ok(request.object_matches(objects, object)),
            failed => selector(failed).map(|_| false),
        };
        if matches!(objects, Ok(false)) {
            return Ok(None);
        }
        in_namespace.and(objects).map(|_| Some(matched))
    }

    fn rule_of(&self, rules: &[Rule], request: &Request<'_>) -> Option<Match> {
        let own = request.subject(request.attributes.resource);
        if rules.iter().any(|rule| rule.matches(&own)) {
            return Some(Match::Own);
        }
        if !self.equivalent {
            return None;
        }
        // The earlier rule wins, whichever version it names.
        rules.iter().find_map(|rule| {
            let other = request.equivalents().find(|other| rule.matches(&request.subject(other)))?;
            Some(Match::Equivalent(other.clone()))
        })
    }
}
