//! Query parameters of the API, read and checked as upstream's `ListOptions`, `CreateOptions`, … are.

use std::num::{IntErrorKind, ParseIntError};

use apimachinery::decode::FieldValidation;
use apimachinery::selector::{FieldSelector, Selector};
use apimachinery::{GroupKind, Status, Value, field};
use percent_encoding::percent_decode_str;
use registry::{ListRequest, RevisionMatch};

/// Decoded parameters in the order given.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let decode =
            |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }

    /// The first value of a parameter; empty when it is missing.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(own, _)| own == name)
    }

    /// Every value of a parameter.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Go's `strconv.ParseBool` as upstream's conversion uses it: anything but a false word is true.
    pub fn flag(&self, name: &str) -> bool {
        self.has(name) && !matches!(self.get(name).to_ascii_lowercase().as_str(), "false" | "0" | "f")
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, Status> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error: ParseIntError| {
            let why = match error.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Status::bad_request(format!("strconv.ParseInt: parsing {}: {why}", field::go_quote(text)))
        })
    }
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions`.
#[derive(Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Apply only; `None` when not given.
    pub force: Option<bool>,
}

fn invalid(kind: &str, errors: &[field::Error]) -> Status {
    Status::invalid(&GroupKind { group: "meta.k8s.io".into(), kind: kind.into() }, "", errors)
}

/// Longest `fieldManager`, in bytes.
const FIELD_MANAGER_MAX: usize = 128;

pub fn write_options(query: &Query, kind: &str, is_apply: bool) -> Result<WriteOptions, Status> {
    let mut errors = Vec::new();
    let force = query.has("force").then(|| query.flag("force"));
    let field_manager = query.get("fieldManager").to_owned();
    if kind == "PatchOptions" {
        if is_apply && field_manager.is_empty() {
            errors.push(field::Error::required(
                &field::Path::root("fieldManager"),
                "is required for apply patch",
            ));
        }
        if !is_apply && force.is_some() {
            errors.push(field::Error::forbidden(
                &field::Path::root("force"),
                "may not be specified for non-apply patch",
            ));
        }
    }
    if field_manager.len() > FIELD_MANAGER_MAX {
        errors.push(field::Error::too_long(&field::Path::root("fieldManager"), FIELD_MANAGER_MAX));
    }
    if field_manager.chars().any(char::is_control) {
        let why = "should only contain printable characters";
        errors.push(field::Error::invalid(&field::Path::root("fieldManager"), &field_manager, why));
    }
    let dry_run = check_dry_run(query.values("dryRun"), &mut errors);
    let given = query.get("fieldValidation");
    let field_validation = FieldValidation::parse(given).unwrap_or_else(|| {
        let path = field::Path::root("fieldValidation");
        errors.push(field::Error::not_supported(&path, given, &["", "Ignore", "Strict", "Warn"]));
        FieldValidation::Ignore
    });
    if errors.is_empty() {
        Ok(WriteOptions { dry_run, field_manager, field_validation, force })
    } else {
        Err(invalid(kind, &errors))
    }
}

fn check_dry_run<'a>(given: impl Iterator<Item = &'a str>, errors: &mut Vec<field::Error>) -> bool {
    let given: Vec<&str> = given.collect();
    if given.iter().any(|value| *value != "All") {
        let list = Value::from(given.clone());
        errors.push(field::Error::not_supported(&field::Path::root("dryRun"), &list, &["All"]));
    }
    !given.is_empty()
}

/// `ListOptions` of a list or of a collection's deletion.
pub fn list_request(query: &Query) -> Result<ListRequest, Status> {
    let (labels, fields) = selectors(query)?;
    query.integer("timeoutSeconds")?;
    let limit = query.integer("limit")?.unwrap_or(0);
    let mut errors = Vec::new();
    let revision_text = query.get("resourceVersion");
    let revision_match = match query.get("resourceVersionMatch") {
        "" | "NotOlderThan" => RevisionMatch::NotOlderThan,
        "Exact" => RevisionMatch::Exact,
        other => {
            let path = field::Path::root("resourceVersionMatch");
            errors.push(field::Error::not_supported(&path, other, &["Exact", "NotOlderThan", ""]));
            RevisionMatch::NotOlderThan
        }
    };
    if query.has("resourceVersionMatch") && errors.is_empty() && !query.get("resourceVersionMatch").is_empty()
    {
        let path = field::Path::root("resourceVersionMatch");
        if revision_text.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(field::Error::forbidden(&path, why));
        }
        if !query.get("continue").is_empty() {
            errors.push(field::Error::forbidden(
                &path,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if revision_match == RevisionMatch::Exact && revision_text == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(field::Error::forbidden(&path, why));
        }
    }
    if query.has("sendInitialEvents") {
        let why = "sendInitialEvents is forbidden for list";
        errors.push(field::Error::forbidden(&field::Path::root("sendInitialEvents"), why));
    }
    if !errors.is_empty() {
        return Err(invalid("ListOptions", &errors));
    }
    let continue_token = query.get("continue").to_owned();
    if !continue_token.is_empty() && !matches!(revision_text, "" | "0") {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(ListRequest {
        labels,
        fields,
        limit: usize::try_from(limit).unwrap_or(0),
        continue_token,
        revision: revision(revision_text)?,
        revision_match,
    })
}

/// How a watch starts and what it sends.
#[derive(Debug)]
pub struct WatchOptions {
    pub labels: Selector,
    pub fields: FieldSelector,
    pub start: registry::WatchStart,
    /// Ends the initial events with an annotated bookmark.
    pub initial_events_end: bool,
    pub bookmarks: bool,
    pub timeout_seconds: Option<u64>,
}

pub fn watch_options(query: &Query) -> Result<WatchOptions, Status> {
    let (labels, fields) = selectors(query)?;
    let timeout_seconds = query.integer("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok());
    let send_initial = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
    let matching = query.get("resourceVersionMatch");
    let mut errors = Vec::new();
    let match_path = field::Path::root("resourceVersionMatch");
    if send_initial.is_some() && matching != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(field::Error::forbidden(&match_path, why));
    }
    if send_initial.is_none() && !matching.is_empty() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.push(field::Error::forbidden(&match_path, why));
    }
    if !errors.is_empty() {
        return Err(invalid("ListOptions", &errors));
    }
    let text = query.get("resourceVersion");
    let start = match send_initial {
        Some(true) => registry::WatchStart::PresentState,
        Some(false) if text.is_empty() || text == "0" => registry::WatchStart::Now,
        None if text.is_empty() || text == "0" => registry::WatchStart::PresentState,
        _ => registry::WatchStart::After(revision(text)?),
    };
    Ok(WatchOptions {
        labels,
        fields,
        start,
        initial_events_end: send_initial == Some(true),
        bookmarks: query.flag("allowWatchBookmarks"),
        timeout_seconds: timeout_seconds.filter(|seconds| *seconds > 0),
    })
}

fn selectors(query: &Query) -> Result<(Selector, FieldSelector), Status> {
    let labels = Selector::parse(query.get("labelSelector"))
        .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
    let fields = FieldSelector::parse(query.get("fieldSelector"))
        .map_err(|error| Status::bad_request(error.to_string()))?;
    Ok((labels, fields))
}

fn revision(text: &str) -> Result<u64, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        let quoted = field::go_quote(text);
        // Upstream answers 500 without a reason here, and clients have seen it so.
        Status::new(
            500,
            "",
            format!("resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: invalid syntax"),
        )
    })
}

/// `DeleteOptions` from the query, to be overridden by those in the body.
pub fn delete_options(
    query: &Query,
    body: Option<&Value>,
) -> Result<(registry::DeleteRequest, bool), Status> {
    let empty = Value::Null;
    let body = body.unwrap_or(&empty);
    let mut errors = Vec::new();
    let text_of = |name: &str| match body.get(name) {
        Some(value) => value.as_str().unwrap_or_default().to_owned(),
        None => query.get(name).to_owned(),
    };
    let grace_period_seconds = match body.get("gracePeriodSeconds") {
        Some(value) => value.as_i64(),
        None => query.integer("gracePeriodSeconds")?,
    };
    let orphan = match body.get("orphanDependents") {
        Some(value) => value.as_bool(),
        None => query.has("orphanDependents").then(|| query.flag("orphanDependents")),
    };
    let policy = text_of("propagationPolicy");
    let propagation =
        match policy.as_str() {
            "" => orphan.map(|orphan| {
                if orphan { registry::Propagation::Orphan } else { registry::Propagation::Background }
            }),
            "Orphan" => Some(registry::Propagation::Orphan),
            "Background" => Some(registry::Propagation::Background),
            "Foreground" => Some(registry::Propagation::Foreground),
            other => {
                let path = field::Path::root("propagationPolicy");
                errors.push(field::Error::not_supported(
                    &path,
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                ));
                None
            }
        };
    if orphan.is_some() && !policy.is_empty() {
        let path = field::Path::root("propagationPolicy");
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(field::Error::invalid(&path, &policy, why));
    }
    let dry_run = match body.get("dryRun").and_then(Value::as_array) {
        Some(list) => check_dry_run(list.iter().filter_map(Value::as_str), &mut errors),
        None => check_dry_run(query.values("dryRun"), &mut errors),
    };
    if !errors.is_empty() {
        return Err(invalid("DeleteOptions", &errors));
    }
    let precondition = |name: &str| body.at(&["preconditions", name]).and_then(Value::as_str).map(Into::into);
    let request = registry::DeleteRequest {
        grace_period_seconds,
        propagation,
        uid: precondition("uid"),
        resource_version: precondition("resourceVersion"),
    };
    Ok((request, dry_run))
}
