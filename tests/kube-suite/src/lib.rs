//! Nothing to call: the suite is in `tests/`. A crate of its own, so that only it builds the `kube` crate.
