//! The one door: every operation on objects, from HTTP or from a component in this process.
//!
//! Owns: authorization of each call, dispatch to subresources, the meaning of each kind of patch. Never touches:
//! sockets, headers, wire forms (those are `http`'s), or how a write is committed (that is the registry's).
//!
//! Law (one-door): [`crate::LocalApi`] and the HTTP handlers call the same methods with the same arguments, a caller's
//! identity first among them.

use std::sync::Arc;

use apimachinery::{GroupVersionResource, Object, Status, Value};
use auth::rbac::RbacAuthorizer;
use auth::{Attributes, Authorizer, Decision, UserInfo};
use jiff::Timestamp;
use parking_lot::RwLock;
use registry::admission::Operation;
use registry::{
    DeleteRequest, Deleted, Endpoint, ListRequest, Page, Registry, Rewrite, Warnings, WatchRequest,
    WatchStream, WriteContext,
};

use crate::aggregation::Aggregator;
use crate::catalog::Catalog;
use crate::connect::{self, Purpose};
use crate::patch::{self, PatchBody};
use crate::resource_metrics::ResourceMetrics;
use crate::reviews::Reviewer;
use crate::scale;
use crate::tokens::TokenMinter;

/// Registry, catalog and authorization behind one set of verbs.
pub struct Door {
    registry: Registry,
    catalog: RwLock<Arc<Catalog>>,
    authorizer: Arc<dyn Authorizer>,
    rbac: Arc<RbacAuthorizer>,
    pub(crate) reviewer: Reviewer,
    pub(crate) tokens: TokenMinter,
    elsewhere: Elsewhere,
}

/// Who answers for what the registry does not have.
pub struct Elsewhere {
    /// What pods and nodes use, where this server says it.
    pub metrics: Option<ResourceMetrics>,
    /// API servers behind this one.
    pub aggregator: Arc<Aggregator>,
}

/// Who asks for what. The namespace and name are as in the path; the name is empty for collections.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub user: &'a UserInfo,
    pub endpoint: &'a Endpoint,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
}

/// How a write is to be carried out.
#[derive(Clone, Copy)]
pub struct Mode<'a> {
    pub dry_run: bool,
    pub field_manager: &'a str,
    /// Take over other managers' fields (apply only).
    pub force: bool,
    pub warnings: &'a Warnings,
    pub now: Timestamp,
    pub validation: crate::decode::FieldValidation,
}

/// What an operation answers with.
pub enum Answer {
    Object(Arc<Object>),
    /// A tree that is not a stored object: a scale, a review, a token.
    Value(Value),
    /// Done, nothing to show: a success `Status`.
    Done,
}

impl Door {
    pub fn new(
        registry: Registry,
        catalog: Catalog,
        authorizer: Arc<dyn Authorizer>,
        rbac: Arc<RbacAuthorizer>,
        reviewer: Reviewer,
        tokens: TokenMinter,
        elsewhere: Elsewhere,
    ) -> Self {
        Self {
            registry,
            catalog: RwLock::new(Arc::new(catalog)),
            authorizer,
            rbac,
            reviewer,
            tokens,
            elsewhere,
        }
    }

    pub(crate) fn aggregator(&self) -> &Arc<Aggregator> {
        &self.elsewhere.aggregator
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Serves another set of resources from now on; requests that are under way keep what they began with.
    pub(crate) fn replace_catalog(&self, change: impl FnOnce(&Catalog) -> Catalog) {
        let mut catalog = self.catalog.write();
        *catalog = Arc::new(change(&catalog));
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn endpoint(&self, gvr: &GroupVersionResource) -> Result<Endpoint, Status> {
        self.catalog.read().find(gvr).cloned().ok_or_else(Status::no_such_path)
    }

    /// Refuses with 403 what the caller may not do.
    pub fn authorize(&self, call: &Call<'_>, verb: &str) -> Result<(), Status> {
        let resource = &call.endpoint.resource;
        let attributes = Attributes {
            api_group: &resource.group,
            api_version: &resource.version,
            subresource: call.subresource,
            namespace: call.namespace,
            name: call.name,
            ..Attributes::resource(call.user, verb, &resource.plural)
        };
        self.check(&attributes)
    }

    /// Refuses with 403 what the caller may not do.
    pub fn check(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        self.decide(attributes).1
    }

    /// The decision, and what follows from it.
    pub fn decide(&self, attributes: &Attributes<'_>) -> (Decision, Result<(), Status>) {
        let decision = self.authorizer.authorize(attributes);
        let outcome = match &decision {
            Decision::Allow { .. } => Ok(()),
            refused => Err(auth::forbidden(attributes, refused.reason())),
        };
        (decision, outcome)
    }

    pub fn authorizer(&self) -> &Arc<dyn Authorizer> {
        &self.authorizer
    }

    /// Refuses what may not be connected to, though reading is allowed: a WebSocket begins with a GET, and running
    /// a command is more than that.
    ///
    /// `options` is the connection's, such as `PodExecOptions`. Reading a log is no connection, and admission does not
    /// hear of it.
    pub async fn connect(
        &self,
        call: &Call<'_>,
        mode: &Mode<'_>,
        purpose: Purpose,
        mut options: Value,
    ) -> Result<(), Status> {
        match purpose {
            Purpose::Log => return Ok(()),
            Purpose::Proxy => {}
            Purpose::Stream => self.authorize(call, "create")?,
        }
        let (ctx, operation) = (context(call, mode), Operation::Connect);
        self.registry.admit_unstored(call.endpoint, &ctx, operation, call.name, &mut options).await
    }

    /// Makes the objects of a resource that are made when they are asked for.
    fn measured(&self, endpoint: &Endpoint) -> Option<&ResourceMetrics> {
        self.elsewhere.metrics.as_ref().filter(|_| ResourceMetrics::has(&endpoint.resource))
    }

    pub async fn get(&self, call: &Call<'_>) -> Result<Answer, Status> {
        if let Some(metrics) = self.measured(call.endpoint) {
            let catalog = self.catalog();
            return metrics.get(&catalog, call.endpoint, call.namespace, call.name).map(Answer::Object);
        }
        let object = self.registry.get(call.endpoint, call.namespace, call.name)?;
        self.shown(call, object).await
    }

    pub async fn list(&self, call: &Call<'_>, request: &ListRequest) -> Result<Page, Status> {
        if let Some(metrics) = self.measured(call.endpoint) {
            return metrics.list(&self.catalog(), call.endpoint, call.namespace, request);
        }
        let page = self.registry.list(call.endpoint, call.namespace, request)?;
        Ok(Page { objects: call.endpoint.read_all(page.objects).await?, ..page })
    }

    pub async fn watch(&self, call: &Call<'_>, request: WatchRequest) -> Result<WatchStream, Status> {
        self.registry.watch(call.endpoint, call.namespace, request).await
    }

    /// Creates an object, or what a subresource makes of one. `object` is decoded but not defaulted.
    pub async fn create(
        &self,
        call: &Call<'_>,
        mode: &Mode<'_>,
        mut object: Value,
    ) -> Result<Answer, Status> {
        let resource = &call.endpoint.resource;
        if !call.subresource.is_empty() || !resource.is_stored() {
            let (ctx, operation) = (context(call, mode), Operation::Create);
            let name = match call.name {
                "" => object.str_at(&["metadata", "name"]).to_owned(),
                name => name.to_owned(),
            };
            self.registry.admit_unstored(call.endpoint, &ctx, operation, &name, &mut object).await?;
        }
        match (call.subresource, resource.group.as_str(), resource.plural.as_str()) {
            ("", "", "bindings") => {
                let pods = self.endpoint(&api::gvr::PODS)?;
                let name = object.str_at(&["metadata", "name"]).to_owned();
                let bound = Call { endpoint: &pods, name: &name, subresource: "binding", ..*call };
                self.registry.bind(&pods, &context(&bound, mode), &name, &object).await.map(|()| Answer::Done)
            }
            ("", _, _) if !resource.is_stored() => {
                self.reviewer.review(self, call.user, call, mode, object).await.map(Answer::Value)
            }
            ("", _, _) => {
                self.check_grants(call, &object, None)?;
                let ctx = context(call, mode);
                let created = self.registry.create(call.endpoint, &ctx, object).await?;
                self.shown(call, created).await
            }
            ("binding", "", "pods") => {
                let ctx = context(call, mode);
                self.registry.bind(call.endpoint, &ctx, call.name, &object).await.map(|()| Answer::Done)
            }
            ("eviction", "", "pods") => self.evict(call, mode, &object).await,
            ("token", "", "serviceaccounts") => {
                self.tokens.request(self, call, mode, object).map(Answer::Value)
            }
            _ => Err(not_allowed()),
        }
    }

    async fn evict(&self, call: &Call<'_>, mode: &Mode<'_>, eviction: &Value) -> Result<Answer, Status> {
        let budgets = self.endpoint(&GroupVersionResource::new("policy", "v1", "poddisruptionbudgets"))?;
        let options = eviction.get("deleteOptions");
        let (request, dry_run) = crate::http::query::delete_options(&Default::default(), options)?;
        let mode = Mode { dry_run: mode.dry_run || dry_run, ..*mode };
        let ctx = WriteContext { subresource: None, ..context(call, &mode) };
        self.registry.evict(call.endpoint, &budgets, &ctx, call.name, &request).await?;
        Ok(Answer::Done)
    }

    /// Replaces an object or one of its subresources; says whether it was created.
    pub async fn update(
        &self,
        call: &Call<'_>,
        mode: &Mode<'_>,
        object: Value,
    ) -> Result<(Answer, bool), Status> {
        let resource = &call.endpoint.resource;
        if resource.subresource(call.subresource).is_none() && !call.subresource.is_empty() {
            return Err(not_allowed());
        }
        check_name(call, &object)?;
        let create = call.subresource.is_empty() && resource.strategy.allow_create_on_update();
        let is_scale = call.subresource == "scale";
        let mut produce = |current: Option<&Value>| {
            if current.is_none() {
                self.authorize(call, "create")?;
            }
            self.check_grants(call, &object, current)?;
            match current {
                Some(workload) if is_scale => {
                    let scaled = scale::apply(resource, workload, &object)?;
                    Ok(Rewrite::of_current(scaled, workload))
                }
                _ => Ok(Rewrite::replacement(object.clone())),
            }
        };
        let ctx = context(call, mode);
        let modified = self.registry.modify(call.endpoint, &ctx, call.name, create, &mut produce).await?;
        Ok((self.shown(call, modified.object).await?, modified.created))
    }

    /// Patches an object or one of its subresources; says whether it was created (apply).
    pub async fn patch(
        &self,
        call: &Call<'_>,
        mode: &Mode<'_>,
        body: &PatchBody,
    ) -> Result<(Answer, bool), Status> {
        let resource = &call.endpoint.resource;
        if resource.subresource(call.subresource).is_none() && !call.subresource.is_empty() {
            return Err(not_allowed());
        }
        let create = call.subresource.is_empty() && matches!(body, PatchBody::Apply(_));
        let mut produce = |current: Option<&Value>| {
            if current.is_none() {
                // A patch that would create needs the right to create as well.
                self.authorize(call, "create")?;
            }
            let rewrite = patch::apply(call, mode, body, current)?;
            self.check_grants(call, &rewrite.object, current)?;
            Ok(rewrite)
        };
        let ctx = context(call, mode);
        let modified = self.registry.modify(call.endpoint, &ctx, call.name, create, &mut produce).await?;
        Ok((self.shown(call, modified.object).await?, modified.created))
    }

    pub async fn delete(
        &self,
        call: &Call<'_>,
        mode: &Mode<'_>,
        request: &DeleteRequest,
    ) -> Result<Deleted, Status> {
        match self.registry.delete(call.endpoint, &context(call, mode), call.name, request).await? {
            Deleted::Gone(object) => Ok(Deleted::Gone(call.endpoint.read(object).await?)),
            Deleted::Pending(object) => Ok(Deleted::Pending(call.endpoint.read(object).await?)),
        }
    }

    pub async fn delete_collection(
        &self,
        call: &Call<'_>,
        mode: &Mode<'_>,
        list: &ListRequest,
        request: &DeleteRequest,
    ) -> Result<(Vec<Arc<Object>>, u64), Status> {
        let ctx = context(call, mode);
        let (objects, revision) = self.registry.delete_collection(call.endpoint, &ctx, list, request).await?;
        Ok((call.endpoint.read_all(objects).await?, revision))
    }

    /// An object as the call's version and subresource show it.
    async fn shown(&self, call: &Call<'_>, object: Arc<Object>) -> Result<Answer, Status> {
        let object = call.endpoint.read(object).await?;
        if call.subresource != "scale" {
            return Ok(Answer::Object(object));
        }
        scale::of(&call.endpoint.resource, &call.endpoint.served(&object)).map(Answer::Value)
    }

    /// RBAC objects may not hand out rights that their writer lacks.
    fn check_grants(&self, call: &Call<'_>, object: &Value, current: Option<&Value>) -> Result<(), Status> {
        if call.endpoint.resource.group != "rbac.authorization.k8s.io" {
            return Ok(());
        }
        crate::grants::check(self, &self.rbac, call, object, current)
    }
}

impl connect::Objects for Door {
    fn get(&self, gvr: &GroupVersionResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let endpoint = self.endpoint(gvr).ok()?;
        endpoint.cache.get(&endpoint.resource.key(namespace, name))
    }
}

fn context<'a>(call: &Call<'a>, mode: &Mode<'a>) -> WriteContext<'a> {
    WriteContext {
        user: call.user,
        namespace: call.namespace,
        subresource: (!call.subresource.is_empty()).then_some(call.subresource),
        dry_run: mode.dry_run,
        field_manager: mode.field_manager,
        now: mode.now,
        warnings: mode.warnings,
    }
}

/// A body must name the object that the path names: what is authorized is the path's name.
pub(crate) fn check_name(call: &Call<'_>, object: &Value) -> Result<(), Status> {
    let given = object.str_at(&["metadata", "name"]);
    if given == call.name {
        return Ok(());
    }
    let name = call.name;
    Err(Status::bad_request(if given.is_empty() {
        format!("the name of the object ({name} based on URL) was undeterminable: name must be provided")
    } else {
        format!("the name of the object ({given}) does not match the name on the URL ({name})")
    }))
}

pub(crate) fn not_allowed() -> Status {
    Status::method_not_allowed("the server does not allow this method on the requested resource")
        .with_details(Default::default())
}
