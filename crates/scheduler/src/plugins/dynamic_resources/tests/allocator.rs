//! What is found, by feature.

use super::*;

const TWO: &str = r#"{"nodeName":"n","devices":[{"name":"a"},{"name":"b"}]}"#;

fn check(objects: &[Value], devices: &str, wanted: &str) {
    assert_eq!(found(&mut cluster(objects), "n", &[claim("c", devices)]), wanted, "{devices}");
}

#[test]
fn devices_are_taken_in_the_order_of_pools_and_names() {
    let pools = [slice("p2", TWO), slice("p1", TWO)];
    check(&pools, r#"{"requests":[{"name":"r"}]}"#, "r=p1/a");
    check(&pools, r#"{"requests":[{"name":"r","exactly":{"count":3}}]}"#, "r=p1/a r=p1/b r=p2/a");
    check(&pools, r#"{"requests":[{"name":"r","exactly":{"count":5}}]}"#, "none");
    check(&pools, r#"{"requests":[{"name":"r"},{"name":"s"}]}"#, "r=p1/a s=p1/b");
    let two = [claim("c", r#"{"requests":[{"name":"r"}]}"#), claim("d", r#"{"requests":[{"name":"r"}]}"#)];
    assert_eq!(found(&mut cluster(&pools), "n", &two), "r=p1/a; r=p1/b");
    assert_eq!(found(&mut cluster(&pools), "other", &two), "none");
}

#[test]
fn what_others_have_is_not_given_again_but_may_be_looked_at() {
    let mut cluster = cluster(&[slice("p", TWO)]);
    taken(&mut cluster, &["p/a"]);
    let one = claim("c", r#"{"requests":[{"name":"r"}]}"#);
    assert_eq!(found(&mut cluster, "n", &[one]), "r=p/b");
    let admin =
        claim("c", r#"{"requests":[{"name":"r","exactly":{"adminAccess":true,"allocationMode":"All"}}]}"#);
    assert_eq!(found(&mut cluster, "n", &[admin]), "r=p/a r=p/b");
    let all = claim("c", r#"{"requests":[{"name":"r","exactly":{"allocationMode":"All"}}]}"#);
    assert_eq!(found(&mut cluster, "n", std::slice::from_ref(&all)), "none");
    cluster.claims.withdraw("taken");
    assert_eq!(found(&mut cluster, "n", &[all]), "r=p/a r=p/b");
}

#[test]
fn selectors_of_class_and_request_choose() {
    let devices = r#"{"nodeName":"n","devices":[
        {"name":"small","attributes":{"size":{"int":1},"fast":{"bool":true}}},
        {"name":"large","attributes":{"size":{"int":9}}}]}"#;
    let chooses =
        |expression: &str| format!(r#"{{"selectors":[{{"cel":{{"expression":"{expression}"}}}}]}}"#);
    let objects = [
        slice("p", devices),
        class("large", &chooses("device.attributes['d.io'].size > 5")),
        class("broken", &chooses("nothing")),
    ];
    let request = |fields: &str| format!(r#"{{"requests":[{{"name":"r","exactly":{{{fields}}}}}]}}"#);
    let with = |expression: &str| request(&chooses(expression)[1..chooses(expression).len() - 1]);
    check(&objects, &request(r#""deviceClassName":"large""#), "r=p/large");
    check(&objects, &with("device.attributes['d.io'].size < 5"), "r=p/small");
    check(&objects, &with("device.driver == 'other'"), "none");
    check(
        &objects,
        &with("device.attributes['d.io'].fast == false || device.attributes['d.io'].size == 9"),
        "r=p/large",
    );
    check(
        &objects,
        &with("device.attributes['d.io'].slow"),
        "fatal: claim default/c: selector #0: CEL runtime error: no such key: slow",
    );
    let mut broken = cluster(&objects);
    let claims = [claim("c", &request(r#""deviceClassName":"broken""#))];
    let why = found(&mut broken, "n", &claims);
    assert!(
        why.starts_with("fatal: class broken: selector #0: CEL compile error: compilation failed: ERROR: "),
        "{why}"
    );
    check(
        &objects,
        &request(r#""deviceClassName":"absent""#),
        "fatal: claim default/c, request r: could not retrieve device class absent: \
         deviceclass.resource.k8s.io \"absent\" not found",
    );
}

#[test]
fn the_first_alternative_with_which_the_rest_works_out_is_taken() {
    let pool = [slice("p", r#"{"nodeName":"n","devices":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#)];
    let list = |rest: &str| {
        format!(
            r#"{{"requests":[{{"name":"r","firstAvailable":[{{"name":"three","count":3}},{{"name":"one"}}]}}{rest}]}}"#
        )
    };
    check(&pool, &list(""), "r/three=p/a r/three=p/b r/three=p/c");
    check(&pool, &list(r#",{"name":"s"}"#), "r/one=p/a s=p/b");
    check(&pool, &list(r#",{"name":"s","exactly":{"count":3}}"#), "none");
}

#[test]
fn a_claim_gets_no_more_devices_than_a_claim_can_have() {
    let many: Vec<String> = (0..40).map(|at| format!(r#"{{"name":"d{at:02}"}}"#)).collect();
    let pool = [slice("p", &format!(r#"{{"nodeName":"n","devices":[{}]}}"#, many.join(",")))];
    check(
        &pool,
        r#"{"requests":[{"name":"r","exactly":{"allocationMode":"All"}}]}"#,
        "fatal: claim default/c: number of requested devices 40 exceeds the claim limit of 32",
    );
    let shown = found(
        &mut cluster(&pool),
        "n",
        &[claim(
            "c",
            r#"{"requests":[{"name":"r","firstAvailable":[{"name":"most","count":30},{"name":"few","count":1}]},
                            {"name":"s","exactly":{"count":5}}]}"#,
        )],
    );
    assert!(shown.starts_with("r/few=p/d00 s=p/d01"), "{shown}");
}

#[test]
fn devices_of_a_claim_have_attributes_in_common_or_apart() {
    let device = |name: &str, numa: &str, slot: u32| {
        format!(r#"{{"name":"{name}","attributes":{{"numa":{numa},"d.io/slot":{{"int":{slot}}}}}}}"#)
    };
    let devices = [
        device("a", r#"{"int":0}"#, 1),
        device("b", r#"{"int":1}"#, 1),
        device("c", r#"{"int":1}"#, 2),
        device("d", r#"{"string":"1"}"#, 3),
    ];
    let pool = [slice("p", &format!(r#"{{"nodeName":"n","devices":[{}]}}"#, devices.join(",")))];
    let with = |count: u32, constraint: &str| {
        format!(
            r#"{{"requests":[{{"name":"r","exactly":{{"count":{count}}}}}],"constraints":[{constraint}]}}"#
        )
    };
    check(&pool, &with(2, r#"{"matchAttribute":"d.io/numa"}"#), "r=p/b r=p/c");
    check(&pool, &with(3, r#"{"matchAttribute":"d.io/numa"}"#), "none");
    check(&pool, &with(1, r#"{"matchAttribute":"d.io/absent"}"#), "none");
    check(&pool, &with(3, r#"{"matchAttribute":"d.io/numa","requests":["other"]}"#), "r=p/a r=p/b r=p/c");
    check(&pool, &with(3, r#"{"distinctAttribute":"d.io/slot"}"#), "r=p/a r=p/c r=p/d");
    check(&pool, &with(4, r#"{"distinctAttribute":"d.io/slot"}"#), "none");
    check(
        &pool,
        r#"{"requests":[{"name":"r","exactly":{"allocationMode":"All"}}],
            "constraints":[{"matchAttribute":"d.io/numa"}]}"#,
        "fatal: claim default/c, request r: cannot add device d.io/p/b because a claim constraint would not be satisfied",
    );
}

#[test]
fn tainted_devices_need_tolerations() {
    let pool = [slice(
        "p",
        r#"{"nodeName":"n","devices":[
            {"name":"a","taints":[{"key":"k","effect":"NoSchedule"}]},
            {"name":"b","taints":[{"key":"k","effect":"None"}]}]}"#,
    )];
    check(&pool, r#"{"requests":[{"name":"r"}]}"#, "r=p/b");
    check(
        &pool,
        r#"{"requests":[{"name":"r","exactly":{"tolerations":[{"key":"k","operator":"Exists"}]}}]}"#,
        "r=p/a",
    );
}

#[test]
fn parts_of_a_device_draw_on_its_counters() {
    let counters = slice(
        "p-counters",
        r#"{"nodeName":"n","pool":{"name":"p","generation":1,"resourceSliceCount":2},
            "sharedCounters":[{"name":"gpu","counters":{"memory":{"value":"40Gi"}}}]}"#,
    );
    let device = |name: &str, memory: &str| {
        format!(
            r#"{{"name":"{name}","consumesCounters":[{{"counterSet":"gpu","counters":{{"memory":{{"value":"{memory}"}}}}}}]}}"#
        )
    };
    let parts =
        [device("whole", "40Gi"), device("half-1", "20Gi"), device("half-2", "20Gi"), device("more", "1Gi")];
    let devices = slice(
        "p-devices",
        &format!(
            r#"{{"nodeName":"n","pool":{{"name":"p","generation":1,"resourceSliceCount":2}},"devices":[{}]}}"#,
            parts.join(",")
        ),
    );
    let objects = [counters, devices.clone()];
    let count =
        |count: u32| claim("c", &format!(r#"{{"requests":[{{"name":"r","exactly":{{"count":{count}}}}}]}}"#));
    let mut cluster_of_parts = cluster(&objects);
    assert_eq!(found(&mut cluster_of_parts, "n", &[count(1)]), "r=p/whole");
    assert_eq!(found(&mut cluster_of_parts, "n", &[count(2)]), "r=p/half-1 r=p/half-2");
    assert_eq!(found(&mut cluster_of_parts, "n", &[count(3)]), "none");
    taken(&mut cluster_of_parts, &["p/half-2"]);
    assert_eq!(found(&mut cluster_of_parts, "n", &[count(1)]), "r=p/half-1");
    assert_eq!(found(&mut cluster_of_parts, "n", &[count(2)]), "none");
    // Without the slice that has the counters, nothing of the pool can be given.
    assert_eq!(found(&mut cluster(&[devices]), "n", &[count(1)]), "none");
}

#[test]
fn shares_of_a_device_add_up_to_its_capacity() {
    let pool = [slice(
        "p",
        r#"{"nodeName":"n","devices":[
            {"name":"a","allowMultipleAllocations":true,"capacity":{"memory":{"value":"10Gi"}}},
            {"name":"b","capacity":{"memory":{"value":"4Gi"}}}]}"#,
    )];
    let request = |name: &str, memory: &str| {
        format!(r#"{{"name":"{name}","exactly":{{"capacity":{{"requests":{{"memory":"{memory}"}}}}}}}}"#)
    };
    let of = |requests: &[String]| format!(r#"{{"requests":[{}]}}"#, requests.join(","));
    check(&pool, &of(&[request("r", "6Gi"), request("s", "4Gi")]), "r=p/a s=p/a");
    check(&pool, &of(&[request("r", "8Gi"), request("s", "4Gi")]), "r=p/a s=p/b");
    check(&pool, &of(&[request("r", "8Gi"), request("s", "6Gi")]), "none");
    check(&pool, r#"{"requests":[{"name":"r"},{"name":"s"}]}"#, "r=p/a s=p/b");
}

#[test]
fn pools_are_seen_whole_in_their_newest_generation() {
    let of = |name: &str, generation: u32, count: u32, spec: &str| {
        let pool = format!(r#""pool":{{"name":"p","generation":{generation},"resourceSliceCount":{count}}}"#);
        slice(name, &format!("{{{pool},{spec}}}"))
    };
    let (here, there) =
        (r#""nodeName":"n","devices":[{"name":"a"}]"#, r#""nodeName":"m","devices":[{"name":"a"}]"#);
    let one = [claim("c", r#"{"requests":[{"name":"r"}]}"#)];
    let all = [claim("c", r#"{"requests":[{"name":"r","exactly":{"allocationMode":"All"}}]}"#)];
    let found_in = |objects: &[Value], claims: &[Value]| found(&mut cluster(objects), "n", claims);
    assert_eq!(found_in(&[of("s1", 1, 2, here)], &one), "none", "incomplete");
    assert_eq!(
        found_in(&[of("s1", 1, 2, here)], &all),
        "fatal: claim default/c, request r: asks for all devices, but resource pool d.io/p is currently being updated"
    );
    assert_eq!(found_in(&[of("s1", 1, 2, here), of("s2", 1, 2, there)], &one), "r=p/a");
    assert_eq!(
        found_in(&[of("s1", 1, 1, here), of("s2", 2, 1, there)], &one),
        "r=p/a",
        "as upstream sees it"
    );
    assert_eq!(found_in(&[of("s1", 1, 2, here), of("s2", 2, 1, there)], &one), "none", "obsolete");
    let twice = r#""nodeName":"n","devices":[{"name":"a"},{"name":"a"}]"#;
    assert_eq!(found_in(&[of("s1", 1, 1, twice)], &one), "on node: invalid resource pools were encountered");
    let later = r#""nodeName":"n","devices":[{"name":"b"}]"#;
    assert_eq!(found_in(&[of("s1", 1, 1, here), of("s2", 2, 1, later)], &one), "r=p/b");
}

#[test]
fn devices_are_reached_from_where_their_slices_say() {
    let everywhere = slice("p1", r#"{"allNodes":true,"devices":[{"name":"a"}]}"#);
    let selected = slice(
        "p2",
        r#"{"nodeSelector":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"name","operator":"In","values":["n"]}]}]},
            "devices":[{"name":"a"}]}"#,
    );
    let each = slice(
        "p3",
        r#"{"perDeviceNodeSelection":true,"devices":[{"name":"a","nodeName":"m"},{"name":"b","nodeName":"n"},
            {"name":"c","allNodes":true}]}"#,
    );
    let all = [claim("c", r#"{"requests":[{"name":"r","exactly":{"allocationMode":"All"}}]}"#)];
    let mut cluster = cluster(&[everywhere, selected, each]);
    assert_eq!(found(&mut cluster, "n", &all), "r=p1/a r=p2/a r=p3/b r=p3/c");
    assert_eq!(found(&mut cluster, "m", &all), "r=p1/a r=p3/a r=p3/c");
}

#[test]
fn devices_that_have_to_be_made_ready_come_last() {
    let slow = slice("p1", r#"{"nodeName":"n","devices":[{"name":"a","bindingConditions":["Ready"]}]}"#);
    check(&[slow, slice("p2", TWO)], r#"{"requests":[{"name":"r"}]}"#, "r=p2/a");
}

#[test]
fn what_is_written_says_where_the_devices_are_and_how_they_are_set_up() {
    let objects = [
        slice(
            "p",
            r#"{"nodeName":"n","devices":[{"name":"a","bindingConditions":["Ready"]},
                {"name":"b","allowMultipleAllocations":true,"capacity":{"memory":{"value":"10Gi"}}}]}"#,
        ),
        class("set-up", r#"{"config":[{"opaque":{"driver":"d.io","parameters":{"a":1}}}]}"#),
    ];
    let tree = claim(
        "c",
        r#"{"requests":[
              {"name":"r","exactly":{"deviceClassName":"set-up","tolerations":[{"key":"k","operator":"Exists"}]}},
              {"name":"s","firstAvailable":[{"name":"t","deviceClassName":"set-up"}]}],
            "config":[{"requests":["s/t"],"opaque":{"driver":"d.io","parameters":{"b":2}}},
                      {"requests":["other"],"opaque":{"driver":"d.io","parameters":{"c":3}}}]}"#,
    );
    let mut cluster = cluster(&objects);
    let result = search(&mut cluster, &node("n"), std::slice::from_ref(&tree)).unwrap().unwrap();
    let wanted = wanted(&mut cluster, std::slice::from_ref(&tree)).unwrap();
    let class = objects[1].clone();
    let mut written =
        super::super::status::allocation(&wanted.claims[0], &result[0], "n", &tree, |_| Some(&class))
            .unwrap();
    let share = written["devices"]["results"][1].str_at(&["shareID"]).to_owned();
    assert_eq!(share.len(), 36);
    if let Some(results) = written.at_mut(&["devices", "results"]).and_then(Value::as_array_mut) {
        results[1].remove_at(&["shareID"]);
    }
    let expected = parse(
        r#"{"devices":{
            "results":[
              {"request":"r","driver":"d.io","pool":"p","device":"a","tolerations":[{"key":"k","operator":"Exists"}],
               "bindingConditions":["Ready"]},
              {"request":"s/t","driver":"d.io","pool":"p","device":"b","consumedCapacity":{"memory":"10Gi"}}],
            "config":[
              {"source":"FromClass","requests":["r","s/t"],"opaque":{"driver":"d.io","parameters":{"a":1}}},
              {"source":"FromClaim","requests":["s/t"],"opaque":{"driver":"d.io","parameters":{"b":2}}}]},
          "nodeSelector":{"nodeSelectorTerms":[
            {"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}]}}"#,
    );
    assert_eq!(written, expected);
}

#[test]
fn what_is_taken_is_counted_until_the_claim_says_so_itself() {
    let mut cluster = cluster(&[slice("p", TWO)]);
    let one = [claim("c", r#"{"requests":[{"name":"r"}]}"#)];
    taken(&mut cluster, &["p/a"]);
    // Written, but not seen: a withdrawal comes too late.
    cluster.claims.kept("taken", 7);
    cluster.claims.withdraw("taken");
    assert_eq!(found(&mut cluster, "n", &one), "r=p/b");
    let seen = |revision: u64, allocated: bool| {
        let mut tree = claim("taken", "{}");
        if allocated {
            let results = r#"[{"request":"r","driver":"d.io","pool":"p","device":"a"}]"#;
            tree.set_at(&["status", "allocation", "devices", "results"], parse(results));
        }
        Arc::new(Object::from_value(&tree, revision, &[]).unwrap())
    };
    cluster.claims.observe(&seen(6, false));
    assert_eq!(found(&mut cluster, "n", &one), "r=p/b", "an earlier state says nothing");
    cluster.claims.observe(&seen(7, true));
    assert_eq!(found(&mut cluster, "n", &one), "r=p/b");
    cluster.claims.observe(&seen(8, false));
    assert_eq!(found(&mut cluster, "n", &one), "r=p/a");
}
