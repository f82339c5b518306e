//! What `/etc/resolv.conf` of a pod says.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};
use runtime::spec::Dns;

use super::{NodeFacts, Notice, Refusal, namespace, pod_name};

/// What resolvers read: glibc's limits, as upstream keeps them.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LINE_MAX: usize = 2_048;
const SEARCH_MAX: usize = 253;

/// Names with fewer dots are looked for below the searches first.
const CLUSTER_OPTION: &str = "ndots:5";

/// The resolver of a pod, and what was left out of it.
///
/// # Errors
/// Where the policy is none that there is.
pub fn resolver(pod: &Pod, node: &NodeFacts) -> Result<(Dns, Vec<Notice>), Refusal> {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let mut notices = Vec::new();
    let mut dns = match policy {
        "None" => Dns::default(),
        "Default" => node.host_dns.clone(),
        "ClusterFirst" if host_network => node.host_dns.clone(),
        "ClusterFirst" | "ClusterFirstWithHostNet" if node.cluster_dns.is_empty() => {
            let message = format!(
                "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} \
                 policy. Falling back to \"Default\" policy.",
                pod_name(pod)
            );
            notices.push(Notice::warning("MissingClusterDNS", message));
            node.host_dns.clone()
        }
        "ClusterFirst" | "ClusterFirstWithHostNet" => cluster(pod, node),
        other => return Err(Refusal::sandbox(format!("invalid DNSPolicy={other}"))),
    };
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        merge(&mut dns, config);
    }
    limit(&mut dns, &mut notices);
    Ok((dns, notices))
}

fn cluster(pod: &Pod, node: &NodeFacts) -> Dns {
    let mut searches = Vec::new();
    if !node.cluster_domain.is_empty() {
        let domain = &node.cluster_domain;
        searches = vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.clone()];
    }
    extend(&mut searches, &node.host_dns.searches);
    Dns {
        servers: node.cluster_dns.iter().map(ToString::to_string).collect(),
        searches,
        options: vec![CLUSTER_OPTION.to_owned()],
    }
}

/// Adds what is not there yet.
fn extend(list: &mut Vec<String>, more: &[String]) {
    for own in more {
        if !list.contains(own) {
            list.push(own.clone());
        }
    }
}

fn merge(dns: &mut Dns, config: &PodDNSConfig) {
    extend(&mut dns.servers, config.nameservers.as_deref().unwrap_or_default());
    extend(&mut dns.searches, config.searches.as_deref().unwrap_or_default());
    for option in config.options.iter().flatten() {
        let Some(name) = option.name.as_deref() else { continue };
        let text = match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        };
        let named = dns.options.iter_mut().find(|own| own.split(':').next() == Some(name));
        match named {
            Some(own) => *own = text,
            None => dns.options.push(text),
        }
    }
}

fn limit(dns: &mut Dns, notices: &mut Vec<Notice>) {
    if dns.servers.len() > SERVERS_MAX {
        dns.servers.truncate(SERVERS_MAX);
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            dns.servers.join(" ")
        );
        notices.push(Notice::warning("DNSConfigForming", message));
    }
    let before = dns.searches.len();
    dns.searches.retain(|search| search.len() <= SEARCH_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    let line = |searches: &[String]| searches.iter().map(|search| search.len() + 1).sum::<usize>();
    while line(&dns.searches) > SEARCH_LINE_MAX + 1 {
        dns.searches.pop();
    }
    if dns.searches.len() < before {
        let message = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            dns.searches.join(" ")
        );
        notices.push(Notice::warning("DNSConfigForming", message));
    }
}

/// What a machine's `/etc/resolv.conf` says.
pub fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            // The last line counts.
            Some("search" | "domain") => {
                dns.searches = words
                    .map(|search| {
                        if search == "." { search } else { search.trim_end_matches('.') }.to_owned()
                    })
                    .collect();
            }
            Some("options") => extend(&mut dns.options, &words.map(str::to_owned).collect::<Vec<_>>()),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn of(spec: serde_json::Value) -> String {
        let mut spec = spec;
        spec["containers"] = serde_json::json!([]);
        let (dns, notices) = resolver(&fixture::pod(spec), &fixture::node()).expect("it is made");
        let mut text =
            format!("{} | {} | {}", dns.servers.join(" "), dns.searches.join(" "), dns.options.join(" "));
        for notice in notices {
            text.push_str(&format!(" | {}", notice.reason));
        }
        text
    }

    #[test]
    fn the_policy_chooses_and_the_pod_adds() {
        let cluster =
            "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local example.com | ndots:5";
        let host = "192.0.2.53 | example.com | rotate";
        for (spec, wanted) in [
            (serde_json::json!({}), cluster),
            (serde_json::json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), host),
            (serde_json::json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), cluster),
            (serde_json::json!({"dnsPolicy": "Default"}), host),
            (
                serde_json::json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}),
                "1.1.1.1 |  | ",
            ),
            (
                serde_json::json!({"dnsConfig": {"nameservers": ["10.96.0.10", "1.1.1.1"], "searches": ["x"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                "10.96.0.10 1.1.1.1 | ns.svc.cluster.local svc.cluster.local cluster.local example.com x | \
                 ndots:2 edns0",
            ),
            (
                serde_json::json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1", "2", "3", "4"]}}),
                "1 2 3 |  |  | DNSConfigForming",
            ),
        ] {
            assert_eq!(of(spec.clone()), wanted, "{spec}");
        }
        let pod = fixture::pod(serde_json::json!({"dnsPolicy": "Some", "containers": []}));
        assert_eq!(
            resolver(&pod, &fixture::node()).map(drop).map_err(|own| own.message),
            Err("invalid DNSPolicy=Some".into())
        );
        let bare = NodeFacts { cluster_dns: Vec::new(), ..fixture::node() };
        let (dns, notices) =
            resolver(&fixture::pod(serde_json::json!({"containers": []})), &bare).expect("it falls back");
        assert_eq!((dns, notices[0].reason), (bare.host_dns.clone(), "MissingClusterDNS"));
    }

    #[test]
    fn searches_end_at_their_limits() {
        let long = |count: usize, length: usize| {
            let searches: Vec<String> = (0..count).map(|n| format!("{n:0length$}")).collect();
            let (mut dns, mut notices) = (Dns { searches, ..Dns::default() }, Vec::new());
            limit(&mut dns, &mut notices);
            (dns.searches.len(), notices.len())
        };
        assert_eq!(long(32, 3), (32, 0));
        assert_eq!(long(33, 3), (32, 1));
        assert_eq!(long(1, 253), (1, 0));
        assert_eq!(long(1, 254), (0, 1));
        // Sixteen and the blanks between them are 2047 characters.
        assert_eq!(long(16, 127), (16, 0));
        assert_eq!(long(17, 127), (16, 1));
    }

    #[test]
    fn the_machines_file_is_read() {
        let text = "# x\nnameserver 1.1.1.1\nnameserver fe80::1\ndomain a\nsearch b. c .\noptions rotate ndots:2\n;y\n";
        assert_eq!(
            parse(text),
            Dns {
                servers: vec!["1.1.1.1".into(), "fe80::1".into()],
                searches: vec!["b".into(), "c".into(), ".".into()],
                options: vec!["rotate".into(), "ndots:2".into()],
            }
        );
    }
}
