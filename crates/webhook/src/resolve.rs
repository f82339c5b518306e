//! Where a Service can be reached.

use apimachinery::{GroupResource, Status};

/// Knows the addresses of Services.
///
/// Asked before every call, so it must be a look-up in memory.
pub trait ServiceResolver: Send + Sync + 'static {
    /// `host:port` of something that serves this port of the Service now.
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<String, Status>;
}

/// For peers that are never Services.
pub struct NoServices;

impl ServiceResolver for NoServices {
    fn resolve(&self, _namespace: &str, name: &str, _port: u16) -> Result<String, Status> {
        Err(Status::not_found(&GroupResource::new("", "services"), name))
    }
}
