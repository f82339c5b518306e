//! Who decides: the authorizers, put together as the administrator wants them.

use std::sync::Arc;

use auth::authorization::{Always, Link};
use auth::rbac::RbacAuthorizer;
use auth::{Authorizer, Authorizers, Counted, NodeAuthorizer, PrivilegedGroup};

/// What can be chosen about authorization.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// In the order in which they are asked. `system:masters` pass before.
    pub chain: Vec<Link>,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { chain: vec![Link::Node, Link::Rbac] }
    }
}

impl Authorization {
    pub(crate) fn authorizers(
        &self,
        nodes: &Arc<NodeAuthorizer>,
        rbac: &Arc<RbacAuthorizer>,
    ) -> Arc<Authorizers> {
        let mut all: Vec<Arc<dyn Authorizer>> = vec![Arc::new(PrivilegedGroup::masters())];
        all.extend(self.chain.iter().map(|link| -> Arc<dyn Authorizer> {
            let authorizer: Arc<dyn Authorizer> = match link {
                Link::AlwaysAllow => Arc::new(Always { allow: true }),
                Link::AlwaysDeny => Arc::new(Always { allow: false }),
                Link::Node => nodes.clone(),
                Link::Rbac => rbac.clone(),
                Link::Webhook(webhook) => webhook.clone(),
            };
            let (kind, name) = link.kind_and_name();
            Arc::new(Counted::new(authorizer, kind, name))
        }));
        Arc::new(Authorizers::new(all))
    }
}
