//! Whether claims may ask for devices that are in use by others.
//!
//! The label of a namespace decides. A claim's own rules cannot see that, so they say only which write asks for it.

use api::kinds::resource::{ADMIN_ACCESS, new_admin_access};
use apimachinery::Value;
use apimachinery::field::{Error, ErrorKind, ErrorList};

use crate::{Endpoint, Registry, WriteContext};

impl Registry {
    /// Complaints about administrative access in a namespace that is not for it; `old` is the state before an update.
    pub(crate) fn device_access(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        new: &Value,
        old: Option<&Value>,
    ) -> ErrorList {
        if endpoint.resource.group != "resource.k8s.io" || !endpoint.resource.namespaced {
            return ErrorList::new();
        }
        let Some(path) = new_admin_access(new, old) else { return ErrorList::new() };
        let is_for_admins = self.namespaces.get().is_some_and(|namespaces| {
            let namespace = namespaces.cache.get(&namespaces.resource.key("", ctx.namespace));
            namespace.is_some_and(|own| own.label(ADMIN_ACCESS) == Some("true"))
        });
        if is_for_admins {
            return ErrorList::new();
        }
        let detail = format!(
            "admin access to devices requires the `{ADMIN_ACCESS}: true` label on the containing namespace"
        );
        vec![Error { kind: ErrorKind::Forbidden, path, shown: None, detail }]
    }
}
