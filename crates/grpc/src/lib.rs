//! gRPC over Unix sockets.
