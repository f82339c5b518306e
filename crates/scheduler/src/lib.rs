//! Scheduling queue, cache, framework and plugins.
