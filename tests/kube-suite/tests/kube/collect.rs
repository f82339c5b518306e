//! The end of namespaces, large and blocked.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::{NAMESPACE, PATIENCE, World, config_map, until};

const OBJECTS: usize = 1_000;
/// The limit that users were promised.
const GONE_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_namespace_with_a_thousand_objects_goes_within_five_seconds() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let creates = futures::stream::iter((0..OBJECTS).map(|number| {
        let maps = maps.clone();
        async move {
            maps.create(&PostParams::default(), &config_map(&format!("map-{number}"), json!({"a": "b"}))?)
                .await?;
            anyhow::Ok(())
        }
    }));
    creates.buffer_unordered(32).try_collect::<()>().await?;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let uid = namespaces.get(NAMESPACE).await?.uid().context("a namespace has a uid")?;
    let started = Instant::now();
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
    let gone = await_condition(namespaces.clone(), NAMESPACE, conditions::is_deleted(&uid));
    tokio::time::timeout(PATIENCE, gone).await.context("it is still there")??;
    let elapsed = started.elapsed();
    println!("namespace with {OBJECTS} objects gone after {elapsed:?}");
    ensure!(elapsed < GONE_WITHIN, "it took {elapsed:?}");
    world.stop()
}

#[tokio::test]
async fn a_namespace_says_what_blocks_it() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let mut held = config_map("held", json!({}))?;
    held.finalizers_mut().push("example.com/hold".to_owned());
    maps.create(&PostParams::default(), &held).await?;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
    until("a condition names the finalizer", || async {
        let status = namespaces.get(NAMESPACE).await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let says = |kind: &str, text: &str| {
            conditions.iter().any(|own| {
                own.type_ == kind
                    && own.status == "True"
                    && own.message.as_deref().unwrap_or_default().contains(text)
            })
        };
        Ok(says("NamespaceFinalizersRemaining", "example.com/hold")
            && says("NamespaceContentRemaining", "configmaps."))
    })
    .await?;
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &release).await?;
    until("it is gone", || async { Ok(namespaces.get_opt(NAMESPACE).await?.is_none()) }).await?;
    world.stop()
}
