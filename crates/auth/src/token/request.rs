//! TokenRequests: the subresource `token` of service accounts.

use apimachinery::field::{Error, Path, go_quote};
use apimachinery::{GroupKind, GroupResource, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Binding, BoundKind, EXPIRATION_SECONDS_DEFAULT, IssueRequest, IssuedToken, Reference,
    validate_expiration_seconds,
};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";

/// What a TokenRequest asks for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Empty stands for the API server's own.
    pub audiences: Vec<String>,
    pub expiration_seconds: u64,
    /// What to look up and to hand to [`TokenRequest::bind`].
    pub bound_object: Option<BoundObjectReference>,
}

/// `spec.boundObjectRef`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundObjectReference {
    pub kind: BoundKind,
    pub name: String,
    /// Empty where the request does not insist on one.
    pub uid: String,
}

/// The object that a token is to be bound to, as it is now.
#[derive(Clone, Debug, Default)]
pub struct FoundObject {
    pub uid: String,
    /// Of a pod: `spec.serviceAccountName`.
    pub service_account: String,
    /// Of a pod on a node: the node, its uid empty if the node is not known.
    pub node: Option<Reference>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    audiences: Option<Vec<String>>,
    expiration_seconds: Option<i64>,
    bound_object_ref: Option<ObjectRef>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ObjectRef {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
}

impl TokenRequest {
    /// Reads the object as it was sent. Fails with 400 for what can not be read or bound to, and 422 for an expiration
    /// out of its limits.
    pub fn read(request: &Value) -> Result<Self, Status> {
        let spec = match request.get("spec") {
            None | Some(Value::Null) => Spec::default(),
            Some(spec) => {
                Spec::deserialize(spec).map_err(|error| Status::bad_request(format!("spec: {error}")))?
            }
        };
        let seconds = spec.expiration_seconds.unwrap_or(EXPIRATION_SECONDS_DEFAULT as i64);
        let expiration_seconds = validate_expiration_seconds(seconds).map_err(|detail| {
            let spec = Path::root("spec");
            let error = Error::invalid(&spec.child("expirationSeconds"), seconds, detail);
            Status::invalid(&GroupKind { group: GROUP.into(), kind: KIND.into() }, "", &[error])
        })?;
        Ok(Self {
            audiences: spec.audiences.unwrap_or_default(),
            expiration_seconds,
            bound_object: spec.bound_object_ref.map(bound_object).transpose()?,
        })
    }

    /// What the token of `service_account` is bound to, with the object that was found for
    /// [`TokenRequest::bound_object`].
    ///
    /// Fails with 400 for another account's pod and 409 for another object of the same name.
    pub fn bind(&self, service_account: &str, found: Option<FoundObject>) -> Result<Binding, Status> {
        let (Some(wanted), Some(found)) = (&self.bound_object, found) else { return Ok(Binding::None) };
        if wanted.kind == BoundKind::Pod && found.service_account != service_account {
            let message = format!(
                "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                go_quote(service_account)
            );
            return Err(Status::bad_request(message));
        }
        if !wanted.uid.is_empty() && wanted.uid != found.uid {
            let resource = GroupResource { group: "".into(), resource: format!("{:?}", wanted.kind).into() };
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have \
                 been deleted and then recreated",
                wanted.uid
            );
            return Err(Status::conflict(&resource, &wanted.name, why));
        }
        let object = Reference::new(&*wanted.name, found.uid);
        Ok(match wanted.kind {
            BoundKind::Pod => Binding::Pod { pod: object, node: found.node },
            BoundKind::Secret => Binding::Secret(object),
            BoundKind::Node => Binding::Node(object),
            BoundKind::ServiceAccount => Binding::None,
        })
    }

    /// The token to be made of it.
    pub fn issue_request<'a>(
        self,
        namespace: &'a str,
        service_account: Reference,
        binding: Binding,
    ) -> IssueRequest<'a> {
        let Self { audiences, expiration_seconds, .. } = self;
        IssueRequest { namespace, service_account, binding, audiences, expiration_seconds }
    }
}

fn bound_object(reference: ObjectRef) -> Result<BoundObjectReference, Status> {
    let kind = match (reference.api_version.as_str(), reference.kind.as_str()) {
        ("v1", "Pod") => BoundKind::Pod,
        ("v1", "Secret") => BoundKind::Secret,
        ("v1", "Node") => BoundKind::Node,
        (api_version, kind) => {
            let group_version = match api_version.contains('/') {
                true => api_version.to_owned(),
                false => format!("/{api_version}"),
            };
            let message = format!("cannot bind token to object of type {group_version}, Kind={kind}");
            return Err(Status::bad_request(message));
        }
    };
    Ok(BoundObjectReference { kind, name: reference.name, uid: reference.uid })
}

/// The `status` of an answered TokenRequest.
pub fn status(issued: &IssuedToken) -> Value {
    json!({ "token": issued.token, "expirationTimestamp": timestamp(issued) })
}

/// Whole seconds in UTC, as every time of the API.
fn timestamp(issued: &IssuedToken) -> String {
    match jiff::Timestamp::try_from(issued.expires_at) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        // 2^32 seconds from any date that a clock shows are well within the calendar.
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn read(spec: Value) -> Result<TokenRequest, String> {
        TokenRequest::read(&json!({ "spec": spec }))
            .map_err(|status| format!("{} {}", status.code, status.message))
    }

    #[test]
    fn requests_are_checked() {
        let plain = TokenRequest { audiences: Vec::new(), expiration_seconds: 3600, bound_object: None };
        assert_eq!(read(json!({})), Ok(plain.clone()));
        assert_eq!(
            read(json!({"audiences": ["vault"], "expirationSeconds": 600})),
            Ok(TokenRequest { audiences: vec!["vault".into()], expiration_seconds: 600, ..plain })
        );
        let cases = [
            (
                json!({"expirationSeconds": 5}),
                r#"422 TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"#,
            ),
            (
                json!({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}}),
                "400 cannot bind token to object of type /v1, Kind=ConfigMap",
            ),
            (
                json!({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Pod", "name": "x"}}),
                "400 cannot bind token to object of type apps/v1, Kind=Pod",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(read(spec).unwrap_err(), expected);
        }
        assert!(read(json!({"audiences": 5})).unwrap_err().starts_with("400 spec: "));
    }

    #[test]
    fn a_token_is_bound_to_the_object_that_was_meant() {
        let of_pod = |uid: &str| {
            let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
            read(json!({ "boundObjectRef": reference })).unwrap()
        };
        let node = Some(Reference::new("n", "9"));
        let found =
            || Some(FoundObject { uid: "1".into(), service_account: "sa".into(), node: node.clone() });
        let bound = Binding::Pod { pod: Reference::new("p", "1"), node: node.clone() };
        assert_eq!(of_pod("").bind("sa", found()), Ok(bound.clone()));
        assert_eq!(of_pod("1").bind("sa", found()), Ok(bound));
        assert_eq!(of_pod("2").bind("sa", found()).unwrap_err().code, 409);
        assert_eq!(of_pod("1").bind("other", found()).unwrap_err().code, 400);
        assert_eq!(read(json!({})).unwrap().bind("sa", None), Ok(Binding::None));
    }

    #[test]
    fn the_status_says_when_the_token_ends() {
        let issued = IssuedToken {
            token: "t".into(),
            expires_at: UNIX_EPOCH + Duration::from_millis(1_800_000_000_900),
            audiences: Vec::new(),
            credential_id: String::new(),
        };
        assert_eq!(status(&issued), json!({"token": "t", "expirationTimestamp": "2027-01-15T08:00:00Z"}));
    }
}
