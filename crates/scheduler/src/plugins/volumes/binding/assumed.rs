//! [`Assumed`]: objects as they will be once what was decided about them is written.
//!
//! The next pod must not be given a volume that the one before got, though the API does not show it yet. An assumption
//! is about one version of an object; any other version that the informer shows ends it.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Object;
use client::ObjectKey;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

pub struct Assumed<T> {
    /// By object, with the version that they are about.
    views: Mutex<HashMap<ObjectKey, (u64, Arc<T>)>>,
}

impl<T> Default for Assumed<T> {
    fn default() -> Self {
        Self { views: Mutex::default() }
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Assumed<T> {
    /// The object as it is assumed to be, else as it is. `None` when it cannot be decoded.
    pub fn view(&self, object: &Object) -> Option<Arc<T>> {
        let views = self.views.lock();
        match views.get(&ObjectKey::from(object)) {
            Some((revision, view)) if *revision == object.revision() => Some(view.clone()),
            _ => object.view().ok(),
        }
    }

    pub fn assume(&self, object: &Object, view: T) {
        self.views.lock().insert(ObjectKey::from(object), (object.revision(), Arc::new(view)));
    }

    /// Takes an assumption about this version back.
    pub fn restore(&self, object: &Object) {
        let key = ObjectKey::from(object);
        let mut views = self.views.lock();
        if views.get(&key).is_some_and(|(revision, _)| *revision == object.revision()) {
            views.remove(&key);
        }
    }

    /// The informer shows this version; `None` for an object that is gone.
    pub fn seen(&self, key: &ObjectKey, revision: Option<u64>) {
        let mut views = self.views.lock();
        if views.get(key).is_some_and(|(assumed, _)| Some(*assumed) != revision) {
            views.remove(key);
        }
    }

    /// Keeps assumptions about these versions only.
    pub fn seen_all(&self, objects: &[Arc<Object>]) {
        let mut views = self.views.lock();
        if !views.is_empty() {
            let shown: HashMap<ObjectKey, u64> =
                objects.iter().map(|object| (ObjectKey::from(&**object), object.revision())).collect();
            views.retain(|key, (revision, _)| shown.get(key) == Some(revision));
        }
    }
}
