//! Work queue, reconcile loop, back-off and owned-object helpers.
