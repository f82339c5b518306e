//! The runtime in this binary: libcontainer in a small process beside each container.
