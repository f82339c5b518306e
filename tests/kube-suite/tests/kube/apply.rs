//! Server-side apply.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::client::deployment;
use crate::{World, data_of, refusal};

fn map(data: Value) -> Patch<Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": data}))
}

#[tokio::test]
async fn each_manager_owns_what_it_applied() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    maps.patch("one", &one, &map(json!({"a": "1", "b": "1"}))).await?;
    let both = maps.patch("one", &two, &map(json!({"b": "1", "c": "2"}))).await?;
    ensure!(data_of(&both) == json!({"a": "1", "b": "1", "c": "2"}), "{:?}", both.data);
    ensure!(both.managed_fields().len() == 2, "{:?}", both.managed_fields());

    let (code, reason, message) = refusal(maps.patch("one", &two, &map(json!({"a": "2"}))).await)?;
    ensure!((code, reason.as_str()) == (409, "Conflict"), "{code} {reason}");
    ensure!(message.contains("conflict with \"one\"") && message.contains(".data.a"), "{message}");

    // Two no longer wants b, but one still does; c belonged to two alone.
    let taken = maps.patch("one", &two.clone().force(), &map(json!({"a": "2"}))).await?;
    ensure!(data_of(&taken) == json!({"a": "2", "b": "1"}), "{:?}", taken.data);
    world.stop()
}

#[tokio::test]
async fn applying_the_same_again_changes_nothing() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let deployments: Api<Deployment> = world.api();
    // Once the controller has marked its revision and its status, nothing else writes to a Deployment without pods.
    let patch = Patch::Apply(deployment("web", 0)?);
    let params = PatchParams::apply("suite");
    deployments.patch("web", &params, &patch).await?;
    crate::until("the controller has seen it", || async {
        let seen = deployments.get("web").await?;
        let observed = seen.status.as_ref().and_then(|status| status.observed_generation);
        Ok(!seen.annotations().is_empty() && observed == seen.metadata.generation)
    })
    .await?;
    let before = deployments.get("web").await?;
    let after = deployments.patch("web", &params, &patch).await?;
    ensure!(after.resource_version() == before.resource_version(), "the version moved");
    ensure!(after.metadata.generation == before.metadata.generation, "the generation moved");
    world.stop()
}

#[tokio::test]
async fn lists_merge_by_their_keys() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let services: Api<Service> = world.api();
    let service = |ports: Value| {
        let spec = json!({"selector": {"app": "web"}, "ports": ports});
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}),
        )
    };
    let http = json!({"name": "http", "port": 80, "protocol": "TCP"});
    let dns_tcp = json!({"name": "dns-tcp", "port": 53, "protocol": "TCP"});
    let dns_udp = json!({"name": "dns-udp", "port": 53, "protocol": "UDP"});
    services.patch("web", &PatchParams::apply("one"), &service(json!([http]))).await?;
    // Same port, other protocol: two items, because the key is both.
    let merged =
        services.patch("web", &PatchParams::apply("two"), &service(json!([dns_tcp, dns_udp]))).await?;
    let names = |service: Service| -> anyhow::Result<Vec<String>> {
        let ports = service.spec.context("it has a spec")?.ports.context("and ports")?;
        Ok(ports.into_iter().filter_map(|port| port.name).collect())
    };
    let merged = names(merged)?;
    ensure!(merged == ["http", "dns-tcp", "dns-udp"], "{merged:?}");
    let fewer = services.patch("web", &PatchParams::apply("two"), &service(json!([dns_udp]))).await?;
    let fewer = names(fewer)?;
    ensure!(fewer == ["http", "dns-udp"], "{fewer:?}");
    world.stop()
}
