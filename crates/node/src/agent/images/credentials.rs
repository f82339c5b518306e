//! Which credentials of a docker configuration are for an image's registry.
//!
//! The keys of `auths` are registries as people write them: with or without a scheme, `/v1/` or `/v2/` behind, a path
//! that the image must begin with, and `*` for parts of the host name (as the kubelet matches them).

use apimachinery::Value;
use base64::Engine;
use runtime::spec::RegistryCredential;

/// The most specific first.
pub(super) fn for_image(secret: &Value, image: &str) -> Vec<RegistryCredential> {
    let Some(auths) = super::docker_config(secret) else { return Vec::new() };
    let Some(auths) = auths.as_object() else { return Vec::new() };
    let (host, path) = split(image);
    let mut matching: Vec<(&str, RegistryCredential)> = auths
        .iter()
        .filter(|(registry, _)| is_for(registry, &host, &path))
        .filter_map(|(registry, entry)| Some((&**registry, credential(entry)?)))
        .collect();
    matching.sort_by_key(|(registry, _)| std::cmp::Reverse(normal(registry).len()));
    matching.into_iter().map(|(_, credential)| credential).collect()
}

/// The registry's host and the repository of an image.
fn split(image: &str) -> (String, String) {
    let bare = image.split('@').next().unwrap_or_default();
    match bare.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            (host.to_owned(), path.to_owned())
        }
        _ => ("docker.io".to_owned(), bare.to_owned()),
    }
}

/// A registry's key without scheme, API version and trailing slashes.
fn normal(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

fn is_for(registry: &str, host: &str, path: &str) -> bool {
    let registry = normal(registry);
    let (wanted_host, wanted_path) = registry.split_once('/').unwrap_or((&registry, ""));
    let (wanted_name, wanted_port) = wanted_host.split_once(':').unwrap_or((wanted_host, ""));
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let labels: Vec<&str> = name.split('.').collect();
    let wanted: Vec<&str> = wanted_name.split('.').collect();
    wanted_port == port
        && labels.len() == wanted.len()
        && wanted.iter().zip(&labels).all(|(pattern, label)| glob(pattern, label))
        && path.starts_with(wanted_path)
}

/// Whether a label of a host name matches a pattern with `*`.
fn glob(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == label,
        Some((before, after)) => {
            let Some(rest) = label.strip_prefix(before) else { return false };
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(after, &rest[at..]))
        }
    }
}

fn credential(entry: &Value) -> Option<RegistryCredential> {
    let mut credential = RegistryCredential {
        username: entry.str_at(&["username"]).to_owned(),
        password: entry.str_at(&["password"]).to_owned(),
        token: entry.str_at(&["registrytoken"]).to_owned(),
    };
    let auth = entry.str_at(&["auth"]);
    if !auth.is_empty() {
        let text = base64::engine::general_purpose::STANDARD.decode(auth).ok()?;
        let text = String::from_utf8(text).ok()?;
        let (username, password) = text.split_once(':')?;
        credential.username = username.to_owned();
        credential.password = password.trim_end_matches('\0').to_owned();
    }
    Some(credential)
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn secret(auths: Value) -> Value {
        let text = json!({"auths": auths}).to_string();
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}})
    }

    #[test]
    fn registries_match_as_people_write_them() {
        for (registry, image, matches) in [
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "library/nginx:1", true),
            ("docker.io", "quay.test/nginx", false),
            ("registry.test", "registry.test/a/b@sha256:00", true),
            ("registry.test:5000", "registry.test/a", false),
            ("registry.test:5000", "registry.test:5000/a", true),
            ("*.registry.test", "eu.registry.test/a", true),
            ("*.registry.test", "registry.test/a", false),
            ("a*c.test/team", "abc.test/team/x", true),
            ("a*c.test/team", "abc.test/other/x", false),
        ] {
            let mut auths = Value::object();
            auths.ensure_object().insert(registry, json!({"username": "u", "password": "p"}));
            assert_eq!(for_image(&secret(auths), image).len(), usize::from(matches), "{registry} {image}");
        }
    }

    #[test]
    fn the_more_specific_registry_comes_first_and_auth_is_decoded() {
        let auths = json!({
            "r.test": {"username": "wide", "password": "w"},
            "r.test/team": {"auth": base64::engine::general_purpose::STANDARD.encode("narrow:a:b")},
        });
        let found = for_image(&secret(auths), "r.test/team/app");
        assert_eq!(found.iter().map(|found| found.username.as_str()).collect::<Vec<_>>(), ["narrow", "wide"]);
        assert_eq!(found[0].password, "a:b");
    }
}
