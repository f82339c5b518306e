//! Authenticators, RBAC and Node authorizers.
