//! Storage served from memory: ordered snapshots, event ring, fan-out.
