//! The kubelet's API: logs, exec, attach, port-forward, statistics.
