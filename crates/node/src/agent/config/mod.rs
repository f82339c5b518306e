//! What a pod asks for, as what a runtime is told.
