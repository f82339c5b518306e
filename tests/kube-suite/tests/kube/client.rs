//! Verbs of the client on typed, dynamic and partial objects.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::discovery::Discovery;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::{NAMESPACE, PATIENCE, SIM_NODES, World, config_map, data_of, object, refusal, until};

#[tokio::test]
async fn an_object_lives_from_create_to_delete() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let created = maps.create(&PostParams::default(), &config_map("one", json!({"a": "1"}))?).await?;
    ensure!(created.uid().is_some() && created.resource_version().is_some(), "{created:?}");
    ensure!(maps.get("one").await? == created, "what was created is not what is read");

    let mut changed = created.clone();
    changed.data = Some([("a".to_owned(), "2".to_owned())].into());
    let replaced = maps.replace("one", &PostParams::default(), &changed).await?;
    ensure!(replaced.resource_version() != created.resource_version(), "the version stayed");
    let (code, reason, _) = refusal(maps.replace("one", &PostParams::default(), &changed).await)?;
    ensure!((code, reason.as_str()) == (409, "Conflict"), "{code} {reason}");

    let wrong = Preconditions { uid: Some("not-its-uid".to_owned()), resource_version: None };
    let (code, _, _) = refusal(maps.delete("one", &DeleteParams::default().preconditions(wrong)).await)?;
    ensure!(code == 409, "{code}");
    maps.delete("one", &DeleteParams::default()).await?;
    ensure!(maps.get_opt("one").await?.is_none(), "it is still there");
    let (code, reason, message) = refusal(maps.delete("one", &DeleteParams::default()).await)?;
    ensure!((code, reason.as_str()) == (404, "NotFound"), "{code} {reason}");
    ensure!(message == "configmaps \"one\" not found", "{message}");
    world.stop()
}

#[tokio::test]
async fn patches_of_each_type_do_what_they_are_for() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let params = PatchParams::default();
    maps.create(&PostParams::default(), &config_map("one", json!({"a": "1", "b": "2"}))?).await?;
    let merged = maps.patch("one", &params, &Patch::Merge(json!({"data": {"a": null, "c": "3"}}))).await?;
    ensure!(data_of(&merged) == json!({"b": "2", "c": "3"}), "{:?}", merged.data);
    let operations = json!([{"op": "move", "from": "/data/b", "path": "/data/moved"}]);
    let patch = Patch::Json::<()>(serde_json::from_value(operations)?);
    let moved = maps.patch("one", &params, &patch).await?;
    ensure!(data_of(&moved) == json!({"c": "3", "moved": "2"}), "{:?}", moved.data);

    let deployments: Api<Deployment> = world.api();
    deployments.create(&PostParams::default(), &deployment("web", 1)?).await?;
    let added = json!({"spec": {"template": {"spec": {"containers": [{"name": "logs", "image": "i"}]}}}});
    let patched = deployments.patch("web", &params, &Patch::Strategic(added)).await?;
    let containers =
        patched.spec.context("it has a spec")?.template.spec.context("and a template")?.containers;
    ensure!(containers.len() == 2, "{containers:?}");
    world.stop()
}

#[tokio::test]
async fn a_dry_run_and_strict_validation_change_nothing() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("one", json!({}))?).await?;
    ensure!(maps.get_opt("one").await?.is_none(), "the dry run created it");
    maps.create(&PostParams::default(), &config_map("one", json!({}))?).await?;
    let unknown = Patch::Merge(json!({"dato": {"a": "1"}}));
    let strict = PatchParams::default().validation_strict();
    let (code, _, message) = refusal(maps.patch("one", &strict, &unknown).await)?;
    ensure!(code == 400 || code == 422, "{code}: {message}");
    ensure!(message.contains("unknown field \"dato\""), "{message}");
    world.stop()
}

#[tokio::test]
async fn pages_are_consistent_and_selectors_choose() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    for number in 0..25 {
        maps.create(&PostParams::default(), &config_map(&format!("map-{number:02}"), json!({}))?).await?;
    }
    let params = ListParams::default().labels("suite=kube").limit(10);
    let first = maps.list(&params).await?;
    // What comes later is not part of a list that has begun.
    maps.create(&PostParams::default(), &config_map("map-99", json!({}))?).await?;
    let mut names: Vec<String> = first.iter().map(ResourceExt::name_any).collect();
    let mut token = first.metadata.continue_.clone().context("the first page says how to go on")?;
    while !token.is_empty() {
        let page = maps.list(&params.clone().continue_token(&token)).await?;
        ensure!(page.metadata.resource_version == first.metadata.resource_version, "pages of two versions");
        names.extend(page.iter().map(ResourceExt::name_any));
        token = page.metadata.continue_.clone().unwrap_or_default();
    }
    let expected: Vec<String> = (0..25).map(|number| format!("map-{number:02}")).collect();
    ensure!(names == expected, "{names:?}");
    let one = maps.list(&ListParams::default().fields("metadata.name=map-07")).await?;
    ensure!(one.items.len() == 1 && one.items[0].name_any() == "map-07", "{one:?}");
    let partial = maps.list_metadata(&ListParams::default().labels("suite=kube")).await?;
    ensure!(partial.items.len() == 26, "{}", partial.items.len());
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("suite=kube")).await?;
    ensure!(maps.list(&ListParams::default().labels("suite=kube")).await?.items.is_empty(), "some are left");
    world.stop()
}

#[tokio::test]
async fn a_deployment_becomes_complete_scales_and_keeps_its_status_apart() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let deployments: Api<Deployment> = world.api();
    deployments.create(&PostParams::default(), &deployment("web", 3)?).await?;
    let complete = await_condition(deployments.clone(), "web", conditions::is_deployment_completed());
    tokio::time::timeout(PATIENCE, complete).await.context("the Deployment is not complete")??;

    let pods: Api<Pod> = world.api();
    let of_web = pods.list(&ListParams::default().labels("app=web")).await?;
    ensure!(of_web.items.len() == 3, "{} pods", of_web.items.len());
    let name = of_web.items[0].name_any();
    let running = await_condition(pods.clone(), &name, conditions::is_pod_running());
    tokio::time::timeout(PATIENCE, running).await.context("the pod does not run")??;

    let scale = deployments.get_scale("web").await?;
    ensure!(scale.spec.and_then(|spec| spec.replicas) == Some(3), "its scale is not 3");
    let patch = Patch::Merge(json!({"spec": {"replicas": 1}}));
    deployments.patch_scale("web", &PatchParams::default(), &patch).await?;
    until("one pod is left", || async {
        let left = pods.list(&ListParams::default().labels("app=web")).await?;
        Ok(left.items.len() == 1)
    })
    .await?;
    let before = deployments.get("web").await?;
    let patch = Patch::Merge(json!({"spec": {"replicas": 9}, "status": {"collisionCount": 7}}));
    let after = deployments.patch_status("web", &PatchParams::default(), &patch).await?;
    ensure!(after.spec == before.spec, "a status patch changed the spec");
    world.stop()
}

#[tokio::test]
async fn discovery_leads_to_dynamic_objects() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let listed = Discovery::new(world.client.clone()).run().await?;
    let aggregated = Discovery::new(world.client.clone()).run_aggregated().await?;
    let gvk = GroupVersionKind::gvk("apps", "v1", "Deployment");
    for discovery in [&listed, &aggregated] {
        let (resource, capabilities) = discovery.resolve_gvk(&gvk).context("Deployments are discovered")?;
        ensure!(resource.plural == "deployments", "{resource:?}");
        let names: Vec<_> = capabilities.subresources.iter().map(|(sub, _)| sub.plural.clone()).collect();
        ensure!(names.iter().any(|name| name == "scale"), "{names:?}");
        let groups: Vec<_> =
            discovery.groups_alphabetical().iter().map(|group| group.name().to_owned()).collect();
        ensure!(groups.contains(&"rbac.authorization.k8s.io".to_owned()), "{groups:?}");
    }
    let (resource, _) = listed.resolve_gvk(&gvk).context("Deployments are discovered")?;
    let dynamic: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), NAMESPACE, &resource);
    let made = dynamic
        .create(&PostParams::default(), &object(serde_json::to_value(deployment("web", 1)?)?)?)
        .await?;
    ensure!(made.data["spec"]["replicas"] == 1, "{}", made.data);
    let version = world.client.apiserver_version().await?;
    ensure!(version.git_version.ends_with("+pintle") && version.minor == "36", "{version:?}");
    let nodes: Api<Node> = Api::all(world.client.clone());
    let count = nodes.list(&ListParams::default()).await?.items.len();
    ensure!(count == SIM_NODES as usize, "{count} nodes");
    world.stop()
}

pub(crate) fn deployment(name: &str, replicas: i32) -> anyhow::Result<Deployment> {
    object(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "registry.example/web:1"}]},
            },
        },
    }))
}
