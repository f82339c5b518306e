//! `IPAddress` and `ServiceCIDR`: which addresses services can have, and which are taken.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, IMMUTABLE, as_go_struct, invalid_each, item_text, same};
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
        blocks(&mut errors, &object["spec"], &path.child("cidrs"));
        errors
    }

    /// A block may come as the second, of the other family; nothing else changes.
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource.is_some() {
            return errors;
        }
        let path = Path::root("spec");
        let path = path.child("cidrs");
        let (list, before) = (new["spec"].list("cidrs"), old["spec"].list("cidrs"));
        let is_second = before.len() == 1 && list.len() == 2;
        if before.len() != list.len() && !is_second {
            errors.push(Error::invalid(&path, &new["spec"]["cidrs"], IMMUTABLE));
            return errors;
        }
        for (index, (block, _)) in list.iter().zip(before).enumerate().filter(|(_, (new, old))| new != old) {
            errors.push(Error::invalid(&path.index(index), block, IMMUTABLE));
        }
        if is_second {
            blocks(&mut errors, &new["spec"], &path);
        }
        errors
    }
}

/// One block of addresses, or one of each family.
fn blocks(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let blocks = spec.list("cidrs");
    if blocks.is_empty() {
        errors.push(Error::required(path, "at least one CIDR required"));
        return;
    }
    if blocks.len() > 2 {
        let shown = as_go_struct(spec, &[("cidrs", "CIDRs", "null")]);
        errors.push(Error::invalid(path, shown, "may only hold up to 2 values"));
        return;
    }
    for (index, block) in blocks.iter().enumerate() {
        ip::check_canonical_cidr(errors, item_text(block), &path.index(index));
    }
    let families: Vec<bool> = blocks
        .iter()
        .filter_map(|block| ip::parse_cidr(item_text(block)))
        .map(|(ip, _)| ip.is_ipv4())
        .collect();
    if let [first, second] = families[..]
        && first == second
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(Error::invalid(path, &spec["cidrs"], why));
    }
}
