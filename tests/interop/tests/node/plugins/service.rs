//! A plugin's process, as a thread of this one: sockets that are served until it is dropped.

use std::thread::JoinHandle;

use anyhow::Context;
use camino::Utf8PathBuf;
use grpc::{Router, Server};

use super::messages::{
    GET_INFO, InfoRequest, NOTIFY, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};

pub struct Service {
    shutdown: rt::Shutdown,
    thread: Option<JoinHandle<()>>,
    sockets: Vec<Utf8PathBuf>,
}

impl Service {
    pub fn start(servers: Vec<(Utf8PathBuf, Router)>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let sockets: Vec<Utf8PathBuf> = servers.iter().map(|(socket, _)| socket.clone()).collect();
        let shutdown = rt::Shutdown::new();
        {
            let _inside = runtime.enter();
            for (socket, router) in servers {
                let server = Server::unix(&socket).with_context(|| format!("listening at {socket}"))?;
                rt::spawn("plugin", server.serve(router, shutdown.clone()));
            }
        }
        let end = shutdown.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(end.cancelled());
            // Calls that hang are given up.
            runtime.shutdown_background();
        });
        Ok(Self { shutdown, thread: Some(thread), sockets })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// What a socket in `plugins_registry` says.
pub fn registration(kind: &str, name: &str, endpoint: String, version: &str) -> Router {
    let info = PluginInfo {
        r#type: kind.to_owned(),
        name: name.to_owned(),
        endpoint,
        supported_versions: vec![version.to_owned()],
    };
    Router::new()
        .unary(GET_INFO, move |_: InfoRequest| {
            let info = info.clone();
            async move { Ok(info) }
        })
        .unary(NOTIFY, |status: RegistrationStatus| async move {
            if !status.plugin_registered {
                eprintln!("a plugin was refused: {}", status.error);
            }
            Ok(RegistrationStatusResponse {})
        })
}
