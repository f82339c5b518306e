//! PostgreSQL: a StatefulSet whose rows outlive its pod, the server's end, and the end of everything.

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::PATIENCE;
use super::image::POSTGRES;
use super::processes::{kill, of_pods};
use crate::world::{Cluster, Inputs};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const ROLLED_OUT: [&str; 4] = ["rollout", "status", "statefulset/db", "--timeout=120s"];
/// The image's number for the group of its user.
const GROUP: u32 = 106;

/// The cluster that goes on, unless its server no longer starts.
pub fn run(inputs: &Inputs, mut cluster: Cluster, checks: &mut Checks) -> Option<Cluster> {
    let kubectl = cluster.kubectl.clone();
    let kubectl = &kubectl;
    checks.check("postgres: initdb in an init container, then it becomes ready", || {
        kubectl.ok_with(&["apply", "-f", "-"], &manifests().to_string())?;
        kubectl.ok(&ROLLED_OUT)?;
        let pod = pod(kubectl)?;
        let prepared = &pod["status"]["initContainerStatuses"][0]["state"]["terminated"];
        ensure!(prepared["reason"] == "Completed" && prepared["exitCode"] == 0, "{prepared}");
        Ok(())
    });
    checks.check("postgres: its claim is bound to a volume of the default class", || {
        let claim = kubectl.json(&["get", "persistentvolumeclaim", "data-db-0"])?;
        ensure!(claim["status"]["phase"] == "Bound", "{claim}");
        let volume = claim["spec"]["volumeName"].as_str().context("it names a volume")?;
        let volume = kubectl.json(&["get", "persistentvolume", volume])?;
        ensure!(volume["spec"]["storageClassName"] == claim["spec"]["storageClassName"], "{volume}");
        Ok(())
    });
    checks.check("postgres: it runs as the image's user", || {
        let said = sql(kubectl, "SELECT pg_read_file('/proc/self/status')")?;
        let uid = said.lines().find(|line| line.starts_with("Uid:")).unwrap_or_default();
        ensure!(uid.split_whitespace().nth(1) == Some("106"), "{uid:?}");
        Ok(())
    });
    checks.check("postgres: rows are written", || {
        sql(
            kubectl,
            "CREATE TABLE knots AS SELECT n, 'knot ' || n AS name FROM generate_series(1, 1000) AS n",
        )?;
        rows(kubectl, "1000")
    });
    checks.check("postgres: they outlive the pod", || {
        let before = uid(kubectl)?;
        kubectl.ok(&["delete", "pod", "db-0"])?;
        eventually(PATIENCE, || {
            let now = uid(kubectl)?;
            ensure!(now != before, "it is the same pod");
            Ok(())
        })?;
        kubectl.ok(&ROLLED_OUT)?;
        let said = kubectl.ok(&["logs", "db-0", "-c", "initdb"])?;
        ensure!(said.contains("there already"), "{said}");
        rows(kubectl, "1000")
    });

    let before = started(kubectl);
    checks.check("postgres: the server is killed", || cluster.server.crash());
    let mut cluster = restarted(inputs, cluster, checks)?;
    checks.check("postgres: it ran on meanwhile, and answers", || {
        let before = before?;
        let now = eventually(PATIENCE, || started(kubectl))?;
        ensure!(now == before, "it started at {before}, and now at {now}");
        sql(kubectl, "INSERT INTO knots VALUES (1001, 'after the kill')")?;
        rows(kubectl, "1001")?;
        let restarts = restarts(kubectl)?;
        ensure!(restarts == 0, "{restarts} restarts");
        Ok(())
    });

    let uids = uid(kubectl);
    checks.check("postgres: the server stops and every container is killed", || {
        let uids = [uids?];
        cluster.server.shut_down()?;
        let all = of_pods(&uids)?;
        ensure!(!all.is_empty(), "no process of the pod ran on");
        kill(&all)?;
        eventually(PATIENCE, || {
            let left = of_pods(&uids)?;
            ensure!(left.is_empty(), "{left:?} still run");
            Ok(())
        })
    });
    let cluster = restarted(inputs, cluster, checks)?;
    checks.check("postgres: it starts again and has every row", || {
        eventually(PATIENCE, || {
            let restarts = restarts(kubectl)?;
            ensure!(restarts >= 1, "it did not start again");
            Ok(())
        })?;
        kubectl.ok(&ROLLED_OUT)?;
        eventually(PATIENCE, || rows(kubectl, "1001"))
    });
    Some(cluster)
}

fn restarted(inputs: &Inputs, mut cluster: Cluster, checks: &mut Checks) -> Option<Cluster> {
    match cluster.start_again(inputs, &[]) {
        Ok(()) => {
            checks.check("postgres: the server is ready again", || {
                eventually(PATIENCE, || cluster.kubectl.ok(&["get", "--raw", "/readyz"])).map(drop)
            });
            Some(cluster)
        }
        Err(error) => {
            checks.check("postgres: the server starts again", || Err(error));
            None
        }
    }
}

fn sql(kubectl: &Kubectl, statement: &str) -> anyhow::Result<String> {
    let psql = format!("{PROGRAMS}/psql");
    let words =
        ["exec", "db-0", "-c", "postgres", "--", &psql, "-h", "127.0.0.1", "-v", "ON_ERROR_STOP=1", "-Atc"];
    kubectl.ok(&[&words[..], &[statement]].concat())
}

fn rows(kubectl: &Kubectl, wanted: &str) -> anyhow::Result<()> {
    let said = sql(kubectl, "SELECT count(*) FROM knots")?;
    ensure!(said.trim() == wanted, "{said:?} rows");
    Ok(())
}

fn started(kubectl: &Kubectl) -> anyhow::Result<String> {
    sql(kubectl, "SELECT pg_postmaster_start_time()").map(|said| said.trim().to_owned())
}

fn pod(kubectl: &Kubectl) -> anyhow::Result<Value> {
    kubectl.json(&["get", "pod", "db-0"])
}

fn uid(kubectl: &Kubectl) -> anyhow::Result<String> {
    Ok(pod(kubectl)?["metadata"]["uid"].as_str().context("a pod has a UID")?.to_owned())
}

fn restarts(kubectl: &Kubectl) -> anyhow::Result<u64> {
    pod(kubectl)?["status"]["containerStatuses"][0]["restartCount"].as_u64().context("it has a container")
}

fn manifests() -> Value {
    let prepare = format!(
        "[ -f $PGDATA/PG_VERSION ] && echo there already && exit; \
         exec {PROGRAMS}/initdb --auth=trust --locale=C --encoding=UTF8 --no-sync"
    );
    let ready = format!("{PROGRAMS}/pg_isready");
    let data = json!([{"name": "data", "mountPath": "/data"}]);
    let environment = json!([{"name": "PGDATA", "value": "/data/cluster"}]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
            "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 5432}]},
        },
        {
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
            "spec": {
                "replicas": 1, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {
                        "terminationGracePeriodSeconds": 30,
                        // The server refuses a folder that its group may write, which fsGroup makes of it each time.
                        "securityContext": {"fsGroup": GROUP, "fsGroupChangePolicy": "OnRootMismatch"},
                        "initContainers": [{
                            "name": "initdb", "image": POSTGRES.name, "command": ["sh", "-c", prepare],
                            "env": environment, "volumeMounts": data,
                        }],
                        "containers": [{
                            "name": "postgres", "image": POSTGRES.name,
                            "args": ["-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp", "-c", "jit=off"],
                            "env": environment, "volumeMounts": data,
                            "ports": [{"containerPort": 5432}],
                            "readinessProbe": {
                                "exec": {"command": [ready, "-h", "127.0.0.1"]}, "periodSeconds": 1},
                        }],
                    },
                },
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
            },
        },
    ]})
}
