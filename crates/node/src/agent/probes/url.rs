//! URLs of probes: from the parts that a pod's author wrote, and where a redirect leads.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::dial::authority;

/// What cannot stand in a request's path or query as it is.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The same where the text is no valid URL: then none of its percent signs is an escape.
const ESCAPED_PATH: &AsciiSet = &ESCAPED.add(b'%');

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) https: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether `port` was written; it is said again then.
    explicit_port: bool,
    /// Escaped; begins with `/` and has no fragment. May be empty.
    path_and_query: String,
}

impl Url {
    pub(super) fn new(https: bool, host: &str, port: u16, path: &str) -> Url {
        Url { https, host: host.to_owned(), port, explicit_port: true, path_and_query: escape(path) }
    }

    /// What the request line says.
    pub(super) fn request_target(&self) -> &str {
        match self.path_and_query.as_str() {
            "" => "/",
            path => path,
        }
    }

    /// What the header `Host` says.
    pub(super) fn host_header(&self) -> String {
        match (self.explicit_port, self.host.contains(':')) {
            (true, _) => authority(&self.host, self.port),
            (false, true) => format!("[{}]", self.host),
            (false, false) => self.host.clone(),
        }
    }

    /// Where `Location: …` leads from here; `None` for what is no HTTP URL.
    pub(super) fn join(&self, location: &str) -> Option<Url> {
        let location = location.split('#').next().unwrap_or_default();
        if let Some(rest) = location.strip_prefix("//") {
            return Url::absolute(self.https, rest);
        }
        match location.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
                return match scheme.to_ascii_lowercase().as_str() {
                    "http" => Url::absolute(false, rest),
                    "https" => Url::absolute(true, rest),
                    _ => None,
                };
            }
            _ => {}
        }
        let path = self.request_target();
        let path_alone = path.split('?').next().unwrap_or_default();
        let joined = match location.chars().next() {
            None => path.to_owned(),
            Some('/') => location.to_owned(),
            Some('?') => format!("{path_alone}{location}"),
            Some(_) => format!("{}/{location}", path_alone.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Some(Url { path_and_query: escape(&without_dots(&joined)), ..self.clone() })
    }

    fn absolute(https: bool, rest: &str) -> Option<Url> {
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port: Option<u16> = port.map(str::parse).transpose().ok()?;
        if host.is_empty() {
            return None;
        }
        Some(Url {
            https,
            host: host.to_owned(),
            port: port.unwrap_or(if https { 443 } else { 80 }),
            explicit_port: port.is_some(),
            path_and_query: escape(path),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(formatter, "{scheme}://{}{}", self.host_header(), self.path_and_query)
    }
}

/// A path and query as they may be sent.
fn escape(text: &str) -> String {
    let text = text.split('#').next().unwrap_or_default();
    let set = if has_valid_escapes(text) { ESCAPED } else { ESCAPED_PATH };
    let slash = if text.is_empty() || text.starts_with('/') { "" } else { "/" };
    format!("{slash}{}", utf8_percent_encode(text, set))
}

fn has_valid_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let mut bytes = after.bytes();
        (0..2).all(|_| bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit()))
    })
}

/// The path without its `.` and `..`.
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.find('?') {
        Some(at) => path_and_query.split_at(at),
        None => (path_and_query, ""),
    };
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        ends_open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let end = if ends_open && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}{query}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_sent_as_it_was_meant() {
        for (host, path, expected) in [
            ("10.0.0.1", "/", "http://10.0.0.1:80/"),
            ("10.0.0.1", "", "http://10.0.0.1:80"),
            ("10.0.0.1", "healthz", "http://10.0.0.1:80/healthz"),
            ("fd00::1", "/a?b=c&d", "http://[fd00::1]:80/a?b=c&d"),
            ("name", "/a b/ü#part", "http://name:80/a%20b/%C3%BC"),
            ("name", "/a%20b", "http://name:80/a%20b"),
            ("name", "/100%", "http://name:80/100%25"),
            ("name", "/a%2", "http://name:80/a%252"),
        ] {
            assert_eq!(Url::new(false, host, 80, path).to_string(), expected);
        }
        assert_eq!(Url::new(false, "name", 80, "").request_target(), "/");
    }

    #[test]
    fn a_redirect_leads_where_a_browser_would_go() {
        let from = Url::new(true, "10.0.0.1", 8443, "/a/b?c");
        for (location, expected) in [
            ("/d?e", Some("https://10.0.0.1:8443/d?e")),
            ("d", Some("https://10.0.0.1:8443/a/d")),
            ("../d", Some("https://10.0.0.1:8443/d")),
            ("../../../d/./e/", Some("https://10.0.0.1:8443/d/e/")),
            ("..", Some("https://10.0.0.1:8443/")),
            ("?d", Some("https://10.0.0.1:8443/a/b?d")),
            ("", Some("https://10.0.0.1:8443/a/b?c")),
            ("/d?to=http://x/", Some("https://10.0.0.1:8443/d?to=http://x/")),
            ("//other/x", Some("https://other/x")),
            ("http://other:81", Some("http://other:81")),
            ("HTTP://user@[fd00::1]:81/x#y", Some("http://[fd00::1]:81/x")),
            ("http://[fd00::1]/x", Some("http://[fd00::1]/x")),
            ("ftp://other/x", None),
            ("http://other:port/", None),
            ("http:///x", None),
        ] {
            assert_eq!(from.join(location).map(|url| url.to_string()).as_deref(), expected, "{location}");
        }
        assert_eq!(from.join("http://other").map(|url| url.port), Some(80));
        assert_eq!(from.join("https://other").map(|url| url.port), Some(443));
    }
}
