//! Where answers differ from upstream's, each with the reason. A case that stops to differ has to leave.

/// A known difference.
pub struct Known {
    pub file: &'static str,
    pub case: &'static str,
    pub reason: &'static str,
}

const fn known(file: &'static str, case: &'static str, reason: &'static str) -> Known {
    Known { file, case, reason }
}

/// Why a case differs, if it is known to.
pub fn reason(file: &str, case: &str) -> Option<&'static str> {
    KNOWN.iter().find(|known| known.file == file && known.case == case).map(|known| known.reason)
}

pub const KNOWN: &[Known] = &[
    known("discovery", "/", "lists the paths of upstream's own checks and debug pages"),
    known("discovery", "/version", "names this build, not Go's"),
    known("discovery", "/livez?verbose", "lists this server's own checks"),
    known("discovery", "fresh cluster: priorityclasses", "descriptions are our own words"),
    known(
        "discovery",
        "fresh cluster: servicecidrs",
        "the network is kubeadm's default, and the controller that writes the finalizer does not run here",
    ),
    known("discovery", "fresh cluster: kubernetes service", "the port that the server happens to listen on"),
    known(
        "create-minimal",
        "storage.k8s.io/v1 CSINode min",
        "storage: Go writes an empty list of drivers as null",
    ),
    known(
        "tables",
        "flowcontrol.apiserver.k8s.io/v1 FlowSchema min",
        "upstream had not written the condition yet; ours is there at once",
    ),
    known(
        "validate-nonsense",
        "apps.v1.DaemonSet",
        "privileged containers are allowed, as every distribution has it; upstream's bare default refuses them",
    ),
    known(
        "validate-nonsense",
        "authorization.k8s.io.v1.LocalSubjectAccessReview",
        "metadata is printed in alphabetical order, not in that of Go's struct",
    ),
    known(
        "validate-nonsense",
        "authorization.k8s.io.v1.SelfSubjectAccessReview",
        "metadata is printed in alphabetical order, not in that of Go's struct",
    ),
    known(
        "validate-nonsense",
        "authorization.k8s.io.v1.SubjectAccessReview",
        "metadata is printed in alphabetical order, not in that of Go's struct",
    ),
    known(
        "validate-nonsense",
        "batch.v1.Job",
        "privileged containers are allowed, as every distribution has it; upstream's bare default refuses them",
    ),
    known(
        "validate-nonsense",
        "core.v1.ReplicationController",
        "privileged containers are allowed, as every distribution has it; upstream's bare default refuses them",
    ),
    known(
        "validate-nonsense",
        "resource.k8s.io.v1.DeviceClass",
        "compiles CEL expressions: a later milestone",
    ),
    known(
        "validate-nonsense",
        "resource.k8s.io.v1.ResourceClaim",
        "admin access of claims: a later milestone, with CEL",
    ),
    known("bad-input", "pod: negative grace", "LimitRanger: a later milestone"),
    known(
        "conversions-and-subresources",
        "/openapi/v3/apis/example.com/v1",
        "the types that all documents share are in our own mixture of versions 2 and 3",
    ),
    known(
        "conversions-and-subresources",
        "custom resource /openapi/v3/apis/example.com/v1",
        "the types that all documents share are in our own mixture of versions 2 and 3",
    ),
    known("update-rules", "pod: container name", "shows the change as a diff of JSON, not of Go's structs"),
    known("update-rules", "pod: nodeName", "shows the change as a diff of JSON, not of Go's structs"),
    known(
        "update-rules",
        "pod: resources without resize",
        "shows the change as a diff of JSON, not of Go's structs",
    ),
    known("update-rules", "claim: shrink", "shows the change as a diff of JSON, not of Go's structs"),
    known("update-rules", "volume: source", "shows the change as a diff of JSON, not of Go's structs"),
    known("patches", "merge: wrong type", "shows the whole object with the status that a controller wrote"),
    known("patches", "json: escape", "a controller put its annotation back in between"),
    known("requests", "list configmaps limit 1", "upstream counts one object too many"),
    known("requests", "yaml answer", "quotes keys that need no quotes"),
    known("requests", "anonymous version", "names this build, not Go's"),
    known(
        "admission",
        "pod security",
        "privileged containers are allowed, as every distribution has it; upstream's bare default refuses them",
    ),
    known("watch", "too old", "what a policy refuses upstream came and went"),
];
