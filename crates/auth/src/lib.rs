//! Authenticators, RBAC and Node authorizers.
//!
//! Owns: who a request comes from and what it may do. Never touches: sockets, storage and clocks; requests come as
//! plain values, objects are fed in, and `now` is a parameter.
//!
//! A request passes in this order:
//! 1. [`Authenticator`] makes a [`UserInfo`] of a client certificate or a bearer token, or takes it as anonymous;
//! 2. [`impersonation`] replaces that user where headers ask for it and the user may;
//! 3. an [`Authorizer`] decides on [`Attributes`]: [`Authorizers`] asks [`PrivilegedGroup`], [`NodeAuthorizer`] and
//!    [`rbac::RbacAuthorizer`] in this order;
//! 4. for writes of roles and bindings, [`rbac::escalation`] makes sure that nobody hands out more than they have.
//!
//! Nearly everything is in memory: certificates, service-account tokens and the decisions of RBAC and the Node
//! authorizer take no I/O. Who issues other tokens may have to be asked, through [`webhook`].

pub mod anonymous;
pub mod authenticator;
pub mod authorization;
pub mod authorizer;
pub mod bootstrap_token;
pub mod field_path;
pub mod impersonation;
pub mod jwt;
mod kept;
pub mod node;
pub mod oidc;
pub mod rbac;
pub mod remote;
pub mod request_header;
pub mod review;
mod secret;
pub mod static_tokens;
pub mod token;
pub mod user;

pub use anonymous::Anonymous;
pub use authenticator::{Authentication, Authenticator, Unauthorized};
pub use authorizer::{
    Attributes, Authorizer, Authorizers, Counted, Decision, PrivilegedGroup, Reason, ResolvedRules, forbidden,
};
pub use bootstrap_token::BootstrapTokens;
pub use node::NodeAuthorizer;
pub use request_header::RequestHeader;
pub use static_tokens::StaticTokens;
pub use token::{BoundObjects, TokenAuthenticator, TokenIssuer};
pub use user::UserInfo;
