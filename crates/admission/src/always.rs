//! `AlwaysAdmit` and `AlwaysDeny`: what upstream keeps for those who named them once.

use apimachinery::{Status, Value};
use registry::admission::Attributes;

use crate::{Plugin, forbidden};

pub struct Admit;

impl Plugin for Admit {}

pub struct Deny;

impl Plugin for Deny {
    fn mutate(&self, attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        self.validate(attributes, None)
    }

    fn validate(&self, attributes: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        Err(forbidden(attributes, "admission control is denying all modifications"))
    }
}
