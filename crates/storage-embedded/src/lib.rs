//! The storage contract on an embedded log-structured engine.
