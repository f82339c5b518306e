//! `IPAddress` and `ServiceCIDR`: which addresses services can have, and which are taken.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, IMMUTABLE, invalid_each, item_text, same};
use crate::validation::{ip, text};

pub struct IpAddress;

impl Strategy for IpAddress {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let metadata = Path::root("metadata");
        ip::check_canonical_ip(&mut errors, object["metadata"].text("name"), &metadata.child("name"));
        let path = Path::root("spec");
        let path = path.child("parentRef");
        let Some(parent) = object["spec"].maybe("parentRef") else {
            errors.push(Error::required(&path, ""));
            return errors;
        };
        let group = parent.text("group");
        if !group.is_empty() {
            invalid_each(&mut errors, &path.child("group"), group, text::dns1123_subdomain(group));
        }
        for key in ["resource", "name", "namespace"] {
            let value = parent.text(key);
            if value.is_empty() {
                if key != "namespace" {
                    errors.push(Error::required(&path.child(key), ""));
                }
                continue;
            }
            for message in text::path_segment(value, false) {
                errors.push(Error::invalid(&path.child(key), value, message));
            }
        }
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if !same(&new["spec"]["parentRef"], &old["spec"]["parentRef"]) {
            errors.push(Error::invalid(
                &Path::root("spec").child("parentRef"),
                &new["spec"]["parentRef"],
                IMMUTABLE,
            ));
        }
        errors
    }
}

pub struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::root("spec");
        let path = path.child("cidrs");
        let blocks = object["spec"].list("cidrs");
        if blocks.is_empty() {
            errors.push(Error::required(&path, "at least one CIDR required"));
        }
        if blocks.len() > 2 {
            errors.push(Error::invalid(&path, &object["spec"]["cidrs"], "may only hold up to 2 values"));
        }
        if blocks.len() == 2 && !ip::is_dual_stack_cidrs(blocks.iter().map(item_text)) {
            errors.push(Error::invalid(
                &path,
                &object["spec"]["cidrs"],
                "may specify no more than one IP for each IP family",
            ));
        }
        for (index, block) in blocks.iter().enumerate() {
            ip::check_cidr(&mut errors, item_text(block), &path.index(index), &[]);
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource.is_none() && !same(&new["spec"]["cidrs"], &old["spec"]["cidrs"]) {
            errors.push(Error::invalid(&Path::root("spec").child("cidrs"), &new["spec"]["cidrs"], IMMUTABLE));
        }
        errors
    }
}
