//! Pods that are resized while they run.

use super::*;

fn asking(cpu: &str, memory: &str) -> Value {
    let amounts = json!({"cpu": cpu, "memory": memory});
    json!({"requests": amounts.clone(), "limits": amounts})
}

fn resizable(name: &str, resources: Value, policy: Value) -> Value {
    pod(
        name,
        json!({"containers": [{"name": name, "image": "i", "imagePullPolicy": "IfNotPresent",
            "resources": resources, "resizePolicy": policy}]}),
    )
}

fn resize(world: &World, name: &str, resources: Value) {
    world.api.edit(&PODS, "ns", name, |pod| {
        let mut containers = pod["spec"]["containers"].clone();
        containers.as_array_mut().expect("a list")[0].set_at(&["resources"], resources.clone());
        pod.set_at(&["spec", "containers"], containers);
        let generation = pod["metadata"]["generation"].as_i64().unwrap_or(1);
        pod.set_at(&["metadata", "generation"], generation + 1);
    });
}

impl World {
    /// What the first container is said to have, and what it was promised: `cpu memory, cpu`.
    fn amounts(&self, name: &str) -> String {
        let pod = self.pod(name);
        let own = pod["status"]["containerStatuses"][0].clone();
        let limits = &own["resources"]["limits"];
        format!(
            "{} {}, {}",
            limits.str_at(&["cpu"]),
            limits.str_at(&["memory"]),
            own.str_at(&["allocatedResources", "cpu"])
        )
    }

    fn resize_conditions(&self, name: &str) -> Vec<String> {
        let pod = self.pod(name);
        let conditions = pod.array_at(&["status", "conditions"]).iter();
        let own = conditions.filter(|own| own.str_at(&["type"]).starts_with("PodResize"));
        own.map(|own| {
            let words = [own.str_at(&["type"]), own.str_at(&["reason"]), own.str_at(&["message"])];
            words.join(" ").trim().to_owned()
        })
        .collect()
    }

    async fn until_amounts(&self, name: &str, wanted: &str) {
        let reached =
            |world: &World| world.amounts(name) == wanted && world.resize_conditions(name).is_empty();
        self.until(wanted, reached).await;
    }
}

#[tokio::test]
async fn a_running_container_is_given_more_and_less_without_a_restart() {
    let world = World::start(vec![resizable("p", asking("100m", "64Mi"), json!([]))]).await;
    world.until_amounts("p", "100m 64Mi, 100m").await;
    world.runtime.take_calls();
    for (cpu, memory) in [("200m", "128Mi"), ("50m", "32Mi")] {
        resize(&world, "p", asking(cpu, memory));
        world.until_amounts("p", &format!("{cpu} {memory}, {cpu}")).await;
    }
    let limits = world.runtime.config("p").expect("it runs").resources;
    assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.memory_limit), (51, 5_000, 32 << 20));
    let of_pod = world.runtime.pod_limits().expect("it changed");
    assert_eq!((of_pod.cpu_shares, of_pod.cpu_quota, of_pod.memory_limit), (51, 5_000, 32 << 20));
    let calls = world.runtime.take_calls();
    let short: Vec<&str> = calls.iter().filter_map(|call| call.split(' ').next()).collect();
    // Room first where more is given, and last where less is.
    let wanted = ["update-sandbox", "update", "update-sandbox", "update", "update-sandbox"];
    let updates: Vec<&str> = short.iter().copied().filter(|call| call.starts_with("update")).collect();
    assert_eq!(updates, wanted);
    assert!(!short.contains(&"create") && !short.contains(&"stop"), "{short:?}");
    let started = world.events("ResizeStarted");
    assert_eq!(started.len(), 2, "{started:?}");
    assert!(started[0].starts_with("Pod resize started: {\"containers\":[{\"name\":\"p\""), "{started:?}");
    assert_eq!(world.events("ResizeCompleted").len(), 2);
    assert_eq!(world.pod("p")["status"]["containerStatuses"][0]["restartCount"], 0.into());
}

#[tokio::test]
async fn a_container_whose_policy_wants_it_is_restarted_for_its_new_memory() {
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let world = World::start(vec![resizable("p", asking("100m", "64Mi"), policy)]).await;
    world.until_amounts("p", "100m 64Mi, 100m").await;
    resize(&world, "p", asking("100m", "128Mi"));
    world.until_amounts("p", "100m 128Mi, 100m").await;
    assert_eq!(world.pod("p")["status"]["containerStatuses"][0]["restartCount"], 1.into());
    assert_eq!(world.events("Killing"), ["Container p resize requires restart"]);
    assert_eq!(world.runtime.config("p").expect("it runs").resources.memory_limit, 128 << 20);
    resize(&world, "p", asking("200m", "128Mi"));
    world.until_amounts("p", "200m 128Mi, 200m").await;
    assert_eq!(world.events("Killing").len(), 1, "CPU needs no restart");
}

#[tokio::test]
async fn what_there_is_no_room_for_waits_and_what_never_fits_is_said_to() {
    let cpu = Machine::read().cpus;
    let half = format!("{}m", cpu * 500);
    let most = format!("{}m", cpu * 1_000 - 100);
    let world = World::start(vec![
        resizable("p", asking("100m", "64Mi"), json!([])),
        resizable("q", asking(&half, "64Mi"), json!([])),
    ])
    .await;
    world.until_amounts("p", "100m 64Mi, 100m").await;
    world.until_amounts("q", &format!("{half} 64Mi, {half}")).await;
    let asked = (cpu + 1) * 1_000;
    resize(&world, "p", asking(&format!("{asked}m"), "64Mi"));
    let infeasible = format!(
        "PodResizePending Infeasible Node didn't have enough capacity: cpu, requested: {asked}, capacity: {}",
        cpu * 1_000
    );
    world.until(&infeasible, |world| world.resize_conditions("p") == [infeasible.clone()]).await;
    assert_eq!(world.events("ResizeInfeasible").len(), 1);

    resize(&world, "p", asking(&most, "64Mi"));
    let is_deferred = |world: &World| {
        world.resize_conditions("p").first().is_some_and(|own| {
            own.starts_with("PodResizePending Deferred Node didn't have enough resource: cpu, requested: ")
        })
    };
    world.until("it waits", is_deferred).await;
    assert_eq!(world.amounts("p"), "100m 64Mi, 100m");
    assert_eq!(world.events("ResizeDeferred").len(), 1);
    // Room comes about, and is used without anybody asking again.
    resize(&world, "q", asking("50m", "64Mi"));
    world.until_amounts("p", &format!("{most} 64Mi, {most}")).await;
}

#[tokio::test]
async fn a_container_is_not_given_less_memory_than_it_uses() {
    let world = World::start(vec![resizable("p", asking("100m", "64Mi"), json!([]))]).await;
    world.until_amounts("p", "100m 64Mi, 100m").await;
    world.runtime.use_memory("p", 48 << 20);
    resize(&world, "p", asking("100m", "32Mi"));
    let wanted = "PodResizeInProgress Error cannot decrease memory limits: attempting to set container \"p\" memory \
                  limit (33554432) below current usage (50331648)";
    world.until(wanted, |world| world.resize_conditions("p") == [wanted.to_owned()]).await;
    assert_eq!(world.events("ResizeError").len(), 1);
    assert_eq!(world.runtime.config("p").expect("it runs").resources.memory_limit, 64 << 20);
    // It is taken back before it was done.
    resize(&world, "p", asking("100m", "64Mi"));
    world.until_amounts("p", "100m 64Mi, 100m").await;
}

#[tokio::test]
async fn an_agent_that_comes_back_goes_on_with_what_was_asked_meanwhile() {
    let mut world = World::start(vec![resizable("p", asking("100m", "64Mi"), json!([]))]).await;
    world.until_amounts("p", "100m 64Mi, 100m").await;
    world.shutdown.cancel();
    resize(&world, "p", asking("200m", "64Mi"));
    world.restart().await;
    world.until_amounts("p", "200m 64Mi, 200m").await;
    let id = world.runtime.running("p").expect("it runs");
    assert_eq!(world.runtime.container_status(&id).await.expect("it is there").attempt, 0);
    assert_eq!(world.runtime.config("p").expect("it runs").resources.cpu_quota, 20_000);
}
