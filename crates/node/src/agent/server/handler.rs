//! From a request to its answer.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use http::{Request, StatusCode};
use runtime::{ContainerState, SharedRuntime, Streams};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use streaming::exec::Wanted;
use tokio::sync::mpsc;

use super::access::{Attributes, User};
use super::answer::{self, Answer, text};
use super::logs::stream::{Follow, Log};
use super::logs::watch::Watches;
use super::query::{BadLogOptions, LogOptions, Query};
use super::route::{self, Container, Metrics, Route, Unrouted};
use super::{Parts, PodView, container_log, node_log, streams};

/// Chunks of a log that wait for their reader.
const LOG_CHUNKS_MAX: usize = 4;

pub(super) struct Handler {
    parts: Parts,
    watches: Arc<Watches>,
    shutdown: rt::Shutdown,
}

/// What a pod or a container is missing, as an answer.
type Missing = Box<Answer>;

impl Handler {
    pub(super) fn new(parts: Parts, watches: Arc<Watches>, shutdown: rt::Shutdown) -> Self {
        Self { parts, watches, shutdown }
    }

    pub(super) fn shutdown(&self) -> &rt::Shutdown {
        &self.shutdown
    }

    pub(super) async fn handle<B>(
        &self,
        certificates: &[CertificateDer<'static>],
        request: Request<B>,
    ) -> Answer {
        if let Err(refused) = self.let_in(certificates, &request).await {
            return *refused;
        }
        match Route::parse(request.method(), request.uri().path()) {
            Ok(route) => self.answer(route, request).await,
            Err(Unrouted::NotFound) => text(StatusCode::NOT_FOUND, "404: Page Not Found"),
            Err(Unrouted::MethodNotAllowed) => {
                text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
            }
        }
    }

    /// Authenticates and authorizes.
    async fn let_in<B>(
        &self,
        certificates: &[CertificateDer<'static>],
        request: &Request<B>,
    ) -> Result<(), Box<Answer>> {
        let unauthorized = || Box::new(text(StatusCode::UNAUTHORIZED, "Unauthorized"));
        let user = match self.parts.access.user(certificates, request.headers()).await {
            Ok(user) => user.ok_or_else(unauthorized)?,
            Err(error) => {
                tracing::error!(%error, "Unable to authenticate the request due to an error");
                return Err(unauthorized());
            }
        };
        let verb = route::verb(request.method());
        let subresources = route::subresources(request.uri().path());
        for subresource in subresources {
            let attributes = Attributes { verb, subresource, node: self.parts.node_name.clone() };
            match self.parts.access.authorizer.is_allowed(&user, &attributes).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(Box::new(undecided(&user, &attributes, &error))),
            }
        }
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            subresources.join(" ")
        );
        Err(Box::new(text(StatusCode::FORBIDDEN, message)))
    }

    async fn answer<B>(&self, route: Route, request: Request<B>) -> Answer {
        let query = Query::of(request.uri());
        let answered = match route {
            Route::Health => Ok(self.health()),
            Route::Pods => Ok(self.pods()),
            Route::RunningPods => Ok(self.running_pods().await),
            Route::Summary => Ok(self.summary(&query).await),
            Route::Metrics(which) => Ok(self.metrics(which).await),
            Route::Configuration => Ok(answer::json(&json!({"kubeletconfig": self.parts.configuration}))),
            Route::ContainerLog(container) => self.container_log(&container, &query).await,
            Route::Exec(container) => self.exec(&container, &query, request),
            Route::Attach(container) => self.attach(&container, &query, request),
            Route::Run(container) => self.run(&container, &query).await,
            Route::PortForward { namespace, pod, uid } => {
                self.port_forward(&namespace, &pod, uid.as_deref(), &query, request)
            }
            Route::NodeLog(path) => Ok(self.node_log(&path).await),
        };
        answered.unwrap_or_else(|missing| *missing)
    }

    fn health(&self) -> Answer {
        match (self.parts.health)() {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(problem) => {
                let message =
                    format!("[+]ping ok\n[+]log ok\n[-]syncloop failed: {problem}\nhealthz check failed\n");
                text(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        }
    }

    fn pods(&self) -> Answer {
        let items = self.parts.pods.pods().into_iter().map(|view| {
            let mut pod = serde_json::to_value(&*view.pod)?;
            // The list says what its items are.
            if let Value::Object(fields) = &mut pod {
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            Ok::<_, serde_json::Error>(pod)
        });
        match items.collect() {
            Ok(items) => pod_list(items),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Pods as the runtime knows them, whether or not they are meant to run.
    async fn running_pods(&self) -> Answer {
        let runtime = &self.parts.runtime;
        let (sandboxes, containers) = match tokio::try_join!(runtime.sandboxes(), runtime.containers()) {
            Ok(found) => found,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        let items = sandboxes.into_iter().filter_map(|sandbox| {
            let running = containers.iter().filter(|container| {
                container.sandbox_id == sandbox.id && container.state == ContainerState::Running
            });
            let running: Vec<Value> = running
                .map(|container| {
                    json!({"name": container.name, "image": container.image_reference, "resources": {}})
                })
                .collect();
            (!running.is_empty()).then(|| {
                json!({
                    "metadata": {
                        "name": sandbox.name, "namespace": sandbox.namespace, "uid": sandbox.uid,
                    },
                    "spec": {"containers": running},
                    "status": {},
                })
            })
        });
        pod_list(items.collect())
    }

    async fn summary(&self, query: &Query) -> Answer {
        let only_cpu_and_memory = query.first("only_cpu_and_memory").is_some_and(|value| value != "false");
        match self.parts.stats.summary(only_cpu_and_memory).await {
            Ok(summary) => answer::json(&summary),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    async fn metrics(&self, which: Metrics) -> Answer {
        let written = match which {
            Metrics::Agent => Ok(self.parts.stats.volume_metrics().await + &telemetry::metrics().encode()),
            Metrics::Probes => Ok((self.parts.probe_metrics)()),
            Metrics::Resource => Ok(self.parts.stats.resource_metrics().await),
            Metrics::Cadvisor => self.parts.stats.cadvisor_metrics().await,
        };
        match written {
            Ok(written) => answer::whole(StatusCode::OK, telemetry::METRICS_CONTENT_TYPE, written),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    async fn node_log(&self, path: &str) -> Answer {
        match &self.parts.node_logs {
            Some(root) => node_log::serve(root, path).await,
            None => text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n"),
        }
    }

    async fn container_log(&self, asked: &Container, query: &Query) -> Result<Answer, Missing> {
        let bad = |status, message: String| Ok(text(status, message));
        let options = match LogOptions::read(query, rt::now()) {
            Ok(options) => options,
            Err(BadLogOptions::Undecodable) => {
                return bad(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#.to_owned());
            }
            Err(BadLogOptions::Invalid) => {
                let message = r#"{"message": "Invalid request."}"#.to_owned();
                return bad(StatusCode::UNPROCESSABLE_ENTITY, message);
            }
        };
        let Some(view) = self.parts.pods.pod(&asked.namespace, &asked.pod) else {
            return bad(StatusCode::NOT_FOUND, format!("pod {:?} does not exist", asked.pod));
        };
        if view.declared(&asked.name).is_none() {
            let message = format!("container {:?} not found in pod {:?}", asked.name, asked.pod);
            return bad(StatusCode::NOT_FOUND, message);
        }
        let id = match container_log::container_id(&view, &asked.name, options.previous) {
            Ok(id) => id,
            Err(message) => return bad(StatusCode::BAD_REQUEST, message),
        };
        let path = match self.log_path(&id).await {
            Ok(path) => path,
            Err(message) => return bad(StatusCode::BAD_REQUEST, message),
        };
        let log = match Log::open(&path, options.wanted).await {
            Ok(log) => log,
            Err(error) => {
                let message = format!("failed to open log file \"{path}\": {error}");
                return bad(StatusCode::BAD_REQUEST, message);
            }
        };
        let follow = options.follow.then(|| Follow {
            runtime: self.parts.runtime.clone(),
            container: id,
            watches: self.watches.clone(),
        });
        let (sender, chunks) = mpsc::channel(LOG_CHUNKS_MAX);
        let shutdown = self.shutdown.clone();
        rt::spawn("container log", async move {
            let copied = tokio::select! {
                copied = log.copy(follow, sender) => copied,
                () = shutdown.cancelled() => Ok(()),
            };
            if let Err(error) = copied {
                tracing::warn!(%path, %error, "Could not read a container's log");
            }
        });
        Ok(answer::chunks(answer::TEXT, chunks))
    }

    async fn log_path(&self, id: &str) -> Result<Utf8PathBuf, String> {
        match self.parts.runtime.container_status(id).await {
            Ok(status) => Ok(status.log_path),
            Err(error) => {
                tracing::debug!(container = id, %error, "A container whose log is asked for has no status");
                Err(format!("unable to retrieve container logs for {id}"))
            }
        }
    }

    fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Result<PodView, Missing> {
        let missing = |message| Box::new(text(StatusCode::NOT_FOUND, message));
        let view = self.parts.pods.pod(namespace, name).ok_or_else(|| missing("pod does not exist"))?;
        if uid.is_some_and(|uid| uid != view.uid()) {
            return Err(missing("pod not found"));
        }
        Ok(view)
    }

    /// The pod of a container, and the runtime's ID of the container.
    fn running(&self, asked: &Container) -> Result<(PodView, String), Missing> {
        let view = self.pod(&asked.namespace, &asked.pod, asked.uid.as_deref())?;
        match view.containers.get(&asked.name).cloned() {
            Some(id) => Ok((view, id)),
            None => {
                let message = format!("container not found ({:?})", asked.name);
                Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, message)))
            }
        }
    }

    fn exec<B>(&self, asked: &Container, query: &Query, request: Request<B>) -> Result<Answer, Missing> {
        let wanted = wanted(query);
        let (_, id) = self.running(asked)?;
        let command = query.all("command").map(str::to_owned).collect();
        let runtime = self.parts.runtime.clone();
        let handler = move |client| streams::exec(runtime, id, command, of_runtime(wanted), client);
        Ok(answer::of_upgrade(streaming::exec::serve(request, wanted, self.limits(), handler)))
    }

    fn attach<B>(&self, asked: &Container, query: &Query, request: Request<B>) -> Result<Answer, Missing> {
        let (view, id) = self.running(asked)?;
        // Whether a process has a terminal was decided when it started.
        let tty = view.declared(&asked.name).is_some_and(|declared| declared.tty);
        let wanted = Wanted { tty, ..wanted(query) };
        let runtime = self.parts.runtime.clone();
        let handler = move |client| streams::attach(runtime, id, of_runtime(wanted), client);
        Ok(answer::of_upgrade(streaming::exec::serve(request, wanted, self.limits(), handler)))
    }

    async fn run(&self, asked: &Container, query: &Query) -> Result<Answer, Missing> {
        let (_, id) = self.running(asked)?;
        let line = query.first("cmd").unwrap_or_default();
        let command: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let output = match self.parts.runtime.exec_sync(&id, &command, Duration::ZERO).await {
            Ok(output) => output,
            Err(error) => return Ok(text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        };
        if output.exit_code != 0 {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let message = format!("command '{line}' exited with {}: {stderr}", output.exit_code);
            return Ok(text(StatusCode::INTERNAL_SERVER_ERROR, message));
        }
        Ok(answer::whole(StatusCode::OK, answer::JSON, [output.stdout, output.stderr].concat()))
    }

    fn port_forward<B>(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        query: &Query,
        request: Request<B>,
    ) -> Result<Answer, Missing> {
        let view = self.pod(namespace, pod, uid)?;
        let Some(sandbox) = view.sandbox.clone() else {
            let message = format!("failed to find sandbox for pod {:?}", view.full_name());
            return Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, message)));
        };
        let ports: Vec<&str> = query.all("port").collect();
        let named = format!("{}, uid {}", view.full_name(), view.uid());
        let runtime = self.parts.runtime.clone();
        let connect = move |port| {
            let (runtime, sandbox): (SharedRuntime, String) = (runtime.clone(), sandbox.clone());
            async move { runtime.port_forward(&sandbox, port).await }
        };
        let limits = self.limits();
        Ok(answer::of_upgrade(streaming::port_forward::serve(request, &ports, named, limits, connect)))
    }

    fn limits(&self) -> streaming::Limits {
        let idle_timeout = self.parts.streaming_idle_timeout;
        streaming::Limits { idle_timeout, ..streaming::Limits::new(self.shutdown.clone()) }
    }
}

fn undecided(user: &User, attributes: &Attributes, error: &apimachinery::Status) -> Answer {
    let message = format!(
        "Authorization error (user={}, verb={}, resource=nodes, subresource={})",
        user.name, attributes.verb, attributes.subresource
    );
    tracing::error!(user = user.name, %error, "Authorization error");
    text(StatusCode::INTERNAL_SERVER_ERROR, message)
}

fn pod_list(items: Vec<Value>) -> Answer {
    answer::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn wanted(query: &Query) -> Wanted {
    let flag = |name| query.first(name) == Some("1");
    Wanted { stdin: flag("input"), stdout: flag("output"), stderr: flag("error"), tty: flag("tty") }
}

fn of_runtime(wanted: Wanted) -> Streams {
    let Wanted { stdin, stdout, stderr, tty } = wanted;
    Streams { stdin, stdout, stderr: stderr && !tty, tty }
}
