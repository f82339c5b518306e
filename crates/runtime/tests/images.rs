//! The embedded runtime on the real store of images.

mod world;

use std::sync::Arc;
use std::time::Duration;

use image::build::Build;
use image::{Reference, Store};
use runtime::embedded::Images;
use runtime::spec::{ContainerConfig, Mount};
use runtime::{Error, Runtime};
use world::{World, shell};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_from_an_image_of_the_store_and_leaves_it_as_it_was() {
    let Some(mut world) = World::new().await else { return };
    let store = Store::open(&world.dir.join("store"), image::Options::default()).await.unwrap();
    let folder = world.dir.join("images/image");
    let reference: Reference = "example.com/busybox:1".parse().unwrap();
    let image = store.build(Build::from_folder(&folder), &reference).await.unwrap();
    world.use_images(Arc::new(store.clone())).await;

    let sandbox = world.sandbox().await;
    let config = |script: &str| ContainerConfig {
        image: image.id.clone(),
        env: vec![("PATH".into(), "/bin".into())],
        mounts: vec![Mount {
            image: Some((image.id.clone(), "/etc".into())),
            target: "/other".into(),
            ..Mount::default()
        }],
        ..shell(script)
    };
    let first = world
        .start(&sandbox, config("echo one > /written; cat /other/not-a-program; echo; sleep 1000"))
        .await;
    world.logged(&first, "text").await;
    let (_, text) =
        world.run(&sandbox, config("test -e /written || echo clean; touch /other/x || echo fixed")).await;
    assert!(text.contains("clean") && text.contains("fixed"), "{text}");
    let stats = world.runtime.container_stats().await.unwrap();
    assert!(stats[0].writable_layer.1 >= 1, "{stats:?}");
    assert!(matches!(world.runtime.remove_image(&image.id).await, Err(Error::Failed(_))), "it is in use");
    world.runtime.stop_container(&first, Duration::ZERO).await.unwrap();
    world.runtime.remove_sandbox(&sandbox).await.unwrap();
    assert!(store.snapshots().await.unwrap().is_empty());
    world.runtime.remove_image(&image.id).await.unwrap();
    world.runtime.remove_image(&image.id).await.unwrap();
    assert!(Images::list(&store).await.unwrap().is_empty());
    world.end().await;
}
