//! Plugins that answer, that refuse, and that never do.

use std::time::Duration;

use camino::Utf8PathBuf;
use grpc::{Router, Server};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::messages::{GET_INFO, InfoRequest, NOTIFY, RegistrationStatusResponse};
use super::*;

/// Messages that nobody read yet.
const TOLD_MAX: usize = 16;

/// A test that waits longer than this has failed.
const LONG: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Taken(Mutex<Vec<String>>);

#[async_trait]
impl Handler for Taken {
    fn kind(&self) -> &'static str {
        "CSIPlugin"
    }
    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        if plugin.versions != ["1.0.0"] {
            return Err("bad version".to_owned());
        }
        self.0.lock().push(format!("+{}", plugin.name));
        Ok(())
    }
    async fn deregister(&self, plugin: &Plugin) {
        self.0.lock().push(format!("-{}", plugin.name));
    }
}

/// Serves a plugin's socket; returns what it is told.
fn plugin(
    socket: &Utf8Path,
    kind: &str,
    version: &str,
    shutdown: &Shutdown,
) -> mpsc::Receiver<RegistrationStatus> {
    let (tell, told) = mpsc::channel(TOLD_MAX);
    let info = PluginInfo {
        r#type: kind.to_owned(),
        name: socket.file_stem().expect("a name").to_owned(),
        endpoint: String::new(),
        supported_versions: vec![version.to_owned()],
    };
    let router = Router::new()
        .unary(GET_INFO, move |_: InfoRequest| {
            let info = info.clone();
            async move { Ok(info) }
        })
        .unary(NOTIFY, move |status: RegistrationStatus| {
            let _ = tell.try_send(status);
            async { Ok(RegistrationStatusResponse {}) }
        });
    let server = Server::unix(socket).expect("a socket");
    rt::spawn("fake plugin", server.serve(router, shutdown.clone()));
    told
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            rt::sleep(Duration::from_millis(5)).await;
        }
    };
    rt::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn plugins_come_and_go_and_one_that_hangs_holds_up_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("it is text");
    let shutdown = Shutdown::new();
    let _end = shutdown.clone().drop_guard();
    let taken = Arc::new(Taken::default());
    let watcher = PluginWatcher::new(&root, vec![taken.clone()]);
    let registry = root.join(FOLDER);
    std::fs::create_dir(&registry).expect("made");
    // Accepts and says nothing.
    let _silent = std::os::unix::net::UnixListener::bind(registry.join("silent.sock")).expect("a socket");
    let mut first = plugin(&registry.join("first.sock"), "CSIPlugin", "1.0.0", &shutdown);
    rt::spawn("watcher", watcher.run(shutdown.clone()));
    let told = rt::timeout(LONG, first.recv()).await.expect("in time").expect("told");
    assert!(told.plugin_registered && told.error.is_empty());

    // In a folder that was not there before, and while the watcher runs.
    std::fs::create_dir(registry.join("inner")).expect("made");
    let own = Shutdown::new();
    let mut second = plugin(&registry.join("inner/second.sock"), "CSIPlugin", "1.0.0", &own);
    assert!(rt::timeout(LONG, second.recv()).await.expect("in time").expect("told").plugin_registered);

    let mut unknown = plugin(&registry.join("unknown.sock"), "Nothing", "1.0.0", &shutdown);
    let told = rt::timeout(LONG, unknown.recv()).await.expect("in time").expect("told");
    assert!(
        told.error.starts_with("no handler registered for plugin type: Nothing at socket"),
        "{}",
        told.error
    );
    let mut old = plugin(&registry.join("old.sock"), "CSIPlugin", "0.3", &shutdown);
    let told = rt::timeout(LONG, old.recv()).await.expect("in time").expect("told");
    assert_eq!((told.plugin_registered, told.error.as_str()), (false, "bad version"));

    own.cancel();
    let _ = std::fs::remove_file(registry.join("inner/second.sock"));
    until("the second is gone", || taken.0.lock().contains(&"-second".to_owned())).await;
    // It starts anew under the same name.
    let mut again = plugin(&registry.join("inner/second.sock"), "CSIPlugin", "1.0.0", &shutdown);
    assert!(rt::timeout(LONG, again.recv()).await.expect("in time").expect("told").plugin_registered);
    assert_eq!(*taken.0.lock(), ["+first", "+second", "-second", "+second"]);
}
