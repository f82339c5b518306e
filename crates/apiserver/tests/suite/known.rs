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
    known("discovery", "fresh cluster: kubernetes service", "the port that the server happens to listen on"),
    known(
        "tables",
        "flowcontrol.apiserver.k8s.io/v1 FlowSchema min",
        "upstream had not written the condition yet; ours is there at once",
    ),
    known(
        "conversions-and-subresources",
        "/openapi/v3/apis/example.com/v1",
        "operations and their parameters are published without prose",
    ),
    known(
        "conversions-and-subresources",
        "custom resource /openapi/v3/apis/example.com/v1",
        "operations and their parameters are published without prose",
    ),
    known(
        "update-rules",
        "pod: container name",
        "counts the lines of a volume that the recorded server had and the recording does not show",
    ),
    known(
        "update-rules",
        "pod: nodeName",
        "counts the lines of a volume that the recorded server had and the recording does not show",
    ),
    known(
        "update-rules",
        "pod: resources without resize",
        "counts the lines of a volume that the recorded server had and the recording does not show",
    ),
    known("patches", "merge: wrong type", "shows the whole object, in the order of Go's struct"),
    known("requests", "list configmaps limit 1", "upstream counts one object too many"),
    known("requests", "anonymous version", "names this build, not Go's"),
];
