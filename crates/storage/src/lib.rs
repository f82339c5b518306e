//! The storage contract and its conformance suite.
