//! Get and list, both from the watch cache's snapshots.

use std::sync::Arc;

use api::Resource;
use api::builtin::field_value;
use apimachinery::selector::{FieldSelector, Selector};
use apimachinery::{Object, Status};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use watch_cache::Snapshot;

use crate::{Endpoint, Registry};

const EXPIRED_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You \
    can start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RevisionMatch {
    /// The most recent state; this server has no staler one.
    #[default]
    NotOlderThan,
    Exact,
}

/// A checked list request.
#[derive(Clone, Debug)]
pub struct ListRequest {
    pub labels: Selector,
    pub fields: FieldSelector,
    /// 0 is no limit.
    pub limit: usize,
    pub continue_token: String,
    /// `resourceVersion`; 0 when not given.
    pub revision: u64,
    pub revision_match: RevisionMatch,
}

impl Default for ListRequest {
    fn default() -> Self {
        Self {
            labels: Selector::everything(),
            fields: FieldSelector::everything(),
            limit: 0,
            continue_token: String::new(),
            revision: 0,
            revision_match: RevisionMatch::default(),
        }
    }
}

/// One page of a consistent list.
#[derive(Debug)]
pub struct Page {
    pub objects: Vec<Arc<Object>>,
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: String,
    /// Objects after this page; known only without selectors.
    pub remaining: Option<u64>,
}

impl Registry {
    pub fn get(&self, endpoint: &Endpoint, namespace: &str, name: &str) -> Result<Arc<Object>, Status> {
        endpoint
            .cache
            .get(&endpoint.resource.key(namespace, name))
            .ok_or_else(|| Status::not_found(&endpoint.resource.group_resource(), name))
    }

    pub fn list(&self, endpoint: &Endpoint, namespace: &str, request: &ListRequest) -> Result<Page, Status> {
        let prefix = endpoint.resource.key_prefix(namespace);
        let filter = Filter::new(endpoint, &request.labels, &request.fields)?;
        let (snapshot, start_after) = self.start(endpoint, request, &prefix)?;
        let mut objects = Vec::new();
        let mut last_key = None;
        let mut more = false;
        for (key, object) in snapshot.range(&prefix, start_after.as_deref()) {
            if !filter.matches(object) {
                continue;
            }
            if request.limit > 0 && objects.len() == request.limit {
                more = true;
                break;
            }
            objects.push(object.clone());
            last_key = Some(key);
        }
        let (continue_token, remaining) = match last_key {
            Some(last) if more => {
                let token =
                    Continue { revision: snapshot.revision, start: format!("{}\0", &last[prefix.len()..]) };
                let remaining =
                    filter.is_everything().then(|| snapshot.range(&prefix, Some(last)).count() as u64);
                (token.encode(), remaining)
            }
            _ => (String::new(), None),
        };
        Ok(Page { objects, revision: snapshot.revision, continue_token, remaining })
    }

    /// The state to list and the key after which to go on.
    fn start(
        &self,
        endpoint: &Endpoint,
        request: &ListRequest,
        prefix: &str,
    ) -> Result<(Snapshot, Option<String>), Status> {
        if !request.continue_token.is_empty() {
            let token = Continue::decode(&request.continue_token)?;
            let start = token.start.strip_suffix('\0').unwrap_or(&token.start);
            let key = format!("{prefix}{start}");
            if token.revision == u64::MAX {
                return Ok((endpoint.cache.snapshot(), Some(key)));
            }
            self.check_not_future(token.revision)?;
            let snapshot = endpoint.cache.snapshot_at(token.revision).map_err(|_| {
                let fresh = Continue { revision: u64::MAX, start: token.start.clone() };
                expired_continue(&fresh.encode())
            })?;
            return Ok((snapshot, Some(key)));
        }
        if request.revision_match == RevisionMatch::Exact && request.revision > 0 {
            self.check_not_future(request.revision)?;
            let snapshot = endpoint.cache.snapshot_at(request.revision).map_err(|_| {
                Status::expired(format!(
                    "The resourceVersion for the provided list is too old.: {}",
                    request.revision
                ))
            })?;
            return Ok((snapshot, None));
        }
        self.check_not_future(request.revision)?;
        Ok((endpoint.cache.snapshot(), None))
    }

    pub(crate) fn check_not_future(&self, revision: u64) -> Result<(), Status> {
        let current = self.cache.revision();
        if revision <= current {
            return Ok(());
        }
        let details = apimachinery::status::Details {
            causes: vec![apimachinery::status::Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            }],
            retry_after_seconds: Some(1),
            ..Default::default()
        };
        let text = format!("Too large resource version: {revision}, current: {current}");
        Err(Status::timeout(text).with_details(details))
    }
}

fn expired_continue(token: &str) -> Status {
    Status { continue_token: Some(token.into()), ..Status::expired(EXPIRED_CONTINUE) }
}

/// Label and field selectors resolved against a resource's selectable fields.
pub struct Filter {
    resource: Arc<Resource>,
    labels: Selector,
    /// Index into the resource's selectable fields, wanted value, and whether it must be equal.
    fields: Vec<(usize, String, bool)>,
}

impl Filter {
    pub fn new(endpoint: &Endpoint, labels: &Selector, fields: &FieldSelector) -> Result<Self, Status> {
        let resource = endpoint.resource.clone();
        Ok(Self { fields: resolve_fields(endpoint, fields)?, labels: labels.clone(), resource })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Object) -> bool {
        let field_is = |index: usize, wanted: &str| field_value(&self.resource, object, index) == wanted;
        self.fields.iter().all(|(index, wanted, equal)| field_is(*index, wanted) == *equal)
            && self.labels.matches_object(object)
    }
}

/// Finds each requirement's field among the resource's selectable ones: index, wanted value, whether it must be equal.
fn resolve_fields(
    endpoint: &Endpoint,
    selector: &FieldSelector,
) -> Result<Vec<(usize, String, bool)>, Status> {
    if selector.requirements().is_empty() {
        return Ok(Vec::new());
    }
    let resource = &endpoint.resource;
    let known = &resource.selectable_fields;
    let is_custom = resource.custom.is_some();
    let only_metadata = !is_custom && known.iter().all(|name| name.starts_with("metadata."));
    // Versions of a custom resource have lists of their own; objects are indexed by all of them together.
    let indexed = if is_custom { endpoint.cache.fields() } else { known.clone() };
    selector
        .requirements()
        .iter()
        .map(|requirement| {
            let known = known.position(&requirement.field);
            let index = known.and_then(|_| indexed.position(&requirement.field)).ok_or_else(|| {
                Status::bad_request(if only_metadata {
                    FieldSelector::unknown_field(&requirement.field)
                } else {
                    FieldSelector::unsupported_label(&requirement.field)
                })
            })?;
            Ok((index, requirement.value.to_string(), !requirement.negated))
        })
        .collect()
}

/// Upstream's continue token: base64 of `{"v":"meta.k8s.io/v1","rv":…,"start":"…"}`.
struct Continue {
    revision: u64,
    start: String,
}

impl Continue {
    fn encode(&self) -> String {
        let revision = if self.revision == u64::MAX { -1 } else { self.revision as i64 };
        let json = apimachinery::json!({"v": "meta.k8s.io/v1", "rv": revision, "start": self.start.as_str()});
        URL_SAFE_NO_PAD.encode(json.to_json())
    }

    fn decode(token: &str) -> Result<Self, Status> {
        let invalid = |why: &str| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let bytes =
            URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|error| invalid(&go_text(&error)))?;
        let value = apimachinery::Value::parse(&bytes).map_err(|_| {
            let first = bytes.first().copied().unwrap_or(b'?') as char;
            invalid(&format!("invalid character '{first}' looking for beginning of value"))
        })?;
        if value.str_at(&["v"]) != "meta.k8s.io/v1" {
            let version = value.str_at(&["v"]);
            return Err(invalid(&format!("server does not recognize this encoded version {version}")));
        }
        let revision = value["rv"].as_i64().unwrap_or(0);
        let start = value.str_at(&["start"]).to_owned();
        if revision == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        // The start is appended to the collection's own prefix, so it must not climb out of it.
        if start.starts_with('/') || start.split('/').any(|part| part == ".." || part == ".") {
            return Err(invalid(&start));
        }
        Ok(Self { revision: u64::try_from(revision).unwrap_or(u64::MAX), start })
    }
}

/// What Go says of a text that is no base64: where it goes wrong.
fn go_text(error: &base64::DecodeError) -> String {
    use base64::DecodeError as Error;
    let at = match error {
        Error::InvalidByte(at, _) | Error::InvalidLastSymbol(at, _) => *at,
        Error::InvalidLength(len) => len.saturating_sub(1),
        Error::InvalidPadding => 0,
    };
    format!("illegal base64 data at input byte {at}")
}
