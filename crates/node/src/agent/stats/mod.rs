//! How much pods use.
