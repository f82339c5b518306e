//! Plugins about Services.

use apimachinery::{Status, Value};
use registry::admission::Attributes;

use crate::{Plugin, forbidden, is_write};

/// `DenyServiceExternalIPs`: no Service takes external addresses that it does not have already.
pub struct DenyServiceExternalIps;

impl Plugin for DenyServiceExternalIps {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(service) = object.filter(|_| is_write(attributes) && attributes.is("", "services")) else {
            return Ok(());
        };
        let wanted = service.array_at(&["spec", "externalIPs"]);
        if wanted.is_empty() {
            return Ok(());
        }
        let old = attributes.old_value().unwrap_or_default();
        let present = old.array_at(&["spec", "externalIPs"]);
        if wanted.iter().all(|address| present.contains(address)) {
            return Ok(());
        }
        Err(forbidden(attributes, "Use of external IPs is denied by admission control"))
    }
}
