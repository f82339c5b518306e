//! Columns of API priority and fairness.

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, text};

pub(super) const KINDS: Kinds = &[
    (
        "FlowSchema",
        &[
            NAME,
            text("PriorityLevel"),
            text("MatchingPrecedence"),
            text("DistinguisherMethod"),
            AGE,
            text("MissingPL"),
        ],
        flow_schema,
    ),
    (
        "PriorityLevelConfiguration",
        &[
            NAME,
            text("Type"),
            text("NominalConcurrencyShares"),
            text("Queues"),
            text("HandSize"),
            text("QueueLengthLimit"),
            AGE,
        ],
        priority_level,
    ),
];

fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let dangling = cell::condition(object, "Dangling").map_or("?", |condition| condition.str_at(&["status"]));
    vec![
        cell::name(object),
        cell::text(object, &["spec", "priorityLevelConfiguration", "name"]),
        cell::number(object, &["spec", "matchingPrecedence"]),
        cell::text_or(object, &["spec", "distinguisherMethod", "type"], "<none>"),
        cell::age(object, now),
        dangling.into(),
    ]
}

fn priority_level(object: &Value, now: Timestamp) -> Vec<Value> {
    let queuing =
        |field| cell::number_or(object, &["spec", "limited", "limitResponse", "queuing", field], "<none>");
    vec![
        cell::name(object),
        cell::text(object, &["spec", "type"]),
        cell::number_or(object, &["spec", "limited", "nominalConcurrencyShares"], "<none>"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        cell::age(object, now),
    ]
}
