//! What a path of the kubelet's API means, and which right it takes.

use http::Method;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Health,
    Pods,
    RunningPods,
    Summary,
    Metrics(Metrics),
    Configuration,
    ContainerLog(Container),
    Exec(Container),
    Attach(Container),
    Run(Container),
    PortForward {
        namespace: String,
        pod: String,
        uid: Option<String>,
    },
    /// Files of the node; the path below `/logs/`.
    NodeLog(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// Of the agent itself.
    Agent,
    Cadvisor,
    Resource,
    Probes,
}

/// A container in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub namespace: String,
    pub pod: String,
    /// Of the pod, where the path has it.
    pub uid: Option<String>,
    pub name: String,
}

/// Why a request has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrouted {
    NotFound,
    MethodNotAllowed,
}

impl Route {
    /// `path` is as it was sent, percent-encoded.
    pub fn parse(method: &Method, path: &str) -> Result<Self, Unrouted> {
        let words: Vec<String> =
            path.split('/').skip(1).map(decode).collect::<Option<_>>().ok_or(Unrouted::NotFound)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (first, rest) = words.split_first().ok_or(Unrouted::NotFound)?;
        // A slash at the end says nothing.
        let rest = match rest {
            [rest @ .., ""] if *first != "logs" => rest,
            rest => rest,
        };
        let route = match (*first, rest) {
            ("healthz", [] | ["ping" | "log" | "syncloop"]) => Self::Health,
            ("pods", []) => Self::Pods,
            ("runningpods", []) => Self::RunningPods,
            ("stats", [] | ["summary"]) => Self::Summary,
            ("metrics", []) => Self::Metrics(Metrics::Agent),
            ("metrics", ["cadvisor"]) => Self::Metrics(Metrics::Cadvisor),
            ("metrics", ["resource"]) => Self::Metrics(Metrics::Resource),
            ("metrics", ["probes"]) => Self::Metrics(Metrics::Probes),
            ("configz", []) => Self::Configuration,
            ("containerLogs", [namespace, pod, name]) => {
                Self::ContainerLog(container(namespace, pod, None, name))
            }
            ("exec" | "attach" | "run", [namespace, pod, name]) => {
                Self::of_process(first, container(namespace, pod, None, name))
            }
            ("exec" | "attach" | "run", [namespace, pod, uid, name]) => {
                Self::of_process(first, container(namespace, pod, Some(uid), name))
            }
            ("portForward", [namespace, pod]) => Self::port_forward(namespace, pod, None),
            ("portForward", [namespace, pod, uid]) => Self::port_forward(namespace, pod, Some(uid)),
            ("logs", rest) => Self::NodeLog(rest.join("/")),
            _ => return Err(Unrouted::NotFound),
        };
        let allowed = match route {
            Self::Run(_) => *method == Method::POST,
            Self::Exec(_) | Self::Attach(_) | Self::PortForward { .. } => {
                matches!(*method, Method::GET | Method::POST)
            }
            _ => matches!(*method, Method::GET | Method::HEAD),
        };
        if allowed { Ok(route) } else { Err(Unrouted::MethodNotAllowed) }
    }

    fn of_process(kind: &str, container: Container) -> Self {
        match kind {
            "exec" => Self::Exec(container),
            "attach" => Self::Attach(container),
            _ => Self::Run(container),
        }
    }

    fn port_forward(namespace: &str, pod: &str, uid: Option<&str>) -> Self {
        Self::PortForward {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.map(str::to_owned),
        }
    }
}

fn container(namespace: &str, pod: &str, uid: Option<&str>, name: &str) -> Container {
    Container {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        name: name.to_owned(),
    }
}

fn decode(word: &str) -> Option<String> {
    percent_encoding::percent_decode_str(word).decode_utf8().ok().map(Into::into)
}

/// The verb of the API that a method stands for.
pub fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The subresources of `nodes` of which any is right enough, the narrowest first.
pub fn subresources(path: &str) -> &'static [&'static str] {
    match path.split('/').nth(1).unwrap_or_default() {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_they_mean_upstream() {
        let get = |path: &str| Route::parse(&Method::GET, path);
        let one = |uid| container("ns", "p", uid, "c");
        assert_eq!(get("/containerLogs/ns/p/c"), Ok(Route::ContainerLog(one(None))));
        assert_eq!(get("/exec/ns/p/c"), Ok(Route::Exec(one(None))));
        assert_eq!(get("/exec/ns/p/uid/c"), Ok(Route::Exec(one(Some("uid")))));
        assert_eq!(get("/attach/ns/p/c/"), Ok(Route::Attach(one(None))));
        assert_eq!(get("/portForward/ns/p/u"), Ok(Route::port_forward("ns", "p", Some("u"))));
        assert_eq!(get("/logs/pods/x%20y/"), Ok(Route::NodeLog("pods/x y/".to_owned())));
        assert_eq!(get("/logs/"), Ok(Route::NodeLog(String::new())));
        assert_eq!(get("/logs"), Ok(Route::NodeLog(String::new())));
        assert_eq!(get("/metrics/cadvisor"), Ok(Route::Metrics(Metrics::Cadvisor)));
        for unknown in ["/", "", "/exec/ns/p", "/containerLogs/ns/p", "/checkpoint/ns/p/c", "/exec/%ff/p/c"] {
            assert_eq!(get(unknown), Err(Unrouted::NotFound), "{unknown}");
        }
        assert_eq!(get("/run/ns/p/c"), Err(Unrouted::MethodNotAllowed));
        assert_eq!(Route::parse(&Method::POST, "/run/ns/p/c"), Ok(Route::Run(one(None))));
        assert_eq!(Route::parse(&Method::POST, "/pods"), Err(Unrouted::MethodNotAllowed));
    }

    #[test]
    fn rights_are_upstreams() {
        let cases = [
            ("/stats/summary", "stats"),
            ("/metrics/resource", "metrics"),
            ("/metrics", "metrics"),
            ("/metricsx", "proxy"),
            ("/logs/x", "log"),
            ("/pods", "pods proxy"),
            ("/healthz/ping", "healthz proxy"),
            ("/exec/ns/p/c", "proxy"),
            ("/containerLogs/ns/p/c", "proxy"),
        ];
        for (path, wanted) in cases {
            assert_eq!(subresources(path).join(" "), wanted, "{path}");
        }
        assert_eq!((verb(&Method::POST), verb(&Method::GET)), ("create", "get"));
    }
}
