//! The `apiregistration.k8s.io` group.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path, go_quote};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, invalid_each};
use crate::validation::text;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("APIService", &ApiService)];

/// Discovery puts groups with a higher number first, and within a group versions.
const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;

/// `APIService`: who serves a version of a group. Without a service it is this server.
pub struct ApiService;

impl Strategy for ApiService {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = &object["spec"];
        let path = Path::root("spec");
        let (group, version) = (spec.text("group"), spec.text("version"));
        let (name, wanted) = (object.str_at(&["metadata", "name"]), format!("{version}.{group}"));
        if name != wanted && text::path_segment(name, false).is_empty() {
            let why = format!("must be `spec.version+\".\"+spec.group`: {}", go_quote(&wanted));
            errors.push(Error::invalid(&Path::root("metadata.name"), name, why));
        }
        if group.is_empty() && version != "v1" {
            let why = "only v1 may have an empty group and it better be legacy kube";
            errors.push(Error::required(&path.child("group"), why));
        }
        if !group.is_empty() {
            invalid_each(&mut errors, &path.child("group"), group, text::dns1123_subdomain(group));
        }
        invalid_each(&mut errors, &path.child("version"), version, text::dns1035_label(version));
        for (key, max) in
            [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)]
        {
            let priority = spec.int(key);
            if priority <= 0 || priority > max {
                let why = format!("must be positive and less than {max}");
                errors.push(Error::invalid(&path.child(key), priority, why));
            }
        }
        backend(&mut errors, spec, &path);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        match ctx.subresource {
            Some("status") => status(&new["status"]),
            _ => self.validate(ctx, new),
        }
    }
}

fn backend(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let bundle = STANDARD.decode(spec.text("caBundle")).map_or(0, |bundle| bundle.len());
    let (ca_path, skip_path) = (path.child("caBundle"), path.child("insecureSkipTLSVerify"));
    let skips = spec.truth("insecureSkipTLSVerify");
    let Some(service) = spec.maybe("service") else {
        if bundle > 0 {
            let why = "local APIServices may not have a caBundle";
            errors.push(Error::invalid(&ca_path, format!("{bundle} bytes"), why));
        }
        if skips {
            errors.push(Error::invalid(
                &skip_path,
                true,
                "local APIServices may not have insecureSkipTLSVerify",
            ));
        }
        return;
    };
    let service_path = path.child("service");
    for key in ["namespace", "name"] {
        if service.text(key).is_empty() {
            errors.push(Error::required(&service_path.child(key), ""));
        }
    }
    let port = service.int("port");
    let complaints = text::port_number(port);
    if !complaints.is_empty() {
        let why = format!("port is not valid: {}", complaints.join(", "));
        errors.push(Error::invalid(&service_path.child("port"), port, why));
    }
    if skips && bundle > 0 {
        errors.push(Error::invalid(&skip_path, true, "may not be true if caBundle is present"));
    }
}

fn status(status: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root("status");
    let path = path.child("conditions");
    for (index, condition) in status.list("conditions").iter().enumerate() {
        let value = condition.text("status");
        if !matches!(value, "True" | "False" | "Unknown") {
            let place = path.index(index);
            errors.push(Error::not_supported(&place.child("status"), value, &["True", "False", "Unknown"]));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    const CREATE: Context<'static> =
        Context { now: jiff::Timestamp::UNIX_EPOCH, user: "u", subresource: None, allow_privileged: true };

    fn complaints(name: &str, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        ApiService.validate(&CREATE, &object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_service_or_this_server_answers_for_a_version() {
        let remote = json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
            "service": {"namespace": "ns", "name": "s", "port": 443}, "caBundle": "QUFB"});
        assert_eq!(complaints("v1.example.com", remote.clone()), Vec::<String>::new());
        let mut skipping = remote.clone();
        skipping.set_at(&["insecureSkipTLSVerify"], true);
        assert_eq!(
            complaints("v1.example.com", skipping),
            ["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"]
        );
        let mut local = remote;
        local.remove_at(&["service"]);
        assert_eq!(
            complaints("v1.example.com", local),
            ["spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle"]
        );
    }

    #[test]
    fn every_mistake_is_named() {
        assert_eq!(
            complaints("x", json!({"version": "v2", "groupPriorityMinimum": 20_001, "service": {}})),
            [
                "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v2.\"",
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
            ]
        );
    }
}
