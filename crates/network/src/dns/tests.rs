//! Questions as clients send them, answers as a library that nobody here wrote reads them.

use std::collections::BTreeSet;
use std::time::Duration;

use apimachinery::{Object, Value, json};
use client::Api;
use client::fake::FakeApi;
use hickory_proto::op::{Edns, Message, Query as Question, ResponseCode};
use hickory_proto::rr::{Name as DnsName, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::index::{self, Index, Kind, SliceKey};
use super::wire::Query;
use super::zone::Outcome;
use super::*;

const WAIT: Duration = Duration::from_secs(10);

fn question(name: &str, kind: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.queries.push(Question::query(DnsName::from_ascii(name).unwrap(), kind.parse().unwrap()));
    message
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "ns"}, "spec": spec})
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
        "ports": ports, "endpoints": endpoints
    })
}

/// What there is in most tests.
fn objects() -> Vec<Value> {
    let web_ports = json!([{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]);
    let db_ports = json!([{"name": "sql", "protocol": "TCP", "port": 5432}]);
    let mut kube_dns = service("kube-dns", json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]}));
    kube_dns.set_at(&["metadata", "namespace"], "kube-system");
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}),
        kube_dns,
        service(
            "web",
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd96::1"], "ports": web_ports}),
        ),
        service("db", json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": db_ports.clone()})),
        service("bare", json!({"clusterIP": "None", "clusterIPs": ["None"]})),
        service("void", json!({"clusterIP": "None", "ports": db_ports.clone()})),
        service("out", json!({"type": "ExternalName", "externalName": "Example.com"})),
        service("in", json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local."})),
        service("ring", json!({"type": "ExternalName", "externalName": "ring.ns.svc.cluster.local"})),
        service("number", json!({"type": "ExternalName", "externalName": "192.0.2.1"})),
        slice("web-1", "web", json!([{"name": "http", "port": 8080}]), json!([{"addresses": ["10.0.0.9"]}])),
        slice(
            "db-1",
            "db",
            db_ports.clone(),
            json!([
                {"addresses": ["10.0.0.1"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "hostname": "db-1", "conditions": {}},
                {"addresses": ["10.0.0.3"], "hostname": "db-2", "conditions": {"ready": false}},
                {"addresses": ["10.0.0.4"]},
            ]),
        ),
        slice("db-2", "db", db_ports, json!([{"addresses": ["fd00::1"], "hostname": "db-0"}])),
        slice("bare-1", "bare", Value::Null, json!([{"addresses": ["10.0.0.5"]}])),
        slice("stray", "unknown", Value::Null, Value::Null),
    ]
}

fn index(objects: Vec<Value>) -> Index {
    let mut index = Index::default();
    for value in objects {
        let object = Object::from_value(&value, 1, &[]).unwrap();
        match object.kind() {
            "Namespace" => index.set_namespace(object.name(), true),
            "Service" => index.set_service(object.namespace(), object.name(), Some(Kind::of(&object))),
            _ => index.set_slice(&SliceKey::of(&object).unwrap(), Some(index::endpoints(&object))),
        }
    }
    index
}

fn answer_to(index: &Index, question: &Message, limit: usize) -> Option<Message> {
    let zone = Zone::new("cluster.local").unwrap();
    let (bytes, mut out) = (question.to_bytes().unwrap(), Vec::new());
    let query = Query::read(&bytes).unwrap();
    match zone.answer(index, &query, limit, 0, &mut out) {
        Outcome::Answered => Some(Message::from_bytes(&out).unwrap()),
        Outcome::Foreign | Outcome::Alias(_) => None,
    }
}

/// Without the class, which is always the same, and without the SOA's serial.
fn shown(message: &Message) -> (ResponseCode, Vec<String>) {
    let mut lines: Vec<String> =
        message.answers.iter().map(|record| record.to_string().replace(" IN ", " ")).collect();
    lines.sort();
    (message.metadata.response_code, lines)
}

#[test]
fn names_are_answered_as_the_specification_says() {
    use ResponseCode::{NXDomain, NoError};
    let index = index(objects());
    let all_of_db = [
        "db.ns.svc.cluster.local. 30 SRV 0 25 5432 10-0-0-4.db.ns.svc.cluster.local.",
        "db.ns.svc.cluster.local. 30 SRV 0 25 5432 db-0.db.ns.svc.cluster.local.",
        "db.ns.svc.cluster.local. 30 SRV 0 25 5432 db-1.db.ns.svc.cluster.local.",
    ];
    let sql_of_db = all_of_db.map(|line| format!("_sql._tcp.{line}"));
    let sql_of_db = [0, 1, 2].map(|place: usize| sql_of_db[place].as_str());
    for (name, kind, code, lines) in [
        // Services with a cluster IP.
        ("web.ns.svc", "A", NoError, &["web.ns.svc.cluster.local. 30 A 10.96.0.1"][..]),
        ("web.ns.svc", "AAAA", NoError, &["web.ns.svc.cluster.local. 30 AAAA fd96::1"]),
        ("web.ns.svc", "MX", NoError, &[]),
        ("web.ns.svc", "TXT", NoError, &[]),
        (
            "_http._tcp.web.ns.svc",
            "SRV",
            NoError,
            &["_http._tcp.web.ns.svc.cluster.local. 30 SRV 0 50 80 web.ns.svc.cluster.local."],
        ),
        ("_dns._udp.web.ns.svc", "A", NoError, &["_dns._udp.web.ns.svc.cluster.local. 30 A 10.96.0.1"]),
        ("_dns._tcp.web.ns.svc", "SRV", NXDomain, &[]),
        ("_other._tcp.web.ns.svc", "SRV", NXDomain, &[]),
        ("10-0-0-9.web.ns.svc", "A", NoError, &["10-0-0-9.web.ns.svc.cluster.local. 30 A 10.0.0.9"]),
        ("10-0-0-8.web.ns.svc", "A", NXDomain, &[]),
        ("a._http._tcp.web.ns.svc", "SRV", NXDomain, &[]),
        // Headless ones.
        (
            "db.ns.svc",
            "A",
            NoError,
            &[
                "db.ns.svc.cluster.local. 30 A 10.0.0.1",
                "db.ns.svc.cluster.local. 30 A 10.0.0.2",
                "db.ns.svc.cluster.local. 30 A 10.0.0.4",
            ],
        ),
        ("db.ns.svc", "AAAA", NoError, &["db.ns.svc.cluster.local. 30 AAAA fd00::1"]),
        ("db.ns.svc", "SRV", NoError, &all_of_db),
        ("_sql._tcp.db.ns.svc", "SRV", NoError, &sql_of_db),
        ("_sql._udp.db.ns.svc", "SRV", NXDomain, &[]),
        ("db-0.db.ns.svc", "A", NoError, &["db-0.db.ns.svc.cluster.local. 30 A 10.0.0.1"]),
        ("db-0.db.ns.svc", "AAAA", NoError, &["db-0.db.ns.svc.cluster.local. 30 AAAA fd00::1"]),
        ("db-1.db.ns.svc", "AAAA", NoError, &[]),
        ("db-2.db.ns.svc", "A", NXDomain, &[]),
        ("10-0-0-4.db.ns.svc", "A", NoError, &["10-0-0-4.db.ns.svc.cluster.local. 30 A 10.0.0.4"]),
        ("bare.ns.svc", "A", NoError, &["bare.ns.svc.cluster.local. 30 A 10.0.0.5"]),
        ("bare.ns.svc", "SRV", NoError, &[]),
        ("void.ns.svc", "A", NXDomain, &[]),
        // Aliases.
        ("out.ns.svc", "CNAME", NoError, &["out.ns.svc.cluster.local. 30 CNAME example.com."]),
        (
            "in.ns.svc",
            "A",
            NoError,
            &[
                "in.ns.svc.cluster.local. 30 CNAME web.ns.svc.cluster.local.",
                "web.ns.svc.cluster.local. 30 A 10.96.0.1",
            ],
        ),
        ("x.in.ns.svc", "A", NXDomain, &[]),
        ("number.ns.svc", "A", NXDomain, &[]),
        // Pods.
        ("10-1-2-3.ns.pod", "A", NoError, &["10-1-2-3.ns.pod.cluster.local. 30 A 10.1.2.3"]),
        ("10-1-2-3.ns.pod", "AAAA", NoError, &[]),
        ("fd00--5.ns.pod", "AAAA", NoError, &["fd00--5.ns.pod.cluster.local. 30 AAAA fd00::5"]),
        ("10-1-2.ns.pod", "A", NXDomain, &[]),
        ("10-1-2-3.other.pod", "A", NXDomain, &[]),
        // What is there but has no records, and what is not.
        ("ns.svc", "A", NoError, &[]),
        ("ns.pod", "A", NoError, &[]),
        ("svc", "A", NoError, &[]),
        ("pod", "A", NoError, &[]),
        ("other.svc", "A", NXDomain, &[]),
        ("web.other.svc", "A", NXDomain, &[]),
        ("unknown.ns.svc", "A", NXDomain, &[]),
        ("web.ns", "A", NXDomain, &[]),
        ("dns-version", "TXT", NoError, &["dns-version.cluster.local. 28800 TXT 1.1.0"]),
        ("ns.dns", "A", NoError, &["ns.dns.cluster.local. 30 A 10.96.0.10"]),
    ] {
        let name = format!("{name}.cluster.local.");
        let answer =
            answer_to(&index, &question(&name, kind), 4096).unwrap_or_else(|| panic!("{name} is ours"));
        let (found_code, found_lines) = shown(&answer);
        assert_eq!(
            (found_code, found_lines.as_slice()),
            (code, &lines.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
            "{name} {kind}"
        );
        // What is not there has an end.
        let soa: Vec<_> = answer
            .authorities
            .iter()
            .map(|record| (record.name.to_ascii(), record.record_type(), record.ttl))
            .collect();
        let wanted = if lines.is_empty() {
            vec![("cluster.local.".to_owned(), RecordType::SOA, 30)]
        } else {
            Vec::new()
        };
        assert_eq!(soa, wanted, "{name} {kind}");
        assert!(
            answer.metadata.authoritative
                && answer.metadata.recursion_available
                && answer.metadata.recursion_desired
        );
    }
}

#[test]
fn the_zone_itself_has_a_name_server_and_an_authority() {
    let index = index(objects());
    let soa = answer_to(&index, &question("cluster.local.", "SOA"), 512).unwrap();
    assert!(
        soa.answers[0]
            .to_string()
            .starts_with("cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. "),
        "{soa}"
    );
    let ns = answer_to(&index, &question("cluster.local.", "NS"), 512).unwrap();
    assert_eq!(shown(&ns).1, ["cluster.local. 30 NS ns.dns.cluster.local."]);
    assert_eq!(ns.additionals[0].to_string(), "ns.dns.cluster.local. 30 IN A 10.96.0.10");
}

#[test]
fn addresses_have_names_and_strange_ones_are_left_to_others() {
    let index = index(objects());
    let fd96 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.d.f.ip6.arpa.";
    for (name, targets) in [
        ("1.0.96.10.in-addr.arpa.", Some(&["web.ns.svc.cluster.local."][..])),
        (fd96, Some(&["web.ns.svc.cluster.local."])),
        ("1.0.0.10.in-addr.arpa.", Some(&["db-0.db.ns.svc.cluster.local."])),
        ("3.0.0.10.in-addr.arpa.", None),
        // Only those have one that chose it.
        ("4.0.0.10.in-addr.arpa.", None),
        ("96.10.in-addr.arpa.", None),
        ("x.1.0.96.10.in-addr.arpa.", None),
        ("1.2.0.192.in-addr.arpa.", None),
        ("example.com.", None),
        ("xcluster.local.", None),
    ] {
        let answer = answer_to(&index, &question(name, "PTR"), 512);
        let found = answer.as_ref().map(|answer| shown(answer).1);
        let wanted =
            targets.map(|targets| targets.iter().map(|target| format!("{name} 30 PTR {target}")).collect());
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn letters_come_back_as_they_were_sent() {
    let index = index(objects());
    let answer = answer_to(&index, &question("WeB.nS.Svc.CLUSTER.local.", "A"), 512).unwrap();
    assert_eq!(answer.queries[0].name().to_ascii(), "WeB.nS.Svc.CLUSTER.local.");
    assert_eq!(answer.answers[0].to_string(), "WeB.nS.Svc.CLUSTER.local. 30 IN A 10.96.0.1");
}

#[test]
fn an_alias_of_itself_comes_to_an_end() {
    let answer = answer_to(&index(objects()), &question("ring.ns.svc.cluster.local.", "A"), 512).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn targets_of_services_come_with_their_addresses() {
    let index = index(objects());
    let answer = answer_to(&index, &question("db.ns.svc.cluster.local.", "SRV"), 4096).unwrap();
    let found: BTreeSet<String> = answer.additionals.iter().map(ToString::to_string).collect();
    let wanted = [
        "10-0-0-4.db.ns.svc.cluster.local. 30 IN A 10.0.0.4",
        "db-0.db.ns.svc.cluster.local. 30 IN A 10.0.0.1",
        "db-0.db.ns.svc.cluster.local. 30 IN AAAA fd00::1",
        "db-1.db.ns.svc.cluster.local. 30 IN A 10.0.0.2",
    ];
    assert_eq!(found, wanted.map(str::to_owned).into());
}

#[test]
fn too_many_addresses_are_cut_and_the_client_is_told() {
    let endpoints: Vec<Value> =
        (0..200).map(|last| json!({"addresses": [format!("10.0.1.{last}")]})).collect();
    let mut all = objects();
    all.push(slice("db-3", "db", json!([{"name": "sql", "port": 5432}]), endpoints.into()));
    let index = index(all);
    let plain = question("db.ns.svc.cluster.local.", "A");
    let mut larger = plain.clone();
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    larger.edns = Some(edns);
    for (question, limit, least, most, truncated) in
        [(&plain, 512, 20, 30, true), (&larger, 1232, 60, 75, true), (&plain, 65_535, 203, 203, false)]
    {
        let answer = answer_to(&index, question, limit).unwrap();
        assert_eq!(answer.metadata.truncation, truncated);
        assert!((least..=most).contains(&answer.answers.len()), "{} for {limit}", answer.answers.len());
        assert!(answer.to_bytes().unwrap().len() <= limit);
        assert_eq!(answer.edns.is_some(), question.edns.is_some());
    }
}

#[test]
fn what_goes_is_forgotten_and_what_moves_is_found_once() {
    let mut index = index(objects());
    let ask = |index: &Index, name: &str, kind: &str| {
        answer_to(index, &question(name, kind), 4096).map(|answer| shown(&answer))
    };
    let key = |name: &str| SliceKey { namespace: "ns".into(), service: "db".into(), name: name.into() };
    // The same endpoint in two slices.
    let ports = json!([{"name": "sql", "port": 5432}]);
    let moved = slice("db-9", "db", ports, json!([{"addresses": ["10.0.0.1"], "hostname": "db-0"}]));
    let moved = Object::from_value(&moved, 2, &[]).unwrap();
    index.set_slice(&key("db-9"), Some(index::endpoints(&moved)));
    assert_eq!(ask(&index, "db.ns.svc.cluster.local.", "A").unwrap().1.len(), 3);
    index.set_slice(&key("db-1"), None);
    assert_eq!(ask(&index, "db.ns.svc.cluster.local.", "A").unwrap().1.len(), 1);
    assert_eq!(ask(&index, "1.0.0.10.in-addr.arpa.", "PTR").unwrap().1.len(), 1);
    assert_eq!(ask(&index, "2.0.0.10.in-addr.arpa.", "PTR"), None);
    index.set_service("ns", "web", None);
    assert_eq!(ask(&index, "web.ns.svc.cluster.local.", "A").unwrap().0, ResponseCode::NXDomain);
    assert_eq!(ask(&index, "1.0.96.10.in-addr.arpa.", "PTR"), None);
    index.set_namespace("ns", false);
    assert_eq!(ask(&index, "db.ns.svc.cluster.local.", "A").unwrap().0, ResponseCode::NXDomain);
}

/// Bytes of somebody else: whatever stands in them, reading ends, and what is written can be read.
#[test]
fn damaged_messages_do_no_harm() {
    let index = index(objects());
    let zone = Zone::new("cluster.local").unwrap();
    let mut asked = question("www.example.com.", "SRV");
    asked.edns = Some(Edns::new());
    let answer =
        reply(&asked, &[("www.example.com.", 20, "a.example.com."), ("a.example.com.", 10, "192.0.2.8")]);
    let cluster = question("db.ns.svc.cluster.local.", "SRV").to_bytes().unwrap();
    let good = [asked.to_bytes().unwrap(), answer.to_bytes().unwrap(), cluster];
    let query = Query::read(&good[0]).unwrap();
    let (mut out, mut state) = (Vec::new(), 0x9E37_79B9_7F4A_7C15_u64);
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut read, mut followed) = (0, 0);
    for round in 0..60_000 {
        let mut bytes = good[round % 3].clone();
        for _ in 0..random(4) {
            let at = random(bytes.len());
            bytes[at] = [0, 1, 0xc0, 0xff, 12, random(256) as u8][random(6)];
        }
        bytes.truncate(bytes.len() - random(bytes.len()) * random(2));
        if let Ok(query) = Query::read(&bytes) {
            let limit = query.udp_limit();
            if let Outcome::Answered = zone.answer(&index, &query, limit, round, &mut out) {
                assert!(out.len() <= limit && Message::from_bytes(&out).is_ok(), "{bytes:?}");
                read += 1;
            }
        }
        if let Some(foreign) = wire::Foreign::read(&bytes) {
            wire::write_foreign(&bytes, &foreign, 5, &query, 512, &mut out);
            let mut reply = wire::Reply::to(&query, 512, &mut out);
            reply.append(&bytes, &foreign, 5);
            reply.finish(0);
            followed += 1;
        }
    }
    assert!(read > 1000 && followed > 1000, "{read} {followed}");
}

// === The server ===

/// An upstream resolver of a test: what it answers to a question.
async fn upstream(answers: impl Fn(&Message) -> Option<Message> + Send + Sync + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    rt::spawn("test-upstream", async move {
        let mut buffer = [0; 4096];
        while let Ok((len, client)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_bytes(&buffer[..len]).unwrap();
            if let Some(answer) = answers(&question) {
                let _ = socket.send_to(&answer.to_bytes().unwrap(), client).await;
            }
        }
    });
    address
}

fn reply(question: &Message, lines: &[(&str, u32, &str)]) -> Message {
    use hickory_proto::rr::{RData, Record};
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.queries.clone_from(&question.queries);
    for (owner, ttl, address) in lines {
        let data = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => RData::A(ip.into()),
            Ok(IpAddr::V6(ip)) => RData::AAAA(ip.into()),
            Err(_) => RData::CNAME(hickory_proto::rr::rdata::CNAME(DnsName::from_ascii(address).unwrap())),
        };
        answer.answers.push(Record::from_rdata(DnsName::from_ascii(owner).unwrap(), *ttl, data));
    }
    answer
}

struct Running {
    api: Arc<FakeApi>,
    address: SocketAddr,
    shutdown: Shutdown,
}

impl Running {
    async fn start(objects: Vec<Value>, upstreams: Vec<SocketAddr>) -> Self {
        let (api, shutdown) = (FakeApi::new(), Shutdown::new());
        for object in objects {
            api.seed(object);
        }
        let informers = Informers::new(api.clone() as Arc<dyn Api>, shutdown.clone());
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let options = DnsOptions { listen, cluster_domain: "cluster.local".to_owned(), upstreams };
        let (ready, address) = oneshot::channel();
        let stop = shutdown.clone();
        rt::spawn("test-dns", async move { run(&informers, options, ready, stop).await.unwrap() });
        let address = rt::timeout(WAIT, address).await.unwrap().unwrap()[0];
        Self { api, address, shutdown }
    }

    async fn ask(&self, question: &Message) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&question.to_bytes().unwrap(), self.address).await.unwrap();
        let mut buffer = [0; 4096];
        let len = rt::timeout(WAIT, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        let answer = Message::from_bytes(&buffer[..len]).unwrap();
        assert_eq!(answer.metadata.id, question.metadata.id);
        answer
    }

    async fn ask_tcp(&self, questions: &[Message]) -> Vec<Message> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut answers = Vec::new();
        for question in questions {
            let bytes = question.to_bytes().unwrap();
            stream.write_u16(bytes.len() as u16).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
        for _ in questions {
            let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut bytes).await.unwrap();
            answers.push(Message::from_bytes(&bytes).unwrap());
        }
        answers
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test]
async fn questions_over_udp_and_tcp_are_answered_and_changes_are_followed() {
    let dns = Running::start(objects(), Vec::new()).await;
    let web = question("web.ns.svc.cluster.local.", "A");
    assert_eq!(shown(&dns.ask(&web).await).1, ["web.ns.svc.cluster.local. 30 A 10.96.0.1"]);
    let both = [web.clone(), question("db-0.db.ns.svc.cluster.local.", "A")];
    let answers = dns.ask_tcp(&both).await;
    assert_eq!(shown(&answers[1]).1, ["db-0.db.ns.svc.cluster.local. 30 A 10.0.0.1"]);

    dns.api.seed(service("late", json!({"clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"]})));
    dns.api.drop_object(&api::gvr::SERVICES, "ns", "web");
    let late = question("late.ns.svc.cluster.local.", "A");
    let seen = rt::timeout(WAIT, async {
        while dns.ask(&late).await.answers.is_empty() || !dns.ask(&web).await.answers.is_empty() {
            tokio::task::yield_now().await;
        }
    });
    seen.await.expect("the new Service is found and the old one is not");
    // Nobody is there to be asked about others.
    assert_eq!(dns.ask(&question("example.com.", "A")).await.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn other_names_are_asked_of_the_first_who_answers_and_kept() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let silent = upstream(|_| None).await;
    let counter = asked.clone();
    let talking = upstream(move |question| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = question.queries[0].name().to_ascii();
        Some(reply(question, &[(&name, 20, "192.0.2.7")]))
    })
    .await;
    let dns = Running::start(objects(), vec![silent, talking]).await;
    for name in ["Example.com.", "eXample.com."] {
        let answer = dns.ask(&question(name, "A")).await;
        assert_eq!(answer.queries[0].name().to_ascii(), name);
        assert_eq!(answer.answers[0].data.to_string(), "192.0.2.7");
        assert!(
            answer.edns.is_none() && answer.metadata.recursion_available && !answer.metadata.authoritative
        );
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1, "the second answer was kept");
}

#[tokio::test]
async fn an_alias_that_leaves_the_cluster_is_followed() {
    let up = upstream(|question| {
        let name = question.queries[0].name().to_ascii();
        Some(reply(question, &[(&name, 20, "www.example.net."), ("www.example.net.", 10, "192.0.2.8")]))
    })
    .await;
    let dns = Running::start(objects(), vec![up]).await;
    let answer = dns.ask(&question("out.ns.svc.cluster.local.", "A")).await;
    let lines: Vec<_> = answer.answers.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "out.ns.svc.cluster.local. 30 IN CNAME example.com.",
            "example.com. 20 IN CNAME www.example.net.",
            "www.example.net. 10 IN A 192.0.2.8",
        ]
    );
}

#[tokio::test]
async fn without_an_answer_from_others_it_is_a_failure() {
    let dns = Running::start(objects(), vec![upstream(|_| None).await]).await;
    let start = rt::instant();
    let answer = dns.ask(&question("example.com.", "A")).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(start.elapsed() < Duration::from_secs(6), "resolvers give up after five seconds");
}

#[tokio::test]
async fn what_is_no_question_is_told_so_or_ignored() {
    let dns = Running::start(objects(), Vec::new()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer_to_question = question("web.ns.svc.cluster.local.", "A").to_bytes().unwrap();
    answer_to_question[2] |= 0x80;
    let good = question("web.ns.svc.cluster.local.", "A").to_bytes().unwrap();
    let cut = &good[..20];
    let mut status = good.clone();
    status[2] = 2 << 3;
    let mut looped = good.clone();
    looped[12..14].copy_from_slice(&[0xc0, 12]);
    for (bytes, code) in [
        (&b"x"[..], None),
        (&answer_to_question, None),
        (cut, Some(1)),
        (&status, Some(4)),
        (&looped, Some(1)),
    ] {
        socket.send_to(bytes, dns.address).await.unwrap();
        // The next in line tells that the one before got nothing.
        socket.send_to(&good, dns.address).await.unwrap();
        let mut buffer = [0; 512];
        for wanted in code.into_iter().chain([0]) {
            let len = rt::timeout(WAIT, socket.recv(&mut buffer)).await.unwrap().unwrap();
            assert_eq!(buffer[3] & 0x0f, wanted, "{bytes:?} {:?}", &buffer[..len]);
        }
    }
}

/// `cargo test --release -p network -- --ignored --nocapture answers_per_second`: what one thread answers over loopback,
/// while this one asks.
#[test]
#[ignore = "it measures"]
fn answers_per_second() {
    const TOTAL: usize = 200_000;
    const IN_FLIGHT: usize = 64;
    let (started, address) = std::sync::mpsc::sync_channel(1);
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dns = Running::start(objects(), Vec::new()).await;
            started.send((dns.address, dns.shutdown.clone())).unwrap();
            dns.shutdown.cancelled().await;
        });
    });
    let (address, shutdown) = address.recv().unwrap();
    let names = ["web.ns.svc.cluster.local.", "db-0.db.ns.svc.cluster.local.", "x.ns.svc.cluster.local."];
    let questions = names.map(|name| question(name, "A").to_bytes().unwrap());
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let (mut sent_at, mut took) = (vec![rt::instant(); 1 << 16], Vec::with_capacity(TOTAL));
    let (mut buffer, mut sent) = ([0; 1500], 0);
    let start = rt::instant();
    while took.len() < TOTAL {
        while sent < TOTAL && sent - took.len() < IN_FLIGHT {
            let mut question = questions[sent % questions.len()].clone();
            question[..2].copy_from_slice(&(sent as u16).to_be_bytes());
            sent_at[sent & 0xffff] = rt::instant();
            socket.send(&question).unwrap();
            sent += 1;
        }
        socket.recv(&mut buffer).expect("no answer is lost on loopback");
        took.push(sent_at[usize::from(u16::from_be_bytes([buffer[0], buffer[1]]))].elapsed());
    }
    let elapsed = start.elapsed();
    took.sort_unstable();
    println!(
        "{:.0} answers/s with {IN_FLIGHT} in flight, p50 {:?}, p99 {:?}",
        TOTAL as f64 / elapsed.as_secs_f64(),
        took[TOTAL / 2],
        took[TOTAL * 99 / 100]
    );
    shutdown.cancel();
    server.join().unwrap();

    let (index, zone, mut out) = (index(objects()), Zone::new("cluster.local").unwrap(), Vec::new());
    let start = rt::instant();
    for turn in 0..TOTAL {
        let query = Query::read(&questions[turn % questions.len()]).unwrap();
        zone.answer(&index, &query, 512, turn, &mut out);
    }
    println!("without sockets: {:.0} answers/s", TOTAL as f64 / start.elapsed().as_secs_f64());
}

#[test]
fn upstreams_come_from_the_hosts_file_and_are_never_ourselves() {
    let text = "search x\nnameserver 192.0.2.1\n# nameserver 192.0.2.2\nnameserver fd00::1\nnameserver bad\n";
    let found = upstreams(text);
    assert_eq!(found, ["192.0.2.1:53".parse().unwrap(), "[fd00::1]:53".parse::<SocketAddr>().unwrap()]);
    let own = ["[fd00::1]:53".parse().unwrap()];
    assert_eq!(without_ourselves(&found, &own), found[..1]);
    let local = ["127.0.0.53:53".parse().unwrap()];
    assert!(without_ourselves(&local, &["0.0.0.0:53".parse().unwrap()]).is_empty());
}
