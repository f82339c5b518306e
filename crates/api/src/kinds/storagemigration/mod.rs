//! The `storagemigration.k8s.io` group.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, IMMUTABLE, immutable};
use crate::validation::{conditions, text};

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("StorageVersionMigration", &StorageVersionMigration)];

pub struct StorageVersionMigration;

impl Strategy for StorageVersionMigration {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::root("spec");
        let (resource, path) = (&object["spec"]["resource"], path.child("resource"));
        let (name, group) = (resource.text("resource"), resource.text("group"));
        let mut joined = |path: Path<'_>, value: &str, messages: text::Messages| {
            if !messages.is_empty() {
                errors.push(Error::invalid(&path, value, messages.join(",")));
            }
        };
        if !name.is_empty() {
            joined(path.child("resource"), name, text::dns1035_label(name));
        }
        if !group.is_empty() {
            joined(path.child("group"), group, text::dns1123_subdomain(group));
        }
        if name.is_empty() {
            let required = Error::required(&path.child("resource"), "resource is required to be set");
            errors.insert(0, required);
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if ctx.subresource.is_some() {
            return status(&new["status"], &old["status"]);
        }
        let mut errors = self.validate(ctx, new);
        immutable(&mut errors, new, old, "spec", &Path::root("spec"));
        errors
    }
}

/// A migration ends once, in one way.
fn status(status: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root("status");
    let (version, before) = (status.text("resourceVersion"), old.text("resourceVersion"));
    let version_path = path.child("resourceVersion");
    let is_number = |text: &str| !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(version) {
        let why = format!("resource version is not well formed: {version}");
        errors.push(Error::invalid(&version_path, version, why));
    }
    let conditions_path = path.child("conditions");
    conditions::check(&mut errors, status.list("conditions"), &conditions_path);
    if !before.is_empty() && before != version {
        errors.push(Error::invalid(&version_path, version, IMMUTABLE));
    }
    let has = |status: &Value, kind: &str| {
        let is_it = |own: &Value| own.text("type") == kind && own.text("status") == "True";
        status.list("conditions").iter().any(is_it)
    };
    let mut complain = |is_wrong: bool, why: &str| {
        if is_wrong {
            errors.push(Error::invalid(&conditions_path, &status["conditions"], why));
        }
    };
    let (succeeded, failed) = (has(status, "Succeeded"), has(status, "Failed"));
    complain(succeeded && failed, "Both success and failed conditions cannot be true at the same time");
    let why = "Success condition cannot be set to false once it is true";
    complain(has(old, "Succeeded") && !succeeded, why);
    complain(has(old, "Failed") && !failed, "Failed condition cannot be set to false once it is true");
    errors
}
