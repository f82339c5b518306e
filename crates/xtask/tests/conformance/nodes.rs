//! The tests of nodes and their pods.

use super::Covered::{self, By, Not};
use super::{COLLECTIONS, EVERY_VERB, STATUSES};

const CHANNELS: &str = "crates/streaming/tests/protocols.rs";
const COURSE: &str = "tests/interop/tests/node/lifecycle/course.rs";
const ENVIRONMENT: &str = "tests/interop/tests/node/conformance/environment.rs";
const FILES: &str = "tests/interop/tests/node/conformance/files.rs";
const HOSTS: &str = "tests/interop/tests/node/conformance/hosts.rs";
const IMAGES: &str = "tests/interop/tests/node/conformance/images.rs";
const LIVENESS: &str = "tests/interop/tests/node/lifecycle/probes.rs";
const OUTCOMES: &str = "tests/interop/tests/node/conformance/outcomes.rs";
const PROBES: &str = "crates/node/src/agent/probes/tests.rs";
const PROBING: &str = "tests/interop/tests/node/conformance/probing.rs";
const RESIZING: &str = "tests/interop/tests/node/conformance/resizing.rs";
const RUNTIME_CLASSES: &str = "crates/admission/src/runtime_class.rs";
const SECURITY: &str = "tests/interop/tests/node/lifecycle/security.rs";
const STREAMS: &str = "tests/interop/tests/node/streams.rs";
const SUB_PATHS: &str = "tests/interop/tests/node/conformance/sub_paths.rs";
const TAINTS: &str = "crates/controllers/src/taint_eviction/tests.rs";
const USERS: &str = "tests/interop/tests/node/conformance/users.rs";

pub fn table() -> Vec<(&'static str, Covered)> {
    vec![
        (
            "[sig-node] ConfigMap should be consumable as environment variable names with various prefixes",
            By(&[(
                ENVIRONMENT,
                "variables come from keys and from whole objects, with and without a prefix",
            )]),
        ),
        (
            "[sig-node] ConfigMap should be consumable via environment variable [NodeConformance]",
            By(&[(
                ENVIRONMENT,
                "variables come from keys and from whole objects, with and without a prefix",
            )]),
        ),
        (
            "[sig-node] ConfigMap should be consumable via the environment [NodeConformance]",
            By(&[(
                ENVIRONMENT,
                "variables come from keys and from whole objects, with and without a prefix",
            )]),
        ),
        (
            "[sig-node] ConfigMap should fail to create ConfigMap with empty key",
            By(&[(FILES, "a key cannot be empty")]),
        ),
        ("[sig-node] ConfigMap should run through a ConfigMap lifecycle", By(&[EVERY_VERB])),
        ("[sig-node] ConfigMap should update ConfigMap successfully [NodeConformance]", By(&[EVERY_VERB])),
        (
            "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec hook properly [NodeConformance]",
            By(&[(COURSE, "hooks run after the start and before the end, and SIGTERM follows")]),
        ),
        (
            "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart http hook properly [NodeConformance]",
            By(&[(OUTCOMES, "hooks ask another pod over HTTP after the start and before the end")]),
        ),
        (
            "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop exec hook properly [NodeConformance]",
            By(&[(COURSE, "hooks run after the start and before the end, and SIGTERM follows")]),
        ),
        (
            "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop http hook properly [NodeConformance]",
            By(&[(OUTCOMES, "hooks ask another pod over HTTP after the start and before the end")]),
        ),
        (
            "[sig-node] Container Runtime blackbox test on terminated container should report termination message as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance]",
            By(&[(OUTCOMES, "the last message is of the file, or of the log where that failed")]),
        ),
        (
            "[sig-node] Container Runtime blackbox test on terminated container should report termination message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance]",
            By(&[(OUTCOMES, "the last message is of the file, or of the log where that failed")]),
        ),
        (
            "[sig-node] Container Runtime blackbox test on terminated container should report termination message from log output if TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance]",
            By(&[(OUTCOMES, "the last message is of the file, or of the log where that failed")]),
        ),
        (
            "[sig-node] Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path [NodeConformance]",
            By(&[(OUTCOMES, "the last message is of the file, or of the log where that failed")]),
        ),
        (
            "[sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status [NodeConformance]",
            By(&[(OUTCOMES, "how a container ends is what its pod becomes, by the restart policy")]),
        ),
        (
            "[sig-node] Containers should be able to override the image's default arguments (container cmd) [NodeConformance]",
            By(&[(ENVIRONMENT, "commands and arguments are the image's, unless the pod has its own")]),
        ),
        (
            "[sig-node] Containers should be able to override the image's default command (container entrypoint) [NodeConformance]",
            By(&[(ENVIRONMENT, "commands and arguments are the image's, unless the pod has its own")]),
        ),
        (
            "[sig-node] Containers should be able to override the image's default command and arguments [NodeConformance]",
            By(&[(ENVIRONMENT, "commands and arguments are the image's, unless the pod has its own")]),
        ),
        (
            "[sig-node] Containers should use the image defaults if command and args are blank [NodeConformance]",
            By(&[(ENVIRONMENT, "commands and arguments are the image's, unless the pod has its own")]),
        ),
        (
            "[sig-node] Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars [NodeConformance]",
            By(&[(
                ENVIRONMENT,
                "variables say what the pod's resources are, or the node's where it has none",
            )]),
        ),
        (
            "[sig-node] Downward API should provide default limits.cpu/memory from node allocatable [NodeConformance]",
            By(&[(
                ENVIRONMENT,
                "variables say what the pod's resources are, or the node's where it has none",
            )]),
        ),
        (
            "[sig-node] Downward API should provide host IP as an env var [NodeConformance]",
            By(&[(ENVIRONMENT, "variables say who and where the pod is")]),
        ),
        (
            "[sig-node] Downward API should provide hostIPs as an env var [NodeConformance]",
            By(&[(ENVIRONMENT, "variables say who and where the pod is")]),
        ),
        (
            "[sig-node] Downward API should provide pod UID as env vars [NodeConformance]",
            By(&[(ENVIRONMENT, "variables say who and where the pod is")]),
        ),
        (
            "[sig-node] Downward API should provide pod name, namespace and IP address as env vars [NodeConformance]",
            By(&[(ENVIRONMENT, "variables say who and where the pod is")]),
        ),
        (
            "[sig-node] Ephemeral Containers [NodeConformance] should update the ephemeral containers in an existing pod",
            By(&[(STREAMS, "debug adds a container")]),
        ),
        (
            "[sig-node] Ephemeral Containers [NodeConformance] will start an ephemeral container in an existing pod",
            By(&[(SECURITY, "a container for debugging joins a running pod")]),
        ),
        (
            "[sig-node] ImageVolume should succeed with pod and pull policy of Always [LinuxOnly] [MinimumKubeletVersion:1.35]",
            By(&[(IMAGES, "an image is a volume, whole and in part")]),
        ),
        (
            "[sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartAlways pod",
            By(&[
                (OUTCOMES, "init containers end before the others begin, whatever the restart policy"),
                (COURSE, "init containers run in order, a sidecar is up before the next"),
            ]),
        ),
        (
            "[sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartNever pod",
            By(&[
                (OUTCOMES, "init containers end before the others begin, whatever the restart policy"),
                (COURSE, "init containers run in order, a sidecar is up before the next"),
            ]),
        ),
        (
            "[sig-node] InitContainer [NodeConformance] should not start app containers and fail the pod if init containers fail on a RestartNever pod",
            By(&[(OUTCOMES, "an init container that fails keeps the others from their start")]),
        ),
        (
            "[sig-node] InitContainer [NodeConformance] should not start app containers if init containers fail on a RestartAlways pod",
            By(&[(OUTCOMES, "an init container that fails keeps the others from their start")]),
        ),
        (
            "[sig-node] Kubelet when scheduling a busybox command in a pod should print the output to logs [NodeConformance]",
            By(&[(STREAMS, "logs end, begin and are dated as asked")]),
        ),
        (
            "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete [NodeConformance]",
            By(&[(OUTCOMES, "a pod whose container always fails says why and can be deleted")]),
        ),
        (
            "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason [NodeConformance]",
            By(&[(OUTCOMES, "a pod whose container always fails says why and can be deleted")]),
        ),
        (
            "[sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem [LinuxOnly] [NodeConformance]",
            By(&[(USERS, "a root may be written unless it is read-only")]),
        ),
        (
            "[sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts [NodeConformance]",
            By(&[(
                HOSTS,
                "the node writes a pod's hosts, unless the pod brings its own or is on the node's network",
            )]),
        ),
        (
            "[sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file [NodeConformance]",
            By(&[(
                HOSTS,
                "the node writes a pod's hosts, unless the pod brings its own or is on the node's network",
            )]),
        ),
        ("[sig-node] Lease lease API should be available", By(&[EVERY_VERB])),
        (
            "[sig-node] NoExecuteTaintManager Multiple Pods [Serial] evicts pods with minTolerationSeconds [Disruptive]",
            By(&[(TAINTS, "pods_go_unless_they_tolerate")]),
        ),
        (
            "[sig-node] NoExecuteTaintManager Single Pod [Serial] removing taint cancels eviction [Disruptive]",
            By(&[(TAINTS, "the_shortest_toleration_counts_from_when_pod_and_taint_met")]),
        ),
        ("[sig-node] Node Lifecycle should run through the lifecycle of a node", By(&[EVERY_VERB])),
        (
            "[sig-node] Pod InPlace Resize Container burstable pods - extended 6 containers - various operations performed (including adding limits and requests) [MinimumKubeletVersion:1.34]",
            By(&[(
                RESIZING,
                "requests and limits are added to and changed in containers of a burstable pod",
            )]),
        ),
        (
            "[sig-node] Pod InPlace Resize Container burstable pods - extended resize with equivalents [MinimumKubeletVersion:1.34]",
            By(&[(RESIZING, "a resize to the same amounts in other words changes nothing")]),
        ),
        (
            "[sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase [MinimumKubeletVersion:1.34]",
            By(&[(
                RESIZING,
                "running containers of a guaranteed pod are given more and less CPU and memory",
            )]),
        ),
        (
            "[sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease [MinimumKubeletVersion:1.34]",
            By(&[(
                RESIZING,
                "running containers of a guaranteed pod are given more and less CPU and memory",
            )]),
        ),
        (
            "[sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2) [MinimumKubeletVersion:1.34]",
            By(&[(
                RESIZING,
                "running containers of a guaranteed pod are given more and less CPU and memory",
            )]),
        ),
        (
            "[sig-node] Pod InPlace Resize Container resize pod via the replace endpoint [MinimumKubeletVersion:1.34]",
            By(&[(RESIZING, "a pod is resized through the replace verb")]),
        ),
        ("[sig-node] PodTemplates should delete a collection of pod templates", By(&[COLLECTIONS])),
        ("[sig-node] PodTemplates should replace a pod template", By(&[EVERY_VERB])),
        ("[sig-node] PodTemplates should run the lifecycle of PodTemplates", By(&[EVERY_VERB])),
        (
            "[sig-node] Pods Extended (pod generation) Pod Generation custom-set generation on new pods and graceful delete",
            By(&[(
                OUTCOMES,
                "each change of a pod's specification is a generation, which its status follows",
            )]),
        ),
        (
            "[sig-node] Pods Extended (pod generation) Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge [MinimumKubeletVersion:1.34]",
            By(&[(
                OUTCOMES,
                "each change of a pod's specification is a generation, which its status follows",
            )]),
        ),
        (
            "[sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update [MinimumKubeletVersion:1.34]",
            By(&[(
                OUTCOMES,
                "each change of a pod's specification is a generation, which its status follows",
            )]),
        ),
        (
            "[sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu",
            By(&[(OUTCOMES, "a running pod's labels and QoS class are told")]),
        ),
        (
            "[sig-node] Pods should allow activeDeadlineSeconds to be updated [NodeConformance]",
            By(&[(OUTCOMES, "the deadline of a running pod may be brought forward")]),
        ),
        (
            "[sig-node] Pods should be submitted and removed [NodeConformance]",
            By(&[(OUTCOMES, "a running pod's labels and QoS class are told")]),
        ),
        (
            "[sig-node] Pods should be updated [NodeConformance]",
            By(&[(OUTCOMES, "a running pod's labels and QoS class are told")]),
        ),
        (
            "[sig-node] Pods should contain environment variables for services [NodeConformance]",
            By(&[(ENVIRONMENT, "variables lead to the Services of the namespace")]),
        ),
        ("[sig-node] Pods should delete a collection of pods", By(&[COLLECTIONS])),
        (
            "[sig-node] Pods should get a host IP [NodeConformance]",
            By(&[(OUTCOMES, "a running pod's labels and QoS class are told")]),
        ),
        ("[sig-node] Pods should patch a pod status", By(&[STATUSES])),
        ("[sig-node] Pods should run through the lifecycle of Pods and PodStatus", By(&[STATUSES])),
        (
            "[sig-node] Pods should support remote command execution over websockets [NodeConformance]",
            By(&[
                (STREAMS, "exec passes standard input, output, error and the exit code"),
                (CHANNELS, "base64_is_spoken_with_those_who_ask_for_it"),
            ]),
        ),
        (
            "[sig-node] Pods should support retrieving logs from the container over websockets [NodeConformance]",
            Not("Logs are answered over HTTP alone; no client here asks for them over a WebSocket."),
        ),
        (
            "[sig-node] PreStop should call prestop when killing a pod",
            By(&[(OUTCOMES, "hooks ask another pod over HTTP after the start and before the end")]),
        ),
        (
            "[sig-node] Probing container should *not* be restarted with a /healthz http liveness probe [NodeConformance]",
            By(&[(PROBING, "a container that answers over TCP, HTTP or by a command is left alone")]),
        ),
        (
            "[sig-node] Probing container should *not* be restarted with a GRPC liveness probe [NodeConformance]",
            By(&[(PROBES, "a_grpc_probe_asks_for_the_health_of_a_service")]),
        ),
        (
            "[sig-node] Probing container should *not* be restarted with a exec \"cat HEALTH_FILE\" liveness probe [NodeConformance]",
            By(&[(PROBING, "a container that answers over TCP, HTTP or by a command is left alone")]),
        ),
        (
            "[sig-node] Probing container should *not* be restarted with a tcp:8080 liveness probe [NodeConformance]",
            By(&[(PROBING, "a container that answers over TCP, HTTP or by a command is left alone")]),
        ),
        (
            "[sig-node] Probing container should be restarted with a /healthz http liveness probe [NodeConformance]",
            By(&[(PROBING, "a container that stops to answer over HTTP is restarted, each time")]),
        ),
        (
            "[sig-node] Probing container should be restarted with a GRPC liveness probe [NodeConformance]",
            By(&[(PROBES, "a_grpc_probe_asks_for_the_health_of_a_service")]),
        ),
        (
            "[sig-node] Probing container should be restarted with a exec \"cat HEALTH_FILE\" liveness probe [NodeConformance]",
            By(&[(LIVENESS, "a container that is no longer alive is restarted")]),
        ),
        (
            "[sig-node] Probing container should have monotonically increasing restart count [NodeConformance]",
            By(&[(PROBING, "a container that stops to answer over HTTP is restarted, each time")]),
        ),
        (
            "[sig-node] Probing container with readiness probe should not be ready before initial delay and never restart [NodeConformance]",
            By(&[(PROBING, "a pod is not ready before its first probe")]),
        ),
        (
            "[sig-node] Probing container with readiness probe that fails should never be ready and never restart [NodeConformance]",
            By(&[(PROBING, "a container that answers over TCP, HTTP or by a command is left alone")]),
        ),
        (
            "[sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [NodeConformance]",
            Not("The admission plugin refuses such a pod; no test asks for one whose class is gone."),
        ),
        (
            "[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance]",
            Not("The admission plugin refuses such a pod; no test asks for one whose class is gone."),
        ),
        (
            "[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance]",
            By(&[(RUNTIME_CLASSES, "overhead_is_the_classes_or_none"), EVERY_VERB]),
        ),
        (
            "[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead [NodeConformance]",
            By(&[(RUNTIME_CLASSES, "overhead_is_the_classes_or_none"), EVERY_VERB]),
        ),
        ("[sig-node] RuntimeClass should support RuntimeClasses API operations", By(&[EVERY_VERB])),
        (
            "[sig-node] Secrets should be consumable as environment variable names variable names with various prefixes",
            By(&[(
                ENVIRONMENT,
                "variables come from keys and from whole objects, with and without a prefix",
            )]),
        ),
        (
            "[sig-node] Secrets should be consumable from pods in env vars [NodeConformance]",
            By(&[(
                ENVIRONMENT,
                "variables come from keys and from whole objects, with and without a prefix",
            )]),
        ),
        (
            "[sig-node] Secrets should be consumable via the environment [NodeConformance]",
            By(&[(
                ENVIRONMENT,
                "variables come from keys and from whole objects, with and without a prefix",
            )]),
        ),
        (
            "[sig-node] Secrets should fail to create secret due to empty secret key",
            By(&[(FILES, "a key cannot be empty")]),
        ),
        ("[sig-node] Secrets should patch a secret", By(&[EVERY_VERB])),
        (
            "[sig-node] Security Context When creating a container with runAsUser should run the container with uid 65534 [LinuxOnly] [NodeConformance]",
            By(&[(USERS, "a container has the user and group of its own, else of its pod")]),
        ),
        (
            "[sig-node] Security Context When creating a pod with privileged should run the container as unprivileged when false [LinuxOnly] [NodeConformance]",
            By(&[(USERS, "a container that is not privileged has fewer capabilities, and no new ones")]),
        ),
        (
            "[sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false [NodeConformance]",
            By(&[(USERS, "a root may be written unless it is read-only")]),
        ),
        (
            "[sig-node] Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup [LinuxOnly]",
            By(&[(USERS, "a container has the user and group of its own, else of its pod")]),
        ),
        (
            "[sig-node] Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup [LinuxOnly]",
            By(&[(USERS, "a container has the user and group of its own, else of its pod")]),
        ),
        (
            "[sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false [LinuxOnly] [NodeConformance]",
            By(&[(USERS, "a container that is not privileged has fewer capabilities, and no new ones")]),
        ),
        (
            "[sig-node] Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls",
            By(&[(USERS, "kernel parameters are set where they are the pod's own, and others are refused")]),
        ),
        (
            "[sig-node] Sysctls [LinuxOnly] [NodeConformance] should support sysctls [Environment:NotInUserNS]",
            By(&[(USERS, "kernel parameters are set where they are the pod's own, and others are refused")]),
        ),
        (
            "[sig-node] Variable Expansion should allow composing env vars into new env vars [NodeConformance]",
            By(&[(ENVIRONMENT, "variables are in variables, commands and arguments")]),
        ),
        (
            "[sig-node] Variable Expansion should allow substituting values in a container's args [NodeConformance]",
            By(&[(ENVIRONMENT, "variables are in variables, commands and arguments")]),
        ),
        (
            "[sig-node] Variable Expansion should allow substituting values in a container's command [NodeConformance]",
            By(&[(ENVIRONMENT, "variables are in variables, commands and arguments")]),
        ),
        (
            "[sig-node] Variable Expansion should allow substituting values in a volume subpath",
            By(&[(SUB_PATHS, "a part of a volume is named by the pod's variables")]),
        ),
        (
            "[sig-node] Variable Expansion should fail substituting values in a volume subpath with absolute path",
            By(&[(SUB_PATHS, "a part that would be outside its volume is refused")]),
        ),
        (
            "[sig-node] Variable Expansion should fail substituting values in a volume subpath with backticks",
            By(&[(SUB_PATHS, "a part that would be outside its volume is refused")]),
        ),
        (
            "[sig-node] Variable Expansion should succeed in writing subpaths in container",
            By(&[(SUB_PATHS, "a part of a volume is named by the pod's variables")]),
        ),
        (
            "[sig-node] Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container [Slow]",
            By(&[(SUB_PATHS, "a pod whose part has no name yet runs once it has one")]),
        ),
        ("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass", By(&[EVERY_VERB])),
        ("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim", By(&[EVERY_VERB])),
        ("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate", By(&[EVERY_VERB])),
        ("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice", By(&[EVERY_VERB])),
    ]
}
