//! The tests of networks.

use super::Covered::{self, By, Not};
use super::{COLLECTIONS, EVERY_VERB, STATUSES};

const ADDRESSES: &str = "crates/apiserver/tests/suite/services.rs";
const ENDPOINTS: &str = "crates/controllers/src/endpoints/tests.rs";
const HOSTS: &str = "tests/interop/tests/node/conformance/hosts.rs";
const MIRRORS: &str = "crates/controllers/src/endpointslice_mirroring/tests.rs";
const NAMES: &str = "tests/interop/tests/node/conformance/names.rs";
const PROXY: &str = "crates/network/src/service_proxy/tests.rs";
const SERVICES: &str = "tests/interop/tests/node/conformance/services.rs";
const SLICES: &str = "crates/controllers/src/endpointslice/tests.rs";

pub fn table() -> Vec<(&'static str, Covered)> {
    vec![
        (
            "[sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server",
            By(&[(SERVICES, "the API server is a Service itself")]),
        ),
        (
            "[sig-network] API Server should provide secure master service",
            By(&[(SERVICES, "the API server is a Service itself")]),
        ),
        (
            "[sig-network] DNS should provide /etc/hosts entries for the cluster",
            By(&[(NAMES, "a pod with a hostname and subdomain has a name, which its own hosts know")]),
        ),
        (
            "[sig-network] DNS should provide DNS for ExternalName services",
            By(&[(NAMES, "a name outside follows its Service")]),
        ),
        (
            "[sig-network] DNS should provide DNS for pods for Hostname",
            By(&[(NAMES, "a pod with a hostname and subdomain has a name, which its own hosts know")]),
        ),
        (
            "[sig-network] DNS should provide DNS for pods for Subdomain",
            By(&[(NAMES, "a pod with a hostname and subdomain has a name, which its own hosts know")]),
        ),
        (
            "[sig-network] DNS should provide DNS for services",
            By(&[(NAMES, "Services have addresses, named ports and names back")]),
        ),
        (
            "[sig-network] DNS should provide DNS for the cluster",
            By(&[(NAMES, "Services have addresses, named ports and names back")]),
        ),
        (
            "[sig-network] DNS should resolve DNS of partial qualified names for services [LinuxOnly]",
            By(&[(NAMES, "Services have addresses, named ports and names back")]),
        ),
        (
            "[sig-network] DNS should support configurable pod DNS nameservers",
            By(&[(HOSTS, "a pod has name servers and a search list of its own where it says so")]),
        ),
        (
            "[sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service",
            By(&[(SLICES, "a_slice_tells_address_port_conditions_node_and_zone")]),
        ),
        (
            "[sig-network] EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods",
            By(&[(SLICES, "a_service_without_pods_has_one_empty_slice")]),
        ),
        (
            "[sig-network] EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices",
            By(&[(SERVICES, "endpoints that somebody else names are served")]),
        ),
        (
            "[sig-network] EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices",
            By(&[(SERVICES, "endpoints that somebody else names are served")]),
        ),
        (
            "[sig-network] EndpointSlice should support creating EndpointSlice API operations",
            By(&[EVERY_VERB]),
        ),
        (
            "[sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete",
            By(&[(
                MIRRORS,
                "endpoints_kept_by_hand_have_a_slice_for_as_long_as_the_service_has_no_selector",
            )]),
        ),
        ("[sig-network] Endpoints should test the lifecycle of an Endpoint", By(&[EVERY_VERB])),
        (
            "[sig-network] EndpointsController should create Endpoints for Pods matching a Service",
            By(&[(ENDPOINTS, "endpoints_follow_pods_and_go_with_their_service")]),
        ),
        (
            "[sig-network] EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods",
            By(&[(ENDPOINTS, "endpoints_follow_pods_and_go_with_their_service")]),
        ),
        (
            "[sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol [LinuxOnly]",
            Not(
                "Ports of the node are tried on its addresses (`conformance/hosts.rs`); upstream asks on the loopback, too, where they lead nowhere yet.",
            ),
        ),
        ("[sig-network] Ingress API should support creating Ingress API operations", By(&[EVERY_VERB])),
        (
            "[sig-network] IngressClass API should support creating IngressClass API operations",
            By(&[EVERY_VERB]),
        ),
        (
            "[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http [NodeConformance]",
            By(&[(SERVICES, "pods and the node reach pods over HTTP")]),
        ),
        (
            "[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: udp [NodeConformance]",
            By(&[(PROXY, "a_client_of_udp_moves_on_when_its_endpoint_is_gone")]),
        ),
        (
            "[sig-network] Networking Granular Checks: Pods should function for node-pod communication: http [LinuxOnly] [NodeConformance]",
            By(&[(SERVICES, "pods and the node reach pods over HTTP")]),
        ),
        (
            "[sig-network] Networking Granular Checks: Pods should function for node-pod communication: udp [LinuxOnly] [NodeConformance]",
            By(&[(PROXY, "a_client_of_udp_moves_on_when_its_endpoint_is_gone")]),
        ),
        (
            "[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service Proxy",
            By(&[(SERVICES, "the server is a proxy to pods and Services, by every verb")]),
        ),
        (
            "[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath",
            By(&[(SERVICES, "the server is a proxy to pods and Services, by every verb")]),
        ),
        (
            "[sig-network] Proxy version v1 should proxy through a service and a pod",
            By(&[(SERVICES, "the server is a proxy to pods and Services, by every verb")]),
        ),
        (
            "[sig-network] Service endpoints latency should not be very high",
            Not("No test looks at a clock; `cargo xtask bench` measures how soon pods and endpoints follow."),
        ),
        (
            "[sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations",
            By(&[
                (ADDRESSES, "an_address_has_an_object_as_long_as_its_service"),
                (ADDRESSES, "a_further_block_has_addresses_until_it_is_not_ready"),
            ]),
        ),
        (
            "[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations",
            By(&[
                (ADDRESSES, "an_address_has_an_object_as_long_as_its_service"),
                (ADDRESSES, "a_further_block_has_addresses_until_it_is_not_ready"),
            ]),
        ),
        (
            "[sig-network] Services should be able to change the type from ClusterIP to ExternalName",
            By(&[(SERVICES, "a Service changes its type and back")]),
        ),
        (
            "[sig-network] Services should be able to change the type from ExternalName to ClusterIP",
            By(&[(SERVICES, "a Service changes its type and back")]),
        ),
        (
            "[sig-network] Services should be able to change the type from ExternalName to NodePort",
            By(&[(SERVICES, "a Service changes its type and back")]),
        ),
        (
            "[sig-network] Services should be able to change the type from NodePort to ExternalName",
            By(&[(SERVICES, "a Service changes its type and back")]),
        ),
        (
            "[sig-network] Services should be able to create a functioning NodePort service",
            By(&[
                (SERVICES, "every pod of a Service answers, by cluster IP and by node port"),
                (SERVICES, "a pod leaves its Service and another comes"),
            ]),
        ),
        (
            "[sig-network] Services should be able to switch session affinity for NodePort service [LinuxOnly]",
            By(&[(
                SERVICES,
                "a client stays with a pod where the Service says so, and no longer when it does not",
            )]),
        ),
        (
            "[sig-network] Services should be able to switch session affinity for service with type clusterIP [LinuxOnly]",
            By(&[(
                SERVICES,
                "a client stays with a pod where the Service says so, and no longer when it does not",
            )]),
        ),
        ("[sig-network] Services should complete a service status lifecycle", By(&[STATUSES])),
        ("[sig-network] Services should delete a collection of services", By(&[COLLECTIONS])),
        ("[sig-network] Services should find a service from listing all namespaces", By(&[EVERY_VERB])),
        (
            "[sig-network] Services should have session affinity work for NodePort service [LinuxOnly]",
            By(&[(
                SERVICES,
                "a client stays with a pod where the Service says so, and no longer when it does not",
            )]),
        ),
        (
            "[sig-network] Services should have session affinity work for service with type clusterIP [LinuxOnly]",
            By(&[(
                SERVICES,
                "a client stays with a pod where the Service says so, and no longer when it does not",
            )]),
        ),
        (
            "[sig-network] Services should serve a basic endpoint from pods",
            By(&[
                (SERVICES, "every pod of a Service answers, by cluster IP and by node port"),
                (SERVICES, "a pod leaves its Service and another comes"),
            ]),
        ),
        (
            "[sig-network] Services should serve endpoints on same port and different protocols",
            By(&[
                (PROXY, "a_client_of_udp_moves_on_when_its_endpoint_is_gone"),
                (PROXY, "a_cluster_ip_spreads_over_its_endpoints_and_follows_them"),
            ]),
        ),
        (
            "[sig-network] Services should serve multiport endpoints from pods",
            By(&[(SERVICES, "a Service has several ports, each with its own target")]),
        ),
    ]
}
