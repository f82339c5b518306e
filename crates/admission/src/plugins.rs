//! The one list of plugins, and how a chain is made of it.

use std::sync::Arc;

use api::Features;
use apimachinery::GroupVersionResource;
use auth::Authorizer;
use registry::Endpoint;
use telemetry::AdmissionHandle;

use crate::configuration::{Configuration, ConfigurationError, Options};
use crate::dynamic::{
    DynamicPlugin, MutatingAdmissionPolicy, MutatingAdmissionWebhook, ValidatingAdmissionPolicy,
    ValidatingAdmissionWebhook, World,
};
use crate::{
    MUTATION, Plugin, Step, VALIDATION, always, certificates, event_rate_limit, ingress_class, limit_ranger,
    namespace_defaults, namespace_lifecycle, namespace_provision, node_restriction, owner_references,
    pod_groups, pod_security, pods, pods_on_nodes, priority, resource_quota, runtime_class, service_account,
    services, storage, taint_nodes,
};

/// What plugins are made from.
pub struct Environment<'a> {
    /// The endpoint of a built-in collection, if it is served.
    pub endpoint: &'a dyn Fn(&GroupVersionResource) -> Option<Endpoint>,
    pub authorizer: Arc<dyn Authorizer>,
    pub features: &'a Features,
    /// What webhooks and policies are matched against.
    pub world: World,
    /// Where webhooks are.
    pub resolver: Arc<dyn webhook::ServiceResolver>,
}

/// Why there is no chain.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("--{flag}: {name:?} is not an admission plugin; there are {}", names().join(", "))]
    UnknownPlugin { flag: &'static str, name: String },
    #[error(
        "{name} is named in --enable-admission-plugins and in --disable-admission-plugins: leave it out of one"
    )]
    Contradiction { name: String },
    #[error("resource {0} is missing from the built-in table")]
    MissingResource(String),
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
}

/// A plugin with its name, and how long it took in the phases that it has part in.
pub(crate) struct Link {
    pub name: &'static str,
    pub step: Step,
    pub mutating: Option<AdmissionHandle>,
    pub validating: Option<AdmissionHandle>,
}

/// In which phases a plugin has something to do.
#[derive(Clone, Copy, PartialEq)]
enum Phases {
    Mutates,
    Validates,
    Both,
}

type Made = Result<Step, BuildError>;

struct Row {
    name: &'static str,
    /// On unless `--disable-admission-plugins` names it.
    on: bool,
    phases: Phases,
    make: fn(&Environment<'_>, &Configuration) -> Made,
}

const fn on(name: &'static str, phases: Phases, make: fn(&Environment<'_>, &Configuration) -> Made) -> Row {
    Row { name, on: true, phases, make }
}

const fn off(name: &'static str, phases: Phases, make: fn(&Environment<'_>, &Configuration) -> Made) -> Row {
    Row { name, on: false, phases, make }
}

fn made(plugin: impl Plugin) -> Made {
    Ok(Step::Plain(Box::new(plugin)))
}

fn made_dynamic(plugin: impl DynamicPlugin) -> Made {
    Ok(Step::Dynamic(Box::new(plugin)))
}

/// Every plugin under upstream's name and in upstream's order.
const PLUGINS: &[Row] = &[
    off("AlwaysAdmit", Phases::Both, |_, _| made(always::Admit)),
    off("NamespaceAutoProvision", Phases::Mutates, |env, _| {
        made_dynamic(namespace_provision::NamespaceAutoProvision::new(env)?)
    }),
    on("NamespaceLifecycle", Phases::Both, |env, _| made(namespace_lifecycle::NamespaceLifecycle::new(env)?)),
    off("NamespaceExists", Phases::Validates, |env, _| made(namespace_lifecycle::NamespaceExists::new(env)?)),
    off("LimitPodHardAntiAffinityTopology", Phases::Validates, |_, _| {
        made(pods::LimitPodHardAntiAffinityTopology)
    }),
    on("LimitRanger", Phases::Both, |env, _| made(limit_ranger::LimitRanger::new(env)?)),
    on("ServiceAccount", Phases::Both, |env, _| made_dynamic(service_account::ServiceAccount::new(env)?)),
    // Off by default upstream, but on in every distribution.
    on("NodeRestriction", Phases::Both, |env, _| made(node_restriction::NodeRestriction::new(env)?)),
    on("TaintNodesByCondition", Phases::Mutates, |_, _| made(taint_nodes::TaintNodesByCondition)),
    off("AlwaysPullImages", Phases::Both, |_, _| made(pods::AlwaysPullImages)),
    on("PodSecurity", Phases::Validates, |env, config| made(pod_security::PodSecurity::new(env, config)?)),
    off("PodNodeSelector", Phases::Both, |env, config| {
        made(namespace_defaults::PodNodeSelector::new(env, config)?)
    }),
    on("Priority", Phases::Both, |env, _| made(priority::Priority::new(env)?)),
    on("DefaultTolerationSeconds", Phases::Mutates, |_, _| made(pods::DefaultTolerationSeconds)),
    off("PodTolerationRestriction", Phases::Both, |env, config| {
        made(namespace_defaults::PodTolerationRestriction::new(env, config)?)
    }),
    off("EventRateLimit", Phases::Validates, |_, config| {
        made(event_rate_limit::EventRateLimit::new(config)?)
    }),
    off("ExtendedResourceToleration", Phases::Mutates, |_, _| made(pods::ExtendedResourceToleration)),
    on("DefaultStorageClass", Phases::Mutates, |env, _| made(storage::DefaultStorageClass::new(env)?)),
    on("StorageObjectInUseProtection", Phases::Mutates, |_, _| made(storage::StorageObjectInUseProtection)),
    on("PodGroupProtection", Phases::Mutates, |_, _| made(pod_groups::PodGroupProtection)),
    off("OwnerReferencesPermissionEnforcement", Phases::Validates, |env, _| {
        made(owner_references::OwnerReferencesPermissionEnforcement::new(env))
    }),
    on("PersistentVolumeClaimResize", Phases::Validates, |env, _| {
        made(storage::PersistentVolumeClaimResize::new(env)?)
    }),
    on("RuntimeClass", Phases::Both, |env, _| made(runtime_class::RuntimeClass::new(env)?)),
    on("CertificateApproval", Phases::Validates, |env, _| made(certificates::CertificateApproval::new(env))),
    on("CertificateSigning", Phases::Validates, |env, _| made(certificates::CertificateSigning::new(env))),
    on("ClusterTrustBundleAttest", Phases::Validates, |env, _| {
        made(certificates::ClusterTrustBundleAttest::new(env))
    }),
    on("CertificateSubjectRestriction", Phases::Validates, |_, _| {
        made(certificates::CertificateSubjectRestriction)
    }),
    on("DefaultIngressClass", Phases::Mutates, |env, _| made(ingress_class::DefaultIngressClass::new(env)?)),
    off("DenyServiceExternalIPs", Phases::Validates, |_, _| made(services::DenyServiceExternalIps)),
    on("PodTopologyLabels", Phases::Mutates, |env, _| made(pods_on_nodes::PodTopologyLabels::new(env)?)),
    on("PodGroupWorkloadExists", Phases::Validates, |env, _| {
        made(pod_groups::PodGroupWorkloadExists::new(env))
    }),
    on("NodeDeclaredFeatureValidator", Phases::Validates, |env, _| {
        made(pods_on_nodes::NodeDeclaredFeatureValidator::new(env)?)
    }),
    on("PodResizeValidator", Phases::Validates, |env, _| made(pods_on_nodes::PodResizeValidator::new(env)?)),
    on("MutatingAdmissionPolicy", Phases::Mutates, |env, _| made_dynamic(MutatingAdmissionPolicy::new(env)?)),
    on("MutatingAdmissionWebhook", Phases::Mutates, |env, config| {
        made_dynamic(MutatingAdmissionWebhook::new(env, config)?)
    }),
    on("ValidatingAdmissionPolicy", Phases::Validates, |env, _| {
        made_dynamic(ValidatingAdmissionPolicy::new(env)?)
    }),
    on("ValidatingAdmissionWebhook", Phases::Validates, |env, config| {
        made_dynamic(ValidatingAdmissionWebhook::new(env, config)?)
    }),
    on("ResourceQuota", Phases::Validates, |env, config| {
        made_dynamic(resource_quota::ResourceQuota::new(env, config)?)
    }),
    off("AlwaysDeny", Phases::Both, |_, _| made(always::Deny)),
];

/// The names of all plugins, in order.
pub fn names() -> Vec<&'static str> {
    PLUGINS.iter().map(|row| row.name).collect()
}

impl Environment<'_> {
    /// The endpoint of a collection that every server has.
    pub(crate) fn endpoint(&self, gvr: &GroupVersionResource) -> Result<Endpoint, BuildError> {
        (self.endpoint)(gvr).ok_or_else(|| BuildError::MissingResource(gvr.to_string()))
    }

    pub(crate) fn named(&self, group: &str, version: &str, plural: &str) -> Result<Endpoint, BuildError> {
        self.endpoint(&GroupVersionResource::new(group, version, plural))
    }
}

/// Makes the plugins that are on, in order.
pub(crate) fn build(environment: &Environment<'_>, options: &Options) -> Result<Vec<Link>, BuildError> {
    check(options)?;
    let is_on = |row: &&Row| {
        let named = |list: &[String]| list.iter().any(|name| name == row.name);
        (row.on || named(&options.enable)) && !named(&options.disable)
    };
    PLUGINS
        .iter()
        .filter(is_on)
        .map(|row| Ok(row.link((row.make)(environment, &options.configuration)?)))
        .collect()
}

impl Row {
    fn link(&self, step: Step) -> Link {
        let metrics = &telemetry::metrics().admission;
        let mutating = self.phases != Phases::Validates;
        let validating = self.phases != Phases::Mutates;
        Link {
            name: self.name,
            step,
            mutating: mutating.then(|| metrics.plugin(self.name, MUTATION)),
            validating: validating.then(|| metrics.plugin(self.name, VALIDATION)),
        }
    }
}

fn check(options: &Options) -> Result<(), BuildError> {
    let lists =
        [("enable-admission-plugins", &options.enable), ("disable-admission-plugins", &options.disable)];
    for (flag, list) in lists {
        if let Some(name) = list.iter().find(|name| !PLUGINS.iter().any(|row| row.name == *name)) {
            return Err(BuildError::UnknownPlugin { flag, name: name.clone() });
        }
    }
    match options.enable.iter().find(|name| options.disable.contains(name)) {
        Some(name) => Err(BuildError::Contradiction { name: name.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_unknown_or_contradict_each_other_are_refused() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let options = |enable: &[&str], disable: &[&str]| Options {
            enable: list(enable),
            disable: list(disable),
            ..Options::default()
        };
        assert!(check(&options(&["AlwaysPullImages"], &["Priority"])).is_ok());
        let unknown = check(&options(&[], &["priority"])).expect_err("no such plugin").to_string();
        assert!(unknown.starts_with("--disable-admission-plugins: \"priority\" is not"), "{unknown}");
        let both = check(&options(&["Priority"], &["Priority"])).expect_err("contradiction").to_string();
        assert!(both.contains("Priority is named in"), "{both}");
    }

    #[test]
    fn no_two_plugins_share_a_name() {
        let mut names = names();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
