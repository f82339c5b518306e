//! Certificate authority, certificates and service-account keys.
