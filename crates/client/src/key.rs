//! [`ObjectKey`]: namespace and name, the identity by which caches and queues know an object.

use std::fmt;

use apimachinery::{Object, Str};

/// Namespace and name of an object; the namespace is empty for cluster-scoped ones.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: Str,
    pub name: Str,
}

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        Self::new("", name)
    }
}

impl From<&Object> for ObjectKey {
    fn from(object: &Object) -> Self {
        Self::new(object.namespace(), object.name())
    }
}

/// `namespace/name`, or only the name of a cluster-scoped object.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// As shown: keys appear in logs, where this is what one searches for.
impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
