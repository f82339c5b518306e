//! EndpointSlices as the two controllers that write them see them: whose they are, and changes to them.

use std::sync::Arc;

use api::gvr::ENDPOINT_SLICES;
use apimachinery::{Object, Status, Value};
use client::{Api, DeleteOptions, Delta, Informer, Informers, ObjectKey, WriteOptions};
use controller_runtime::Expectations;

use super::backends;
use crate::ownership;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Index of slices by `namespace/service`.
const BY_SERVICE: &str = "service";

/// What is to be written. Slices that are deleted were read before; those that are updated keep their version.
#[derive(Debug, Default)]
pub struct Changes {
    pub create: Vec<Value>,
    pub update: Vec<Value>,
    pub delete: Vec<Arc<Object>>,
}

/// The slices of one manager, by service.
pub struct Slices {
    api: Arc<dyn Api>,
    pub informer: Arc<Informer>,
    /// Value of [`MANAGED_BY`].
    manager: &'static str,
    expectations: Expectations<ObjectKey>,
}

impl Slices {
    pub fn new(api: Arc<dyn Api>, informers: &Informers, manager: &'static str) -> Self {
        let informer = informers.of(&ENDPOINT_SLICES);
        informer.add_index(BY_SERVICE, backends::service_index);
        Self { api, informer, manager, expectations: Expectations::default() }
    }

    /// The service of a slice that this manager has to do with, when somebody changes or deletes it.
    pub fn observe(&self, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let (Delta::Upsert { new: slice, .. } | Delta::Delete { old: slice }) = delta else { return };
        if self.is_ours(slice)
            && let Some(service) = slice.label(SERVICE_NAME)
        {
            keys.push(ObjectKey::new(slice.namespace(), service));
        }
    }

    fn is_ours(&self, slice: &Object) -> bool {
        slice.label(MANAGED_BY) == Some(self.manager)
    }

    /// The cache has everything that was written for the service. If not, the event that is to come wakes it.
    pub fn is_current(&self, service: &ObjectKey) -> bool {
        self.expectations.met(service, &self.informer)
    }

    pub fn forget(&self, service: &ObjectKey) {
        self.expectations.forget(service);
    }

    /// The slices of a service by name, except those on their way out.
    pub fn of(&self, service: &ObjectKey) -> Vec<Arc<Object>> {
        let mut slices = self.informer.by_index(BY_SERVICE, &service.to_string());
        slices.retain(|slice| self.is_ours(slice) && !slice.is_deleting());
        self.expectations.settle(service, slices.iter().map(|slice| slice.uid()));
        slices.retain(|slice| !self.expectations.is_deleted(service, slice.uid()));
        slices.sort_by(|a, b| a.name().cmp(b.name()));
        slices
    }

    /// Writes. Nothing is created for an owner that is being deleted.
    pub async fn apply(&self, service: &ObjectKey, owner: &Object, changes: Changes) -> Result<(), Status> {
        let options = WriteOptions::default();
        let namespace = &service.namespace;
        if !owner.is_deleting() {
            for tree in changes.create {
                match self.api.create(&ENDPOINT_SLICES, namespace, tree, &options).await {
                    Ok(slice) => self.expectations.written(service, slice.revision()),
                    Err(status) if ownership::is_namespace_terminating(&status) => return Ok(()),
                    Err(status) => return Err(status),
                }
            }
        }
        for tree in changes.update {
            let name = tree.str_at(&["metadata", "name"]).to_owned();
            let slice = self.api.update(&ENDPOINT_SLICES, namespace, &name, None, tree, &options).await?;
            self.expectations.written(service, slice.revision());
        }
        self.delete(service, &changes.delete).await
    }

    pub async fn delete(&self, service: &ObjectKey, slices: &[Arc<Object>]) -> Result<(), Status> {
        for slice in slices {
            let options = DeleteOptions::of(slice);
            match self.api.delete(&ENDPOINT_SLICES, slice.namespace(), slice.name(), &options).await {
                Ok(()) => self.expectations.deleted(service, slice.uid()),
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(())
    }
}
