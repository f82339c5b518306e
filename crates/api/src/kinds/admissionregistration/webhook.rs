//! `MutatingWebhookConfiguration` and `ValidatingWebhookConfiguration`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::{
    FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES, match_conditions, rule, selectors,
    supported_if_set,
};
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, invalid_each, item_text, supported};
use crate::validation::text;

/// Calls that leave nothing behind in a dry run.
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
/// The versions of `AdmissionReview` that we speak.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
/// What upstream adds to complaints about URLs.
const URL_FORM: &str = "; desired format: https://host[/path]";

pub enum Configuration {
    Mutating,
    Validating,
}

impl Strategy for Configuration {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let hooks = object.list("webhooks");
        let path = Path::root("webhooks");
        for (index, hook) in hooks.iter().enumerate() {
            let path = path.index(index);
            self.webhook(&mut errors, hook, &path);
            let missing = format!("must specify one of {}", REVIEW_VERSIONS.join(", "));
            review_versions(&mut errors, hook, "admissionReviewVersions", &path, missing);
            let name = hook.text("name");
            if !name.is_empty() && hooks[..index].iter().any(|other| other.text("name") == name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
        }
        errors
    }
}

impl Configuration {
    fn webhook(&self, errors: &mut ErrorList, hook: &Value, path: &Path<'_>) {
        fully_qualified_name(errors, hook.text("name"), &path.child("name"));
        let rules = path.child("rules");
        for (index, own) in hook.list("rules").iter().enumerate() {
            rule(errors, own, &rules.index(index));
        }
        supported_if_set(errors, hook, "failurePolicy", path, FAILURE_POLICIES);
        supported_if_set(errors, hook, "matchPolicy", path, MATCH_POLICIES);
        match hook.maybe_text("sideEffects") {
            None => errors.push(Error::required(
                &path.child("sideEffects"),
                format!("must specify one of {}", SIDE_EFFECTS.join(", ")),
            )),
            Some(effects) => supported(errors, effects, &path.child("sideEffects"), SIDE_EFFECTS),
        }
        if let Some(timeout) = hook.maybe_int("timeoutSeconds")
            && !(1..=30).contains(&timeout)
        {
            errors.push(Error::invalid(
                &path.child("timeoutSeconds"),
                timeout,
                "the timeout value must be between 1 and 30 seconds",
            ));
        }
        selectors(errors, hook, path, false);
        if matches!(self, Self::Mutating) {
            supported_if_set(errors, hook, "reinvocationPolicy", path, REINVOCATION_POLICIES);
        }
        client(errors, &hook["clientConfig"], &path.child("clientConfig"));
        match_conditions(errors, hook.list("matchConditions"), false, &path.child("matchConditions"));
    }
}

fn fully_qualified_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let messages = text::dns1123_subdomain(name);
    if !messages.is_empty() {
        errors.push(Error::invalid(path, name, messages.join(",")));
    } else if name.split('.').count() < 3 {
        errors.push(Error::invalid(
            path,
            name,
            "should be a domain with at least three segments separated by dots",
        ));
    }
}

/// Versions of the review that the other side reads, best first.
pub fn review_versions(errors: &mut ErrorList, object: &Value, key: &str, path: &Path<'_>, missing: String) {
    let path = path.child(key);
    let versions = object.list(key);
    if versions.is_empty() {
        errors.push(Error::required(&path, missing));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        let text = item_text(version);
        if versions[..index].contains(version) {
            errors.push(Error::invalid(&path, text, "duplicate version"));
        } else {
            invalid_each(errors, &path, text, text::dns1035_label(text));
        }
    }
    if !versions.iter().any(|version| REVIEW_VERSIONS.contains(&item_text(version))) {
        errors.push(Error::invalid(
            &path,
            &object[key],
            format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")),
        ));
    }
}

/// Where a webhook listens.
pub fn client(errors: &mut ErrorList, client: &Value, path: &Path<'_>) {
    match (client.maybe_text("url"), client.maybe("service")) {
        (Some(own), None) => url(errors, own, &path.child("url")),
        (None, Some(own)) => service(errors, own, &path.child("service")),
        _ => errors.push(Error::required(path, "exactly one of url or service is required")),
    }
}

/// An absolute `https` URL without user, query and fragment.
fn url(errors: &mut ErrorList, url: &str, path: &Path<'_>) {
    if url.starts_with(':') {
        let detail = format!("url must be a valid URL: parse {url:?}: missing protocol scheme{URL_FORM}");
        errors.push(Error::required(path, detail));
        return;
    }
    if url.bytes().any(|byte| byte.is_ascii_control()) {
        let detail = format!(
            "url must be a valid URL: parse {url:?}: net/url: invalid control character in URL{URL_FORM}"
        );
        errors.push(Error::required(path, detail));
        return;
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = match rest.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
        _ => (String::new(), rest),
    };
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        errors.push(Error::invalid(
            path,
            scheme.as_str(),
            format!("'https' is the only allowed URL scheme{URL_FORM}"),
        ));
    }
    if host.is_empty() {
        errors.push(Error::invalid(path, host, format!("host must be specified{URL_FORM}")));
    }
    if authority.contains('@') {
        errors.push(Error::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(Error::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(Error::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn service(errors: &mut ErrorList, service: &Value, path: &Path<'_>) {
    // Upstream swaps the two: a missing name is reported as a missing namespace. Clients see only that both are needed.
    if service.text("namespace").is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    if service.text("name").is_empty() {
        errors.push(Error::required(&path.child("namespace"), ""));
    }
    let port = service.int("port");
    let messages = text::port_number(port);
    if !messages.is_empty() {
        let detail = format!("port is not valid: {}", messages.join(", "));
        errors.push(Error::invalid(&path.child("port"), port, detail));
    }
    let own = service.text("path");
    if own.is_empty() || own == "/" {
        return;
    }
    let path = path.child("path");
    if own == "//" {
        errors.push(Error::invalid(&path, own, "segment[0] may not be empty"));
        return;
    }
    if !own.starts_with('/') {
        errors.push(Error::invalid(&path, own, "must start with a '/'"));
    }
    // Upstream drops the first character whatever it is.
    let mut rest = own.chars();
    rest.next();
    let rest = rest.as_str();
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(Error::invalid(&path, own, format!("segment[{index}] may not be empty")));
            continue;
        }
        for message in text::dns1123_subdomain(step) {
            errors.push(Error::invalid(&path, own, format!("segment[{index}]: {message}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(check: impl FnOnce(&mut ErrorList)) -> Vec<String> {
        let mut errors = ErrorList::new();
        check(&mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn urls() {
        let check = |own| complaints(|errors| url(errors, own, &Path::root("url")));
        assert!(check("https://127.0.0.1:1/x").is_empty());
        assert_eq!(
            check("urlValue"),
            [
                "url: Invalid value: \"\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "url: Invalid value: \"\": host must be specified; desired format: https://host[/path]",
            ]
        );
        assert_eq!(
            check("https://a:b@c/d?e#f"),
            [
                "url: Invalid value: \"a:b\": user information is not permitted in the URL",
                "url: Invalid value: \"f\": fragments are not permitted in the URL",
                "url: Invalid value: \"e\": query parameters are not permitted in the URL",
            ]
        );
    }

    #[test]
    fn service_paths() {
        let check = |path: &str| {
            let own = apimachinery::json!({"name": "n", "namespace": "m", "port": 443, "path": path});
            complaints(|errors| service(errors, &own, &Path::root("service")))
        };
        assert!(check("/a/b/").is_empty());
        assert_eq!(check("/a//b"), ["service.path: Invalid value: \"/a//b\": segment[1] may not be empty"]);
    }
}
