//! Which addresses a registry has: its own, and those that a `hosts.toml` names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use camino::{Utf8Path, Utf8PathBuf};
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::de::DeTable;

use crate::{Error, Result};

/// Docker Hub's name is not its address.
const DOCKER_DOMAIN: &str = "docker.io";
const DOCKER_HOST: &str = "registry-1.docker.io";
/// Of files for registries that have none of their own.
const DEFAULT_FOLDER: &str = "_default";
const FILE_NAME: &str = "hosts.toml";

/// Whom a host is believed to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    /// Files of certificates that are believed besides the machine's own.
    pub(super) authorities: Vec<Utf8PathBuf>,
    /// Files of certificate and key that are shown.
    pub(super) client: Vec<(Utf8PathBuf, Utf8PathBuf)>,
    pub(super) skip_verify: bool,
}

/// An address that has content of a registry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// Mostly `/v2`; without a slash at its end.
    pub(super) path: String,
    /// Whether it is asked what a tag means.
    pub(super) resolves: bool,
    /// The registry that a mirror is asked for.
    pub(super) namespace: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) trust: Trust,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<String, Section>,
    #[serde(flatten)]
    own: Section,
}

#[derive(Debug, Default, Deserialize)]
struct Section {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<ClientFiles>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: BTreeMap<String, OneOrMore>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

/// Certificate and key in one file each, in one for both, or several such pairs.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ClientFiles {
    Both(String),
    Several(Vec<OneOrMore>),
}

/// The addresses to ask, in order; the registry itself is the last one.
pub(super) fn endpoints(folder: Option<&Utf8Path>, domain: &str) -> Result<Vec<Endpoint>> {
    let Some(folder) = folder else { return Ok(vec![own(domain)?]) };
    for name in folders(domain) {
        let path = folder.join(name).join(FILE_NAME);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                return parse(&text, domain, path.parent().unwrap_or(folder))
                    .map_err(|problem| within(&path, &problem));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", &path, error)),
        }
    }
    Ok(vec![own(domain)?])
}

fn within(path: &Utf8Path, problem: &str) -> Error {
    Error::Invalid(format!("{path}: {problem}"))
}

/// The names that a registry's folder may have.
fn folders(domain: &str) -> Vec<String> {
    let mut names = vec![domain.to_owned()];
    if let Some((host, port)) = domain.rsplit_once(':') {
        // For file systems that have no colons.
        names.push(format!("{host}_{port}_"));
    }
    names.push(DEFAULT_FOLDER.to_owned());
    names
}

/// Where a registry is when nobody says otherwise.
fn own(domain: &str) -> Result<Endpoint> {
    let host = if domain == DOCKER_DOMAIN { DOCKER_HOST } else { domain };
    let authority: Authority =
        host.parse().map_err(|_| Error::Invalid(format!("{host:?} is no address of a registry")))?;
    let scheme = if is_loopback(authority.host()) { Scheme::HTTP } else { Scheme::HTTPS };
    Ok(Endpoint {
        scheme,
        authority,
        path: "/v2".to_owned(),
        resolves: true,
        namespace: None,
        headers: HeaderMap::new(),
        trust: Trust::default(),
    })
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn parse(text: &str, domain: &str, folder: &Utf8Path) -> std::result::Result<Vec<Endpoint>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut endpoints = Vec::new();
    for url in order(text) {
        let Some(section) = file.host.get(&url) else { continue };
        if let Some(mut endpoint) = endpoint(&url, section, folder)? {
            // Who asks a mirror says for whom; the registry knows itself.
            endpoint.namespace = Some(domain.to_owned());
            endpoints.push(endpoint);
        }
    }
    let last = match &file.server {
        Some(server) => endpoint(server, &file.own, folder)?,
        None => Some(own(domain).map_err(|error| error.to_string())?),
    };
    endpoints.extend(last);
    if endpoints.is_empty() {
        return Err("no host in it may be pulled from".to_owned());
    }
    Ok(endpoints)
}

/// The hosts as they stand in the file; a table has forgotten that.
fn order(text: &str) -> Vec<String> {
    let Ok(table) = DeTable::parse(text) else { return Vec::new() };
    let Some(hosts) = table.get_ref().get("host").and_then(|hosts| hosts.get_ref().as_table()) else {
        return Vec::new();
    };
    let mut urls: Vec<(usize, String)> =
        hosts.keys().map(|key| (key.span().start, key.get_ref().to_string())).collect();
    urls.sort_unstable();
    urls.into_iter().map(|(_, url)| url).collect()
}

/// `None` for one that nothing is pulled from.
fn endpoint(
    url: &str,
    section: &Section,
    folder: &Utf8Path,
) -> std::result::Result<Option<Endpoint>, String> {
    let has = |name: &str| {
        section.capabilities.as_ref().is_none_or(|list| list.iter().any(|capability| capability == name))
    };
    if !has("pull") {
        return Ok(None);
    }
    let absolute = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let uri: Uri = absolute.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let parts = uri.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err(format!("{url:?} names no host"));
    };
    if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
        return Err(format!("{url:?} is neither http nor https"));
    }
    let mut path =
        parts.path_and_query.map_or_else(String::new, |path| path.path().trim_end_matches('/').to_owned());
    if !section.override_path && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    let mut headers = HeaderMap::new();
    for (name, values) in &section.header {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
        for value in values.all() {
            let value: HeaderValue =
                value.parse().map_err(|_| format!("header {name} has a value that is no text"))?;
            headers.append(&name, value);
        }
    }
    let file = |name: &String| folder.join(name);
    let pair = |files: &[String]| match files {
        [both] => Ok((file(both), file(both))),
        [certificate, key] => Ok((file(certificate), file(key))),
        _ => Err("client wants a certificate and a key".to_owned()),
    };
    let client = match &section.client {
        None => Vec::new(),
        Some(ClientFiles::Both(both)) => vec![(file(both), file(both))],
        Some(ClientFiles::Several(list)) => match list.as_slice() {
            [OneOrMore::One(certificate), OneOrMore::One(key)] => vec![(file(certificate), file(key))],
            list => list.iter().map(|files| pair(files.all())).collect::<std::result::Result<_, _>>()?,
        },
    };
    let trust = Trust {
        authorities: section.ca.iter().flat_map(OneOrMore::all).map(file).collect(),
        client,
        skip_verify: section.skip_verify,
    };
    Ok(Some(Endpoint { scheme, authority, path, resolves: has("resolve"), namespace: None, headers, trust }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints
            .iter()
            .map(|endpoint| format!("{}://{}{}", endpoint.scheme, endpoint.authority, endpoint.path))
            .collect()
    }

    #[test]
    fn a_registry_is_where_its_name_says() {
        for (domain, url) in [
            ("docker.io", "https://registry-1.docker.io/v2"),
            ("registry.k8s.io", "https://registry.k8s.io/v2"),
            ("localhost:5000", "http://localhost:5000/v2"),
            ("127.0.0.2:5000", "http://127.0.0.2:5000/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
        ] {
            assert_eq!(shown(&endpoints(None, domain).unwrap()), [url]);
        }
    }

    #[test]
    fn mirrors_are_asked_in_the_order_of_the_file() {
        let text = r#"
            server = "https://registry.example"
            ca = "own.pem"
            [host."https://z.example"]
            capabilities = ["pull"]
            skip_verify = true
            [host."http://a.example:5000/some/path"]
            override_path = true
            client = ["cert.pem", "key.pem"]
            [host."https://push.example"]
            capabilities = ["push"]
            [host."m.example".header]
            x-key = ["one", "two"]
        "#;
        let found = parse(text, "registry.example", Utf8Path::new("/etc/r")).unwrap();
        assert_eq!(
            shown(&found),
            [
                "https://z.example/v2",
                "http://a.example:5000/some/path",
                "https://m.example/v2",
                "https://registry.example/v2"
            ]
        );
        assert!(!found[0].resolves && found[0].trust.skip_verify);
        assert!(found[1].resolves);
        assert_eq!(found[1].trust.client, [("/etc/r/cert.pem".into(), "/etc/r/key.pem".into())]);
        assert_eq!(found[2].headers.get_all("x-key").iter().count(), 2);
        assert_eq!((found[2].namespace.as_deref(), &found[3].namespace), (Some("registry.example"), &None));
        assert_eq!(found[3].trust.authorities, ["/etc/r/own.pem"]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        for (text, problem) in [
            ("server = 1", "server"),
            (r#"server = "ftp://a.example""#, "neither http nor https"),
            ("[host.\"https://\"]", "no URL"),
            ("[host.\"https://a\".header]\n\"a b\" = \"c\"", "no name of a header"),
            ("server = \"https://a\"\ncapabilities = [\"push\"]", "no host"),
        ] {
            let error = parse(text, "a.example", Utf8Path::new("/")).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_of_its_own_is_better_than_the_one_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let write = |name: &str, server: &str| {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            std::fs::write(folder.join(name).join(FILE_NAME), format!("server = {server:?}")).unwrap();
        };
        write("_default", "https://all.example");
        write("b.example_5000_", "https://other.example");
        assert_eq!(shown(&endpoints(Some(folder), "a.example").unwrap()), ["https://all.example/v2"]);
        assert_eq!(shown(&endpoints(Some(folder), "b.example:5000").unwrap()), ["https://other.example/v2"]);
        write("a.example", "nothing at all");
        let error = endpoints(Some(folder), "a.example").unwrap_err().to_string();
        assert!(error.contains("a.example/hosts.toml"), "{error}");
    }
}
