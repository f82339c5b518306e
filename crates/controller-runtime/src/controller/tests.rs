use std::sync::atomic::{AtomicUsize, Ordering};

use api::gvr::{CONFIG_MAPS, PODS};
use apimachinery::{Value, json};
use client::fake::FakeApi;
use client::{Api, Informers};
use parking_lot::Mutex;

use super::*;
use crate::{ControllerDescriptor, start_all};

/// What the test's reconciler answers for a key.
type Script = Box<dyn Fn(&ObjectKey, usize) -> Result + Send + Sync>;

struct Scripted {
    seen: Mutex<Vec<String>>,
    running: AtomicUsize,
    most: AtomicUsize,
    script: Script,
}

#[async_trait]
impl Reconcile for Scripted {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let times = {
            let mut seen = self.seen.lock();
            seen.push(key.to_string());
            seen.iter().filter(|own| **own == key.to_string()).count()
        };
        tokio::task::yield_now().await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        (self.script)(key, times)
    }
}

struct World {
    fake: Arc<FakeApi>,
    reconciler: Arc<Scripted>,
    shutdown: Shutdown,
}

/// Runs a controller over config maps that own pods.
fn world(script: impl Fn(&ObjectKey, usize) -> Result + Send + Sync + 'static) -> World {
    let (fake, shutdown) = (FakeApi::new(), Shutdown::new());
    let reconciler = Arc::new(Scripted {
        seen: Mutex::default(),
        running: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        script: Box::new(script),
    });
    let informers = Informers::new(fake.clone(), shutdown.clone());
    let descriptor = ControllerDescriptor::<Arc<Scripted>> {
        name: "test-controller",
        service_account: "test-controller",
        event_source: "test-controller",
        workers: 4,
        start: |context| {
            let (maps, pods) = (context.informers.of(&CONFIG_MAPS), context.informers.of(&PODS));
            let controller = Controller::new(&context, Arc::clone(&context.options));
            boxed(controller_with(controller, &maps, &pods).run())
        },
    };
    let api: Arc<dyn Api> = fake.clone();
    let options = Arc::new(reconciler.clone());
    start_all(vec![descriptor], &|_| api.clone(), &informers, &options, &shutdown);
    World { fake, reconciler, shutdown }
}

fn controller_with(
    controller: Controller<Arc<Scripted>>,
    maps: &Arc<Informer>,
    pods: &Arc<Informer>,
) -> Controller<Arc<Scripted>> {
    controller.for_kind(maps).owns(pods, "", "ConfigMap")
}

#[async_trait]
impl Reconcile for Arc<Scripted> {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        (**self).reconcile(key).await
    }
}

impl World {
    fn count(&self, key: &str) -> usize {
        self.reconciler.seen.lock().iter().filter(|own| *own == key).count()
    }

    async fn wait_for(&self, reached: impl Fn(&Self) -> bool) {
        for _ in 0..1000 {
            if reached(self) {
                return;
            }
            rt::sleep(Duration::from_millis(1)).await;
        }
        panic!("not reached within a second: {:?}", self.reconciler.seen.lock());
    }
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}})
}

fn pod(name: &str, owner: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", "ownerReferences":
        [{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": "u", "controller": true}]}})
}

#[tokio::test]
async fn objects_and_their_children_wake_the_owner() {
    let world = world(|_, _| Ok(Action::await_change()));
    world.fake.seed(map("a"));
    world.wait_for(|world| world.count("ns/a") == 1).await;
    world.fake.seed(pod("p", "a"));
    world.wait_for(|world| world.count("ns/a") == 2).await;
    world.fake.edit(&PODS, "ns", "p", |pod| {
        let owners = pod.at_mut(&["metadata", "ownerReferences"]).and_then(Value::as_array_mut).unwrap();
        owners[0].set_at(&["name"], "b");
    });
    world.wait_for(|world| world.count("ns/a") == 3 && world.count("ns/b") == 1).await;
    world.fake.drop_object(&PODS, "ns", "p");
    world.wait_for(|world| world.count("ns/b") == 2).await;
    assert_eq!(world.count("ns/a"), 3);
}

#[tokio::test]
async fn failures_and_panics_are_retried_and_stalls_are_not() {
    let world = world(|key, times| match (key.name.as_str(), times) {
        ("fails", 1..=3) => Err(Error::failed("not yet")),
        ("panics", 1) => panic!("on purpose"),
        ("stalls", _) => Err(Error::Stalled { reason: "never".into() }),
        ("waits", 1) => Err(Error::Waiting { after: Duration::from_millis(3), reason: "soon".into() }),
        ("again", 1) => Ok(Action::requeue(Duration::from_millis(3))),
        _ => Ok(Action::await_change()),
    });
    for name in ["fails", "panics", "stalls", "waits", "again"] {
        world.fake.seed(map(name));
    }
    let wanted = [("ns/fails", 4), ("ns/panics", 2), ("ns/stalls", 1), ("ns/waits", 2), ("ns/again", 2)];
    world.wait_for(|world| wanted.iter().all(|(key, times)| world.count(key) == *times)).await;
    rt::sleep(Duration::from_millis(60)).await;
    for (key, times) in wanted {
        assert_eq!(world.count(key), times, "{key}");
    }
}

#[tokio::test]
async fn as_many_reconciles_run_at_once_as_there_are_workers() {
    let world = world(|_, _| Ok(Action::await_change()));
    for n in 0..50 {
        world.fake.seed(map(&format!("m{n}")));
    }
    world.wait_for(|world| world.reconciler.seen.lock().len() >= 50).await;
    let most = world.reconciler.most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most}");
}

#[tokio::test]
async fn nothing_runs_after_shutdown() {
    let world = world(|_, _| Ok(Action::await_change()));
    world.fake.seed(map("a"));
    world.wait_for(|world| world.count("ns/a") == 1).await;
    world.shutdown.cancel();
    rt::sleep(Duration::from_millis(5)).await;
    world.fake.seed(map("b"));
    rt::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.count("ns/b"), 0);
}
