//! What expressions may look at: the request in one version, and what belongs to it.

use std::sync::{Arc, OnceLock};

use api::Resource;
use apimachinery::selector::{FieldSelector, Selector};
use apimachinery::{Status, Value};
use auth::UserInfo;
use cel::authorizer::{Decision, Question, ResourceCheck, ServiceAccount, Subject};

use super::matching::Match;
use super::request::Request;
use super::review;

/// The variables of one evaluation.
pub(crate) struct Inputs<'a> {
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub params: Option<&'a Value>,
    shared: &'a Shared<'a>,
    target: &'a Resource,
    request: &'a OnceLock<Value>,
}

/// What all expressions of one request share; each part is made when the first one asks.
pub(crate) struct Shared<'a> {
    pub request: &'a Request<'a>,
    authorizer: &'a Arc<dyn auth::Authorizer>,
    namespace: OnceLock<Option<Value>>,
    subject: OnceLock<Subject>,
    own_facts: OnceLock<Value>,
}

/// The objects of a request as another version has them.
pub(crate) struct Converted {
    object: Option<Value>,
    old: Option<Value>,
    facts: OnceLock<Value>,
}

impl<'a> Shared<'a> {
    pub fn new(request: &'a Request<'a>, authorizer: &'a Arc<dyn auth::Authorizer>) -> Self {
        Self {
            request,
            authorizer,
            namespace: OnceLock::new(),
            subject: OnceLock::new(),
            own_facts: OnceLock::new(),
        }
    }

    /// What a match says to look at.
    pub fn inputs<'s>(
        &'s self,
        matched: &'s Match,
        converted: Option<&'s Converted>,
        object: Option<&'s Value>,
        params: Option<&'s Value>,
    ) -> Inputs<'s> {
        match converted {
            None => self.own(object, params),
            Some(converted) => {
                self.converted(converted, matched.resource(self.request.attributes.resource), params)
            }
        }
    }

    /// The request as it came.
    fn own<'s>(&'s self, object: Option<&'s Value>, params: Option<&'s Value>) -> Inputs<'s> {
        Inputs {
            object,
            old: self.request.old(),
            params,
            shared: self,
            target: self.request.attributes.resource,
            request: &self.own_facts,
        }
    }

    /// The request in another version.
    fn converted<'s>(
        &'s self,
        converted: &'s Converted,
        target: &'s Resource,
        params: Option<&'s Value>,
    ) -> Inputs<'s> {
        Inputs {
            object: converted.object.as_ref(),
            old: converted.old.as_ref(),
            params,
            shared: self,
            target,
            request: &converted.facts,
        }
    }

    fn subject(&self) -> Subject {
        let make = || {
            let user = self.request.attributes.user.clone();
            Subject::user(Arc::new(UserAuthorizer { user, authorizer: self.authorizer.clone() }))
        };
        self.subject.get_or_init(make).clone()
    }
}

impl Converted {
    /// `None` where the request is what is looked at, as it came.
    pub async fn of_match(
        request: &Request<'_>,
        matched: &Match,
        object: Option<&Value>,
    ) -> Result<Option<Self>, Status> {
        match matched {
            Match::Own if request.subresource() != "scale" => Ok(None),
            other => Self::new(request, other.resource(request.attributes.resource), object).await.map(Some),
        }
    }

    pub fn object(&self) -> Option<&Value> {
        self.object.as_ref()
    }

    async fn new(request: &Request<'_>, target: &Resource, object: Option<&Value>) -> Result<Self, Status> {
        let object = match object {
            Some(object) => Some(request.versioned(object, target).await?),
            None => None,
        };
        let old = match request.old() {
            Some(old) => Some(request.versioned(old, target).await?),
            None => None,
        };
        Ok(Self { object, old, facts: OnceLock::new() })
    }
}

impl<'a> Inputs<'a> {
    pub fn request(&self) -> &'a Value {
        self.request.get_or_init(|| review::facts(self.shared.request, self.target))
    }

    /// The Namespace without its managed fields and owners; `None` for cluster-scoped objects and Namespaces.
    pub fn namespace(&self) -> Option<&'a Value> {
        let make = || {
            let request = self.shared.request;
            if request.attributes.resource.kind == "Namespace" || request.namespace().is_empty() {
                return None;
            }
            let mut tree = request.namespace_object()?.to_value();
            for field in ["managedFields", "ownerReferences"] {
                tree.remove_at(&["metadata", field]);
            }
            Some(tree)
        };
        self.shared.namespace.get_or_init(make).as_ref()
    }

    pub fn subject(&self) -> Subject {
        self.shared.subject()
    }

    /// `authorizer.requestResource`
    pub fn resource_check(&self) -> ResourceCheck {
        let request = self.shared.request;
        let resource = request.attributes.resource;
        let mut check = ResourceCheck::new(self.subject(), &resource.group, &resource.plural);
        check.subresource = request.subresource().to_owned();
        check.namespace = request.namespace().to_owned();
        check.name = request.attributes.name.to_owned();
        check
    }
}

/// The authorizer of the server, asked about the user of a request or about a service account.
struct UserAuthorizer {
    user: UserInfo,
    authorizer: Arc<dyn auth::Authorizer>,
}

impl cel::authorizer::Authorizer for UserAuthorizer {
    fn authorize(&self, question: &Question<'_>) -> Decision {
        let account = |account: &ServiceAccount| {
            UserInfo::service_account(&account.namespace, &account.name, "").authenticated()
        };
        let user = |subject: &Option<&ServiceAccount>| subject.map_or_else(|| self.user.clone(), account);
        let decision = match question {
            Question::Path { subject, path, verb } => {
                self.authorizer.authorize(&auth::Attributes::non_resource(&user(subject), verb, path))
            }
            Question::Resource { subject, check, verb } => {
                // Selectors that do not parse narrow nothing.
                let labels = Selector::parse(&check.label_selector).unwrap_or_default();
                let fields = FieldSelector::parse(&check.field_selector).unwrap_or_default();
                self.authorizer.authorize(&auth::Attributes {
                    api_group: &check.group,
                    api_version: "*",
                    subresource: &check.subresource,
                    namespace: &check.namespace,
                    name: &check.name,
                    field_selector: fields.requirements(),
                    label_selector: labels.requirements(),
                    ..auth::Attributes::resource(&user(subject), verb, &check.resource)
                })
            }
        };
        Decision { allowed: decision.is_allowed(), reason: decision.reason().to_string(), error: None }
    }
}
