//! Tables, chains, sets and rules of the kernel, over netlink.
