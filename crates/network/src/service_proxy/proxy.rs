//! The proxy of one network namespace: plans in, commits out.
//!
//! Owns: the wanted state of both families, and the socket. Never touches: informers and time; [`super::run`] feeds
//! it. Everything blocks for as long as the kernel works.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use client::ObjectKey;
use tracing::{debug, info};

use super::cidr::family_of;
use super::plan::{Facts, HealthCheck, HostPort, PortKey, ServicePlan, plan_host_port};
use super::ruleset::{self, Policy};
use super::tables::{Stale, Tables};
use super::{affinity, conntrack};
use crate::nftables::{Batch, Connection, Error, Family};

/// Wanted state, and the way to the kernel.
pub struct Proxy {
    connection: Connection,
    policy: Policy,
    families: [Tables; 2],
    services: HashMap<ObjectKey, Served>,
    health_checks: HashMap<ObjectKey, HealthCheck>,
    host_ports: HashSet<PortKey>,
    /// Connections of UDP to look at, by family.
    stale: [Stale; 2],
    /// The kernel's table is not known to be what was committed last.
    whole: bool,
}

#[derive(Default)]
struct Served {
    ports: Vec<PortKey>,
    cluster_ips: Vec<IpAddr>,
}

impl Proxy {
    /// A proxy for the network namespace of this thread. Nothing changes there before the first
    /// [`Proxy::commit`], which makes the tables anew in one step.
    pub fn open(policy: Policy) -> Result<Self, Error> {
        Ok(Self {
            connection: Connection::open()?,
            policy,
            families: [Tables::new(Family::Ipv4), Tables::new(Family::Ipv6)],
            services: HashMap::new(),
            health_checks: HashMap::new(),
            host_ports: HashSet::new(),
            stale: Default::default(),
            whole: true,
        })
    }

    fn tables(&mut self, family: Family) -> &mut Tables {
        let [v4, v6] = &mut self.families;
        if family == Family::Ipv6 { v6 } else { v4 }
    }

    /// Makes a Service what its plan says; an empty plan forgets it.
    pub fn set_service(&mut self, key: ObjectKey, plan: ServicePlan) {
        let old = self.services.remove(&key).unwrap_or_default();
        for gone in old.ports.iter().filter(|own| !plan.ports.iter().any(|port| port.key == **own)) {
            self.tables(gone.family).remove(gone);
        }
        for address in &plan.cluster_ips {
            self.tables(family_of(*address)).add_cluster_ip(*address);
        }
        for address in old.cluster_ips {
            self.tables(family_of(address)).remove_cluster_ip(address);
        }
        let ports = plan.ports.iter().map(|port| port.key.clone()).collect();
        for port in plan.ports {
            self.tables(port.key.family).put(port);
        }
        match plan.health_check {
            Some(check) => drop(self.health_checks.insert(key.clone(), check)),
            None => drop(self.health_checks.remove(&key)),
        }
        if !plan.cluster_ips.is_empty() {
            let served = Served { ports, cluster_ips: plan.cluster_ips };
            self.services.insert(key, served);
        }
    }

    /// The Services that are served now.
    pub fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.keys()
    }

    /// What load balancers may ask, by Service.
    pub fn health_checks(&self) -> &HashMap<ObjectKey, HealthCheck> {
        &self.health_checks
    }

    /// Makes these the ports of the node that lead to pods.
    pub fn set_host_ports(&mut self, host_ports: &[HostPort], facts: &Facts) {
        let mut gone = std::mem::take(&mut self.host_ports);
        for host_port in host_ports {
            let plan = plan_host_port(host_port, facts);
            gone.remove(&plan.key);
            self.host_ports.insert(plan.key.clone());
            self.tables(plan.key.family).put(plan);
        }
        for key in gone {
            self.tables(key.family).remove(&key);
        }
    }

    /// The next commit makes the tables anew.
    pub fn distrust(&mut self) {
        self.whole = true;
    }

    /// Makes the kernel's tables what is wanted. A batch that is refused leaves them as before, and the next commit
    /// makes them anew.
    pub fn commit(&mut self) -> Result<(), Error> {
        let mut batch = Batch::default();
        let whole = std::mem::replace(&mut self.whole, true);
        for tables in &self.families {
            if whole {
                let clients = affinity::clients(&mut self.connection, tables)?;
                ruleset::write_all(tables, &self.policy, &clients, &mut batch);
            } else {
                ruleset::write_changes(tables, &mut batch);
            }
        }
        self.connection.commit(&batch)?;
        self.whole = false;
        if whole {
            let [(v4, endpoints_v4), (v6, endpoints_v6)] = self.families.each_ref().map(Tables::len);
            info!(ports = v4 + v6, endpoints = endpoints_v4 + endpoints_v6, "Rules of all Services written");
        }
        for (tables, stale) in self.families.iter_mut().zip(&mut self.stale) {
            stale.frontends.extend(tables.committed().frontends);
        }
        self.end_stale_connections()
    }

    /// What could not be done is tried again with the next commit.
    fn end_stale_connections(&mut self) -> Result<(), Error> {
        for (tables, stale) in self.families.iter().zip(&mut self.stale) {
            let ended = conntrack::clean(&mut self.connection, tables.family(), stale)?;
            if ended > 0 {
                debug!(ended, "Stale connections of UDP ended");
            }
            stale.frontends.clear();
        }
        Ok(())
    }
}
