//! `pintle sim`: simulated nodes and pods in bulk, in a cluster that runs already.
//!
//! Owns: what is made from the flags and templates ([`object`]), and making and removing much at a time ([`bulk`]).
//! Never touches: the simulation; nodes are annotated as KWOK's are, and whoever simulates those in the cluster does
//! the rest.

mod bulk;
mod object;

use std::sync::Arc;

use anyhow::Context;
use api::gvr::{DEPLOYMENTS, NAMESPACES, NODES, PODS};
use api::view::{SIMULATED, SIMULATED_ANNOTATION};
use apimachinery::{Object, json};

use crate::cli::{DeleteArguments, NodeArguments, PodArguments, SimCommand, SimTarget};
use crate::kubeconfig::connect;
use bulk::{Collection, Creation};

pub fn run(command: SimCommand) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        match command {
            SimCommand::Nodes(arguments) => nodes(arguments).await,
            SimCommand::Pods(arguments) => pods(arguments).await,
            SimCommand::Delete(SimTarget::Nodes(arguments)) => {
                let is_simulated = |node: &Object| {
                    let tree = node.metadata_value();
                    tree.str_at(&["annotations", SIMULATED_ANNOTATION]) == SIMULATED
                };
                delete(arguments, Collection::of(&NODES, "", "nodes"), is_simulated).await
            }
            SimCommand::Delete(SimTarget::Pods { arguments, namespace }) => {
                delete(arguments, Collection::of(&PODS, &namespace, "pods"), |_| true).await
            }
        }
    })
}

async fn nodes(arguments: NodeArguments) -> anyhow::Result<()> {
    let template = object::node(&arguments)?;
    let api = connect(&arguments.cluster)?;
    let zones = arguments.zones;
    Creation {
        collection: Collection::of(&NODES, "", "nodes"),
        prefix: arguments.prefix,
        count: arguments.count,
        object: Arc::new(move |name, number| object::named_node(&template, name, number, zones)),
    }
    .run(&api)
    .await
}

async fn pods(arguments: PodArguments) -> anyhow::Result<()> {
    let template = object::pod(&arguments)?;
    let api = connect(&arguments.cluster)?;
    let namespace = arguments.namespace;
    let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.as_str()}});
    api.create_if_absent(&NAMESPACES, "", made).await.with_context(|| format!("namespace {namespace}"))?;
    if let Some(name) = arguments.deployment {
        let deployment = object::deployment(&name, &template, arguments.count);
        api.create_if_absent(&DEPLOYMENTS, &namespace, deployment)
            .await
            .with_context(|| format!("deployment {namespace}/{name}"))?
            .map_or_else(
                || println!("deployment {namespace}/{name} is there already"),
                |_| println!("Created deployment {namespace}/{name} with {} replicas", arguments.count),
            );
        return Ok(());
    }
    Creation {
        collection: Collection::of(&PODS, &namespace, "pods"),
        prefix: arguments.prefix,
        count: arguments.count,
        object: Arc::new(move |name, _| object::named(&template, name)),
    }
    .run(&api)
    .await
}

async fn delete(
    arguments: DeleteArguments,
    collection: Collection,
    is_meant: impl Fn(&Object) -> bool,
) -> anyhow::Result<()> {
    let api = connect(&arguments.cluster)?;
    let prefix = arguments.prefix;
    let is_named = |object: &Object| match &prefix {
        Some(prefix) => bulk::number_of(prefix, object.name()).is_some(),
        None => true,
    };
    let selector = arguments.selector.unwrap_or_default();
    collection.delete(&api, &selector, |object| is_named(object) && is_meant(object)).await
}
