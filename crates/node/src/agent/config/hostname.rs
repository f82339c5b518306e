//! What a pod is called, and what its `/etc/hosts` says.

use std::net::IpAddr;

use apimachinery::dns::dns1123_label;
use k8s_openapi::api::core::v1::{HostAlias, Pod};

use super::{NodeFacts, Refusal, name, namespace};

/// What the kernel takes.
const HOSTNAME_MAX: usize = 64;
const LABEL_MAX: usize = 63;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HOST_NETWORK_HEADER: &str = "# Kubernetes-managed hosts file (host network).\n";

/// The names of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hostname {
    pub short: String,
    /// Empty where it has no subdomain.
    pub domain: String,
    /// What the kernel is told.
    pub kernel: String,
}

/// # Errors
/// Where a name cannot be one.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> Result<Hostname, Refusal> {
    let Some(spec) = &pod.spec else { return Ok(Hostname::default()) };
    if let Some(own) = spec.hostname_override.as_deref().filter(|own| !own.is_empty()) {
        return Ok(Hostname { short: own.to_owned(), domain: String::new(), kernel: own.to_owned() });
    }
    let label = |what: &str, text: &str| match dns1123_label(text) {
        messages if messages.is_empty() => Ok(text.to_owned()),
        messages => {
            let messages: Vec<_> = messages.iter().map(ToString::to_string).collect();
            Err(Refusal::sandbox(format!(
                "pod {what} {text:?} is not a valid DNS label: {}",
                messages.join(";")
            )))
        }
    };
    let short = match spec.hostname.as_deref().unwrap_or_default() {
        "" => truncated(name(pod))?,
        own => label("Hostname", own)?,
    };
    let domain = match spec.subdomain.as_deref().unwrap_or_default() {
        "" => String::new(),
        own => format!("{}.{}.svc.{cluster_domain}", label("Subdomain", own)?, namespace(pod)),
    };
    let mut kernel = short.clone();
    if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        kernel = format!("{short}.{domain}");
        if kernel.len() > HOSTNAME_MAX {
            return Err(Refusal::sandbox(format!(
                "failed to construct FQDN from Pod hostname and cluster domain, FQDN {kernel} is too long \
                 ({HOSTNAME_MAX} characters is the max, {} characters requested)",
                kernel.len()
            )));
        }
    }
    Ok(Hostname { short, domain, kernel })
}

/// The name of the pod as a label.
fn truncated(name: &str) -> Result<String, Refusal> {
    if name.len() <= LABEL_MAX {
        return Ok(name.to_owned());
    }
    let end = (0..=LABEL_MAX).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    match name[..end].trim_end_matches(['-', '.']) {
        "" => Err(Refusal::sandbox(format!("hostname for pod was invalid: {name:?}"))),
        label => Ok(label.to_owned()),
    }
}

/// The text of `/etc/hosts`.
pub fn hosts(pod: &Pod, hostname: &Hostname, addresses: &[IpAddr], node: &NodeFacts) -> String {
    let spec = pod.spec.as_ref();
    let mut text = if spec.and_then(|spec| spec.host_network).unwrap_or(false) {
        format!("{HOST_NETWORK_HEADER}{}", node.host_hosts)
    } else {
        let mut text = format!(
            "{HEADER}127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n"
        );
        let Hostname { short, domain, .. } = hostname;
        for address in addresses {
            text.push_str(&match domain.as_str() {
                "" => format!("{address}\t{short}\n"),
                domain => format!("{address}\t{short}.{domain}\t{short}\n"),
            });
        }
        text
    };
    let aliases = spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    text.push_str(&alias_lines(aliases));
    text
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = "\n# Entries added by HostAliases.\n".to_owned();
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn names_come_from_the_spec_or_the_pods_own() {
        let of = |spec: serde_json::Value, pod_name: &str| {
            let mut spec = spec;
            spec["containers"] = serde_json::json!([]);
            let mut pod = fixture::pod(spec);
            pod.metadata.name = Some(pod_name.to_owned());
            let made = hostname(&pod, "cluster.local").map_err(|refusal| refusal.message)?;
            Ok(format!("{} {} {}", made.short, made.domain, made.kernel))
        };
        let long = format!("{}-x.{}", "a".repeat(60), "b".repeat(10));
        for (spec, name, wanted) in [
            (serde_json::json!({}), "web", Ok("web  web".to_owned())),
            (serde_json::json!({}), &long, Ok(format!("{0}-x  {0}-x", "a".repeat(60)))),
            (
                serde_json::json!({"hostname": "h", "subdomain": "sub"}),
                "web",
                Ok("h sub.ns.svc.cluster.local h".to_owned()),
            ),
            (
                serde_json::json!({"subdomain": "sub", "setHostnameAsFQDN": true}),
                "web",
                Ok("web sub.ns.svc.cluster.local web.sub.ns.svc.cluster.local".to_owned()),
            ),
            (serde_json::json!({"hostnameOverride": "a.b"}), "web", Ok("a.b  a.b".to_owned())),
        ] {
            let made: Result<String, String> = of(spec.clone(), name);
            assert_eq!(made, wanted, "{spec}");
        }
        let bad: Result<String, String> = of(serde_json::json!({"hostname": "A b"}), "web");
        assert!(bad.is_err_and(|why| why.starts_with("pod Hostname \"A b\" is not a valid DNS label: ")));
        let far = serde_json::json!({"subdomain": "s".repeat(50), "setHostnameAsFQDN": true});
        let far: Result<String, String> = of(far, "web");
        assert!(far.is_err_and(|why| {
            why.ends_with("is too long (64 characters is the max, 75 characters requested)")
        }));
    }

    #[test]
    fn the_file_has_the_pods_addresses_and_aliases() {
        let pod = fixture::pod(serde_json::json!({"containers": [], "subdomain": "sub",
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}]}));
        let own = hostname(&pod, "cluster.local").expect("it has one");
        let addresses: [IpAddr; 2] = ["10.1.0.1".parse().expect("one"), "fd00::1".parse().expect("one")];
        expect_test::expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::0	ip6-localnet
            fe00::0	ip6-mcastprefix
            fe00::1	ip6-allnodes
            fe00::2	ip6-allrouters
            10.1.0.1	web.sub.ns.svc.cluster.local	web
            fd00::1	web.sub.ns.svc.cluster.local	web

            # Entries added by HostAliases.
            10.0.0.1	a	b
        "#]]
        .assert_eq(&hosts(&pod, &own, &addresses, &fixture::node()));
        let host = fixture::pod(serde_json::json!({"containers": [], "hostNetwork": true}));
        assert_eq!(
            hosts(&host, &own, &addresses, &fixture::node()),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n"
        );
    }
}
