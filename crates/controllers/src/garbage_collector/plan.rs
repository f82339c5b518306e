//! What becomes of an object, by the state of its owners. Pure.

use apimachinery::{Object, Str};
use client::Propagation;

use super::{FOREGROUND, ORPHAN, has_finalizer, is_deleting_dependents};

/// An owner, as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    Solid,
    /// It is being deleted in the foreground: it waits for this object to go.
    Waiting,
    Absent,
    /// A namespaced owner of a cluster-scoped object, which cannot be.
    Misplaced,
    UnknownKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Keep,
    /// Owners remain; references to these others go.
    DropReferences(Vec<Str>),
    Delete(Propagation),
}

impl OwnerState {
    pub(super) fn of(owner: &Object) -> Self {
        if is_deleting_dependents(owner) { Self::Waiting } else { Self::Solid }
    }
}

/// `states` are those of the object's owners, by uid.
pub(super) fn decide(states: &[(Str, OwnerState)], has_dependents: bool, object: &Object) -> Decision {
    if states.is_empty() {
        return Decision::Keep;
    }
    let any = |wanted: OwnerState| states.iter().any(|(_, state)| *state == wanted);
    if any(OwnerState::Solid) {
        let others = states.iter().filter(|(_, state)| *state != OwnerState::Solid);
        let uids: Vec<Str> = others.map(|(uid, _)| uid.clone()).collect();
        return if uids.is_empty() { Decision::Keep } else { Decision::DropReferences(uids) };
    }
    if any(OwnerState::Waiting) && has_dependents {
        // What waits for this object should wait for what belongs to it, too.
        return Decision::Delete(Propagation::Foreground);
    }
    // A finalizer that asks for something is honoured.
    Decision::Delete(if has_finalizer(object, ORPHAN) {
        Propagation::Orphan
    } else if has_finalizer(object, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::testing::object;

    #[test]
    fn the_state_of_all_owners_decides() {
        use OwnerState::{Absent, Solid, Waiting};
        let plain = || vec![];
        let rows = [
            (vec![], true, plain(), Decision::Keep),
            (vec![Solid], true, plain(), Decision::Keep),
            (vec![Solid, Absent], false, plain(), Decision::DropReferences(vec!["u1".into()])),
            (
                vec![Waiting, Solid, Absent],
                true,
                plain(),
                Decision::DropReferences(vec!["u0".into(), "u2".into()]),
            ),
            (vec![Absent], true, plain(), Decision::Delete(Propagation::Background)),
            (vec![Absent, Waiting], true, plain(), Decision::Delete(Propagation::Foreground)),
            (vec![Absent, Waiting], false, plain(), Decision::Delete(Propagation::Background)),
            (vec![Absent], false, vec![ORPHAN], Decision::Delete(Propagation::Orphan)),
            (vec![Absent], false, vec![FOREGROUND], Decision::Delete(Propagation::Foreground)),
            (vec![Absent], false, vec!["example.com/x"], Decision::Delete(Propagation::Background)),
        ];
        for (states, has_dependents, finalizers, wanted) in rows {
            let object = object(json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "namespace": "ns", "finalizers": finalizers}}));
            let states: Vec<(Str, OwnerState)> =
                states.into_iter().enumerate().map(|(at, state)| (format!("u{at}").into(), state)).collect();
            assert_eq!(decide(&states, has_dependents, &object), wanted, "{states:?} {has_dependents}");
        }
    }
}
