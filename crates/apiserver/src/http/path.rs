//! What a request's path and method ask for.
//!
//! The rules are upstream's `RequestInfoFactory`: they decide both routing and what is authorized, so there is one
//! reading of a path and not two.

/// A path taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Resource(ResourcePath<'a>),
    /// Anything else: discovery, health, metrics, OpenAPI.
    NonResource(&'a str),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath<'a> {
    pub group: &'a str,
    pub version: &'a str,
    /// Empty for cluster-scoped resources and for collections across namespaces.
    pub namespace: &'a str,
    pub resource: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    /// What follows the subresource (`proxy/…`).
    pub rest: &'a str,
    /// The deprecated `/watch/` prefix was used.
    pub watch_prefix: bool,
}

impl ResourcePath<'_> {
    /// The verb of a read that ends.
    pub fn reading_verb(&self) -> &'static str {
        if self.name.is_empty() { "list" } else { "get" }
    }
}

/// Subresources of `namespaces` themselves, which would otherwise read as resources in a namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Whether every `%` begins an escape. What is not must not be guessed at: a selector read wrongly selects too much.
pub fn is_well_escaped(target: &str) -> bool {
    let bytes = target.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let mut percents = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    percents.all(|(at, _)| is_digit(at + 1) && is_digit(at + 2))
}

/// Takes a path apart. `path` is without the query and already percent-decoded.
pub fn parse(path: &str) -> Target<'_> {
    let trimmed = path.trim_matches('/');
    let mut parts = trimmed.splitn(2, '/');
    let (root, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (group, rest) = match root {
        "api" => ("", rest),
        "apis" => rest.split_once('/').unwrap_or((rest, "")),
        _ => return Target::NonResource(path),
    };
    let (version, mut rest) = rest.split_once('/').unwrap_or((rest, ""));
    if version.is_empty() || rest.is_empty() {
        return Target::NonResource(path);
    }
    let mut found = ResourcePath { group, version, ..ResourcePath::default() };
    if let Some(watched) = rest.strip_prefix("watch/") {
        found.watch_prefix = true;
        rest = watched;
    }
    let segments: Vec<&str> = rest.splitn(6, '/').collect();
    let own = match segments.as_slice() {
        // /namespaces/{ns}/{resource}/… but not /namespaces/{name}/status
        ["namespaces", namespace, resource, ..] if !NAMESPACE_SUBRESOURCES.contains(resource) => {
            found.namespace = namespace;
            2
        }
        _ => 0,
    };
    let mut tail = rest;
    for _ in 0..own {
        tail = tail.split_once('/').map_or("", |(_, after)| after);
    }
    let mut take = || {
        let (head, after) = tail.split_once('/').unwrap_or((tail, ""));
        tail = after;
        head
    };
    found.resource = take();
    found.name = take();
    found.subresource = take();
    found.rest = tail;
    Target::Resource(found)
}

/// The verb for authorization and dispatch.
pub fn verb(method: &http::Method, path: &ResourcePath<'_>, watch: bool) -> Option<&'static str> {
    let named = !path.name.is_empty();
    Some(match *method {
        http::Method::GET | http::Method::HEAD if path.watch_prefix || (watch && !named) => "watch",
        http::Method::GET | http::Method::HEAD if named => "get",
        http::Method::GET | http::Method::HEAD => "list",
        http::Method::POST => "create",
        http::Method::PUT => "update",
        http::Method::PATCH => "patch",
        http::Method::DELETE if named => "delete",
        http::Method::DELETE => "deletecollection",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource<'a>(parts: [&'a str; 7]) -> Target<'a> {
        let [group, version, namespace, resource, name, subresource, rest] = parts;
        Target::Resource(ResourcePath {
            group,
            version,
            namespace,
            resource,
            name,
            subresource,
            rest,
            watch_prefix: false,
        })
    }

    #[test]
    fn paths_read_as_upstream_reads_them() {
        let cases = [
            ("/api/v1/pods", resource(["", "v1", "", "pods", "", "", ""])),
            ("/api/v1/namespaces", resource(["", "v1", "", "namespaces", "", "", ""])),
            ("/api/v1/namespaces/x", resource(["", "v1", "", "namespaces", "x", "", ""])),
            ("/api/v1/namespaces/x/finalize", resource(["", "v1", "", "namespaces", "x", "finalize", ""])),
            ("/api/v1/namespaces/x/pods", resource(["", "v1", "x", "pods", "", "", ""])),
            ("/api/v1/namespaces/x/pods/p/log", resource(["", "v1", "x", "pods", "p", "log", ""])),
            (
                "/api/v1/namespaces/x/services/s/proxy/a/b/c",
                resource(["", "v1", "x", "services", "s", "proxy", "a/b/c"]),
            ),
            (
                "/apis/apps/v1/namespaces/x/deployments/d/scale",
                resource(["apps", "v1", "x", "deployments", "d", "scale", ""]),
            ),
            ("/apis/apps/v1", Target::NonResource("/apis/apps/v1")),
            ("/apis/apps/v1/", Target::NonResource("/apis/apps/v1/")),
            ("/api", Target::NonResource("/api")),
            ("/healthz", Target::NonResource("/healthz")),
        ];
        for (path, expected) in cases {
            assert_eq!(parse(path), expected, "{path}");
        }
    }

    #[test]
    fn the_old_watch_prefix_is_understood() {
        let Target::Resource(path) = parse("/api/v1/watch/namespaces/x/pods/p") else {
            panic!("a resource path")
        };
        assert!(path.watch_prefix);
        assert_eq!((path.namespace, path.resource, path.name), ("x", "pods", "p"));
        assert_eq!(verb(&http::Method::GET, &path, false), Some("watch"));
    }
}
