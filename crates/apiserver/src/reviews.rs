//! Kinds that are questions: who am I, may I, whose token is this. Answered at once, never stored.

use std::sync::Arc;
use std::time::SystemTime;

use apimachinery::{Status, Value};
use auth::review::{self, AccessReview};
use auth::{Authenticator, UserInfo};

use crate::door::{self, Call, Door};

/// Answers reviews.
pub struct Reviewer {
    authenticator: Arc<Authenticator>,
}

impl Reviewer {
    pub fn new(authenticator: Arc<Authenticator>) -> Self {
        Self { authenticator }
    }

    /// The review with its `status` filled in.
    pub(crate) fn review(
        &self,
        door: &Door,
        user: &UserInfo,
        call: &Call<'_>,
        mut object: Value,
    ) -> Result<Value, Status> {
        let asked = serde_json::Value::from(&object);
        let authorizer = door.authorizer().as_ref();
        let access = |kind: AccessReview| kind.answer(&asked, user, call.namespace, authorizer);
        let status = match call.endpoint.resource.kind.as_str() {
            "SubjectAccessReview" => access(AccessReview::SubjectAccessReview)?,
            "LocalSubjectAccessReview" => access(AccessReview::LocalSubjectAccessReview)?,
            "SelfSubjectAccessReview" => access(AccessReview::SelfSubjectAccessReview)?,
            "SelfSubjectRulesReview" => review::self_subject_rules(&asked, user, authorizer)?,
            "TokenReview" => review::token(&asked, &self.authenticator, SystemTime::now())?,
            "SelfSubjectReview" => review::self_subject(user),
            _ => return Err(door::not_allowed()),
        };
        object.set_at(&["status"], Value::from(status));
        object.ensure_object_at(&["metadata"]);
        Ok(object)
    }
}
