//! Binds a pod by creating its `binding` subresource.

use std::sync::Arc;

use api::gvr::PODS;
use apimachinery::json;
use async_trait::async_trait;
use client::Api;

use crate::framework::{Bind, Handle, Plugin};
use crate::pod::PodInfo;

pub struct DefaultBinder {
    api: Arc<dyn Api>,
}

impl DefaultBinder {
    pub fn new(handle: &Handle) -> Self {
        Self { api: handle.api.clone() }
    }
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }
}

#[async_trait]
impl Bind for DefaultBinder {
    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<bool, apimachinery::Status> {
        let (namespace, name) = (pod.namespace(), pod.name());
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name.as_str(), "namespace": namespace.as_str(), "uid": pod.uid().as_str()},
            "target": {"kind": "Node", "name": node},
        });
        self.api.create_subresource(&PODS, namespace, name, "binding", binding).await?;
        Ok(true)
    }
}
