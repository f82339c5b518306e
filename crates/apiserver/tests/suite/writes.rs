//! Writes: concurrency, names, dry runs.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::{APPLY, MERGE};

const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost_when_many_write_with_versions() {
    /// Writers and what each adds.
    const WRITERS: u64 = 8;
    const INCREMENTS: u64 = 10;
    let (_server, admin) = Server::with_namespace().await;
    admin.post(CONFIG_MAPS, &json!({"metadata": {"name": "counter"}, "data": {"n": "0"}})).await.expect(201);
    let path = format!("{CONFIG_MAPS}/counter");
    let writers = (0..WRITERS).map(|_| {
        let (client, path) = (admin.fork(), path.clone());
        async move {
            let (mut done, mut conflicts) = (0, 0);
            while done < INCREMENTS {
                let mut counter = client.get(&path).await.expect(200);
                let n: u64 = counter["data"]["n"].as_str().unwrap().parse().unwrap();
                counter["data"]["n"] = (n + 1).to_string().into();
                let reply = client.put(&path, &counter).await;
                match reply.status {
                    200 => done += 1,
                    409 => {
                        assert_eq!(reply.json()["reason"], "Conflict");
                        conflicts += 1;
                    }
                    other => panic!("{other}: {}", reply.text()),
                }
            }
            conflicts
        }
    });
    let conflicts: u64 = join_all(writers).await.into_iter().sum();
    let counter = admin.get(&path).await.expect(200);
    assert_eq!(counter["data"]["n"], (WRITERS * INCREMENTS).to_string());
    assert!(conflicts > 0, "writers met, or this tests nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_without_a_version_all_get_in() {
    let (_server, admin) = Server::with_namespace().await;
    admin.post(CONFIG_MAPS, &json!({"metadata": {"name": "m"}})).await.expect(201);
    let path = format!("{CONFIG_MAPS}/m");
    let writers = (0..20).map(|n| {
        let (client, path) = (admin.fork(), path.clone());
        async move {
            let patch = json!({"data": {format!("k{n}"): "v"}});
            client.patch(&path, MERGE, &patch).await.expect(200);
        }
    });
    join_all(writers).await;
    let stored = admin.get(&path).await.expect(200);
    assert_eq!(stored["data"].as_object().unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_creates_of_one_name_one_wins() {
    let (_server, admin) = Server::with_namespace().await;
    let creates = (0..10).map(|n| {
        let client = admin.fork();
        async move {
            let object = json!({"metadata": {"name": "one"}, "data": {"n": n.to_string()}});
            client.post(CONFIG_MAPS, &object).await.status
        }
    });
    let statuses = join_all(creates).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 201 | 409)), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_names_extend_their_base_and_differ() {
    let (_server, admin) = Server::with_namespace().await;
    let base = "n".repeat(60);
    let mut seen = BTreeSet::new();
    for generate in ["web-", base.as_str()] {
        for _ in 0..5 {
            let created =
                admin.post(CONFIG_MAPS, &json!({"metadata": {"generateName": generate}})).await.expect(201);
            let name = created["metadata"]["name"].as_str().unwrap().to_owned();
            let kept = &generate[..generate.len().min(58)];
            assert!(name.starts_with(kept) && name.len() == kept.len() + 5, "{name}");
            assert_eq!(created["metadata"]["generateName"], generate);
            assert!(seen.insert(name), "names differ");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_answers_as_the_write_would_and_stores_nothing() {
    let (_server, admin) = Server::with_namespace().await;
    let object = json!({"metadata": {"name": "m", "finalizers": ["example.com/f"]}, "data": {"k": "v"}});
    admin.post(CONFIG_MAPS, &object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/m");
    let stored = admin.get(&path).await.expect(200);
    let before = admin.get(CONFIG_MAPS).await.expect(200);
    let created = admin
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), &json!({"metadata": {"name": "dry"}}))
        .await
        .expect(201);
    assert!(created["metadata"]["uid"].is_string());
    let mut changed = stored.clone();
    changed["data"]["k"] = "other".into();
    let updated = admin.put(&format!("{path}?dryRun=All"), &changed).await.expect(200);
    assert_eq!(updated["data"]["k"], "other");
    let patched =
        admin.patch(&format!("{path}?dryRun=All"), MERGE, &json!({"data": {"k": "p"}})).await.expect(200);
    assert_eq!(patched["data"]["k"], "p");
    let applied =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "b"}});
    admin
        .patch(&format!("{CONFIG_MAPS}/applied?dryRun=All&fieldManager=x"), APPLY, &applied)
        .await
        .expect(201);
    admin.delete(&format!("{path}?dryRun=All")).await.expect(200);
    admin.delete(&format!("{CONFIG_MAPS}?dryRun=All")).await.expect(200);
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": 30123}]}});
    for _ in 0..2 {
        // A number taken by a dry run is given back.
        admin.post("/api/v1/namespaces/t/services?dryRun=All", &service).await.expect(201);
    }
    assert_eq!(admin.get(&path).await.expect(200), stored);
    let after = admin.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(before["items"], after["items"]);
    assert_eq!(before["metadata"], after["metadata"], "not even the store's version moved");
    assert!(admin.get("/api/v1/namespaces/t/services").await.names().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_changes_nothing_keeps_the_version() {
    let (_server, admin) = Server::with_namespace().await;
    let created =
        admin.post(CONFIG_MAPS, &json!({"metadata": {"name": "m"}, "data": {"k": "v"}})).await.expect(201);
    let path = format!("{CONFIG_MAPS}/m");
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let put = admin.put(&path, &created).await.expect(200);
    assert_eq!(version(&put), version(&created));
    let patched = admin.patch(&path, MERGE, &json!({"data": {"k": "v"}})).await.expect(200);
    assert_eq!(version(&patched), version(&created));
    let changed = admin.patch(&path, MERGE, &json!({"data": {"k": "w"}})).await.expect(200);
    assert_ne!(version(&changed), version(&created));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_decides_cannot_be_brought_along() {
    let (_server, admin) = Server::with_namespace().await;
    let object = json!({"metadata": {
        "name": "m", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7, "selfLink": "/x",
        "deletionTimestamp": "2001-01-01T00:00:00Z", "deletionGracePeriodSeconds": 3,
    }});
    let created = admin.post(CONFIG_MAPS, &object).await.expect(201);
    let metadata = created["metadata"].as_object().unwrap();
    assert_ne!(metadata["uid"], "mine");
    assert_ne!(metadata["creationTimestamp"], "2001-01-01T00:00:00Z");
    for key in ["generation", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        assert!(!metadata.contains_key(key), "{key}");
    }
    let versioned = json!({"metadata": {"name": "n", "resourceVersion": "1"}});
    admin.post(CONFIG_MAPS, &versioned).await.expect(500);
    let mut other = created.clone();
    other["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    other["metadata"]["resourceVersion"] = Value::Null;
    admin.put(&format!("{CONFIG_MAPS}/m"), &other).await.expect(409);
    let missing = json!({"metadata": {"name": "absent"}});
    admin.put(&format!("{CONFIG_MAPS}/absent"), &missing).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generation_counts_changes_of_the_spec_alone() {
    let (_server, admin) = Server::with_namespace().await;
    let deployments = "/apis/apps/v1/namespaces/t/deployments";
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let object = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    assert_eq!(admin.post(deployments, &object).await.expect(201)["metadata"]["generation"], 1);
    let path = format!("{deployments}/d");
    let steps = [
        (path.clone(), json!({"metadata": {"labels": {"x": "y"}}}), 1),
        (path.clone(), json!({"spec": {"replicas": 3}}), 2),
        (path.clone(), json!({"spec": {"replicas": 3}}), 2),
        (path.clone(), json!({"status": {"replicas": 9}}), 2),
        (format!("{path}/status"), json!({"status": {"replicas": 9}, "spec": {"replicas": 8}}), 2),
        (format!("{path}/scale"), json!({"spec": {"replicas": 4}}), 3),
    ];
    for (path, patch, generation) in steps {
        admin.patch(&path, MERGE, &patch).await.expect(200);
        let stored = admin.get(&format!("{deployments}/d")).await.expect(200);
        assert_eq!(stored["metadata"]["generation"], generation, "{path} {patch}");
    }
    let stored = admin.get(&path).await.expect(200);
    assert_eq!((&stored["spec"]["replicas"], &stored["status"]["replicas"]), (&json!(4), &json!(9)));
}
