//! URLs as Go's `net/url` parses them.

use std::collections::BTreeMap;
use std::fmt;

use apimachinery::field::go_quote;

use super::Row;
use crate::eval_error::EvalError;
use crate::opaques::Opaques;
use crate::value::{Evaluated, Map, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    ("url", to_url, &[("string_to_url", "f(string) -> url")]),
    ("isURL", is_url, &[("is_url_string", "f(string) -> bool")]),
    ("getScheme", |args| part(args, |url| url.scheme.clone()), &[("url_get_scheme", "url::f() -> string")]),
    ("getHost", |args| part(args, |url| url.host.clone()), &[("url_get_host", "url::f() -> string")]),
    (
        "getHostname",
        |args| part(args, |url| url.hostname().into()),
        &[("url_get_hostname", "url::f() -> string")],
    ),
    ("getPort", |args| part(args, |url| url.port().into()), &[("url_get_port", "url::f() -> string")]),
    (
        "getEscapedPath",
        |args| part(args, |url| url.escaped_path.clone()),
        &[("url_get_escaped_path", "url::f() -> string")],
    ),
    ("getQuery", query, &[("url_get_query", "url::f() -> map<string, list<string>>")]),
];

/// The parts of a URL that expressions see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    text: String,
    scheme: String,
    host: String,
    escaped_path: String,
    query: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// Reads an absolute URL, an absolute path or `*`, as `url.ParseRequestURI` and then `url.Parse` do.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fail = |what: &str| Err(format!("parse {}: {what}", go_quote(text)));
        if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return fail("net/url: invalid control character in URL");
        }
        if text.is_empty() {
            return fail("empty url");
        }
        if text == "*" {
            return Ok(Self { text: text.into(), escaped_path: text.into(), ..Self::default() });
        }
        let (scheme, rest) = match split_scheme(text) {
            Ok(split) => split,
            Err(what) => return fail(what),
        };
        if scheme.is_empty() && !rest.starts_with('/') {
            return fail("invalid URI for request");
        }
        let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Self {
            text: text.into(),
            scheme: scheme.to_ascii_lowercase(),
            host: String::new(),
            escaped_path: String::new(),
            query: query.into(),
        };
        if !rest.starts_with('/') {
            // Of an opaque URL (`mailto:x`) there is nothing more to see.
            return Ok(url);
        }
        let authority = rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///"));
        let path = match authority {
            Some(authority) => {
                let end = authority.find('/').unwrap_or(authority.len());
                let (authority, path) = authority.split_at(end);
                let host = match authority.rsplit_once('@') {
                    Some((user, _)) if !is_userinfo(user) => return fail("net/url: invalid userinfo"),
                    Some((_, host)) => host,
                    None => authority,
                };
                url.host = match parse_host(host) {
                    Ok(host) => host,
                    Err(what) => return fail(&what),
                };
                path
            }
            None => rest,
        };
        if let Some(bad) = bad_escape(path) {
            return fail(&format!("invalid URL escape {}", go_quote(bad)));
        }
        url.escaped_path = escape_path(path);
        Ok(url)
    }

    fn hostname(&self) -> &str {
        let host = match self.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.host,
        };
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    fn port(&self) -> &str {
        match self.host.rsplit_once(':') {
            Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => port,
            _ => "",
        }
    }
}

/// Whether a text is what `url.ParseRequestURI` reads.
pub fn is_request_uri(text: &str) -> bool {
    Url::parse(text).is_ok()
}

fn is_userinfo(user: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    user.chars().all(is_allowed) && bad_escape(user).is_none()
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn parse_host(host: &str) -> Result<String, String> {
    if let Some(inner) = host.strip_prefix('[') {
        let Some((_, port)) = inner.rsplit_once(']') else { return Err("missing ']' in host".into()) };
        check_port(port)?;
        return Ok(host.into());
    }
    if let Some((_, port)) = host.rsplit_once(':') {
        check_port(&format!(":{port}"))?;
    }
    if let Some(bad) = host.chars().find(|&c| " \\^`{|}".contains(c)) {
        return Err(format!("invalid character {} in host name", go_quote(&bad.to_string())));
    }
    if let Some(bad) = bad_escape(host) {
        return Err(format!("invalid URL escape {}", go_quote(bad)));
    }
    Ok(unescape(host, false))
}

fn check_port(port: &str) -> Result<(), String> {
    if port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    {
        Ok(())
    } else {
        Err(format!("invalid port {} after host", go_quote(port)))
    }
}

/// The first `%` that does not begin an escape, with what follows.
fn bad_escape(text: &str) -> Option<&str> {
    text.match_indices('%').find_map(|(at, _)| {
        let hex = text.as_bytes().get(at + 1..at + 3);
        let good = hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let end = text[at..].char_indices().nth(3).map_or(text.len(), |(end, _)| at + end);
        (!good).then(|| &text[at..end])
    })
}

/// Percent-encodes what may not stand in a path and is not encoded yet.
fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescape(text: &str, plus_is_space: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn to_url<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => {
            Url::parse(text).map(|url| Value::opaque(Opaques::Url(url))).map_err(|error| {
                EvalError::new(format!("URL parse error during conversion from string: {error}"))
            })
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_url<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(is_request_uri(text))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn url<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, EvalError> {
    match args {
        [Value::Opaque(value)] => match &**value {
            Opaques::Url(url) => Ok(url),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn part<'a>(args: &[Value<'a>], read: impl Fn(&Url) -> String) -> Evaluated<'a> {
    Ok(Value::text(read(url(args)?)))
}

fn query<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let mut entries: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in url(args)?.query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if pair.is_empty() || pair.contains(';') || bad_escape(pair).is_some() {
            continue;
        }
        entries.entry(unescape(key, true)).or_default().push(Value::text(unescape(value, true)));
    }
    let entries = entries.into_iter().map(|(key, values)| (Value::text(key), Value::list(values)));
    Ok(Value::Map(Map::from_entries(entries)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_url() {
        let url = Url::parse("https://user:pw@[::1]:80/path with/%41?k=a&k=b#frag").unwrap();
        assert_eq!(
            (&*url.scheme, &*url.host, url.hostname(), url.port(), &*url.escaped_path),
            ("https", "[::1]:80", "::1", "80", "/path%20with/%41")
        );
        assert_eq!(Url::parse("/path").unwrap().host, "");
        let url = Url::parse("*").unwrap();
        assert_eq!((&*url.scheme, &*url.host, &*url.escaped_path), ("", "", "*"));
    }

    #[test]
    fn what_is_no_url() {
        for (text, wanted) in [
            ("", "parse \"\": empty url"),
            ("../relative-path", "parse \"../relative-path\": invalid URI for request"),
            ("**", "parse \"**\": invalid URI for request"),
            (":x", "parse \":x\": missing protocol scheme"),
            ("https://a:b/", "parse \"https://a:b/\": invalid port \":b\" after host"),
            ("https://us er@a/", "parse \"https://us er@a/\": net/url: invalid userinfo"),
            ("https://a{b/", "parse \"https://a{b/\": invalid character \"{\" in host name"),
            ("https://a/%zz", "parse \"https://a/%zz\": invalid URL escape \"%zz\""),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), wanted);
        }
    }
}
