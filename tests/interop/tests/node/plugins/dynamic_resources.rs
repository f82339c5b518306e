//! A driver of dynamic resources: what the scheduler allocates is prepared before a pod starts, and given back after.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, ensure};
use grpc::{Router, Status};
use interop::{Checks, Kubectl, eventually};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::cdi::CdiFile;
use super::messages::dynamic_resources::{
    Claims, Device, Prepared, PreparedClaim, Unprepared, UnpreparedClaim,
};
use super::service::{Service, registration};
use crate::pods::{self, PATIENCE, event, shell_with, until_ready};
use crate::world::Cluster;

const DRIVER: &str = "dra.pintle.dev";
const PREPARE: &str = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources";
const UNPREPARE: &str = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources";

/// What the driver was asked, and whether it refuses.
#[derive(Default)]
struct State {
    calls: Mutex<Vec<String>>,
    refuses: Mutex<bool>,
}

fn router(state: &Arc<State>) -> Router {
    let (preparing, unpreparing) = (state.clone(), state.clone());
    let names =
        |request: &Claims| request.claims.iter().map(|own| own.name.clone()).collect::<Vec<_>>().join(" ");
    Router::new()
        .unary(PREPARE, move |request: Claims| {
            preparing.calls.lock().push(format!("prepare {}", names(&request)));
            let refuses = *preparing.refuses.lock();
            let answer = || {
                if refuses {
                    return PreparedClaim {
                        error: "the toy is broken".to_owned(),
                        ..PreparedClaim::default()
                    };
                }
                let device = Device {
                    request_names: vec!["toy".to_owned()],
                    pool_name: "n1".to_owned(),
                    device_name: "robot".to_owned(),
                    cdi_device_ids: vec![CdiFile::device()],
                };
                PreparedClaim { devices: vec![device], error: String::new() }
            };
            let claims: HashMap<_, _> =
                request.claims.iter().map(|own| (own.uid.clone(), answer())).collect();
            async move { Ok::<_, Status>(Prepared { claims }) }
        })
        .unary(UNPREPARE, move |request: Claims| {
            unpreparing.calls.lock().push(format!("unprepare {}", names(&request)));
            let claims: HashMap<_, _> =
                request.claims.iter().map(|own| (own.uid.clone(), UnpreparedClaim::default())).collect();
            async move { Ok::<_, Status>(Unprepared { claims }) }
        })
}

fn start(cluster: &Cluster, state: &Arc<State>) -> anyhow::Result<Service> {
    let root = cluster.data().join("node");
    let own = root.join("plugins").join(DRIVER);
    fs::create_dir_all(&own).with_context(|| format!("making {own}"))?;
    let socket = own.join("dra.sock");
    let registered = root.join("plugins_registry").join(format!("{DRIVER}-reg.sock"));
    let info = registration("DRAPlugin", DRIVER, socket.to_string(), "v1.DRAPlugin");
    Service::start(vec![(socket, router(state)), (registered, info)])
}

/// One device, its class, and a template of claims to one.
fn objects() -> [Value; 3] {
    let spec = json!({"devices": {"requests": [{"name": "toy", "exactly": {"deviceClassName": "toys"}}]}});
    [
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "n1-toys"},
            "spec": {"driver": DRIVER, "nodeName": "n1", "devices": [{"name": "robot"}],
                "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}}}),
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "toys"},
            "spec": {"selectors": [{"cel": {"expression": format!("device.driver == '{DRIVER}'")}}]}}),
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "toy"},
            "spec": {"spec": spec}}),
    ]
}

fn pod() -> Value {
    let claims = json!({"resources": {"claims": [{"name": "toy"}]}});
    json!({"containers": [shell_with("c", "echo cdi $CDI; head -c 3 /dev/toy-cdi | wc -c; sleep 1000", claims)],
        "resourceClaims": [{"name": "toy", "resourceClaimTemplateName": "toy"}]})
}

pub fn run(cluster: &Cluster, checks: &mut Checks) {
    let state = Arc::<State>::default();
    let kubectl = &cluster.kubectl;
    let mut service = None;
    checks.check("a driver's device is prepared for its pod and given back", || {
        service = Some(start(cluster, &state)?);
        pods::make(kubectl, &objects())?;
        prepared(kubectl, &state)
    });
    checks.check("a pod waits for a driver that refuses, and says why", || {
        *state.refuses.lock() = true;
        pods::create(kubectl, "waits", pod())?;
        let why = "Failed to prepare dynamic resources: prepare dynamic resources: NodePrepareResources failed for \
                   ResourceClaim";
        event(kubectl, "waits", "FailedPrepareDynamicResources", why)?;
        *state.refuses.lock() = false;
        until_ready(kubectl, "waits")?;
        kubectl.ok(&["delete", "pod", "waits"]).map(drop)
    });
}

fn prepared(kubectl: &Kubectl, state: &State) -> anyhow::Result<()> {
    pods::create(kubectl, "robot", pod())?;
    let pod = until_ready(kubectl, "robot")?;
    let claim = pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"].clone();
    let claim = claim.as_str().context("the pod has no claim")?;
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["logs", "robot"])?;
        ensure!(said == "cdi yes\n3\n", "it said {said}");
        Ok(())
    })?;
    let found = kubectl.json(&["get", "resourceclaim", claim])?;
    ensure!(found["status"]["reservedFor"][0]["name"] == "robot", "{}", found["status"]);
    kubectl.ok(&["delete", "pod", "robot"])?;
    eventually(PATIENCE, || {
        let calls = state.calls.lock();
        let wanted = [format!("prepare {claim}"), format!("unprepare {claim}")];
        ensure!(*calls == wanted, "the driver was asked {calls:?}");
        Ok(())
    })
}
