//! Role-based access control: roles hold rules, bindings give them to users.
//!
//! Start at [`RbacAuthorizer`]. The API server feeds it every Role, ClusterRole, RoleBinding and ClusterRoleBinding;
//! it answers from memory. [`escalation`] guards writes of those kinds, [`bootstrap`] holds the ones that every
//! cluster starts with.

mod authorizer;
pub mod bootstrap;
pub mod escalation;
mod object;
mod rule;

pub use authorizer::RbacAuthorizer;
pub use object::{Binding, Kind, RoleRef, Subject};
pub use rule::PolicyRule;
pub(crate) use rule::{null_is_empty, quoted_list};

/// The API group of all four kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";
