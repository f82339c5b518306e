//! The tests of workloads and of scheduling.

use super::Covered::{self, By, Not};
use super::{COLLECTIONS, EVERY_VERB, STATUSES, Test, VERBS};

const CRON_JOBS: &str = "crates/controllers/src/cronjob/tests.rs";
const DAEMON_SETS: &str = "crates/controllers/src/daemonset/tests.rs";
const DEPLOYMENTS: &str = "crates/controllers/src/deployment/tests.rs";
const DISRUPTION: &str = "crates/controllers/src/disruption/tests.rs";
const JOBS: &str = "crates/controllers/src/job/tests.rs";
const JOB_PATHS: &str = "tests/interop/tests/kubectl/job_kinds.rs";
const JOBS_BY_KUBECTL: &str = "tests/interop/tests/kubectl/jobs.rs";
const LIMITS: &str = "crates/admission/src/limit_ranger.rs";
const MAKING_ROOM: &str = "tests/interop/tests/kubectl/disruption.rs";
const PLACING: &str = "crates/scheduler/src/plugins/tests.rs";
const PREEMPTING: &str = "crates/scheduler/src/engine/tests.rs";
const REPLICA_SETS: &str = "crates/controllers/src/replicaset/tests.rs";
const SCHEDULING: &str = "crates/scheduler/src/run/tests.rs";
const STATEFUL_SETS: &str = "crates/controllers/src/statefulset/tests.rs";

const SCALES: Test = (VERBS, "a_scale_is_read_and_written");

const CONCURRENCY: &[Test] = &[
    (CRON_JOBS, "a_job_that_is_still_active_is_kept_alone_left_alone_or_replaced"),
    (JOB_PATHS, "the next Job runs beside the last one, waits for it, or takes its place"),
];
const FAILURE_POLICY: &[Test] = &[
    (JOBS, "a_rule_may_fail_the_job_or_leave_a_failure_uncounted"),
    (JOB_PATHS, "a pod failure policy fails the Job, the index, or nothing"),
];
const SUCCESS_POLICY: &[Test] = &[
    (JOBS, "a_success_policy_ends_the_job_before_all_indexes_are_done"),
    ("crates/controllers/src/job/policies.rs", "successes_are_enough_by_index_by_count_or_both"),
    (JOB_PATHS, "a success policy ends the Job before all indexes are done"),
];

pub fn table() -> Vec<(&'static str, Covered)> {
    vec![
        (
            "[sig-apps] Daemon set [Serial] should retry creating failed daemon pods",
            By(&[(DAEMON_SETS, "failed_pods_are_replaced_with_an_event")]),
        ),
        (
            "[sig-apps] Daemon set [Serial] should rollback without unnecessary restarts",
            By(&[(DAEMON_SETS, "an_undo_in_the_middle_restarts_only_what_was_updated")]),
        ),
        (
            "[sig-apps] Daemon set [Serial] should run and stop complex daemon",
            By(&[(DAEMON_SETS, "pods_follow_the_labels_of_nodes_and_the_selector")]),
        ),
        (
            "[sig-apps] Daemon set [Serial] should run and stop simple daemon",
            By(&[(DAEMON_SETS, "every_node_gets_a_pod_also_those_that_come_later")]),
        ),
        (
            "[sig-apps] Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate",
            By(&[(DAEMON_SETS, "an_update_rolls_node_by_node_and_an_undo_goes_back")]),
        ),
        (
            "[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones",
            By(&[(DEPLOYMENTS, "recreate_stops_all_old_pods_before_it_starts_new_ones")]),
        ),
        (
            "[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones",
            By(&[(DEPLOYMENTS, "a_rolling_update_keeps_availability_and_can_be_undone")]),
        ),
        (
            "[sig-apps] Deployment deployment should delete old replica sets",
            By(&[(DEPLOYMENTS, "history_beyond_its_limit_is_deleted")]),
        ),
        (
            "[sig-apps] Deployment deployment should support proportional scaling",
            By(&[(DEPLOYMENTS, "scaling_in_the_middle_of_a_rollout_is_proportional")]),
        ),
        (
            "[sig-apps] Deployment deployment should support rollover",
            By(&[(DEPLOYMENTS, "a_rollover_takes_back_a_rollout_that_never_got_ready")]),
        ),
        (
            "[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods",
            By(&[(REPLICA_SETS, "orphans_are_adopted_and_strays_released")]),
        ),
        (
            "[sig-apps] ReplicationController should adopt matching pods on creation",
            By(&[(
                REPLICA_SETS,
                "a_replication_controller_adopts_what_matches_and_releases_what_no_longer_does",
            )]),
        ),
        (
            "[sig-apps] ReplicationController should release no longer matching pods",
            By(&[(
                REPLICA_SETS,
                "a_replication_controller_adopts_what_matches_and_releases_what_no_longer_does",
            )]),
        ),
        (
            "[sig-apps] Job should delete a job",
            By(&[
                (JOBS, "pods_of_a_job_that_is_deleted_are_let_go"),
                (JOBS_BY_KUBECTL, "the pods of a Job go with it"),
            ]),
        ),
        (
            "[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota",
            By(&[(REPLICA_SETS, "a_replication_controller_says_what_holds_it_up_until_it_asks_for_less")]),
        ),
        (
            "[sig-apps] Job should adopt matching orphans and release non-matching pods",
            By(&[(JOBS, "an_orphan_is_adopted_with_the_finalizer_and_a_stray_released_without")]),
        ),
        (
            "[sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted",
            Not(
                "a container must fail and be restarted in place; its counting is in `restarts_of_containers_count_where_they_are_restarted_in_place`",
            ),
        ),
        (
            "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource",
            By(&[SCALES]),
        ),
        (
            "[sig-apps] Deployment should run the lifecycle of a Deployment",
            By(&[
                EVERY_VERB,
                COLLECTIONS,
                STATUSES,
                (DEPLOYMENTS, "a_new_deployment_gets_a_set_with_hash_revision_and_sizes"),
            ]),
        ),
        (
            "[sig-apps] ReplicationController should test the lifecycle of a ReplicationController",
            By(&[
                EVERY_VERB,
                COLLECTIONS,
                STATUSES,
                SCALES,
                (REPLICA_SETS, "a_replication_controller_selects_by_a_map_and_counts_the_same"),
            ]),
        ),
        (
            "[sig-apps] CronJob should not schedule jobs when suspended [Slow]",
            By(&[(CRON_JOBS, "nothing_is_started_while_suspended_or_by_a_schedule_that_is_none")]),
        ),
        ("[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow]", By(CONCURRENCY)),
        ("[sig-apps] CronJob should replace jobs when ReplaceConcurrent", By(CONCURRENCY)),
        ("[sig-apps] CronJob should schedule multiple jobs concurrently", By(CONCURRENCY)),
        (
            "[sig-apps] CronJob should support CronJob API operations",
            By(&[EVERY_VERB, COLLECTIONS, STATUSES]),
        ),
        ("[sig-apps] Deployment Deployment should have a working scale subresource", By(&[SCALES])),
        (
            "[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets",
            By(&[COLLECTIONS]),
        ),
        ("[sig-apps] DisruptionController should create a PodDisruptionBudget", By(&[EVERY_VERB])),
        (
            "[sig-apps] DisruptionController should observe PodDisruptionBudget status updated",
            By(&[
                (DISRUPTION, "pods_that_come_go_and_change_are_followed"),
                (MAKING_ROOM, "a budget says how many disruptions it allows"),
            ]),
        ),
        ("[sig-apps] DisruptionController should update/patch PodDisruptionBudget status", By(&[STATUSES])),
        (
            "[sig-apps] ReplicaSet Replace and Patch tests",
            By(&[EVERY_VERB, (REPLICA_SETS, "pods_are_made_of_the_template_and_owned")]),
        ),
        ("[sig-apps] ReplicaSet Replicaset should have a working scale subresource", By(&[SCALES])),
        (
            "[sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets",
            By(&[COLLECTIONS]),
        ),
        ("[sig-apps] Daemon set [Serial] should verify changes to a daemon set status", By(&[STATUSES])),
        ("[sig-apps] Deployment should validate Deployment Status endpoints", By(&[STATUSES])),
        (
            "[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it",
            By(&[
                (
                    "crates/apiserver/tests/suite/deletes.rs",
                    "an_eviction_spends_a_disruption_or_is_told_to_wait",
                ),
                (MAKING_ROOM, "with one allowed, it goes on one by one and the pods move"),
            ]),
        ),
        ("[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets", By(&[COLLECTIONS])),
        ("[sig-apps] ReplicaSet should validate Replicaset Status endpoints", By(&[STATUSES])),
        (
            "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of StatefulSets",
            By(&[COLLECTIONS]),
        ),
        (
            "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints",
            By(&[STATUSES]),
        ),
        ("[sig-apps] Job should apply changes to a job status", By(&[STATUSES])),
        (
            "[sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname",
            By(&[
                (JOBS, "each_index_of_an_indexed_job_has_a_pod_that_knows_it"),
                (JOBS_BY_KUBECTL, "an indexed Job runs a pod for each index"),
            ]),
        ),
        (
            "[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision",
            By(&[EVERY_VERB, COLLECTIONS]),
        ),
        (
            "[sig-apps] Job should manage the lifecycle of a job",
            By(&[EVERY_VERB, COLLECTIONS, (JOBS_BY_KUBECTL, "a suspended Job waits until it is resumed")]),
        ),
        (
            "[sig-apps] ReplicationController should get and update a ReplicationController scale",
            By(&[SCALES]),
        ),
        (
            "[sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early",
            By(FAILURE_POLICY),
        ),
        (
            "[sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition",
            By(&[(JOBS, "a_rule_may_fail_the_job_or_leave_a_failure_uncounted")]),
        ),
        (
            "[sig-apps] Job should execute all indexes despite some failing when using backoffLimitPerIndex",
            By(&[
                (JOBS, "each_index_may_fail_so_often_and_the_others_go_on"),
                (JOB_PATHS, "an index that fails too often leaves the others to go on"),
            ]),
        ),
        (
            "[sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy",
            By(FAILURE_POLICY),
        ),
        (
            "[sig-apps] Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes",
            By(&[
                (JOBS, "too_many_failed_indexes_end_the_job"),
                (JOB_PATHS, "too many failed indexes end the Job"),
            ]),
        ),
        ("[sig-apps] Job with successPolicy should succeeded when all indexes succeeded", By(SUCCESS_POLICY)),
        (
            "[sig-apps] Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending",
            By(SUCCESS_POLICY),
        ),
        (
            "[sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending",
            By(SUCCESS_POLICY),
        ),
        (
            "[sig-apps] ReplicaSet should serve a basic image on each replica with a public image",
            Not(
                "containers must answer over the network; that every replica runs is in `pods_are_made_of_the_template_and_owned`",
            ),
        ),
        (
            "[sig-apps] ReplicationController should serve a basic image on each replica with a public image",
            Not(
                "containers must answer over the network; that every replica runs is in `a_replication_controller_selects_by_a_map_and_counts_the_same`",
            ),
        ),
        (
            "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Burst scaling should run to completion even with unhealthy pods [Slow]",
            By(&[(STATEFUL_SETS, "a_parallel_set_starts_and_stops_all_at_once")]),
        ),
        (
            "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow]",
            By(&[
                (STATEFUL_SETS, "scaling_halts_in_both_directions_while_pods_are_not_ready"),
                (STATEFUL_SETS, "scaling_down_takes_the_highest_first_and_keeps_the_claims"),
            ]),
        ),
        (
            "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Should recreate evicted statefulset",
            By(&[(STATEFUL_SETS, "lost_and_failed_pods_are_replaced")]),
        ),
        (
            "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates and phased rolling updates of template modifications",
            By(&[(STATEFUL_SETS, "a_rollout_stops_at_its_partition_and_goes_back_with_an_undo")]),
        ),
        (
            "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform rolling updates and roll backs of template modifications",
            By(&[
                (STATEFUL_SETS, "a_rollout_stops_at_its_partition_and_goes_back_with_an_undo"),
                (STATEFUL_SETS, "an_update_takes_the_highest_outdated_pod_and_waits_for_those_above"),
            ]),
        ),
        (
            "[sig-scheduling] SchedulerPredicates [Serial] validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP",
            By(&[(PLACING, "host_ports_conflict_by_port_protocol_and_address")]),
        ),
        (
            "[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied.",
            By(&[
                (VERBS, "a_limit_range_gives_pods_their_defaults_and_bounds"),
                (LIMITS, "defaults_fill_what_is_open_and_are_noted"),
                EVERY_VERB,
            ]),
        ),
        (
            "[sig-scheduling] SchedulerPreemption [Serial] PreemptionExecutionPath runs ReplicaSets to verify preemption running path",
            By(&[
                (PREEMPTING, "the_fewest_and_least_important_pods_make_room_and_it_stays_the_preemptors"),
                (MAKING_ROOM, "the preempted pod's successor waits, and runs when there is room again"),
            ]),
        ),
        (
            "[sig-scheduling] SchedulerPreemption [Serial] validates basic preemption works",
            By(&[(
                MAKING_ROOM,
                "a pod of higher priority gets the room of the fewest of lower ones, and says so",
            )]),
        ),
        (
            "[sig-scheduling] SchedulerPreemption [Serial] validates lower priority pod preemption by critical pod",
            By(&[(MAKING_ROOM, "a critical pod of the system is let in, too")]),
        ),
        (
            "[sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods",
            By(&[EVERY_VERB, COLLECTIONS]),
        ),
        (
            "[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection",
            By(&[EVERY_VERB, COLLECTIONS]),
        ),
        (
            "[sig-scheduling] SchedulerPreemption [Serial] validates pod disruption condition is added to the preempted pod",
            By(&[(SCHEDULING, "pods_of_lower_priority_are_evicted_for_one_that_needs_their_room")]),
        ),
        (
            "[sig-scheduling] SchedulerPredicates [Serial] validates resource limits of pods that are allowed to run",
            By(&[
                (PLACING, "resources_must_fit_and_the_message_names_all_that_do_not"),
                (PREEMPTING, "pods_fill_nodes_and_the_rest_is_told_why_in_upstreams_words"),
            ]),
        ),
        (
            "[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching",
            By(&[(PLACING, "node_selectors_and_required_affinity_must_match")]),
        ),
        (
            "[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching",
            By(&[(PLACING, "node_selectors_and_required_affinity_must_match")]),
        ),
    ]
}
