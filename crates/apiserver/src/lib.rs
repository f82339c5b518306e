//! The Kubernetes API over HTTP and in process.
