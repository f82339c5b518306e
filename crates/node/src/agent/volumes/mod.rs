//! Volumes of pods.
