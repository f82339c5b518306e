//! Containers' logs on disk: the files that a runtime writes in CRI's form.
//!
//! Owns: what a line means ([`line`]), where the last lines begin ([`tail`]), handing a log on as it grows ([`stream`],
//! woken by [`watch`]), its end as last words ([`last_words`]), and putting full files aside ([`rotation`]). Never touches: pods; it gets paths.

pub mod last_words;
pub mod line;
pub mod rotation;
pub mod stream;
mod tail;
pub mod watch;
