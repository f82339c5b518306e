//! The client of a runtime behind a CRI socket: containerd, CRI-O.
