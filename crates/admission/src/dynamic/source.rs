//! Configurations, compiled once per change.

use std::sync::Arc;

use apimachinery::Object;
use parking_lot::RwLock;
use registry::Endpoint;

/// What was made of one object. It is the same as long as the object is.
pub(crate) struct Kept<T> {
    of: Arc<Object>,
    pub made: Arc<T>,
}

/// What `make` makes of each of the objects, which are in the order of their names, as those of `before` are: of an
/// object that is as it was then, the same.
pub(crate) fn kept<'o, T>(
    objects: impl IntoIterator<Item = &'o Arc<Object>>,
    before: &[Kept<T>],
    make: impl Fn(&Object) -> T,
) -> Vec<Kept<T>> {
    let of = |object: &Arc<Object>| {
        let at = before.binary_search_by(|kept| kept.of.name().cmp(object.name()));
        let same = at.ok().map(|at| &before[at]).filter(|kept| Arc::ptr_eq(&kept.of, object));
        let made = same.map_or_else(|| Arc::new(make(object)), |kept| kept.made.clone());
        Kept { of: object.clone(), made }
    };
    objects.into_iter().map(of).collect()
}

/// Makes something of the objects of each collection, in the order of their names. What was made before is at hand, so
/// that what did not change is not made again.
type Compile<T> = dyn Fn(&[Vec<Arc<Object>>], Option<&T>) -> T + Send + Sync;

/// Something made of all objects of some collections, and made anew when one of them changed.
pub(crate) struct Compiled<T> {
    of: Vec<Endpoint>,
    compile: Box<Compile<T>>,
    /// With the newest revision of each collection at the time.
    made: RwLock<Option<(Vec<u64>, Arc<T>)>>,
}

impl<T> Compiled<T> {
    pub fn new(
        of: Vec<Endpoint>,
        compile: impl Fn(&[Vec<Arc<Object>>], Option<&T>) -> T + Send + Sync + 'static,
    ) -> Self {
        Self { of, compile: Box::new(compile), made: RwLock::new(None) }
    }

    /// No object in the first collection. Hot path.
    pub fn is_empty(&self) -> bool {
        self.of.first().is_none_or(|endpoint| endpoint.cache.is_empty())
    }

    /// Hot path: the same as for the last request, unless something was written.
    pub fn get(&self) -> Arc<T> {
        if let Some((at, made)) = &*self.made.read()
            && self.is_current(at)
        {
            return made.clone();
        }
        let mut made = self.made.write();
        if let Some((at, made)) = &*made
            && self.is_current(at)
        {
            return made.clone();
        }
        // Revisions first: what is written meanwhile makes it out of date, not unseen.
        let revisions = self.of.iter().map(|endpoint| endpoint.cache.last_change()).collect();
        let objects: Vec<Vec<Arc<Object>>> = self
            .of
            .iter()
            .map(|endpoint| endpoint.cache.snapshot().objects.values().cloned().collect())
            .collect();
        let before = made.as_ref().map(|(_, made)| &**made);
        let compiled = Arc::new((self.compile)(&objects, before));
        *made = Some((revisions, compiled.clone()));
        compiled
    }

    fn is_current(&self, at: &[u64]) -> bool {
        self.of.iter().zip(at).all(|(endpoint, at)| endpoint.cache.last_change() == *at)
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn only_what_changed_is_made_again() {
        let stored = |name: &str| {
            let tree = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
            Arc::new(Object::from_value(&tree, 1, &[] as &[&str]).expect("an object"))
        };
        let make = |object: &Object| object.name().to_owned();
        let (a, b, c) = (stored("a"), stored("b"), stored("c"));
        let before = kept([&a, &b, &c], &[], make);
        let after = kept([&a, &stored("b"), &stored("bb"), &c], &before, make);
        let names: Vec<&str> = after.iter().map(|kept| kept.made.as_str()).collect();
        assert_eq!(names, ["a", "b", "bb", "c"]);
        let is_kept = |was: usize, is: usize| Arc::ptr_eq(&before[was].made, &after[is].made);
        assert!(is_kept(0, 0) && !is_kept(1, 1) && is_kept(2, 3));
    }
}
