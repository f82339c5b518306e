//! Generic verbs over the watch cache and storage, with a strategy per kind.
