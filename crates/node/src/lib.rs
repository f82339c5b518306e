//! Pod lifecycle on nodes; the simulated runtime.
