//! What this crate answers against what upstream answered: discovery, tables, OpenAPI.
//!
//! Recorded answers are found through `PINTLE_TESTDATA`, the published OpenAPI document through `PINTLE_REFERENCE`;
//! a test whose data is not there says so and passes.

mod columns;
mod defaults;
mod definitions;
mod discovery;
mod merge_keys;
mod openapi;
mod patches;
mod recorded;
mod schema;
mod table;
mod updates;
