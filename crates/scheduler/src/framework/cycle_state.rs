//! What plugins keep between extension points.

use std::any::{Any, TypeId};

/// Data of plugins by type: each keeps its own private types here and finds them again at later points.
///
/// The state that `PreFilter` and `PreScore` fill belongs to a pod's *signature* and is shared by all pods of equal
/// signature (they would compute the same). Points from `Reserve` on get a state of their own pod.
#[derive(Default)]
pub struct CycleState {
    entries: Vec<(TypeId, Box<dyn Any + Send + Sync>)>,
}

impl CycleState {
    /// Keeps a value, replacing the one of its type.
    pub fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        let id = TypeId::of::<T>();
        self.entries.retain(|(own, _)| *own != id);
        self.entries.push((id, Box::new(value)));
    }

    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        // A handful of entries: a walk is quicker than hashing.
        self.entries.iter().find(|(own, _)| *own == TypeId::of::<T>())?.1.downcast_ref()
    }

    pub fn get_mut<T: Any + Send + Sync>(&mut self) -> Option<&mut T> {
        self.entries.iter_mut().find(|(own, _)| *own == TypeId::of::<T>())?.1.downcast_mut()
    }
}
