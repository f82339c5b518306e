//! The `apiextensions.k8s.io` group.
//!
//! Never touches: what a schema says, which is the business of the crate `structural-schema`.

pub mod conditions;
mod schemas;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use jiff::Timestamp;

use schemas::Schemas;
pub use schemas::embedded_meta;

use super::admissionregistration::webhook;
use crate::conditions::is_true;
use crate::strategy::{Context, Strategy, keep_status_apart};
use crate::validation::fields::{Fields, immutable, item_text, one_of, same, supported};
use crate::validation::{ca_bundle, text};

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("CustomResourceDefinition", &CustomResourceDefinition)];

const APPROVAL: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] =
    &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// In bytes.
const DEPRECATION_MAX: usize = 256;

pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn begin_deletion(&self) -> Option<fn(&mut Value, Timestamp)> {
        Some(conditions::begin_deletion)
    }

    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        super::defaults::crd_stored_versions(object);
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let names = &object["spec"]["names"];
        let name = object["metadata"].text("name");
        if name != format!("{}.{}", names.text("plural"), object["spec"].text("group")) {
            errors.push(Error::invalid(
                &Path::root("metadata").child("name"),
                name,
                "must be spec.names.plural+\".\"+spec.group",
            ));
        }
        spec(&mut errors, &object["spec"], None, &Path::root("spec"));
        stored_versions(&mut errors, object);
        approval(&mut errors, object, None);
        preserve_unknown_fields(&mut errors, &object["spec"]);
        errors
    }

    /// A version that was ever the one to store stays listed until its objects have been migrated.
    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_status_apart(ctx, new, old);
        if ctx.subresource.is_some() {
            return;
        }
        let versions = new["spec"].list("versions");
        let storage = versions.iter().find(|version| version.truth("storage"));
        let Some(name) = storage.map(|version| version.text("name").to_owned()) else { return };
        let mut stored = new["status"].list("storedVersions").to_vec();
        if !stored.iter().any(|other| item_text(other) == name) {
            stored.push(name.into());
            new.set_at(&["status", "storedVersions"], stored);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource == Some("status") {
            return errors;
        }
        let (own, old_spec) = (&new["spec"], &old["spec"]);
        let path = Path::root("spec");
        let names_path = path.child("names");
        spec(&mut errors, own, Some(old), &path);
        if is_true(old, "Established") {
            immutable(&mut errors, own, old_spec, "scope", &path.child("scope"));
            immutable(&mut errors, &own["names"], &old_spec["names"], "kind", &names_path.child("kind"));
        }
        immutable(&mut errors, own, old_spec, "group", &path.child("group"));
        immutable(&mut errors, &own["names"], &old_spec["names"], "plural", &names_path.child("plural"));
        stored_versions(&mut errors, new);
        approval(&mut errors, new, Some(old));
        if !old_spec.truth("preserveUnknownFields") {
            preserve_unknown_fields(&mut errors, own);
        }
        errors
    }
}

/// `old` is the definition as it was.
fn spec(errors: &mut ErrorList, spec: &Value, old: Option<&Value>, path: &Path<'_>) {
    let schemas = &Schemas::new(old.map(|old| &old["spec"]));
    group(errors, spec.text("group"), &path.child("group"));
    one_of(errors, spec.text("scope"), &path.child("scope"), &["Cluster", "Namespaced"]);
    let all = spec.list("versions");
    let versions_path = path.child("versions");
    for (index, version) in all.iter().enumerate() {
        if !version["schema"].has("openAPIV3Schema") {
            let path = versions_path.index(index);
            let path = path.child("schema");
            errors.push(Error::required(&path.child("openAPIV3Schema"), ""));
        }
    }
    // Upstream lifts what all versions agree in to the spec, and complains about it there.
    let lifted = |key: &str| all.windows(2).all(|pair| same(&pair[0][key], &pair[1][key]));
    for (index, version) in all.iter().enumerate() {
        let path = versions_path.index(index);
        let name = version.text("name");
        let messages = text::dns1035_label(name);
        if !messages.is_empty() {
            errors.push(Error::invalid(&path.child("name"), name, messages.join(",")));
        }
        deprecation(errors, version, &path.child("deprecationWarning"));
        if !lifted("schema") {
            schemas.schema(errors, version, has_status(version), &path.child("schema"));
        }
        if !lifted("subresources") {
            subresources(errors, &version["subresources"], &path.child("subresources"));
        }
        if !lifted("additionalPrinterColumns") {
            columns(errors, version, &path.child("additionalPrinterColumns"));
        }
        if !lifted("selectableFields") {
            schemas.selectable_fields(errors, version, &path.child("selectableFields"));
        }
    }
    let name = |version: &Value| version.text("name").to_owned();
    if (1..all.len()).any(|index| all[..index].iter().any(|other| name(other) == name(&all[index]))) {
        errors.push(Error::invalid(&versions_path, &spec["versions"], "must contain unique version names"));
    }
    if all.iter().filter(|version| version.truth("storage")).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(&versions_path, &spec["versions"], detail));
    }
    names(errors, &spec["names"], &path.child("names"));
    if let Some(first) = all.first() {
        if lifted("schema") {
            let any_status = all.iter().any(has_status);
            schemas.schema(errors, first, any_status, &path.child("validation"));
        }
        if lifted("subresources") {
            subresources(errors, &first["subresources"], &path.child("subresources"));
        }
        if lifted("additionalPrinterColumns") {
            columns(errors, first, &path.child("additionalPrinterColumns"));
        }
        if lifted("selectableFields") {
            schemas.selectable_fields(errors, first, &path.child("selectableFields"));
        }
    }
    if let Some(own) = spec.maybe("conversion") {
        conversion(errors, own, old.is_some_and(needs_good_ca_bundle), &path.child("conversion"));
    }
}

/// A definition that is not established may have any roots for its webhook, and is not established until they are good;
/// one that has bad ones from before that rule may keep them.
fn needs_good_ca_bundle(old: &Value) -> bool {
    is_true(old, "Established") && ca_bundle::problem(&conversion_ca_bundle(old)).is_none()
}

/// The roots that the conversion webhook of a definition is trusted by.
pub fn conversion_ca_bundle(definition: &Value) -> Vec<u8> {
    ca_bundle::decoded(definition.str_at(&["spec", "conversion", "webhook", "clientConfig", "caBundle"]))
}

fn has_status(version: &Value) -> bool {
    version["subresources"].has("status")
}

fn group(errors: &mut ErrorList, group: &str, path: &Path<'_>) {
    let messages = text::dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(Error::required(path, ""));
    } else if !messages.is_empty() {
        errors.push(Error::invalid(path, group, messages.join(",")));
    } else if !group.contains('.') {
        errors.push(Error::invalid(path, group, "should be a domain with at least one dot"));
    }
}

fn deprecation(errors: &mut ErrorList, version: &Value, path: &Path<'_>) {
    let Some(warning) = version.maybe_text("deprecationWarning") else { return };
    if !version.truth("deprecated") {
        errors.push(Error::invalid(path, warning, "can only be set for deprecated versions"));
        return;
    }
    if warning.len() > DEPRECATION_MAX {
        errors.push(Error::invalid(path, warning, format!("must be <= {DEPRECATION_MAX} characters long")));
    }
    if warning.is_empty() {
        errors.push(Error::invalid(path, warning, "must not be an empty string"));
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        let detail = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        );
        errors.push(Error::invalid(path, warning, detail));
    }
}

fn names(errors: &mut ErrorList, names: &Value, path: &Path<'_>) {
    for key in ["plural", "singular", "kind", "listKind"] {
        if names.text(key).is_empty() {
            errors.push(Error::required(&path.child(key), ""));
        }
    }
    for key in ["plural", "singular"] {
        let name = names.text(key);
        let messages = text::dns1035_label(name);
        if !name.is_empty() && !messages.is_empty() {
            errors.push(Error::invalid(&path.child(key), name, messages.join(",")));
        }
    }
    for key in ["kind", "listKind"] {
        let name = names.text(key);
        let messages = text::dns1035_label(&name.to_lowercase());
        if !name.is_empty() && !messages.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
            errors.push(Error::invalid(&path.child(key), name, detail));
        }
    }
    labels(errors, names.list("shortNames"), &path.child("shortNames"));
    let (kind, list) = (names.text("kind"), names.text("listKind"));
    if !kind.is_empty() && kind == list {
        errors.push(Error::invalid(&path.child("listKind"), list, "kind and listKind may not be the same"));
    }
    labels(errors, names.list("categories"), &path.child("categories"));
}

fn labels(errors: &mut ErrorList, labels: &[Value], path: &Path<'_>) {
    for (index, label) in labels.iter().enumerate() {
        let label = item_text(label);
        let messages = text::dns1035_label(label);
        if !messages.is_empty() {
            errors.push(Error::invalid(&path.index(index), label, messages.join(",")));
        }
    }
}

fn columns(errors: &mut ErrorList, version: &Value, path: &Path<'_>) {
    for (index, column) in version.list("additionalPrinterColumns").iter().enumerate() {
        let path = path.index(index);
        if column.text("name").is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        let kind = column.text("type");
        let detail = || format!("must be one of {}", COLUMN_TYPES.join(","));
        if kind.is_empty() {
            errors.push(Error::required(&path.child("type"), detail()));
        } else if !COLUMN_TYPES.contains(&kind) {
            errors.push(Error::invalid(&path.child("type"), kind, detail()));
        }
        let format = column.text("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(Error::invalid(&path.child("format"), format, detail));
        }
        let json_path = column.text("jsonPath");
        if json_path.is_empty() {
            errors.push(Error::required(&path.child("JSONPath"), ""));
        } else if !json_path.starts_with('.') {
            errors.push(Error::invalid(&path.child("JSONPath"), json_path, NOT_SIMPLE));
        }
    }
}

const NOT_SIMPLE: &str = "must be a simple json path starting with .";

fn subresources(errors: &mut ErrorList, subresources: &Value, path: &Path<'_>) {
    let Some(scale) = subresources.maybe("scale") else { return };
    for (key, own_path, below, detail) in [
        (
            "specReplicasPath",
            path.child("scale.specReplicasPath"),
            &[".spec."][..],
            "should be a json path under .spec",
        ),
        (
            "statusReplicasPath",
            path.child("scale.statusReplicasPath"),
            &[".status."],
            "should be a json path under .status",
        ),
        (
            "labelSelectorPath",
            path.child("scale.labelSelectorPath"),
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
        ),
    ] {
        let json_path = scale.text(key);
        if json_path.is_empty() {
            if key != "labelSelectorPath" {
                errors.push(Error::required(&own_path, ""));
            }
        } else if !json_path.starts_with('.') {
            errors.push(Error::invalid(&own_path, json_path, NOT_SIMPLE));
        } else if !below.iter().any(|root| json_path.starts_with(root)) {
            errors.push(Error::invalid(&own_path, json_path, detail));
        }
    }
}

/// Paths are those of upstream's internal form, which has no `webhook` level.
fn conversion(errors: &mut ErrorList, conversion: &Value, needs_good_ca_bundle: bool, path: &Path<'_>) {
    let strategy = conversion.text("strategy");
    if strategy.is_empty() {
        errors.push(Error::required(&path.child("strategy"), ""));
    } else {
        supported(errors, strategy, &path.child("strategy"), &["None", "Webhook"]);
    }
    let own = &conversion["webhook"];
    let client_path = path.child("webhookClientConfig");
    let (client, versions) = (own.maybe("clientConfig"), own.list("conversionReviewVersions"));
    if strategy == "Webhook" {
        match client {
            None => errors.push(Error::required(&client_path, "required when strategy is set to Webhook")),
            Some(client) => {
                webhook::client(errors, client, &client_path);
                if needs_good_ca_bundle {
                    good_ca_bundle(errors, client, &client_path.child("caBundle"));
                }
            }
        }
        webhook::review_versions(errors, own, "conversionReviewVersions", path, String::new());
        return;
    }
    let detail = "should not be set when strategy is not set to Webhook";
    if client.is_some() {
        errors.push(Error::forbidden(&client_path, detail));
    }
    if !versions.is_empty() {
        errors.push(Error::forbidden(&path.child("conversionReviewVersions"), detail));
    }
}

fn good_ca_bundle(errors: &mut ErrorList, client: &Value, path: &Path<'_>) {
    let bundle = ca_bundle::decoded(client.text("caBundle"));
    if let Some(problem) = ca_bundle::problem(&bundle) {
        let shown = Some(ca_bundle::shown(&bundle));
        errors.push(Error { shown, ..Error::invalid(path, "", problem) });
    }
}

fn stored_versions(errors: &mut ErrorList, object: &Value) {
    let path = Path::root("status");
    let path = path.child("storedVersions");
    let stored = object["status"].list("storedVersions");
    let versions = object["spec"].list("versions");
    if stored.is_empty() {
        let shown = &object["status"]["storedVersions"];
        errors.push(Error::invalid(&path, shown, "must have at least one stored version"));
        return;
    }
    for version in versions {
        let name = version.text("name");
        if version.truth("storage") && !stored.iter().any(|other| item_text(other) == name) {
            let detail = format!("must have the storage version {name}");
            errors.push(Error::invalid(&path, &object["status"]["storedVersions"], detail));
        }
    }
    for (index, name) in stored.iter().enumerate() {
        let name = item_text(name);
        if !versions.iter().any(|version| version.text("name") == name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(Error::invalid(&path.index(index), name, detail));
        }
    }
}

/// Groups of the community need its consent, in an annotation.
fn approval(errors: &mut ErrorList, object: &Value, old: Option<&Value>) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = object["spec"].text("group");
    let is_below =
        |root: &str| group.strip_suffix(root).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if !is_below("k8s.io") && !is_below("kubernetes.io") {
        return;
    }
    let annotation = |object: &Value| object["metadata"]["annotations"].text(APPROVAL).to_owned();
    let own = annotation(object);
    if old.is_some_and(|old| annotation(old) == own) {
        return;
    }
    let path = Path::root("metadata");
    let path = path.child("annotations");
    let path = path.key(APPROVAL);
    let has_host = own
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'));
    if own.is_empty() {
        let detail = format!("protected groups must have approval annotation \"{APPROVAL}\", {SEE}");
        errors.push(Error::required(&path, detail));
    } else if !own.starts_with("unapproved") && !has_host {
        let detail = format!(
            "protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting with \"unapproved\", {SEE}"
        );
        errors.push(Error::invalid(&path, own.as_str(), detail));
    }
}

fn preserve_unknown_fields(errors: &mut ErrorList, spec: &Value) {
    if spec.truth("preserveUnknownFields") {
        errors.push(Error::invalid(
            &Path::root("spec").child("preserveUnknownFields"),
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use base64::Engine as _;

    use super::*;

    const CTX: Context<'static> =
        Context { now: Timestamp::UNIX_EPOCH, user: "me", subresource: None, allow_privileged: true };

    fn definition(versions: Value) -> Value {
        let mut definition = json!({
            "metadata": {"name": "ws.b.example"},
            "spec": {
                "group": "b.example",
                "scope": "Namespaced",
                "names": {"plural": "ws", "singular": "w", "kind": "W", "listKind": "WList"},
                "versions": versions,
                "conversion": {"strategy": "None"},
            },
        });
        CustomResourceDefinition.prepare_for_create(&CTX, &mut definition);
        definition
    }

    fn version(name: &str, storage: bool) -> Value {
        json!({
            "name": name,
            "served": true,
            "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object"}},
        })
    }

    fn text(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_new_storage_version_is_recorded_beside_the_old_one() {
        let old = definition(json!([version("v1", true)]));
        let mut new = definition(json!([version("v1", false), version("v2", true)]));
        CustomResourceDefinition.prepare_for_update(&CTX, &mut new, &old);
        assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
        assert_eq!(text(&CustomResourceDefinition.validate_update(&CTX, &new, &old)), Vec::<String>::new());

        let mut gone = definition(json!([version("v2", true)]));
        CustomResourceDefinition.prepare_for_update(&CTX, &mut gone, &new);
        let errors = text(&CustomResourceDefinition.validate_update(&CTX, &gone, &new));
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from spec"));
    }

    #[test]
    fn what_is_established_keeps_good_roots_for_its_webhook() {
        let with = |bundle: &str, established: bool| {
            let mut own = definition(json!([version("v1", true)]));
            let bundle = base64::engine::general_purpose::STANDARD.encode(bundle);
            own.set_at(
                &["spec", "conversion"],
                json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                    "clientConfig": {"url": "https://a.example", "caBundle": bundle}}}),
            );
            let state = if established { "True" } else { "False" };
            own.set_at(&["status", "conditions"], json!([{"type": "Established", "status": state}]));
            own
        };
        let good = ca_bundle::tests::CERTIFICATE;
        assert_eq!(text(&CustomResourceDefinition.validate(&CTX, &with("z", false))), Vec::<String>::new());
        for (before, established, after, refused) in [
            (good, true, "z", true),
            ("", true, "z", true),
            (good, true, good, false),
            (good, true, "", false),
            (good, false, "z", false),
            ("y", true, "z", false),
        ] {
            let (old, new) = (with(before, established), with(after, established));
            let errors = text(&CustomResourceDefinition.validate_update(&CTX, &new, &old));
            let wanted = "spec.conversion.webhookClientConfig.caBundle: Invalid value: []byte{0x7a}: unable to load root \
                          certificates: unable to parse bytes as PEM block";
            assert_eq!(errors, [wanted][..usize::from(refused)], "{before} {established} {after}");
        }
    }

    #[test]
    fn groups_of_the_community_need_approval() {
        let mut own = definition(json!([version("v1", true)]));
        own.set_at(&["spec", "group"], "x.k8s.io");
        own.set_at(&["metadata", "name"], "ws.x.k8s.io");
        let errors = text(&CustomResourceDefinition.validate(&CTX, &own));
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value"));
        own.set_at(&["metadata", "annotations"], json!({APPROVAL: "https://a.example/1"}));
        assert_eq!(text(&CustomResourceDefinition.validate(&CTX, &own)), Vec::<String>::new());
    }

    #[test]
    fn complaints_stand_where_versions_agree_or_differ() {
        let mut bad = version("v1", true);
        bad.set_at(&["schema", "openAPIV3Schema", "properties"], json!({"a": {}}));
        let one = definition(json!([bad.clone()]));
        let two = definition(json!([bad, version("v2", false)]));
        let detail = "Required value: must not be empty for specified object fields";
        assert_eq!(
            text(&CustomResourceDefinition.validate(&CTX, &one)),
            [format!("spec.validation.openAPIV3Schema.properties[a].type: {detail}")]
        );
        assert_eq!(
            text(&CustomResourceDefinition.validate(&CTX, &two)),
            [format!("spec.versions[0].schema.openAPIV3Schema.properties[a].type: {detail}")]
        );
    }
}
