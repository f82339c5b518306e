//! The API over HTTPS: paths, parameters, forms and streams. What is done is `door`'s.

pub mod body;
pub(crate) mod compress;
pub(crate) mod exchange;
pub mod handler;
pub mod identity;
pub mod in_flight;
pub mod negotiate;
mod nonresource;
pub mod path;
pub(crate) mod proxy;
pub mod query;
pub mod recording;
pub mod render;
pub mod server;
mod verbs;
mod watch;
