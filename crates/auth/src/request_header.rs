//! Users by the word of a proxy: it shows a certificate of its own authority and says in headers for whom it asks.
//!
//! **Invariant (headers-need-a-proxy):** the headers count only beside a certificate that this authority signed and
//! whose name is allowed. From anybody else they are as if they were not there.

use std::time::SystemTime;

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use pki::ClientVerifier;

use crate::authenticator::PeerCertificate;
use crate::user::{Extra, UserInfo};

/// Which proxies are believed, and in which headers they speak. Of several headers with one meaning the first that is
/// there counts; all group headers do.
#[derive(Clone, Debug)]
pub struct RequestHeader {
    pub proxies: ClientVerifier,
    /// Common names of proxies' certificates; empty allows all that the authority signed.
    pub allowed_names: Vec<String>,
    pub user_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_header_prefixes: Vec<String>,
}

impl RequestHeader {
    /// The user that a proxy names; `Ok(None)` if it names none.
    pub(crate) fn user(
        &self,
        certificate: &PeerCertificate,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Option<UserInfo>, String> {
        let proxy = certificate.proxy_name(&self.proxies, now)?;
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&proxy) {
            return Err(format!("x509: subject with cn={proxy} is not in the allowed list"));
        }
        let Some(name) = first(headers, &self.user_headers)? else { return Ok(None) };
        let uid = first(headers, &self.uid_headers)?.unwrap_or_default();
        let groups = all(headers, &self.group_headers)?;
        let user = UserInfo::new(name).with_uid(uid).with_groups(groups).with_extras(self.extra(headers)?);
        Ok(Some(user.authenticated()))
    }

    fn extra(&self, headers: &HeaderMap) -> Result<Extra, String> {
        let mut extra = Extra::new();
        for prefix in &self.extra_header_prefixes {
            for (name, value) in headers {
                let Some(key) = name.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()) else {
                    continue;
                };
                extra.entry(unescaped(key)).or_default().push(text(name.as_str(), value)?);
            }
        }
        Ok(extra)
    }
}

/// Header names cannot hold every key; what is no good escape stays as it is.
fn unescaped(key: &str) -> String {
    let well_formed = key
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|c| c.is_ascii_hexdigit()));
    match percent_decode_str(key).decode_utf8() {
        Ok(decoded) if well_formed => decoded.into_owned(),
        _ => key.to_owned(),
    }
}

/// The first value of the first of these headers that has one. As Go's `Header.Get`, others of its name are passed
/// over.
fn first(headers: &HeaderMap, names: &[String]) -> Result<Option<String>, String> {
    for name in names {
        let Some(value) = headers.get(name) else { continue };
        let value = text(name, value)?;
        if !value.is_empty() {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn all(headers: &HeaderMap, names: &[String]) -> Result<Vec<String>, String> {
    let values = names.iter().flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)));
    let values: Vec<_> = values.map(|(name, value)| text(name, value)).collect::<Result<_, _>>()?;
    Ok(values.into_iter().filter(|value| !value.is_empty()).collect())
}

/// A value that is no text must not count as absent: the request would go on with fewer groups, or as the proxy.
fn text(name: &str, value: &http::HeaderValue) -> Result<String, String> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(format!("header {name} is not valid UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::token::tests::{World, noon};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for &(name, value) in pairs {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        headers
    }

    fn list(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn only_an_allowed_proxy_speaks_for_others() {
        let (ours, theirs) = (World::new(), World::new());
        let options = |allowed: &[&str]| RequestHeader {
            proxies: theirs.authority.client_verifier().unwrap(),
            allowed_names: list(allowed),
            user_headers: list(&["X-Remote-User", "X-Other-User"]),
            uid_headers: list(&["X-Remote-Uid"]),
            group_headers: list(&["X-Remote-Group"]),
            extra_header_prefixes: list(&["X-Remote-Extra-"]),
        };
        let certificate = |world: &World, name: &str| {
            let issued =
                world.authority.issue_client(name, &["ops"], Duration::from_secs(3600), noon()).unwrap();
            PeerCertificate::new(&[issued.certificate_der().clone()]).unwrap()
        };
        let said = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-user", "root"),
            ("x-other-user", "tom"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "qa"),
            ("x-remote-uid", "7"),
            ("x-remote-extra-acme.io%2fteam", "blue"),
        ]);
        let outcome =
            |options: &RequestHeader, certificate: &PeerCertificate, headers: &HeaderMap| match options.user(
                certificate,
                headers,
                noon(),
            ) {
                Ok(None) => "nobody".to_owned(),
                Ok(Some(user)) => {
                    format!("{} {} {} {:?}", user.name(), user.uid(), user.groups().join(","), user.extra())
                }
                Err(error) => error.split(':').next().unwrap_or_default().to_owned(),
            };
        let proxy = certificate(&theirs, "proxy");
        let jane = r#"jane 7 dev,qa,system:authenticated {"acme.io/team": ["blue"]}"#;
        assert_eq!(outcome(&options(&[]), &proxy, &said), jane);
        assert_eq!(outcome(&options(&["proxy"]), &proxy, &said), jane);
        assert_eq!(outcome(&options(&["other"]), &proxy, &said), "x509");
        assert_eq!(outcome(&options(&[]), &proxy, &headers(&[])), "nobody");
        // A good certificate of the cluster's own authority makes no proxy.
        let user = certificate(&ours, "proxy");
        assert!(options(&[]).user(&user, &said, noon()).is_err());
    }
}
