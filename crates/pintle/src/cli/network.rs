//! Addresses and ports of Services.

use clap::Args;
use registry::{NetworkError, PortRange, ServiceNetwork};

#[derive(Args)]
pub struct NetworkArguments {
    /// Where Services get their cluster IPs from: a CIDR, or one of each family joined by a comma; the first is the
    /// default family
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: String,

    /// Where nodes get the ranges of their pods' addresses from: a CIDR, or one of each family joined by a comma
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,

    /// Ports that Services may take on every node, both ends included
    #[arg(long, value_name = "LOW-HIGH", default_value = "30000-32767")]
    pub service_node_port_range: PortRange,
}

impl NetworkArguments {
    pub fn parse(&self) -> Result<ServiceNetwork, NetworkError> {
        ServiceNetwork::parse(&self.service_cluster_ip_range, self.service_node_port_range.clone())
    }
}
