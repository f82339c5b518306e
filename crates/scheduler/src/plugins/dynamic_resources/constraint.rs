//! What the devices of a claim must have in common, or apart.

use api::devices::attribute;
use api::view::{Device, DeviceAttribute, DeviceConstraint};
use apimachinery::Str;

/// A constraint with the devices that it holds for so far.
#[derive(Debug)]
pub struct Constraint<'a> {
    /// Empty is all.
    requests: &'a [Str],
    attribute: &'a Str,
    rule: Rule,
    /// Of the devices so far, the latest last.
    values: Vec<&'a DeviceAttribute>,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Match,
    /// Each value once. (Upstream compares with one device of each request only; what it documents is this.)
    Distinct,
}

/// The request that a device is for, and the alternative of it that was chosen.
#[derive(Clone, Copy, Debug)]
pub struct RequestName<'a> {
    pub request: &'a str,
    pub alternative: Option<&'a str>,
}

impl<'a> Constraint<'a> {
    /// `None` for a constraint of an unknown type.
    pub fn new(constraint: &'a DeviceConstraint) -> Option<Self> {
        let (rule, attribute) = match constraint {
            DeviceConstraint { match_attribute: Some(attribute), .. } => (Rule::Match, attribute),
            DeviceConstraint { distinct_attribute: Some(attribute), .. } => (Rule::Distinct, attribute),
            _ => return None,
        };
        Some(Self { requests: &constraint.requests, attribute, rule, values: Vec::new() })
    }

    /// Adds a device unless the constraint would not hold any more.
    pub fn add(&mut self, name: RequestName<'_>, driver: &str, device: &'a Device) -> bool {
        if !self.applies(name) {
            return true;
        }
        let Some(value) = attribute(device, driver, self.attribute) else { return false };
        let holds = match self.rule {
            Rule::Match => self.values.first().is_none_or(|first| *first == value),
            Rule::Distinct => !self.values.contains(&value),
        };
        if holds {
            self.values.push(value);
        }
        holds
    }

    /// Takes back the device that was added last.
    pub fn remove(&mut self, name: RequestName<'_>) {
        if self.applies(name) {
            self.values.pop();
        }
    }

    fn applies(&self, name: RequestName<'_>) -> bool {
        self.requests.is_empty() || self.requests.iter().any(|own| name.is(own))
    }
}

impl RequestName<'_> {
    /// `request`, or `request/alternative`.
    fn is(&self, text: &str) -> bool {
        text == self.request
            || self
                .alternative
                .is_some_and(|alternative| text.split_once('/') == Some((self.request, alternative)))
    }
}

impl std::fmt::Display for RequestName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.request)?;
        match self.alternative {
            Some(alternative) => write!(f, "/{alternative}"),
            None => Ok(()),
        }
    }
}
