//! Configurations, compiled once per change.

use std::sync::Arc;

use apimachinery::Object;
use parking_lot::RwLock;
use registry::Endpoint;

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
