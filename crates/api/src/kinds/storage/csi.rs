//! `CSIDriver`, `CSINode` and `CSIStorageCapacity`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::kinds::core::pod::volumes::csi_driver_name;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, immutable, invalid_each, item_text, not_negative, same, supported};
use crate::validation::{resources, selector, text};

const NODE_ID_MAX: usize = 256;
/// `nodeAllocatableUpdatePeriodSeconds` may not be shorter.
const UPDATE_PERIOD_MIN: i64 = 10;

pub struct CsiDriver;

impl Strategy for CsiDriver {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        driver(&mut errors, &object["spec"]);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(ctx, new);
        let path = Path::root("spec");
        let (new, old) = (&new["spec"], &old["spec"]);
        immutable(&mut errors, new, old, "attachRequired", &path.child("attachedRequired"));
        immutable(&mut errors, new, old, "volumeLifecycleModes", &path.child("volumeLifecycleModes"));
        errors
    }
}

fn driver(errors: &mut ErrorList, spec: &Value) {
    let path = Path::root("spec");
    for (key, spelled) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if !spec.has(key) {
            errors.push(Error::required(&path.child(spelled), ""));
        }
    }
    match spec.maybe_text("fsGroupPolicy") {
        None => errors.push(Error::required(&path.child("fsGroupPolicy"), "")),
        Some(policy) => {
            let path = path.child("fsGroupPolicy");
            supported(errors, policy, &path, &["File", "None", "ReadWriteOnceWithFSType"]);
        }
    }
    token_requests(errors, spec, &path.child("tokenRequests"));
    for mode in spec.list("volumeLifecycleModes") {
        let path = path.child("volumeLifecycleModes");
        supported(errors, item_text(mode), &path, &["Persistent", "Ephemeral"]);
    }
    if !spec.has("seLinuxMount") {
        errors.push(Error::required(&path.child("seLinuxMount"), ""));
    }
    if let Some(seconds) =
        spec.maybe_int("nodeAllocatableUpdatePeriodSeconds").filter(|own| *own < UPDATE_PERIOD_MIN)
    {
        errors.push(Error::invalid(
            &path.child("nodeAllocatableUpdatePeriodSeconds"),
            seconds,
            format!("must be greater than or equal to {UPDATE_PERIOD_MIN} seconds"),
        ));
    }
}

fn token_requests(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let requests = spec.list("tokenRequests");
    for (index, request) in requests.iter().enumerate() {
        let path = path.index(index);
        let audience = request.text("audience");
        if requests[..index].iter().any(|other| other.text("audience") == audience) {
            errors.push(Error::duplicate(&path.child("audience"), audience));
        }
        let Some(seconds) = request.maybe_int("expirationSeconds") else { continue };
        let path = path.child("expirationSeconds");
        if seconds < 600 {
            errors.push(Error::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > 1 << 32 {
            errors.push(Error::invalid(
                &path,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
    }
}

pub struct CsiNode;

impl Strategy for CsiNode {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let drivers = object["spec"].list("drivers");
        let path = Path::root("spec");
        let path = path.child("drivers");
        for (index, driver) in drivers.iter().enumerate() {
            let path = path.index(index);
            node_driver(&mut errors, driver, &path);
            let name = driver.text("name");
            if drivers[..index].iter().any(|other| other.text("name") == name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
        }
        errors
    }

    /// Of a driver that stays only the allocatable count may change.
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(ctx, new);
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            driver.ensure_object().remove("allocatable");
            driver
        };
        for old in old["spec"].list("drivers") {
            let name = old.text("name");
            for new in new["spec"].list("drivers").iter().filter(|new| new.text("name") == name) {
                if !same(&fixed(new), &fixed(old)) {
                    errors.push(Error::invalid(
                        &Path::root("spec").child("drivers"),
                        fixed(new),
                        crate::validation::fields::IMMUTABLE,
                    ));
                }
            }
        }
        errors
    }
}

fn node_driver(errors: &mut ErrorList, driver: &Value, path: &Path<'_>) {
    csi_driver_name(errors, driver.text("name"), &path.child("name"));
    let id = driver.text("nodeID");
    let id_path = path.child("nodeID");
    if id.is_empty() {
        errors.push(Error::required(&id_path, ""));
    }
    if id.len() > NODE_ID_MAX {
        errors.push(Error::invalid(&id_path, id, format!("must be {NODE_ID_MAX} characters or less")));
    }
    not_negative(errors, &driver["allocatable"], "count", &path.child("allocatable"));
    let keys = driver.list("topologyKeys");
    for (index, key) in keys.iter().enumerate() {
        let text = item_text(key);
        if text.is_empty() {
            errors.push(Error::required(path, ""));
        }
        if keys[..index].contains(key) {
            errors.push(Error::duplicate(path, text));
        }
        invalid_each(errors, path, text, text::qualified_name(text));
    }
}

pub struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        selector::label_selector(&mut errors, object.maybe("nodeTopology"), &Path::root("nodeTopology"));
        let class = object.text("storageClassName");
        invalid_each(&mut errors, &Path::root("storageClassName"), class, text::dns1123_subdomain(class));
        for key in ["capacity", "maximumVolumeSize"] {
            if let Some(amount) =
                object.maybe(key).and_then(resources::quantity).filter(|amount| amount.sign() < 0)
            {
                errors.push(Error::invalid(
                    &Path::root(key),
                    amount.to_string(),
                    crate::validation::fields::NOT_NEGATIVE,
                ));
            }
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(ctx, new);
        for key in ["nodeTopology", "storageClassName"] {
            immutable(&mut errors, new, old, key, &Path::root(key));
        }
        errors
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        if ctx.subresource.is_some() { Vec::new() } else { crate::kinds::warnings::storage_capacity(new) }
    }
}
