//! Every metric there is, is fed by a cluster that runs an application.

mod running;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use running::{DEPLOYMENT, Running, up, write};

/// Metrics whose series begin with what an ordinary cluster never has: an audit policy, webhooks and policies,
/// autoscalers, or a request that a queue has no room for.
const SELDOM: &[&str] = &[
    "apiserver_admission_webhook_admission_duration_seconds",
    "apiserver_admission_webhook_fail_open_count",
    "apiserver_admission_webhook_rejection_count",
    "apiserver_admission_webhook_request_total",
    "apiserver_admission_match_condition_evaluation_errors_total",
    "apiserver_admission_match_condition_evaluation_seconds",
    "apiserver_admission_match_condition_exclusions_total",
    "apiserver_validating_admission_policy_check_total",
    "apiserver_validating_admission_policy_check_duration_seconds",
    "apiserver_mutating_admission_policy_check_total",
    "apiserver_mutating_admission_policy_check_duration_seconds",
    "apiserver_audit_error_total",
    "apiserver_audit_level_total",
    "apiserver_flowcontrol_request_dispatch_no_accommodation_total",
    "horizontal_pod_autoscaler_controller_desired_replicas",
    "horizontal_pod_autoscaler_controller_metric_computation_duration_seconds",
    "horizontal_pod_autoscaler_controller_metric_computation_total",
    "horizontal_pod_autoscaler_controller_reconciliation_duration_seconds",
    "horizontal_pod_autoscaler_controller_reconciliations_total",
];

/// Metrics that have counted something once an application runs; the others may be zero.
const FED: &[&str] = &[
    "apiserver_admission_controller_admission_duration_seconds",
    "apiserver_admission_step_admission_duration_seconds",
    "apiserver_authorization_decisions_total",
    "authenticated_user_requests",
    "authentication_attempts",
    "authentication_duration_seconds",
    "authorization_attempts_total",
    "authorization_duration_seconds",
    "etcd_request_duration_seconds",
    "etcd_requests_total",
    "kubernetes_feature_enabled",
    "apiserver_request_total",
    "apiserver_request_duration_seconds",
    "apiserver_response_sizes",
    "apiserver_longrunning_requests",
    "apiserver_watch_events_total",
    "apiserver_resource_objects",
    "apiserver_storage_objects",
    "apiserver_storage_size_bytes",
    "apiserver_watch_cache_capacity",
    "apiserver_watch_cache_events_received_total",
    "apiserver_watch_cache_resource_version",
    "watch_cache_kept_events",
    "watch_cache_superseded_bytes",
    "workqueue_adds_total",
    "workqueue_queue_duration_seconds",
    "workqueue_work_duration_seconds",
    "controller_runtime_reconcile_total",
    "controller_runtime_reconcile_time_seconds",
    "controller_runtime_max_concurrent_reconciles",
    "scheduler_schedule_attempts_total",
    "scheduler_scheduling_attempt_duration_seconds",
    "scheduler_queue_incoming_pods_total",
    "storage_commit_batch_writes",
    "storage_commit_duration_seconds",
    "storage_history_changes",
    "storage_revision",
    "storage_sync_duration_seconds",
    "kubernetes_build_info",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
];

#[test]
fn every_metric_is_served_and_what_an_application_needs_is_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let manifest = write(folder.path(), "web.yaml", DEPLOYMENT);
    let mut command = up(&data_dir);
    command.args(["--sim-nodes", "2", "--apply", &manifest]);
    let mut cluster = Running::start(command);
    cluster.line_with("All 2 objects are ready");
    let client = Client::of(&data_dir.join("kubeconfig"));

    assert_eq!(client.get("/readyz"), "ok");
    assert!(client.get("/api/v1/namespaces/shop/pods").contains("\"PodList\""));
    // A watch that has ended is counted no more, one that goes on is.
    assert!(client.get("/api/v1/pods?watch=true&timeoutSeconds=1").contains("\"ADDED\""));
    let mut watch = client.send("/api/v1/pods?watch=true");
    let mut line = String::new();
    while !line.contains("\"ADDED\"") {
        line.clear();
        assert!(watch.read_line(&mut line).expect("the watch goes on") > 0, "the watch ended");
    }

    let text = client.get("/metrics");
    let sums = sums(&text);
    let names = telemetry::metrics().names();
    let expected = names.iter().filter(|name| !SELDOM.contains(name));
    let missing: Vec<_> = expected.filter(|name| !sums.contains_key(**name)).collect();
    assert!(missing.is_empty(), "nothing feeds {missing:?}");
    let zero: Vec<_> = FED.iter().filter(|name| sums.get(**name).is_none_or(|sum| *sum == 0.0)).collect();
    assert!(zero.is_empty(), "nothing was counted in {zero:?}");
    for sample in [
        r#"apiserver_resource_objects{group="apps",resource="deployments"} 1"#,
        r#"apiserver_storage_objects{resource="deployments.apps"} 1"#,
        r#"apiserver_storage_objects{resource="pods"} 2"#,
        r#"scheduler_pending_pods{queue="active"} 0"#,
        r#"scheduler_schedule_attempts_total{result="scheduled",profile="default-scheduler"} 2"#,
        r#"workqueue_depth{name="deployment-controller"} 0"#,
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample} in\n{text}");
    }
    let readyz = "apiserver_request_total{verb=\"GET\",dry_run=\"\",group=\"\",version=\"\",resource=\"\"";
    assert!(
        text.lines().any(|line| line.starts_with(readyz) && line.ends_with("code=\"200\"} 1")),
        "{readyz} in\n{text}"
    );
    let watches = "apiserver_longrunning_requests{verb=\"WATCH\",group=\"\",version=\"v1\",resource=\"pods\"";
    let watches: Vec<_> = text.lines().filter(|line| line.starts_with(watches)).collect();
    assert!(matches!(watches[..], [line] if line.ends_with(" 1")), "{watches:?}");

    let checks = client.get("/metrics/slis");
    let ping = r#"kubernetes_healthcheck{name="ping",type="readyz"} 1"#;
    assert!(checks.lines().any(|line| line == ping), "{ping} in\n{checks}");

    drop(watch);
    cluster.signal("TERM");
    assert_eq!(cluster.exit_code(), Some(0));
}

/// What each metric counted over all of its series; of a histogram the number of observations.
fn sums(text: &str) -> HashMap<&str, f64> {
    let mut sums = HashMap::new();
    let mut family = ("", "");
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            family = head.split_once(' ').expect("a name and a type");
            sums.insert(family.0, 0.0);
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let name = series.split('{').next().unwrap_or_default();
            let counted =
                name == family.0 || (family.1 == "histogram" && name == format!("{}_count", family.0));
            if counted {
                *sums.entry(family.0).or_default() += value.parse::<f64>().expect("a number");
            }
        }
    }
    sums
}

/// As little of an HTTPS client as a scrape needs.
struct Client {
    address: String,
    tls: Arc<ClientConfig>,
}

type Answer = BufReader<StreamOwned<ClientConnection, TcpStream>>;

impl Client {
    /// The administrator of a kubeconfig.
    fn of(kubeconfig: &Path) -> Self {
        let text = fs::read_to_string(kubeconfig).expect("the kubeconfig is there");
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_else(|| panic!("no {name}")).trim().trim_matches('"').to_owned()
        };
        let pem = |name: &str| STANDARD.decode(field(name)).expect("base64");
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&pem("certificate-authority-data"))).expect("an authority");
        let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data")).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate(&pem("client-certificate-data"))], key)
            .expect("a certificate with its key");
        Self { address: field("server").trim_start_matches("https://").to_owned(), tls: Arc::new(tls) }
    }

    /// Sends a request; its answer ends with the connection.
    fn send(&self, path: &str) -> Answer {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.to_owned()).expect("an address");
        let connection = ClientConnection::new(self.tls.clone(), name).expect("a connection");
        let stream = TcpStream::connect(&self.address).expect("the server listens");
        let mut stream = StreamOwned::new(connection, stream);
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).expect("the server reads");
        BufReader::new(stream)
    }

    /// The whole answer of a request that succeeds.
    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        self.send(path).read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.lines().next().is_some_and(|status| status.contains(" 200 ")), "{head}");
        body.to_owned()
    }
}

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).expect("a certificate")
}
