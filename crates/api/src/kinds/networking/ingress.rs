//! `Ingress` and `IngressClass`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, IMMUTABLE, invalid_each, item_text, require, same};
use crate::validation::{ip, text};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const WILDCARD: &str = r"a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

pub struct Ingress;

impl Strategy for Ingress {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&mut errors, &object["spec"], &Path::root("spec"));
        let annotation = object["metadata"]["annotations"].maybe_text(CLASS_ANNOTATION);
        if let (Some(annotation), Some(class)) = (annotation, object["spec"].maybe_text("ingressClassName"))
            && annotation != class
        {
            errors.push(Error::invalid(
                &Path::root("annotations").child(CLASS_ANNOTATION),
                annotation,
                "must match `ingressClassName` when both are specified",
            ));
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource == Some("status") {
            load_balancer(&mut errors, new, old);
        } else {
            spec(&mut errors, &new["spec"], &Path::root("spec"));
        }
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_none() && new["metadata"]["annotations"].has(CLASS_ANNOTATION) {
            return vec![format!(
                "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
            )];
        }
        Vec::new()
    }
}

fn spec(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let rules = spec.list("rules");
    let backend = spec.maybe("defaultBackend");
    if rules.is_empty() && backend.is_none() {
        errors.push(Error::invalid(
            path,
            &spec["rules"],
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if let Some(own) = backend {
        self::backend(errors, own, &path.child("defaultBackend"));
    }
    let rules_path = path.child("rules");
    for (index, rule) in rules.iter().enumerate() {
        self::rule(errors, rule, &rules_path.index(index));
    }
    let tls_path = path.child("tls");
    for (index, tls) in spec.list("tls").iter().enumerate() {
        let path = tls_path.index(index);
        let hosts = path.child("hosts");
        for (index, own) in tls.list("hosts").iter().map(item_text).enumerate() {
            host(errors, own, &hosts.index(index));
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() {
            invalid_each(errors, &path.child("secretName"), secret, text::dns1123_subdomain(secret));
        }
    }
    if let Some(class) = spec.maybe_text("ingressClassName") {
        invalid_each(errors, &path.child("ingressClassName"), class, text::dns1123_subdomain(class));
    }
}

fn host(errors: &mut ErrorList, host: &str, path: &Path<'_>) {
    if !host.contains('*') {
        invalid_each(errors, path, host, text::dns1123_subdomain(host));
    } else if !host.strip_prefix("*.").is_some_and(|rest| text::dns1123_subdomain(rest).is_empty()) {
        errors.push(Error::invalid(path, host, WILDCARD));
    }
}

fn rule(errors: &mut ErrorList, rule: &Value, path: &Path<'_>) {
    let own = rule.text("host");
    if !own.is_empty() {
        let path = path.child("host");
        if ip::parse_sloppy(own).is_some() {
            errors.push(Error::invalid(&path, own, "must be a DNS name, not an IP address"));
        }
        host(errors, own, &path);
    }
    let Some(http) = rule.maybe("http") else { return };
    let path = path.child("http");
    let paths_path = path.child("paths");
    let paths = http.list("paths");
    if paths.is_empty() {
        errors.push(Error::required(&paths_path, ""));
    }
    for (index, own) in paths.iter().enumerate() {
        http_path(errors, own, &paths_path.index(index));
    }
}

fn http_path(errors: &mut ErrorList, own: &Value, path: &Path<'_>) {
    const SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    const SUFFIXES: [&str; 2] = ["/..", "/."];
    let (kind_path, path_path) = (path.child("pathType"), path.child("path"));
    let target = own.text("path");
    let absolute = |errors: &mut ErrorList| {
        if !target.starts_with('/') {
            errors.push(Error::invalid(&path_path, target, "must be an absolute path"));
        }
    };
    match own.maybe_text("pathType") {
        None => {
            errors.push(Error::required(&kind_path, "pathType must be specified"));
            return;
        }
        Some("Exact" | "Prefix") => {
            absolute(errors);
            for sequence in SEQUENCES.into_iter().filter(|sequence| target.contains(sequence)) {
                errors.push(Error::invalid(&path_path, target, format!("must not contain '{sequence}'")));
            }
            for suffix in SUFFIXES.into_iter().filter(|suffix| target.ends_with(suffix)) {
                errors.push(Error::invalid(&path_path, target, format!("cannot end with '{suffix}'")));
            }
        }
        Some("ImplementationSpecific") => {
            if !target.is_empty() {
                absolute(errors);
            }
        }
        Some(other) => {
            errors.push(Error::not_supported(
                &kind_path,
                other,
                &["Exact", "ImplementationSpecific", "Prefix"],
            ));
        }
    }
    backend(errors, &own["backend"], &path.child("backend"));
}

fn backend(errors: &mut ErrorList, backend: &Value, path: &Path<'_>) {
    match (backend.maybe("service"), backend.maybe("resource")) {
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => errors.push(Error::invalid(path, "", "resource or service backend is required")),
        (None, Some(resource)) => {
            let path = path.child("resource");
            for key in ["kind", "name"] {
                if require(errors, resource, key, &path) {
                    for message in text::path_segment(resource.text(key), false) {
                        errors.push(Error::invalid(&path.child(key), resource.text(key), message));
                    }
                }
            }
        }
        (Some(service), None) => {
            let service_path = path.child("service");
            let name = service.text("name");
            if require(errors, service, "name", &service_path) {
                invalid_each(errors, &service_path.child("name"), name, text::dns1123_label(name));
            }
            let port_path = service_path.child("port");
            let (name, number) = (service["port"].text("name"), service["port"].int("number"));
            match (name.is_empty(), number == 0) {
                (false, false) => {
                    errors.push(Error::invalid(path, "", "cannot set both port name & port number"));
                }
                (false, true) => invalid_each(errors, &port_path.child("name"), name, text::port_name(name)),
                (true, false) => {
                    invalid_each(errors, &port_path.child("number"), number, text::port_number(number));
                }
                (true, true) => errors.push(Error::required(path, "port name or number is required")),
            }
        }
    }
}

fn load_balancer(errors: &mut ErrorList, new: &Value, old: &Value) {
    let addresses = |object: &Value| object["status"]["loadBalancer"].list("ingress").to_vec();
    let olds = addresses(old);
    let held: Vec<&str> = olds.iter().map(|address| address.text("ip")).collect();
    let path = Path::root("status");
    let path = path.child("loadBalancer");
    let path = path.child("ingress");
    for (index, address) in addresses(new).iter().enumerate() {
        let path = path.index(index);
        let (value, hostname) = (address.text("ip"), address.text("hostname"));
        if !value.is_empty() {
            ip::check_ip(errors, value, &path.child("ip"), &held);
        }
        if !hostname.is_empty() {
            invalid_each(errors, &path.child("hostname"), hostname, text::dns1123_subdomain(hostname));
            if ip::parse_sloppy(hostname).is_some() {
                errors.push(Error::invalid(
                    &path.child("hostname"),
                    hostname,
                    "must be a DNS name, not an IP address",
                ));
            }
        }
    }
}

pub struct IngressClass;

impl Strategy for IngressClass {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (spec, path) = (&object["spec"], Path::root("spec"));
        let controller = spec.text("controller");
        let controller_path = path.child("controller");
        if controller.len() > 250 {
            errors.push(Error::too_long(&controller_path, 250));
        }
        domain_prefixed_path(&mut errors, controller, &controller_path);
        if let Some(parameters) = spec.maybe("parameters") {
            class_parameters(&mut errors, parameters, &path.child("parameters"));
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(ctx, new);
        let (new, old) = (&new["spec"]["controller"], &old["spec"]["controller"]);
        if !same(new, old) {
            errors.push(Error::invalid(&Path::root("spec").child("controller"), new, IMMUTABLE));
        }
        errors
    }
}

fn class_parameters(errors: &mut ErrorList, parameters: &Value, path: &Path<'_>) {
    for key in ["kind", "name"] {
        require(errors, parameters, key, path);
    }
    let namespace_path = path.child("namespace");
    match (parameters.text("scope"), parameters.maybe_text("namespace")) {
        ("Cluster", Some(_)) => {
            errors.push(Error::forbidden(&namespace_path, "`parameters.scope` is set to 'Cluster'"));
        }
        ("Namespace", None) => {
            errors.push(Error::required(&namespace_path, "`parameters.scope` is set to 'Namespace'"));
        }
        ("Namespace", Some(namespace)) => {
            invalid_each(errors, &namespace_path, namespace, text::dns1123_label(namespace));
        }
        ("Cluster", None) => {}
        (other, _) => {
            errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]));
        }
    }
}

/// `acme.io/foo`.
pub fn domain_prefixed_path(errors: &mut ErrorList, value: &str, path: &Path<'_>) {
    if value.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let Some((host, rest)) =
        value.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty())
    else {
        errors.push(Error::invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    };
    invalid_each(errors, path, host, text::dns1123_subdomain(host));
    if !rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
        errors.push(Error::invalid(
            path,
            rest,
            r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')",
        ));
    }
}
