//! Conveniences on [`Api`]: typed reads, writes that expect contention, writes that expect absence.
//!
//! Reads decode through `Object::view`, once per object and shared. Writes stay trees and patches, so that a field
//! nobody here knows is never dropped.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{GroupVersionResource, Object, Status, Value};
use serde::de::DeserializeOwned;

use crate::{Api, Patch, WriteOptions};

/// Tries of a read-change-write cycle before its conflict is the caller's; the steps are client-go's default.
const CONFLICT_TRIES: u32 = 5;
const CONFLICT_PAUSE: Duration = Duration::from_millis(10);

/// The typed view of an object, or a [`Status`] that names it.
pub fn view<T: DeserializeOwned + Send + Sync + 'static>(object: &Object) -> Result<Arc<T>, Status> {
    object.view::<T>().map_err(|error| Status::internal(format!("decoding {object:?}: {error}")))
}

impl dyn Api {
    /// Reads one object as its typed view.
    pub async fn get_view<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<T>, Status> {
        view(&*self.get(gvr, namespace, name).await?)
    }

    /// Reads one object; `None` when it does not exist.
    pub async fn find(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        match self.get(gvr, namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Creates an object; `None` when one of its name exists already.
    pub async fn create_if_absent(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        object: Value,
    ) -> Result<Option<Arc<Object>>, Status> {
        match self.create(gvr, namespace, object, &WriteOptions::default()).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_already_exists() => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Merges `status` (the fields below `status`) into the object's status.
    pub async fn patch_status(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        status: Value,
    ) -> Result<Arc<Object>, Status> {
        let mut patch = Value::object();
        patch.set_at(&["status"], status);
        self.patch(gvr, namespace, name, Some("status"), Patch::Merge(patch), &WriteOptions::default()).await
    }

    /// Reads, changes and writes back an object (or its `subresource`), again on conflict. `change` returns false
    /// when there is nothing to do; the result is then what was read.
    pub async fn edit(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        mut change: impl FnMut(&mut Value) -> bool + Send,
    ) -> Result<Arc<Object>, Status> {
        let mut tries = 0;
        loop {
            tries += 1;
            let object = self.get(gvr, namespace, name).await?;
            let mut tree = object.to_value();
            if !change(&mut tree) {
                return Ok(object);
            }
            match self.update(gvr, namespace, name, subresource, tree, &WriteOptions::default()).await {
                Err(status) if status.is_conflict() && tries < CONFLICT_TRIES => {
                    rt::sleep(rt::jittered(CONFLICT_PAUSE, 1.0)).await;
                }
                result => return result,
            }
        }
    }
}
