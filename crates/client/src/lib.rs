//! Typed and dynamic access to the API for components.
