use super::*;
use crate::testing::{node, pod_info};

fn changed(cache: &Cache, since: u64) -> Vec<Str> {
    cache.changed_since(since).map(|slot| cache.entries[slot as usize].info.name.clone()).collect()
}

#[test]
fn only_nodes_touched_after_a_generation_are_reported_latest_first() {
    let mut cache = Cache::default();
    for name in ["a", "b", "c"] {
        cache.upsert_node(node(name, "{}", "{}"));
    }
    assert_eq!(changed(&cache, 0), ["c", "b", "a"]);
    let seen = cache.generation();
    assert!(changed(&cache, seen).is_empty());
    cache.upsert_pod(pod_info("p", r#"{"nodeName":"a"}"#));
    cache.upsert_pod(pod_info("q", r#"{"nodeName":"c"}"#));
    cache.upsert_pod(pod_info("r", r#"{"nodeName":"a"}"#));
    assert_eq!(changed(&cache, seen), ["a", "c"]);
}

#[test]
fn assumed_pods_count_until_forgotten_and_a_confirmed_one_cannot_be_forgotten() {
    let mut cache = Cache::default();
    cache.upsert_node(node("a", "{}", "{}"));
    let slot = cache.slot("a").unwrap();
    let cpu = r#"{"containers":[{"resources":{"requests":{"cpu":"1"}}}]}"#;
    cache.assume(pod_info("p", cpu), slot);
    assert_eq!(cache.node(slot).unwrap().requested.cpu_milli, 1000);
    assert!(cache.is_assumed("p"));
    cache.forget("p");
    assert_eq!(cache.node(slot).unwrap().requested.cpu_milli, 0);

    cache.assume(pod_info("p", cpu), slot);
    let bound = r#"{"nodeName":"a","containers":[{"resources":{"requests":{"cpu":"1"}}}]}"#;
    let seen = cache.generation();
    cache.upsert_pod(pod_info("p", bound));
    assert!(!cache.is_assumed("p"));
    assert!(changed(&cache, seen).is_empty(), "confirming what was assumed changes no score");
    cache.forget("p");
    assert_eq!(cache.node(slot).unwrap().requested.cpu_milli, 1000);
}

#[test]
fn a_pod_confirmed_on_another_node_than_assumed_moves() {
    let mut cache = Cache::default();
    cache.upsert_node(node("a", "{}", "{}"));
    cache.upsert_node(node("b", "{}", "{}"));
    cache.assume(pod_info("p", "{}"), cache.slot("a").unwrap());
    cache.upsert_pod(pod_info("p", r#"{"nodeName":"b"}"#));
    let pods = |name| cache.node(cache.slot(name).unwrap()).unwrap().pods.len();
    assert_eq!((pods("a"), pods("b")), (0, 1));
}

#[test]
fn pods_may_come_before_their_node_and_outlive_it() {
    let mut cache = Cache::default();
    cache.upsert_pod(pod_info("p", r#"{"nodeName":"late"}"#));
    assert_eq!((cache.node_count(), cache.slot("late")), (0, None));
    cache.upsert_node(node("late", "{}", "{}"));
    let slot = cache.slot("late").unwrap();
    assert_eq!(cache.node(slot).unwrap().pods.len(), 1);
    cache.remove_node("late");
    assert_eq!((cache.node_count(), cache.node(slot).is_none()), (0, true));
    cache.upsert_node(node("late", "{}", "{}"));
    assert_eq!(cache.node(slot).unwrap().pods.len(), 1, "its pods were kept");
    cache.remove_pod("p");
    cache.remove_node("late");
    cache.upsert_node(node("other", "{}", "{}"));
    assert_eq!(cache.slot("other"), Some(slot), "the slot is reused");
}

#[test]
fn an_update_that_empties_the_old_slot_of_an_unknown_node_keeps_the_pod() {
    let mut cache = Cache::default();
    cache.upsert_pod(pod_info("p", r#"{"nodeName":"gone"}"#));
    cache.upsert_pod(pod_info(
        "p",
        r#"{"nodeName":"gone","containers":[{"resources":{"requests":{"cpu":"1"}}}]}"#,
    ));
    cache.upsert_node(node("gone", "{}", "{}"));
    assert_eq!(cache.node(cache.slot("gone").unwrap()).unwrap().requested.cpu_milli, 1000);
}

#[test]
fn images_are_counted_over_nodes() {
    let mut cache = Cache::default();
    let images = r#"{"images":[{"names":["x:1"],"sizeBytes":7}]}"#;
    cache.upsert_node(node("a", "{}", images));
    cache.upsert_node(node("b", "{}", images));
    assert_eq!(cache.image("x:1"), Some(ImageState { size_bytes: 7, nodes: 2 }));
    let epoch = cache.epoch();
    cache.upsert_node(node("a", "{}", images));
    assert_eq!(cache.epoch(), epoch, "the same images again");
    cache.remove_node("a");
    cache.remove_node("b");
    assert_eq!(cache.image("x:1"), None);
    assert!(cache.epoch() > epoch);
}
