//! The AuthenticationConfiguration file, and the flags that stand for one with a single issuer.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::anonymous::Anonymous;
use crate::field_path::{PathError, read};

const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];

/// So many issuers a configuration may have.
const ISSUERS_MAX: usize = 64;

/// Who is taken at their word beside the cluster's own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthenticationConfiguration {
    #[serde(rename = "apiVersion", default)]
    _api_version: String,
    #[serde(rename = "kind", default)]
    _kind: String,
    #[serde(default)]
    pub jwt: Vec<JwtAuthenticator>,
    #[serde(default)]
    pub anonymous: Option<AnonymousAuthentication>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousAuthentication {
    pub enabled: bool,
    #[serde(default)]
    pub conditions: Vec<AnonymousCondition>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousCondition {
    pub path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct JwtAuthenticator {
    pub issuer: IssuerOptions,
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    pub claim_mappings: ClaimMappings,
    pub user_validation_rules: Vec<UserValidationRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct IssuerOptions {
    pub url: String,
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    pub audience_match_policy: String,
    pub egress_selector_type: String,
    /// Algorithms that tokens may be signed with (`--oidc-signing-algs`); empty stands for all that are known.
    #[serde(skip)]
    pub signing_algorithms: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ClaimValidationRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserValidationRule {
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimMappings {
    pub username: PrefixedClaim,
    pub groups: PrefixedClaim,
    pub uid: ClaimOrExpression,
    pub extra: Vec<ExtraMapping>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrefixedClaim {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimOrExpression {
    pub claim: String,
    pub expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

impl AuthenticationConfiguration {
    pub fn parse(text: &str) -> Result<Self, PathError> {
        read(text, "AuthenticationConfiguration", &VERSIONS)
    }

    /// One issuer, as the `--oidc-*` flags describe it.
    pub fn of_issuer(jwt: JwtAuthenticator) -> Self {
        Self { jwt: vec![jwt], ..Self::default() }
    }

    pub(super) fn anonymous_rule(&self) -> Option<Anonymous> {
        let anonymous = self.anonymous.as_ref()?;
        Some(match (anonymous.enabled, anonymous.conditions.as_slice()) {
            (false, _) => Anonymous::Nowhere,
            (true, []) => Anonymous::Everywhere,
            (true, conditions) => {
                Anonymous::Paths(conditions.iter().map(|condition| condition.path.clone()).collect())
            }
        })
    }

    /// All that is wrong, expressions aside.
    pub(super) fn validate(&self, own_issuers: &[String]) -> Vec<PathError> {
        let mut errors = Vec::new();
        if self.jwt.len() > ISSUERS_MAX {
            let problem = format!("Too many: {}: must have at most {ISSUERS_MAX} items", self.jwt.len());
            errors.push(PathError::new("jwt", problem));
        }
        let (mut urls, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
        for (index, jwt) in self.jwt.iter().enumerate() {
            let path = format!("jwt[{index}].issuer");
            validate_issuer(&mut errors, &path, &jwt.issuer, own_issuers);
            if !urls.insert(&jwt.issuer.url) {
                errors.push(PathError::duplicate(format!("{path}.url"), &jwt.issuer.url));
            }
            let discovery = &jwt.issuer.discovery_url;
            if !discovery.is_empty() && !discoveries.insert(discovery) {
                errors.push(PathError::duplicate(format!("{path}.discoveryURL"), discovery));
            }
        }
        if let Some(anonymous) = &self.anonymous
            && !anonymous.enabled
            && !anonymous.conditions.is_empty()
        {
            let problem = "enabled should be set to true when conditions are defined";
            errors.push(PathError::new("anonymous.conditions", format!("Invalid value: {problem}")));
        }
        errors
    }
}

fn validate_issuer(errors: &mut Vec<PathError>, path: &str, issuer: &IssuerOptions, own_issuers: &[String]) {
    if issuer.url.is_empty() {
        errors.push(PathError::required(format!("{path}.url"), ""));
    } else {
        if own_issuers.contains(&issuer.url) {
            let detail = format!("URL must not overlap with disallowed issuers: [{}]", own_issuers.join(" "));
            errors.push(PathError::invalid(format!("{path}.url"), &issuer.url, detail));
        }
        validate_url(errors, &format!("{path}.url"), &issuer.url);
    }
    if !issuer.discovery_url.is_empty() {
        let path = format!("{path}.discoveryURL");
        if issuer.url.trim_end_matches('/') == issuer.discovery_url.trim_end_matches('/') {
            let detail = "discoveryURL must be different from URL";
            errors.push(PathError::invalid(&path, &issuer.discovery_url, detail));
        }
        validate_url(errors, &path, &issuer.discovery_url);
    }
    validate_audiences(errors, path, issuer);
    let authority = issuer.certificate_authority.as_bytes();
    if !authority.is_empty() && pki::ClientVerifier::from_pem(authority).is_err() {
        let detail = "data does not contain any valid RSA or ECDSA certificates";
        errors.push(PathError::invalid(format!("{path}.certificateAuthority"), "<omitted>", detail));
    }
    if !issuer.egress_selector_type.is_empty() {
        let detail = "egress selectors are not supported here; leave it out";
        let path = format!("{path}.egressSelectorType");
        errors.push(PathError::invalid(path, &issuer.egress_selector_type, detail));
    }
}

fn validate_url(errors: &mut Vec<PathError>, path: &str, text: &str) {
    let uri = match text.split('#').next().unwrap_or_default().parse::<http::Uri>() {
        Ok(uri) => uri,
        Err(error) => return errors.push(PathError::invalid(path, text, error)),
    };
    let rules = [
        (uri.scheme_str() != Some("https"), "URL scheme must be https"),
        (
            uri.authority().is_some_and(|authority| authority.as_str().contains('@')),
            "URL must not contain a username or password",
        ),
        (uri.query().is_some_and(|query| !query.is_empty()), "URL must not contain a query"),
        (
            text.split_once('#').is_some_and(|(_, fragment)| !fragment.is_empty()),
            "URL must not contain a fragment",
        ),
    ];
    for (_, detail) in rules.into_iter().filter(|(broken, _)| *broken) {
        errors.push(PathError::invalid(path, text, detail));
    }
}

fn validate_audiences(errors: &mut Vec<PathError>, path: &str, issuer: &IssuerOptions) {
    let audiences = format!("{path}.audiences");
    if issuer.audiences.is_empty() {
        let detail = format!("at least one {audiences} is required");
        return errors.push(PathError::required(audiences, &detail));
    }
    let mut seen = BTreeSet::new();
    for (index, audience) in issuer.audiences.iter().enumerate() {
        let path = format!("{audiences}[{index}]");
        if audience.is_empty() {
            errors.push(PathError::required(&path, ""));
        }
        if !seen.insert(audience) {
            errors.push(PathError::duplicate(path, audience));
        }
    }
    let policy = issuer.audience_match_policy.as_str();
    let detail = match (issuer.audiences.len(), policy) {
        (1, "" | "MatchAny") | (2.., "MatchAny") => return,
        (1, _) => "audienceMatchPolicy must be empty or MatchAny for single audience",
        _ => "audienceMatchPolicy must be MatchAny for multiple audiences",
    };
    errors.push(PathError::invalid(format!("{path}.audienceMatchPolicy"), policy, detail));
}
