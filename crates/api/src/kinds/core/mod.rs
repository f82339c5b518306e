//! The core group.

pub mod config_map;
pub mod endpoints;
pub mod event;
pub mod limit_range;
pub mod namespace;
pub mod node;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_template;
pub mod replication_controller;
pub mod resource_quota;
pub mod secret;
pub mod service;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[
    ("ConfigMap", &config_map::ConfigMap),
    ("Endpoints", &endpoints::Endpoints),
    ("Event", &event::Event::Core),
    ("LimitRange", &limit_range::LimitRange),
    ("Namespace", &namespace::Namespace),
    ("Node", &node::Node),
    ("PersistentVolume", &persistent_volume::PersistentVolume),
    ("PersistentVolumeClaim", &persistent_volume_claim::PersistentVolumeClaim),
    ("Pod", &pod::Pod),
    ("PodTemplate", &pod_template::PodTemplate),
    ("ReplicationController", &replication_controller::ReplicationController),
    ("ResourceQuota", &resource_quota::ResourceQuota),
    ("Secret", &secret::Secret),
    ("Service", &service::Service),
];
