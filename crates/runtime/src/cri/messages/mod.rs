//! Messages of CRI `runtime.v1`: the fields that are used here, under their numbers in the public protocol.
//!
//! Numbers of enumerations are constants beside their messages, as unknown ones must pass unharmed.

mod container;
mod image;
mod resources;
mod sandbox;
mod service;

pub(super) use container::*;
pub(super) use image::*;
pub(super) use resources::*;
pub(super) use sandbox::*;
pub(super) use service::*;
