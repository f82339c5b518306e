//! Names of images, as people write them and as registries know them.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, Error, Result};

const DEFAULT_DOMAIN: &str = "docker.io";
/// An old name of the same.
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL_REPOSITORY_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Of domain and path together.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// `domain/path:tag@digest`, normalised: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry, `host` or `host:port`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository in its registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Domain and path.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest where there is one, as upstream does.
    pub fn selector(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// The same repository, by digest alone.
    pub fn at(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// Without its digest; none where it has no tag.
    pub fn tagged(&self) -> Option<Self> {
        self.tag.as_ref().map(|_| Self { digest: None, ..self.clone() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|problem| Error::InvalidName { name: text.to_owned(), problem })
    }
}

const INVALID: &str = "invalid reference format";

fn parse(text: &str) -> std::result::Result<Reference, String> {
    if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"));
    }
    if text.is_empty() {
        return Err(INVALID.to_owned());
    }
    let (domain, rest) = split_domain(text);
    let (named, digest) = match rest.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (rest, None),
    };
    // The domain is off already, so what follows a colon is a tag.
    let (path, tag) = match named.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (named, None),
    };
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("{INVALID}: repository name ({path}) must be lowercase"));
    }
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') && !path.is_empty() {
        format!("{OFFICIAL_REPOSITORY_PREFIX}{path}")
    } else {
        path.to_owned()
    };
    if !is_domain(domain) || !path.split('/').all(is_path_component) {
        return Err(INVALID.to_owned());
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(INVALID.to_owned());
    }
    if domain.len() + 1 + path.len() > NAME_BYTES_MAX {
        return Err(format!("repository name must not be more than {NAME_BYTES_MAX} characters"));
    }
    let digest = digest.map(parse_digest).transpose()?;
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_TAG.to_owned()),
    };
    Ok(Reference { domain: domain.to_owned(), path, tag, digest })
}

/// The part before the first slash is a domain when it cannot be a folder of the default registry.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (if first == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn is_domain(text: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else { return false };
        let is_address =
            !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        return is_address && (after.is_empty() || after.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Lower-case letters and digits; between them `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_plain(*first)
        && is_plain(*last)
        && bytes.split(|byte| is_plain(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_BYTES_MAX
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// What looks like a digest is told what is wrong with it; what does not makes the whole no reference.
fn parse_digest(text: &str) -> std::result::Result<Digest, String> {
    let (algorithm, hex) = text.split_once(':').ok_or(INVALID)?;
    let looks_right = !algorithm.is_empty()
        && algorithm
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-' | b'_'))
        && hex.len() >= 32
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !looks_right {
        return Err(INVALID.to_owned());
    }
    text.parse().map_err(|_| match algorithm {
        "sha256" | "sha512" if hex.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            "invalid checksum digest format".to_owned()
        }
        "sha256" | "sha512" => "invalid checksum digest length".to_owned(),
        _ => "unsupported digest algorithm".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised() {
        for (written, normal) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/user/app:1", "docker.io/user/app:1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("a--b/c__d.e_f:_x.Y-1", "docker.io/a--b/c__d.e_f:_x.Y-1"),
            ("Host/app", "Host/app:latest"),
        ] {
            assert_eq!(written.parse::<Reference>().unwrap().to_string(), normal);
        }
        let both = format!("registry.k8s.io/pause:3.10@sha256:{HEX}");
        let parsed: Reference = both.parse().unwrap();
        assert_eq!(parsed.to_string(), both);
        assert_eq!(parsed.selector(), format!("sha256:{HEX}"));
        assert_eq!(parsed.tagged().unwrap().to_string(), "registry.k8s.io/pause:3.10");
        let digested: Reference = format!("nginx@sha256:{HEX}").parse().unwrap();
        assert_eq!(digested.to_string(), format!("docker.io/library/nginx@sha256:{HEX}"));
        assert_eq!(digested.tagged(), None);
    }

    #[test]
    fn what_is_no_name_is_refused_in_the_words_of_upstream() {
        let long = "a/".repeat(130);
        for (written, problem) in [
            ("", "invalid reference format"),
            (HEX, "cannot specify 64-byte hexadecimal strings"),
            ("Nginx", "invalid reference format: repository name (Nginx) must be lowercase"),
            ("user/App:1", "invalid reference format: repository name (user/App) must be lowercase"),
            ("nginx:", "invalid reference format"),
            ("nginx:a b", "invalid reference format"),
            (":tag", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a..b/c", "invalid reference format"),
            ("../etc", "invalid reference format"),
            ("nginx@sha256:abc", "invalid reference format"),
            ("nginx@sha256:e3b0c44298fc1c149afbf4c8996fb924", "invalid checksum digest length"),
            ("nginx@md5:d41d8cd98f00b204e9800998ecf8427e", "unsupported digest algorithm"),
            ("http://a.b/c", "invalid reference format"),
            ("a.b:x/c", "invalid reference format"),
            (&format!("{long}a"), "repository name must not be more than 255 characters"),
        ] {
            let error = written.parse::<Reference>().unwrap_err();
            let text = error.to_string();
            assert!(
                matches!(error, Error::InvalidName { .. }) && text.ends_with(problem),
                "{written}: {text}"
            );
            assert!(text.starts_with(&format!("couldn't parse image name {written:?}: ")), "{text}");
        }
    }
}
