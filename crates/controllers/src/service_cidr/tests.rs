use api::gvr::{IP_ADDRESSES, SERVICE_CIDRS};
use apimachinery::{Value, json};
use client::{Api, DeleteOptions};

use super::plan::{self, Block};
use crate::testing::World;

#[test]
fn a_block_is_needed_while_an_address_lies_in_it_alone() {
    let cases = [
        ("nothing lies in it", &[("a", "10.0.0.0/24")][..], &["10.1.0.1"][..], false),
        ("an address does", &[("a", "10.0.0.0/24")], &["10.0.0.1"], true),
        ("also in a larger one", &[("a", "10.0.0.0/24"), ("b", "10.0.0.0/16")], &["10.0.0.1"], false),
        ("also in the same one", &[("a", "10.0.0.0/24"), ("b", "10.0.0.0/24")], &["10.0.0.1"], false),
        ("also in a part of it", &[("a", "10.0.0.0/24"), ("b", "10.0.0.0/28")], &["10.0.0.1"], false),
        ("another in no part", &[("a", "10.0.0.0/24"), ("b", "10.0.0.0/28")], &["10.0.0.99"], true),
        ("of one family of two", &[("a", "10.0.0.0/24"), ("a", "fd00::/112")], &["fd00::5"], true),
    ];
    for (what, blocks, addresses, expected) in cases {
        let blocks: Vec<Block> = blocks.iter().filter_map(|(name, cidr)| Block::parse(name, cidr)).collect();
        let addresses: Vec<_> = addresses.iter().filter_map(|own| own.parse().ok()).collect();
        assert_eq!(plan::is_needed("a", &blocks, &addresses), expected, "{what}");
    }
}

fn block() -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.5.0.0/24"]}})
}

fn ready(world: &World) -> String {
    let block = world.tree(&SERVICE_CIDRS, "", "more");
    let condition = block.array_at(&["status", "conditions"]).first().cloned().unwrap_or_default();
    format!("{} {}", condition.str_at(&["status"]), condition.str_at(&["reason"])).trim_end().to_owned()
}

#[tokio::test]
async fn a_block_becomes_ready_and_waits_for_its_addresses() {
    let address = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": "10.5.0.7", "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "n"}}});
    let world = World::start(vec![super::descriptor()], vec![block(), address]);
    world.wait_for("ready", |_| ready(&world) == "True").await;
    let finalizers = world.tree(&SERVICE_CIDRS, "", "more")["metadata"]["finalizers"].clone();
    assert_eq!(finalizers, json!([super::FINALIZER]));
    let options = DeleteOptions::default();
    world.fake.delete(&SERVICE_CIDRS, "", "more", &options).await.expect("it is there");
    world.wait_for("terminating", |_| ready(&world) == "False Terminating").await;
    assert!(world.fake.peek(&SERVICE_CIDRS, "", "more").is_some(), "an address needs it");
    // Long since deleted: only the address holds it.
    world.fake.edit(&SERVICE_CIDRS, "", "more", |block| {
        block.set_at(&["metadata", "deletionTimestamp"], "2020-01-01T00:00:00Z");
    });
    world.fake.delete(&IP_ADDRESSES, "", "10.5.0.7", &options).await.expect("it is there");
    world.wait_for("gone", |fake| fake.peek(&SERVICE_CIDRS, "", "more").is_none()).await;
}
