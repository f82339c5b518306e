//! What a webhook is sent, and what it may answer: `AdmissionReview`.

use api::Resource;
use apimachinery::status::Details;
use apimachinery::{GroupVersionKind, Status, Value, field, json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::request::Request;

/// A version of `AdmissionReview`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V1Beta1,
}

impl Version {
    /// The first one in a webhook's list that this server knows.
    pub fn preferred(hook: &Value) -> Option<Self> {
        hook.array_at(&["admissionReviewVersions"]).iter().find_map(|version| match version.as_str()? {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        })
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// The question. Objects are in the version of `target` already.
pub(crate) fn question(
    version: Version,
    uid: &str,
    request: &Request<'_>,
    target: &Resource,
    object: Option<Value>,
    old: Option<Value>,
) -> Value {
    let mut asked = facts(request, target);
    let map = asked.ensure_object();
    map.insert("uid", uid);
    map.insert("object", object);
    map.insert("oldObject", old);
    json_review(version, asked)
}

fn json_review(version: Version, asked: Value) -> Value {
    let mut review = Value::object();
    let map = review.ensure_object();
    map.insert("kind", "AdmissionReview");
    map.insert("apiVersion", version.api_version());
    map.insert("request", asked);
    review
}

/// A request without its uid and objects, which is also what policies know as `request`.
pub(crate) fn facts(request: &Request<'_>, target: &Resource) -> Value {
    let attributes = request.attributes;
    let own = attributes.resource;
    let mut facts = Value::object();
    let map = facts.ensure_object();
    map.insert("kind", kind(&request.kind_of(target)));
    map.insert("resource", resource(target));
    map.insert("requestKind", kind(&request.kind_of(own)));
    map.insert("requestResource", resource(own));
    for (key, text) in [
        ("subResource", request.subresource()),
        ("requestSubResource", request.subresource()),
        ("name", attributes.name),
        ("namespace", request.namespace()),
    ] {
        if !text.is_empty() {
            map.insert(key, text);
        }
    }
    map.insert("operation", attributes.operation.name());
    map.insert("userInfo", user_info(attributes.user));
    map.insert("dryRun", attributes.dry_run);
    map.insert("options", attributes.options());
    facts
}

fn kind(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group.as_str(), "version": kind.version.as_str(), "kind": kind.kind.as_str()})
}

fn resource(resource: &Resource) -> Value {
    json!({
        "group": resource.group.as_str(), "version": resource.version.as_str(),
        "resource": resource.plural.as_str(),
    })
}

fn user_info(user: &auth::UserInfo) -> Value {
    let mut info = Value::object();
    let map = info.ensure_object();
    map.insert("username", user.name());
    if !user.uid().is_empty() {
        map.insert("uid", user.uid());
    }
    if !user.groups().is_empty() {
        map.insert("groups", user.groups().to_vec());
    }
    if !user.extra().is_empty() {
        let extra: Value =
            user.extra().iter().map(|(key, values)| (key.as_str().into(), values.clone().into())).collect();
        map.insert("extra", extra);
    }
    info
}

/// The answer, checked.
#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    pub allowed: bool,
    /// `response.status` of a refusal.
    pub status: Value,
    /// A JSON patch; empty for none.
    pub patch: Vec<u8>,
    pub patch_type: String,
    pub annotations: Vec<(String, String)>,
    pub warnings: Vec<String>,
}

/// Reads an answer. The error is upstream's.
pub(crate) fn verdict(
    version: Version,
    uid: &str,
    mutating: bool,
    review: &Value,
) -> Result<Verdict, String> {
    let response = &review["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let texts = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let patch_type = response.get("patchType").filter(|given| !given.is_null()).map(texts);
    let patch = STANDARD
        .decode(response.str_at(&["patch"]))
        .map_err(|error| format!("response.patch is not base64: {error}"))?;
    let patch_type = match version {
        Version::V1 => {
            check_v1(uid, review)?;
            check_patch(mutating, &patch, patch_type.as_deref())?;
            patch_type.unwrap_or_default()
        }
        // Neither the uid nor the type of the patch were checked then.
        Version::V1Beta1 => "JSONPatch".to_owned(),
    };
    Ok(Verdict {
        allowed: response["allowed"].as_bool().unwrap_or_default(),
        status: response["status"].clone(),
        patch: if mutating { patch } else { Vec::new() },
        patch_type,
        annotations: response["auditAnnotations"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.to_string(), texts(value)))
            .collect(),
        warnings: response.array_at(&["warnings"]).iter().map(texts).collect(),
    })
}

fn check_v1(uid: &str, review: &Value) -> Result<(), String> {
    let given = review.str_at(&["response", "uid"]);
    if given != uid {
        let (uid, given) = (field::go_quote(uid), field::go_quote(given));
        return Err(format!("expected response.uid={uid}, got {given}"));
    }
    let (api_version, kind) = (review.str_at(&["apiVersion"]), review.str_at(&["kind"]));
    if (api_version, kind) != (Version::V1.api_version(), "AdmissionReview") {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {group}/{version}, Kind={kind}"
        ));
    }
    Ok(())
}

fn check_patch(mutating: bool, patch: &[u8], patch_type: Option<&str>) -> Result<(), String> {
    let problem = match (mutating, patch.is_empty(), patch_type) {
        (false, false, _) => "validating webhook may not return response.patch",
        (false, true, Some(_)) => "validating webhook may not return response.patchType",
        (true, false, None) => "webhook returned response.patch but not response.patchType",
        (true, true, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, false, Some("")) => "webhook returned invalid response.patchType of \"\"",
        _ => return Ok(()),
    };
    Err(problem.to_owned())
}

/// The refusal of a webhook as the client gets it.
pub(crate) fn refusal(hook: &str, status: &Value) -> Status {
    let denied = format!("admission webhook {} denied the request", field::go_quote(hook));
    // A refusal is a failure, whatever code the webhook gives it.
    let code = status["code"].as_i64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default().max(400);
    let (message, reason) = (status.str_at(&["message"]), status.str_at(&["reason"]));
    let text = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let mut refusal = Status::new(code, reason.to_owned(), text);
    if status["details"].is_object() {
        refusal.details = Some(Box::new(Details::from_value(&status["details"])));
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        let mut review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
        review.set_at(&["response"], response);
        review
    }

    #[test]
    fn an_answer_is_checked_as_upstream_does() {
        let patch = STANDARD.encode("[]");
        let cases = [
            (true, json!({"uid": "u", "allowed": true}), None),
            (
                true,
                json!({"uid": "u", "allowed": true, "patch": patch.as_str(), "patchType": "JSONPatch"}),
                None,
            ),
            (true, json!({"uid": "v"}), Some("expected response.uid=\"u\", got \"v\"")),
            (
                true,
                json!({"uid": "u", "patchType": "JSONPatch"}),
                Some("webhook returned response.patchType but not response.patch"),
            ),
            (
                true,
                json!({"uid": "u", "patch": patch.as_str()}),
                Some("webhook returned response.patch but not response.patchType"),
            ),
            (
                true,
                json!({"uid": "u", "patch": patch.as_str(), "patchType": ""}),
                Some("webhook returned invalid response.patchType of \"\""),
            ),
            (
                false,
                json!({"uid": "u", "patch": patch.as_str()}),
                Some("validating webhook may not return response.patch"),
            ),
            (
                false,
                json!({"uid": "u", "patchType": "JSONPatch"}),
                Some("validating webhook may not return response.patchType"),
            ),
        ];
        for (mutating, response, expected) in cases {
            let result = verdict(Version::V1, "u", mutating, &answer(response.clone()));
            assert_eq!(result.err().as_deref(), expected, "{response}");
        }
        let absent = verdict(Version::V1, "u", true, &json!({"kind": "AdmissionReview"}));
        assert_eq!(absent, Err("webhook response was absent".to_owned()));
        let other = json!({"apiVersion": "v1", "kind": "Pod", "response": {"uid": "u"}});
        assert_eq!(
            verdict(Version::V1, "u", true, &other),
            Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=Pod"
                .to_owned())
        );
        // The older version is trusted more.
        let beta = json!({"response": {"allowed": true, "patch": patch.as_str()}});
        let verdict = verdict(Version::V1Beta1, "u", true, &beta).unwrap();
        assert_eq!((verdict.allowed, verdict.patch_type.as_str()), (true, "JSONPatch"));
    }

    #[test]
    fn a_refusal_says_who_and_why() {
        for (status, code, reason, message) in [
            (json!(null), 400, "", "admission webhook \"h\" denied the request without explanation"),
            (json!({"message": "no"}), 400, "", "admission webhook \"h\" denied the request: no"),
            (json!({"reason": "Odd"}), 400, "Odd", "admission webhook \"h\" denied the request: Odd"),
            (
                json!({"code": 200, "message": "no"}),
                400,
                "",
                "admission webhook \"h\" denied the request: no",
            ),
            (
                json!({"code": 403, "reason": "Forbidden", "message": "no"}),
                403,
                "Forbidden",
                "admission webhook \"h\" denied the request: no",
            ),
        ] {
            let refusal = refusal("h", &status);
            assert_eq!((refusal.code, &*refusal.reason, refusal.message.as_str()), (code, reason, message));
        }
    }

    #[test]
    fn the_first_known_version_is_spoken() {
        let preferred = |list: Value| {
            let mut hook = Value::object();
            hook.set_at(&["admissionReviewVersions"], list);
            Version::preferred(&hook)
        };
        assert_eq!(preferred(json!(["v2", "v1beta1", "v1"])), Some(Version::V1Beta1));
        assert_eq!(preferred(json!(["v1"])), Some(Version::V1));
        assert_eq!(preferred(json!(["v2"])), None);
    }
}
