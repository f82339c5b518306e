//! The rules of a family's table, and how the contents of [`Tables`] get into it.
//!
//! Owns: chains, rules and the shape of every map. Never touches: which Service has which element.
//!
//! Rules see the first packet of a connection only; the kernel's connection tracking does the rest. No rule knows a
//! Service: they look it up, so that their number depends on nothing but how many endpoints the largest one has.
//!
//! What a map leads to is the key of the next map. The program `nft` (1.0.6 at least) aborts when it lists a rule with
//! such a key. So the wanted number is not the first word that the map has: it lands in a register of which `nft`
//! believes that it still holds what was loaded before, the packet's mark. It lists a `meta mark` that is none; the
//! comment of the rule names the maps.
//!
//! ```text
//!     prerouting, output ─▶ services ── kind ─▶ cluster-ip | external | … (mark for masquerade, allowed clients)
//!                               │                    └─▶ balance-cluster | balance-local ── number of endpoints ─▶
//!                               └─ unknown port of a cluster IP: reject           pick-cluster-3-0: dnat to one of 3
//!     postrouting ─▶ masquerade what was marked, what comes back to its own sender, and what leaves the loopback
//! ```

use super::cidr::{Cidr, interval_elements, merged};
use super::loopback;
use super::mirror::Mirror;
use super::plan::Kind;
use super::tables::{Pick, Scope, Tables, mark};
use crate::nftables::{
    ADDRESS_LOCAL, Base, Batch, ChainType, CmpOp, CtKey, Data, DynsetOp, Element, Expression, Family, Field,
    Hook, MetaKey, PayloadBase, Register, Set, Verdict,
};

/// The table, in the families `ip` and `ip6`.
pub const TABLE: &str = "pintle-services";
/// The packet mark that asks for masquerading: kube-proxy's.
pub const MASQUERADE_MARK: u32 = 0x4000;
/// Clients that are remembered at a time, over all Services with affinity.
const AFFINITY_CLIENTS_MAX: u32 = 1 << 20;
pub(super) const AFFINITY: &str = "affinity";
pub(super) const MEMBERS: &str = "members";

/// What the rules depend on; another one makes the table anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Where the cluster's pods are. Clients elsewhere that come to a cluster IP are masqueraded; empty: nobody is.
    pub cluster_cidrs: Vec<Cidr>,
    /// Masquerade everybody who comes to a cluster IP.
    pub masquerade_all: bool,
    /// Pods of these ranges that leave the cluster do so with this node's address.
    pub masquerade_egress_of: Vec<Cidr>,
}

// Registers. The key of a frontend takes the first ones, and stays there while it is looked up more than once; what
// is found at last replaces it. Before each number that comes from a map one register is lost.
const KEY: Register = 0;
const FOUND: Register = 0;
/// What is remembered of a client: a word without meaning, and the member.
const REMEMBERED: Register = 0;
/// group . number of an endpoint.
const MEMBER: Register = 1;
/// group . address of the client.
const CLIENT: Register = 7;
/// group . index of an endpoint.
const GROUP: Register = 13;

struct Shape {
    family: Family,
    address: Field,
    /// Words of an address.
    words: Register,
    len: u32,
    source_at: u32,
    destination_at: u32,
}

impl Shape {
    fn of(family: Family) -> Self {
        match family {
            Family::Ipv6 => {
                Self { family, address: Field::Ipv6, words: 4, len: 16, source_at: 8, destination_at: 24 }
            }
            _ => Self { family, address: Field::Ipv4, words: 1, len: 4, source_at: 12, destination_at: 16 },
        }
    }

    fn frontend_key(&self) -> [Field; 3] {
        [self.address, Field::Protocol, Field::Port]
    }

    fn target(&self) -> [Field; 2] {
        [self.address, Field::Port]
    }

    fn source(&self, to: Register) -> Expression {
        Expression::Payload { base: PayloadBase::Network, offset: self.source_at, len: self.len, to }
    }

    fn destination(&self, to: Register) -> Expression {
        Expression::Payload { base: PayloadBase::Network, offset: self.destination_at, len: self.len, to }
    }

    /// Loads the key under which a packet's destination is known.
    fn load_key(&self) -> Vec<Expression> {
        let words = self.words;
        vec![
            self.destination(KEY),
            Expression::Meta { key: MetaKey::Protocol, to: KEY + words },
            Expression::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to: KEY + words + 1 },
        ]
    }

    /// `group . address of the client`, with the key loaded before.
    fn load_client(&self, scope: Scope) -> Vec<Expression> {
        let mut out = number_of(scope.groups(), KEY, CLIENT).to_vec();
        out.push(self.source(CLIENT + 1));
        out
    }

    fn dnat(&self, at: Register) -> Expression {
        Expression::Dnat { family: self.family, address: at, port: Some(at + self.words) }
    }
}

fn map(name: &str, key: Register, data: Register) -> Expression {
    Expression::Lookup { set: name.into(), key, data: Some(data), negate: false }
}

/// The number that a map has for a key, in the second of two words; the register before gets the first one.
fn number_of(name: &str, key: Register, to: Register) -> [Expression; 2] {
    [Expression::Meta { key: MetaKey::Mark, to }, map(name, key, to - 1)]
}

/// `group . number` that a map has for a key, in the second and third of three words.
fn member_of(name: &str, key: Register) -> [Expression; 4] {
    let placeholder = |to| Expression::Meta { key: MetaKey::Mark, to };
    let lookup = map(name, key, REMEMBERED);
    [placeholder(MEMBER), placeholder(MEMBER + 1), lookup, placeholder(REMEMBERED)]
}

/// The maps through which a rule goes, where `nft` does not show them.
fn path_of(expressions: &[Expression]) -> String {
    let maps = expressions.iter().filter_map(|expression| match expression {
        Expression::Lookup { set, data: Some(_), .. } => Some(set.as_str()),
        Expression::VerdictMap { map, .. } => Some(map.as_str()),
        _ => None,
    });
    maps.collect::<Vec<_>>().join(", ")
}

fn within(set: &str, key: Register) -> Expression {
    Expression::Lookup { set: set.into(), key, data: None, negate: false }
}

fn outside(set: &str, key: Register) -> Expression {
    Expression::Lookup { set: set.into(), key, data: None, negate: true }
}

fn goto(chain: &str) -> Expression {
    Expression::Verdict(Verdict::Goto(chain.into()))
}

fn is_local(register: Register) -> Expression {
    Expression::Compare { op: CmpOp::Equal, register, value: mark(ADDRESS_LOCAL) }
}

/// Sets the bit that asks for masquerading.
fn mark_for_masquerade() -> [Expression; 3] {
    [
        Expression::Meta { key: MetaKey::Mark, to: KEY },
        Expression::Bitwise {
            register: KEY,
            to: KEY,
            mask: mark(!MASQUERADE_MARK),
            xor: mark(MASQUERADE_MARK),
        },
        Expression::SetMeta { key: MetaKey::Mark, from: KEY },
    ]
}

impl Scope {
    fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Local => "local",
        }
    }

    fn balance(self) -> &'static str {
        match self {
            Self::Cluster => "balance-cluster",
            Self::Local => "balance-local",
        }
    }

    /// The map that leads to groups of this scope.
    pub(super) fn groups(self) -> &'static str {
        match self {
            Self::Cluster => "groups-cluster",
            Self::Local => "groups-local",
        }
    }
}

impl Pick {
    fn chain(&self) -> String {
        format!("pick-{}-{}-{}", self.scope.word(), self.count, self.affinity_seconds)
    }
}

/// Makes the table anew, whatever was in it before; clients that were remembered stay so.
pub fn write_all(tables: &Tables, policy: &Policy, clients: &[Element], batch: &mut Batch) {
    let shape = Shape::of(tables.family());
    if shape.family == Family::Ipv4 {
        loopback::write(batch);
    }
    let mut writer = Writer { shape: &shape, batch };
    writer.write_empty();
    writer.write_sets(policy, tables.family());
    writer.write_chains(policy);
    for (pick, number) in tables.picks() {
        writer.write_pick(pick, *number);
    }
    let affinity = [Field::Mark, shape.address];
    writer.batch.add_elements(shape.family, TABLE, AFFINITY, &affinity, clients);
    each_mirror(tables, &shape, |name, key, mirror| {
        writer.batch.add_elements(shape.family, TABLE, name, key, &mirror.elements());
    });
}

/// Writes what changed since the last commit.
pub fn write_changes(tables: &Tables, batch: &mut Batch) {
    let shape = Shape::of(tables.family());
    let mut writer = Writer { shape: &shape, batch };
    for (pick, number) in tables.new_picks() {
        writer.write_pick(pick, *number);
    }
    each_mirror(tables, &shape, |name, key, mirror| {
        mirror.write_changes(writer.batch, shape.family, TABLE, name, key);
    });
}

/// Removes the table, where nothing is to be served in this family.
pub fn write_nothing(family: Family, batch: &mut Batch) {
    batch.add_table(family, TABLE);
    batch.delete_table(family, TABLE);
}

fn each_mirror(tables: &Tables, shape: &Shape, mut visit: impl FnMut(&str, &[Field], &Mirror)) {
    let address = shape.address;
    visit("endpoints", &[Field::Mark, Field::Mark], &tables.endpoints);
    visit("slots", &[Field::Mark, Field::Mark], &tables.slots);
    visit(MEMBERS, &[Field::Mark, Field::Mark], &tables.members);
    visit("picks", &[Field::Mark], &tables.picks_of_groups);
    visit("hairpin", &[address, address], &tables.hairpin);
    visit("source-ranges", &[Field::Mark, address], &tables.source_ranges);
    visit("cluster-ips", &[address], &tables.cluster_ips);
    visit(Scope::Cluster.groups(), &shape.frontend_key(), &tables.groups_cluster);
    visit(Scope::Local.groups(), &shape.frontend_key(), &tables.groups_local);
    visit("kinds", &shape.frontend_key(), &tables.kinds);
}

struct Writer<'a> {
    shape: &'a Shape,
    batch: &'a mut Batch,
}

impl Writer<'_> {
    fn write_empty(&mut self) {
        let family = self.shape.family;
        // Deleting what is not there is an error; adding what is there is none.
        write_nothing(family, self.batch);
        self.batch.add_table(family, TABLE);
    }

    fn set(&mut self, name: &str, key: &[Field], data: Data<'_>) {
        let set = Set { name, key, data, interval: false, dynamic: false, size: 0 };
        self.batch.add_set(self.shape.family, TABLE, &set);
    }

    fn interval_set(&mut self, name: &str, key: &[Field]) {
        let set = Set { name, key, data: Data::None, interval: true, dynamic: false, size: 0 };
        self.batch.add_set(self.shape.family, TABLE, &set);
    }

    fn write_sets(&mut self, policy: &Policy, family: Family) {
        let address = self.shape.address;
        let target = self.shape.target();
        let two = [Field::Mark, Field::Mark];
        let number = Data::Fields(&two);
        let member = Data::Fields(&[Field::Mark, Field::Mark, Field::Mark]);
        for name in ["kinds", Scope::Cluster.groups(), Scope::Local.groups()] {
            self.set(name, &self.shape.frontend_key(), number);
        }
        self.set("picks", &[Field::Mark], number);
        self.set("endpoints", &two, Data::Fields(&target));
        self.set("slots", &two, member);
        self.set(MEMBERS, &two, Data::Fields(&target));
        self.set("hairpin", &[address, address], Data::None);
        self.set("cluster-ips", &[address], Data::None);
        self.set("chains-of-kinds", &[Field::Mark], Data::Verdict);
        self.set("chains-of-picks", &[Field::Mark], Data::Verdict);
        self.interval_set("source-ranges", &[Field::Mark, address]);
        let affinity = Set {
            name: AFFINITY,
            key: &[Field::Mark, address],
            data: member,
            interval: false,
            dynamic: true,
            size: AFFINITY_CLIENTS_MAX,
        };
        self.batch.add_set(family, TABLE, &affinity);
        for (name, cidrs) in
            [("cluster-cidrs", &policy.cluster_cidrs), ("egress-sources", &policy.masquerade_egress_of)]
        {
            self.interval_set(name, &[address]);
            let own = cidrs.iter().filter(|cidr| cidr.family() == family);
            let elements = interval_elements(family, &merged(own.map(Cidr::range).collect()));
            self.batch.add_elements(family, TABLE, name, &[address], &elements);
        }
    }

    fn chain(&mut self, name: &str) {
        self.batch.add_chain(self.shape.family, TABLE, name, None);
    }

    fn rule(&mut self, chain: &str, expressions: impl IntoIterator<Item = Expression>) {
        let expressions: Vec<Expression> = expressions.into_iter().collect();
        let path = path_of(&expressions);
        self.batch.add_commented_rule(self.shape.family, TABLE, chain, &expressions, &path);
    }

    fn write_chains(&mut self, policy: &Policy) {
        let kinds = [
            (Kind::ClusterIp, "cluster-ip"),
            (Kind::ClusterIpLocal, "cluster-ip-local"),
            (Kind::External, "external"),
            (Kind::ExternalLocal, "external-local"),
            (Kind::ExternalFirewalled, "external-firewalled"),
            (Kind::ExternalLocalFirewalled, "external-local-firewalled"),
            (Kind::HostPort, "balance-cluster"),
        ];
        for scope in [Scope::Cluster, Scope::Local] {
            self.chain(scope.balance());
        }
        for (_, chain) in kinds.iter().filter(|(kind, _)| *kind != Kind::HostPort) {
            self.chain(chain);
        }
        self.chain("services");
        let elements: Vec<Element> = kinds
            .iter()
            .map(|(kind, chain)| Element::with_verdict(mark(*kind as u32), Verdict::Goto((*chain).into())))
            .collect();
        self.batch.add_elements(self.shape.family, TABLE, "chains-of-kinds", &[Field::Mark], &elements);
        self.write_kinds(policy);
        self.write_balance();
        self.write_services();
        self.write_postrouting(policy);
        self.write_forward();
    }

    fn write_kinds(&mut self, policy: &Policy) {
        let knows_cluster = policy.cluster_cidrs.iter().any(|cidr| cidr.family() == self.shape.family);
        for (chain, scope) in [("cluster-ip", Scope::Cluster), ("cluster-ip-local", Scope::Local)] {
            if policy.masquerade_all {
                self.rule(chain, mark_for_masquerade());
            } else if knows_cluster {
                let stranger = [self.shape.source(KEY), outside("cluster-cidrs", KEY)];
                self.rule(chain, stranger.into_iter().chain(mark_for_masquerade()));
            }
            self.rule(chain, [goto(scope.balance())]);
        }
        self.rule("external", mark_for_masquerade());
        self.rule("external", [goto(Scope::Cluster.balance())]);
        if knows_cluster {
            // A pod that uses an address of the outside is as well served as by the one of the inside.
            let pod = [self.shape.source(KEY), within("cluster-cidrs", KEY), goto(Scope::Cluster.balance())];
            self.rule("external-local", pod);
        }
        let own = [Expression::SourceAddressType { to: KEY }, is_local(KEY)];
        self.rule("external-local", own.clone().into_iter().chain(mark_for_masquerade()));
        self.rule("external-local", own.into_iter().chain([goto(Scope::Cluster.balance())]));
        self.rule("external-local", [goto(Scope::Local.balance())]);
        for (chain, next) in
            [("external-firewalled", "external"), ("external-local-firewalled", "external-local")]
        {
            let mut allowed = self.shape.load_key();
            allowed.extend(self.shape.load_client(Scope::Cluster));
            allowed.extend([within("source-ranges", CLIENT), goto(next)]);
            self.rule(chain, allowed);
            self.rule(chain, [Expression::Verdict(Verdict::Drop)]);
        }
    }

    fn write_balance(&mut self) {
        for scope in [Scope::Cluster, Scope::Local] {
            let chain = scope.balance();
            let mut choose = self.shape.load_key();
            choose.extend(number_of(scope.groups(), KEY, GROUP));
            choose.extend(number_of("picks", GROUP, MEMBER));
            choose.push(Expression::VerdictMap { map: "chains-of-picks".into(), key: MEMBER });
            self.rule(chain, choose);
            if scope == Scope::Local {
                // Endpoints elsewhere: who sent this should not have sent it here.
                let mut elsewhere = self.shape.load_key();
                elsewhere.extend(number_of(Scope::Cluster.groups(), KEY, GROUP));
                elsewhere.extend(number_of("picks", GROUP, MEMBER));
                elsewhere.push(Expression::Compare {
                    op: CmpOp::NotEqual,
                    register: FOUND,
                    value: mark(u32::MAX),
                });
                elsewhere.push(Expression::Verdict(Verdict::Drop));
                self.rule(chain, elsewhere);
            }
            self.rule(chain, [Expression::RejectUnreachable { family: self.shape.family }]);
        }
    }

    fn write_services(&mut self) {
        let mut known = self.shape.load_key();
        known.extend(number_of("kinds", KEY, GROUP));
        known.push(Expression::VerdictMap { map: "chains-of-kinds".into(), key: GROUP });
        self.rule("services", known);
        let unknown = [
            self.shape.destination(KEY),
            within("cluster-ips", KEY),
            Expression::RejectUnreachable { family: self.shape.family },
        ];
        self.rule("services", unknown);
        for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
            let base = Base { chain_type: ChainType::Nat, hook, priority: -100 };
            self.batch.add_chain(self.shape.family, TABLE, chain, Some(base));
            self.rule(chain, [Expression::Verdict(Verdict::Jump("services".into()))]);
        }
    }

    fn write_postrouting(&mut self, policy: &Policy) {
        let base = Base { chain_type: ChainType::Nat, hook: Hook::Postrouting, priority: 100 };
        self.batch.add_chain(self.shape.family, TABLE, "postrouting", Some(base));
        let marked = [
            Expression::Meta { key: MetaKey::Mark, to: KEY },
            Expression::Bitwise { register: KEY, to: KEY + 1, mask: mark(MASQUERADE_MARK), xor: mark(0) },
            Expression::Compare { op: CmpOp::NotEqual, register: KEY + 1, value: mark(0) },
            // Without the bit, so that a tunnel's packet around this one is not masqueraded again.
            Expression::Bitwise { register: KEY, to: KEY, mask: mark(!MASQUERADE_MARK), xor: mark(0) },
            Expression::SetMeta { key: MetaKey::Mark, from: KEY },
            Expression::Masquerade,
        ];
        self.rule("postrouting", marked);
        let words = self.shape.words;
        let hairpin = [
            self.shape.source(KEY),
            self.shape.destination(KEY + words),
            within("hairpin", KEY),
            Expression::Masquerade,
        ];
        self.rule("postrouting", hairpin);
        if self.shape.family == Family::Ipv4 {
            self.rule("postrouting", loopback::masquerade());
        }
        if policy.masquerade_egress_of.iter().any(|cidr| cidr.family() == self.shape.family) {
            let leaves = [
                self.shape.source(KEY),
                within("egress-sources", KEY),
                self.shape.destination(KEY),
                outside("cluster-cidrs", KEY),
                Expression::Masquerade,
            ];
            self.rule("postrouting", leaves);
        }
    }

    /// A packet of no connection would pass with its address untranslated, and end the connection it once was part of.
    fn write_forward(&mut self) {
        let base = Base { chain_type: ChainType::Filter, hook: Hook::Forward, priority: 0 };
        self.batch.add_chain(self.shape.family, TABLE, "forward", Some(base));
        const INVALID: u32 = 1;
        let invalid = [
            Expression::Ct { key: CtKey::State, direction: None, to: KEY },
            Expression::Bitwise { register: KEY, to: KEY, mask: mark(INVALID), xor: mark(0) },
            Expression::Compare { op: CmpOp::NotEqual, register: KEY, value: mark(0) },
            Expression::Verdict(Verdict::Drop),
        ];
        self.rule("forward", invalid);
    }

    /// The chain that sends a connection to one of so many endpoints, and the way to it.
    fn write_pick(&mut self, pick: &Pick, number: u32) {
        let (shape, chain) = (self.shape, pick.chain());
        let family = shape.family;
        self.chain(&chain);
        let mut choose = shape.load_key();
        choose.extend(number_of(pick.scope.groups(), KEY, GROUP));
        choose.push(Expression::Random { modulus: pick.count, to: GROUP + 1 });
        if pick.affinity_seconds > 0 {
            let remember = Expression::Dynset {
                set: AFFINITY.into(),
                op: DynsetOp::Update,
                key: CLIENT,
                data: Some(REMEMBERED),
                timeout_milliseconds: Some(u64::from(pick.affinity_seconds) * 1000),
            };
            let arrive = [map(MEMBERS, MEMBER, FOUND), shape.dnat(FOUND)];
            // Known, and its endpoint is still there: remembered anew.
            let mut again = shape.load_key();
            again.extend(shape.load_client(pick.scope));
            again.extend(member_of(AFFINITY, CLIENT));
            again.push(remember.clone());
            again.extend(arrive.clone());
            self.rule(&chain, again);
            // Known, but the endpoint is gone: forgotten. A rule cannot change what a key leads to.
            let mut forget = shape.load_key();
            forget.extend(shape.load_client(pick.scope));
            forget.push(Expression::Dynset {
                set: AFFINITY.into(),
                op: DynsetOp::Delete,
                key: CLIENT,
                data: Some(KEY),
                timeout_milliseconds: None,
            });
            self.rule(&chain, forget);
            let mut first = choose.clone();
            first.extend(shape.load_client(pick.scope));
            first.extend(member_of("slots", GROUP));
            first.push(remember);
            first.extend(arrive.clone());
            self.rule(&chain, first);
            // Nobody more can be remembered: served all the same.
            choose.extend(member_of("slots", GROUP));
            choose.extend(arrive);
        } else {
            choose.extend([map("endpoints", GROUP, FOUND), shape.dnat(FOUND)]);
        }
        self.rule(&chain, choose);
        let way = Element::with_verdict(mark(number), Verdict::Goto(chain));
        self.batch.add_elements(family, TABLE, "chains-of-picks", &[Field::Mark], &[way]);
    }
}
