//! Pulling from registries: one that misbehaves in every way that was seen, and a real one where it is installed.

mod fake;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use camino::Utf8PathBuf;
use fake::{Access, Fake};
use image::build::Build;
use image::registry::Credential;
use image::{Error, Options, Pull, Store};

struct World {
    _folder: tempfile::TempDir,
    path: Utf8PathBuf,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        Self { _folder: folder, path }
    }

    async fn store(&self, name: &str) -> Store {
        Store::open(&self.path.join(name), Options::default()).await.unwrap()
    }

    /// An image of a megabyte that does not compress, in a store of its own.
    async fn source(&self) -> (Store, image::ImageRecord) {
        let folder = self.path.join("content");
        fs::create_dir_all(&folder).unwrap();
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..1 << 20)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        fs::write(folder.join("noise"), noise).unwrap();
        let store = self.store("source").await;
        let image = store.build(Build::from_folder(folder), &"app:1".parse().unwrap()).await.unwrap();
        (store, image)
    }
}

fn credential(username: &str, password: &str) -> Credential {
    Credential { username: username.into(), password: password.into(), ..Credential::default() }
}

#[tokio::test]
async fn an_image_is_pulled_once_and_found_unchanged_the_next_time() {
    let world = World::new();
    let (source, image) = world.source().await;
    let registry = Fake::start(&source).await;
    let store = world.store("images").await;
    let name = format!("{}/app:1", registry.address());
    let (one, two) = (store.pull(&name, Pull::default()), store.pull(&name, Pull::default()));
    // Whoever pulls does so on any thread.
    let may_move: &dyn Send = &one;
    let _ = may_move;
    let (one, two) = tokio::join!(one, two);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((&one.id, &one.id), (&image.id, &two.id));
    assert_eq!(one.tags, std::slice::from_ref(&name));
    assert!(one.digests[0].starts_with(&format!("{}/app@sha256:", registry.address())));
    assert_eq!(registry.count("GET", "/blobs/"), 2);
    store.pull(&name, Pull::default()).await.unwrap();
    assert_eq!((registry.count("GET", "/blobs/"), registry.count("GET", "/manifests/")), (2, 1));
    // What it is called by digest is what a pod may ask for as well.
    let digest = one.digests[0].clone();
    assert_eq!(store.resolve(&digest).await.unwrap().unwrap().id, image.id);
    store.pull(&digest, Pull::default()).await.unwrap();
    assert_eq!(registry.count("GET", "/manifests/"), 1);
    store.remove(&image.id).await.unwrap();
    assert_eq!(store.images().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_in_the_words_of_upstream() {
    let world = World::new();
    let (source, _) = world.source().await;
    let registry = Fake::start(&source).await;
    let store = world.store("images").await;
    let name = format!("{}/nothing:1", registry.address());
    let error = store.pull(&name, Pull::default()).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
        )
    );
    let error = store.pull("No/Name", Pull::default()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidName { .. }), "{error:?}");
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_broke() {
    let world = World::new();
    let (source, image) = world.source().await;
    let registry = Fake::start(&source).await;
    registry.set(|behaviour| behaviour.break_after = Some(300_000));
    let store = world.store("images").await;
    let pulled = store.pull(&format!("{}/app:1", registry.address()), Pull::default()).await.unwrap();
    assert_eq!(pulled.id, image.id);
    let starts = registry.range_starts();
    assert!(starts.len() >= 3 && starts.is_sorted() && starts[0] > 0, "{starts:?}");
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_from_the_start_again() {
    let world = World::new();
    let (source, image) = world.source().await;
    let registry = Fake::start(&source).await;
    registry.set(|behaviour| {
        behaviour.break_after = Some(700_000);
        behaviour.breaks = 1;
        behaviour.ignores_ranges = true;
    });
    let store = world.store("images").await;
    let pulled = store.pull(&format!("{}/app:1", registry.address()), Pull::default()).await.unwrap();
    assert_eq!(pulled.id, image.id);
    assert_eq!(registry.range_starts().len(), 1);
}

#[tokio::test]
async fn errors_of_the_registry_are_asked_again() {
    let world = World::new();
    let (source, image) = world.source().await;
    let registry = Fake::start(&source).await;
    registry.set(|behaviour| behaviour.failures = 2);
    let store = world.store("images").await;
    let name = format!("{}/app:1", registry.address());
    assert_eq!(store.pull(&name, Pull::default()).await.unwrap().id, image.id);
    registry.set(|behaviour| behaviour.failures = usize::MAX);
    store.remove(&image.id).await.unwrap();
    let error = store.pull(&name, Pull::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("503")), "{error:?}");
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused() {
    let world = World::new();
    let (source, image) = world.source().await;
    let registry = Fake::start(&source).await;
    let store = world.store("images").await;
    let name = format!("{}/app:1", registry.address());
    registry.set(|behaviour| behaviour.corrupts = true);
    let error = store.pull(&name, Pull::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt(text) if text.contains("digest mismatch")), "{error:?}");
    // Nothing of it is kept for the next time.
    registry.set(|behaviour| behaviour.corrupts = false);
    assert_eq!(store.pull(&name, Pull::default()).await.unwrap().id, image.id);
}

#[tokio::test]
async fn a_registry_that_says_nothing_more_is_given_up() {
    let world = World::new();
    let (source, _) = world.source().await;
    let registry = Fake::start(&source).await;
    registry.set(|behaviour| behaviour.stalls = true);
    let store = world.store("images").await;
    let pull = Pull { stall_timeout: Duration::from_millis(300), ..Pull::default() };
    let error = store.pull(&format!("{}/app:1", registry.address()), pull).await.unwrap_err();
    assert!(matches!(&error, Error::Stalled(text) if text.contains("no progress for 0.3 s")), "{error:?}");
}

#[tokio::test]
async fn credentials_are_tried_in_order() {
    let world = World::new();
    let (source, image) = world.source().await;
    for access in [Access::Basic, Access::Token] {
        let registry = Fake::start(&source).await;
        registry.set(|behaviour| behaviour.access = access);
        let name = format!("{}/app:1", registry.address());
        let store = world.store(&format!("images-{access:?}")).await;
        let error = store.pull(&name, Pull::default()).await.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::Unauthorized(_)) && text.contains("may require authorization"),
            "{text}"
        );
        let credentials = vec![credential("user", "wrong"), credential("user", "right")];
        let pulled = store.pull(&name, Pull { credentials, ..Pull::default() }).await.unwrap();
        assert_eq!(pulled.id, image.id);
    }
    let registry = Fake::start(&source).await;
    registry.set(|behaviour| behaviour.access = Access::Token);
    let identity = Credential { identity_token: "identity".into(), ..Credential::default() };
    let direct = Credential { registry_token: fake::TOKEN.into(), ..Credential::default() };
    for (index, own) in [identity, direct].into_iter().enumerate() {
        let store = world.store(&format!("images-{index}")).await;
        let pull = Pull { credentials: vec![own], ..Pull::default() };
        let pulled = store.pull(&format!("{}/app:1", registry.address()), pull).await.unwrap();
        assert_eq!(pulled.id, image.id);
    }
}

#[tokio::test]
async fn a_redirect_does_not_take_credentials_along() {
    let world = World::new();
    let (source, image) = world.source().await;
    let (registry, elsewhere) = (Fake::start(&source).await, Fake::start(&source).await);
    registry.set(|behaviour| {
        behaviour.access = Access::Token;
        behaviour.redirects_to = Some(elsewhere.address());
    });
    let store = world.store("images").await;
    let pull = Pull { credentials: vec![credential("user", "right")], ..Pull::default() };
    let pulled = store.pull(&format!("{}/app:1", registry.address()), pull).await.unwrap();
    assert_eq!(pulled.id, image.id);
    assert_eq!(elsewhere.count("GET", "/blobs/"), 2);
    assert!(registry.saw_authorization() && !elsewhere.saw_authorization());
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_never_shown_credentials() {
    let world = World::new();
    let (source, image) = world.source().await;
    let (registry, mirror) = (Fake::start(&source).await, Fake::start(&source).await);
    registry.set(|behaviour| behaviour.access = Access::Basic);
    let folder = world.path.join("registries");
    let domain = "registry.example";
    fs::create_dir_all(folder.join(domain)).unwrap();
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://127.0.0.1:1\"]\n[host.\"http://{}\"]\n",
        registry.address(),
        mirror.address()
    );
    fs::write(folder.join(domain).join("hosts.toml"), text).unwrap();
    let options = || Options { registries: Some(folder.clone()) };
    let store = Store::open(&world.path.join("images"), options()).await.unwrap();
    let pull = || Pull { credentials: vec![credential("user", "right")], ..Pull::default() };
    let name = format!("{domain}/app:1");
    let pulled = store.pull(&name, pull()).await.unwrap();
    assert_eq!((&pulled.id, &pulled.tags), (&image.id, &vec![name.clone()]));
    assert_eq!(registry.count("GET", "/"), 0);
    assert!(mirror.count("GET", &format!("ns={domain}")) >= 3 && !mirror.saw_authorization());
    // A mirror that fails is no reason to fail.
    mirror.set(|behaviour| behaviour.access = Access::Basic);
    let other = Store::open(&world.path.join("other"), options()).await.unwrap();
    assert_eq!(other.pull(&name, pull()).await.unwrap().id, image.id);
    assert!(registry.saw_authorization());
}

#[tokio::test]
async fn an_index_is_followed_to_this_machine() {
    let world = World::new();
    let (source, image) = world.source().await;
    let registry = Fake::start(&source).await;
    let own = image.platform.split_once('/').unwrap().1.to_owned();
    registry.set(|behaviour| behaviour.index = vec!["s390x".to_owned(), own]);
    let store = world.store("images").await;
    let name = format!("{}/app:1", registry.address());
    let pulled = store.pull(&name, Pull::default()).await.unwrap();
    assert_eq!(pulled.id, image.id);
    let index = registry.top();
    assert_eq!(pulled.digests, [format!("{}/app@{index}", registry.address())]);
    // The index is kept with the image, so that its digest is known by its content.
    store.collect().await.unwrap();
    assert_eq!(fs::read_dir(store.root().join("blobs/sha256")).unwrap().count(), 4);

    registry.set(|behaviour| behaviour.index = vec!["mips".to_owned()]);
    let error = store.pull(&format!("{}/app:2", registry.address()), Pull::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(text.contains("no match for platform in manifest") && text.contains("linux/mips"), "{text}");
}

/// Ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_registry_and_a_real_client_agree() {
    let is_there = |tool: &str| Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
    for tool in ["docker-registry", "skopeo"] {
        if !is_there(tool) {
            println!("skipped: {tool} is not installed");
            return;
        }
    }
    let world = World::new();
    let (source, image) = world.source().await;
    let archive = world.path.join("image.tar");
    source.export(&["app:1".to_owned()], fs::File::create(&archive).unwrap()).await.unwrap();
    // It cannot tell which port it got, so it gets one that was free just now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = world.path.join("registry.yml");
    let data = world.path.join("registry");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n"
    );
    fs::write(&config, text).unwrap();
    let _running = Running(
        Command::new("docker-registry")
            .args(["serve", config.as_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let waits = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            rt::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waits).await.expect("the registry listens");
    for (from, name) in [("oci-archive", "oci"), ("docker-archive", "docker")] {
        let reference = if from == "oci-archive" { format!("{archive}:1") } else { archive.to_string() };
        let copied = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false", "-q"])
            .arg(format!("{from}:{reference}"))
            .arg(format!("docker://127.0.0.1:{port}/{name}/app:1"))
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let store = world.store(name).await;
        let pulled = store.pull(&format!("127.0.0.1:{port}/{name}/app:1"), Pull::default()).await.unwrap();
        assert_eq!(pulled.id, image.id);
        let error = store.pull(&format!("127.0.0.1:{port}/{name}/app:2"), Pull::default()).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{error:?}");
    }
    // And what other tools save is read here.
    for form in ["oci-archive", "docker-archive"] {
        let saved = world.path.join(format!("{form}.tar"));
        let copied = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--src-tls-verify=false", "-q"])
            .arg(format!("docker://127.0.0.1:{port}/oci/app:1"))
            .arg(format!("{form}:{saved}:example.org/saved:1"))
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let store = world.store(form).await;
        let imported = store.import(fs::File::open(&saved).unwrap(), None).await.unwrap();
        assert_eq!(imported[0].tags, ["example.org/saved:1"], "{form}");
        assert_eq!(imported[0].config, image.config);
    }
}
