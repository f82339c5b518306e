//! Finding out what a cluster is and may.

use anyhow::ensure;
use interop::Checks;

use super::World;

pub(super) fn explore(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    let mut contains = |what: &str, arguments: &[&str], wanted: &[&str]| {
        checks.check(what, || {
            let said = kubectl.ok(arguments)?;
            for part in wanted {
                ensure!(said.contains(part), "no {part:?} in:\n{said}");
            }
            Ok(())
        });
    };
    contains(
        "version names the server",
        &["version", "-o", "json"],
        &["\"serverVersion\"", "v1.36", "+pintle"],
    );
    contains(
        "cluster-info says where it is",
        &["cluster-info"],
        &["Kubernetes control plane", "https://127.0.0.1:"],
    );
    contains("readyz is ok", &["get", "--raw", "/readyz"], &["ok"]);
    contains("livez lists its checks", &["get", "--raw", "/livez?verbose"], &["[+]", "livez check passed"]);
    contains(
        "metrics are served",
        &["get", "--raw", "/metrics"],
        &[
            "apiserver_request_total{",
            "apiserver_request_duration_seconds_bucket{",
            "apiserver_current_inflight_requests{",
            "workqueue_depth{",
            "storage_sync_duration_seconds_count",
            "process_resident_memory_bytes",
        ],
    );
    contains("nodes are ready", &["get", "nodes"], &["NAME", "STATUS", "Ready"]);
    contains(
        "namespaces of upstream are there",
        &["get", "namespaces", "-o", "name"],
        &["namespace/default", "namespace/kube-system", "namespace/kube-public", "namespace/kube-node-lease"],
    );
    contains(
        "the API itself is a Service",
        &["get", "service", "kubernetes", "-n", "default"],
        &["ClusterIP", "443/TCP"],
    );
    contains(
        "explain knows a field",
        &["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"],
        &["maxSurge", "Deployment"],
    );
    contains(
        "explain --recursive goes all the way down",
        &["explain", "pod.spec", "--recursive"],
        &["containers", "readinessProbe", "topologySpreadConstraints", "matchLabelKeys"],
    );
    contains(
        "api-versions lists groups",
        &["api-versions"],
        &["apps/v1", "rbac.authorization.k8s.io/v1", "v1"],
    );
    contains("may-I says yes to an administrator", &["auth", "can-i", "create", "pods"], &["yes"]);
    contains("may-I lists rules", &["auth", "can-i", "--list"], &["*.*", "[*]"]);
    contains(
        "bootstrap roles are there",
        &["get", "clusterroles", "-o", "name"],
        &[
            "clusterrole.rbac.authorization.k8s.io/cluster-admin",
            "clusterrole.rbac.authorization.k8s.io/edit",
            "clusterrole.rbac.authorization.k8s.io/system:controller:deployment-controller",
            "clusterrole.rbac.authorization.k8s.io/system:kube-scheduler",
        ],
    );
    checks.check("api-resources lists everything, with short names and kinds", || {
        let said = kubectl.ok(&["api-resources", "-o", "wide"])?;
        let lines = said.lines().count();
        ensure!(lines > 60, "only {lines} lines:\n{said}");
        let pods = said.lines().find(|line| line.starts_with("pods ")).unwrap_or_default();
        for part in ["po", "v1", "true", "Pod", "deletecollection", "watch"] {
            ensure!(pods.contains(part), "no {part} in {pods}");
        }
        Ok(())
    });
    checks.check("may-I says no to somebody without rights", || {
        let output = kubectl.run(&[
            "auth",
            "can-i",
            "list",
            "secrets",
            "--as=system:serviceaccount:default:default",
        ])?;
        ensure!(output.code == Some(1) && output.stdout.trim() == "no", "{output:?}");
        Ok(())
    });
    checks.check("somebody without rights is refused with upstream's words", || {
        let said = kubectl.refused(&["get", "secrets", "--as=jane"])?;
        let wanted = "secrets is forbidden: User \"jane\" cannot list resource \"secrets\" in API group \"\" in the namespace";
        ensure!(said.contains(wanted), "{said}");
        Ok(())
    });
    checks.check("a rule given to somebody holds", || {
        kubectl.ok(&["create", "role", "reader", "--verb=get,list", "--resource=configmaps"])?;
        kubectl.ok(&["create", "rolebinding", "reader", "--role=reader", "--user=jane"])?;
        kubectl.ok(&["get", "configmaps", "--as=jane"])?;
        let said = kubectl.refused(&["get", "pods", "--as=jane"])?;
        ensure!(said.contains("pods is forbidden"), "{said}");
        Ok(())
    });
    checks.check("a token of a service account works and is its own", || {
        kubectl.ok(&["create", "serviceaccount", "robot"])?;
        let token = kubectl.ok(&["create", "token", "robot", "--duration=10m"])?;
        ensure!(token.trim().split('.').count() == 3, "not a JWT: {token}");
        let review = serde_json::json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.trim()},
        });
        let said = kubectl.ok_with(&["create", "-f", "-", "-o", "json"], &review.to_string())?;
        let wanted = format!("system:serviceaccount:{}:robot", kubectl.namespace());
        ensure!(said.contains("\"authenticated\": true") && said.contains(&wanted), "{said}");
        Ok(())
    });
    checks.check("an unknown resource is named", || {
        let said = kubectl.refused(&["get", "unicorns"])?;
        ensure!(said.contains("the server doesn't have a resource type \"unicorns\""), "{said}");
        Ok(())
    });
}
