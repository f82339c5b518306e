use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Value, json};
use auth::{Attributes, UserInfo};

use crate::{Dangling, FlowControl, Options, Rejected, Seats, Width, defaults};

/// A level `tight` for the user `busy`, whose flows are users; with a queue of one request per flow.
fn control(seats: u32, wait_max: Duration, response: Value) -> Arc<FlowControl> {
    let control = FlowControl::new(Options { seats, wait_max });
    let mut level = json!({"metadata": {"name": "tight", "uid": "l"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 100, "borrowingLimitPercent": 0}}});
    level.set_at(&["spec", "limited", "limitResponse"], response);
    let rules = json!([{"subjects": [{"kind": "Group", "group": {"name": "busy"}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]);
    let mut schema = json!({"metadata": {"name": "busy", "uid": "s"}, "spec": {"matchingPrecedence": 5,
        "priorityLevelConfiguration": {"name": "tight"}, "distinguisherMethod": {"type": "ByUser"}}});
    schema.set_at(&["spec", "rules"], rules);
    control.configure([level.to_json()], [schema.to_json()]);
    Arc::new(control)
}

fn queue() -> Value {
    json!({"type": "Queue", "queuing": {"queues": 16, "handSize": 2, "queueLengthLimit": 1}})
}

fn busy(name: &str) -> UserInfo {
    UserInfo::new(name).with_groups(["busy"])
}

async fn admit(control: &FlowControl, user: &UserInfo, seats: u32) -> Result<Seats, Rejected> {
    let request = Attributes::resource(user, "get", "pods");
    control.admit(&request, |_| Width { seats, ..Width::ONE }).await.1
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_first_schema_that_matches_decides_and_the_answer_names_it() {
    let control = control(10, LONG, queue());
    let user = busy("a");
    let (classified, _) = control.admit(&Attributes::resource(&user, "get", "pods"), |_| Width::ONE).await;
    assert_eq!((&*classified.schema, &*classified.level), (&b"s"[..], &b"l"[..]));
    let stranger = UserInfo::new("b");
    let (classified, admitted) =
        control.admit(&Attributes::resource(&stranger, "get", "pods"), |_| Width::ONE).await;
    assert!(classified.schema.is_empty() && admitted.is_ok(), "the mandatory ones are not stored here");
}

#[tokio::test]
async fn who_finds_no_seat_waits_for_one() {
    let control = control(2, LONG, queue());
    let user = busy("a");
    let first = admit(&control, &user, 1).await.unwrap();
    let second = admit(&control, &user, 1).await.unwrap();
    let waits = || control.dump_requests(false).lines().count() == 2;
    let mut waiting = Box::pin(admit(&control, &user, 1));
    assert!(poll_once(&mut waiting).is_none());
    assert!(waits());
    drop(first);
    drop(waiting.await.unwrap());
    assert!(!waits());
    drop(second);
    assert!(control.current().levels["tight"].level.is_idle());
}

#[tokio::test]
async fn a_full_queue_and_a_level_without_queues_refuse() {
    let full = control(1, LONG, queue());
    let user = busy("a");
    let _held = admit(&full, &user, 1).await.unwrap();
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(admit(&full, &user, 1))).collect();
    for one in &mut waiting {
        assert!(poll_once(one).is_none(), "one in each queue of the hand");
    }
    assert_eq!(admit(&full, &user, 1).await.unwrap_err(), Rejected { retry_after_seconds: 1 });
    assert!(poll_once(&mut Box::pin(admit(&full, &busy("b"), 1))).is_none(), "another flow has other queues");

    let none = control(1, LONG, json!({"type": "Reject"}));
    let _held = admit(&none, &user, 1).await.unwrap();
    assert!(admit(&none, &user, 1).await.is_err());
}

/// One look at whether it is done.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let control = control(1, Duration::from_secs(15), queue());
    let user = busy("a");
    let held = admit(&control, &user, 1).await.unwrap();
    assert!(admit(&control, &user, 1).await.is_err());
    assert_eq!(control.dump_requests(true).lines().count(), 1, "it is out of the queue");
    drop(held);
    assert!(admit(&control, &user, 1).await.is_ok());
}

#[tokio::test]
async fn who_goes_away_while_waiting_leaves_nothing_behind() {
    let control = control(1, LONG, queue());
    let user = busy("a");
    let held = admit(&control, &user, 1).await.unwrap();
    let mut waiting = Box::pin(admit(&control, &user, 1));
    assert!(poll_once(&mut waiting).is_none());
    // It is served at the moment it goes away: the seats must not be lost.
    drop(held);
    drop(waiting);
    assert!(control.current().levels["tight"].level.is_idle());
    assert!(admit(&control, &user, 1).await.is_ok());
}

#[tokio::test]
async fn a_request_wider_than_its_level_is_served_alone() {
    let control = control(2, LONG, queue());
    let user = busy("a");
    let wide = admit(&control, &user, 50).await.unwrap();
    let mut other = Box::pin(admit(&control, &user, 1));
    assert!(poll_once(&mut other).is_none());
    drop(wide);
    assert!(other.await.is_ok());
}

#[tokio::test]
async fn wide_requests_leave_seats_to_narrow_ones_and_their_queues_are_full_all_the_same() {
    let control = control(25, LONG, queue());
    assert_eq!(control.current().levels["tight"].level.limit(), 24);
    let flood = busy("flood");
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(admit(&control, &flood, 4).await.unwrap());
    }
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(admit(&control, &flood, 4))).collect();
    for one in &mut waiting {
        assert!(poll_once(one).is_none(), "four seats are free, of which it leaves three");
    }
    assert!(admit(&control, &flood, 4).await.is_err(), "both queues of its hand are full");
    let mut narrow = Vec::new();
    for _ in 0..4 {
        narrow.push(poll_once(&mut Box::pin(admit(&control, &busy("small"), 1))).expect("at once").unwrap());
    }
    assert!(poll_once(&mut Box::pin(admit(&control, &busy("small"), 1))).is_none(), "no seat is free");
}

#[tokio::test]
async fn of_writes_it_is_told_how_many_watch_what_they_change() {
    let control = control(2, LONG, queue());
    let metrics = telemetry::metrics().flow_control.flow("tight", "busy");
    let user = busy("a");
    let before = metrics.watch_count.count();
    drop(admit(&control, &user, 1).await);
    assert_eq!(metrics.watch_count.count(), before, "no write");
    let request = Attributes::resource(&user, "create", "pods");
    drop(control.admit(&request, |max| Width::of_write(3, max)).await);
    assert_eq!(metrics.watch_count.count(), before + 1);
}

#[tokio::test]
async fn the_masters_never_wait() {
    let control = control(1, LONG, queue());
    let root = UserInfo::new("root").with_groups(["system:masters", "busy"]);
    let mut held = Vec::new();
    for _ in 0..1_000 {
        held.push(admit(&control, &root, 10).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_level_borrows_what_others_do_not_need() {
    let control = Arc::new(FlowControl::new(Options { seats: 600, wait_max: LONG }));
    let levels = defaults::mandatory_levels().into_iter().chain(defaults::suggested_levels());
    let schemas = defaults::mandatory_schemas().into_iter().chain(defaults::suggested_schemas());
    control.configure(levels.map(|level| level.to_json()), schemas.map(|schema| schema.to_json()));
    let limit = |name: &str| control.current().levels[name].level.limit();
    let before = limit("global-default");
    let user = UserInfo::new("jane").authenticated();
    let mut held = Vec::new();
    for _ in 0..before {
        held.push(admit(&control, &user, 1).await.unwrap());
    }
    let shutdown = rt::Shutdown::new();
    // It needs one more than it has; at the next adjustment it gets it from those that are idle.
    let more = tokio::select! {
        more = admit(&control, &user, 1) => more.unwrap(),
        () = control.run(shutdown) => unreachable!("nobody shuts down"),
    };
    assert!(limit("global-default") > before, "{} of {before}", limit("global-default"));
    assert!(limit("leader-election") >= 25, "what lends nothing keeps its seats");
    drop((held, more));
}

#[test]
fn a_schema_without_its_level_is_dangling_and_unused() {
    let control = FlowControl::new(Options::default());
    let schema = json!({"metadata": {"name": "lost"}, "spec": {"matchingPrecedence": 5,
        "priorityLevelConfiguration": {"name": "nowhere"}, "rules": []}});
    let dangling = control.configure(vec![], vec![schema.to_json()]);
    let wanted = Dangling { schema: "lost".into(), level: "nowhere".into(), is_dangling: true };
    assert_eq!(dangling, [wanted]);
}

#[test]
fn the_suggested_levels_divide_the_seats_as_upstream() {
    let control = FlowControl::new(Options::default());
    let levels = defaults::mandatory_levels().into_iter().chain(defaults::suggested_levels());
    control.configure(levels.map(|level| level.to_json()), vec![]);
    let text = telemetry::metrics().encode();
    for (level, nominal, lower, upper) in [
        ("system", 74, 50, 674),
        ("node-high", 98, 73, 698),
        ("leader-election", 25, 25, 625),
        ("workload-high", 98, 49, 698),
        ("workload-low", 245, 24, 845),
        ("global-default", 49, 24, 649),
        ("catch-all", 13, 13, 613),
        ("exempt", 0, 0, 600),
    ] {
        for (name, seats) in [("nominal", nominal), ("lower", lower), ("upper", upper)] {
            let line =
                format!("apiserver_flowcontrol_{name}_limit_seats{{priority_level=\"{level}\"}} {seats}\n");
            assert!(text.contains(&line), "{line}");
        }
    }
}

#[test]
fn an_untouched_object_follows_the_suggestion_and_a_changed_one_does_not() {
    let wanted = defaults::suggested_levels().next().unwrap();
    let mut stored = wanted.clone();
    assert_eq!(defaults::revised(&stored, &wanted, false), None);
    stored.set_at(&["spec", "limited", "nominalConcurrencyShares"], 1);
    assert_eq!(defaults::revised(&stored, &wanted, false).unwrap()["spec"], wanted["spec"]);
    stored.set_at(&["metadata", "annotations", defaults::AUTO_UPDATE], "false");
    assert_eq!(defaults::revised(&stored, &wanted, false), None);
    assert_eq!(defaults::revised(&stored, &wanted, true).unwrap()["spec"], wanted["spec"]);
}

#[tokio::test]
async fn a_level_that_is_gone_gives_its_share_back_when_it_has_drained() {
    let control = control(100, LONG, queue());
    let shared = control.current().levels["catch-all"].level.limit();
    let held = admit(&control, &busy("a"), 1).await.unwrap();
    control.configure::<&[u8]>([], []);
    assert!(control.current().levels["tight"].quiescing, "it still serves a request");
    let mut drained = Box::pin(control.drained());
    assert!(poll_once(&mut drained).is_none());
    drop(held);
    drained.await;
    control.configure::<&[u8]>([], []);
    assert!(!control.current().levels.contains_key("tight"));
    assert!(control.current().levels["catch-all"].level.limit() > shared);
}
