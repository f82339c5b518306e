//! Kinds that are questions: who am I, may I, whose token is this. Answered at once, never stored.

use std::sync::Arc;

use apimachinery::{Status, Value, json};
use auth::review::{self, AccessReview};
use auth::{Authenticator, UserInfo};
use registry::managed;

use crate::door::{self, Call, Door, Mode};

/// Answers reviews.
pub struct Reviewer {
    authenticator: Arc<Authenticator>,
}

impl Reviewer {
    pub fn new(authenticator: Arc<Authenticator>) -> Self {
        Self { authenticator }
    }

    /// The review with its `status` filled in.
    pub(crate) async fn review(
        &self,
        door: &Door,
        user: &UserInfo,
        call: &Call<'_>,
        mode: &Mode<'_>,
        mut object: Value,
    ) -> Result<Value, Status> {
        let resource = &call.endpoint.resource;
        if resource.namespaced && object.str_at(&["metadata", "namespace"]).is_empty() {
            object.set_at(&["metadata", "namespace"], call.namespace);
        }
        if !resource.kind.starts_with("SelfSubjectRules") && resource.kind != "SelfSubjectReview" {
            managed::track_unstored(resource, &mut object, mode.field_manager, mode.now);
        }
        let asked = serde_json::Value::from(&object);
        let authorizer = door.authorizer().as_ref();
        let access = |kind: AccessReview| kind.answer(&asked, user, call.namespace, authorizer);
        let status = match resource.kind.as_str() {
            "SubjectAccessReview" => access(AccessReview::SubjectAccessReview)?,
            "LocalSubjectAccessReview" => access(AccessReview::LocalSubjectAccessReview)?,
            "SelfSubjectAccessReview" => access(AccessReview::SelfSubjectAccessReview)?,
            "SelfSubjectRulesReview" => review::self_subject_rules(&asked, user, authorizer)?,
            "TokenReview" => review::token(&asked, &self.authenticator, rt::now().into()).await?,
            "SelfSubjectReview" => review::self_subject(user),
            _ => return Err(door::not_allowed()),
        };
        match resource.kind.as_str() {
            // These are answered with an object of their own, not with the one that asked.
            "SelfSubjectReview" => {
                let now = apimachinery::time::format_seconds(mode.now);
                object.set_at(&["metadata"], json!({ "creationTimestamp": now }));
            }
            "SelfSubjectRulesReview" => {
                object.set_at(&["metadata"], Value::object());
                object.set_at(&["spec"], Value::object());
            }
            _ => {}
        }
        object.set_at(&["status"], Value::from(status));
        object.ensure_object_at(&["metadata"]);
        Ok(object)
    }
}
