//! Links and addresses of pods, and the way between nodes.
