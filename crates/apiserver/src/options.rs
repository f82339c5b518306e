//! What an administrator may choose about the server; every default is upstream's.
//!
//! One struct per concern, each made by the code that knows it. The flags that fill them are the binary's.

/// Everything that can be chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {}
