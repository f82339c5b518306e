//! The suite `services`: what many Services cost a node, as its own kernel and its cluster DNS serve them.
//!
//! Needs root, and makes this machine a node while it runs. One Service leads to the harness, which tells over each
//! connection which of its two ports took it; all others are there to be many.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::connection::Connection;
use super::load::at_quantile;
use super::node::FLAGS;
use super::objects::{HOLE, Template};
use super::report::Measurement;
use super::scenarios::{Folder, create_namespace, fill};
use super::server::Server;
use super::suite::{Measured, Scenario, World};

const NAMESPACE: &str = "bench";
const SERVICES: &str = "/api/v1/namespaces/bench/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices";
const PROBE: &str = "probe";
const PORT: u16 = 80;

/// The log is read for what happens inside.
const LOG: [&str; 2] = ["--log", "warn,network=info"];

/// Endpoints of each Service.
const ENDPOINTS: u8 = 5;
/// Services to compare many with.
const FEW: u64 = 10;
/// Whatever is waited for comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often an outside observer looks.
const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// Questions to cluster DNS that wait for their answers at the same time.
const QUESTIONS: usize = 64;

struct Sizes {
    services: u64,
    connections: usize,
    changes: usize,
    questions: usize,
}

const FULL: Sizes = Sizes { services: 10_000, connections: 2_000, changes: 100, questions: 200_000 };
const SMOKE: Sizes = Sizes { services: 50, connections: 20, changes: 3, questions: 500 };

pub(super) fn all() -> Vec<Scenario> {
    vec![Scenario {
        name: "services".to_owned(),
        about: "10,000 Services with 50,000 endpoints: first sync, a change, connections, names".to_owned(),
        run: Box::new(|world| Box::pin(services(world))),
    }]
}

async fn services(world: World) -> Measured {
    let sizes = if world.smoke { SMOKE } else { FULL };
    let folder = Folder::new()?;
    let flags = [&FLAGS[..], &LOG].concat();
    let server = world.start_with(&folder, 0, &flags).await?;
    create_namespace(&server, NAMESPACE).await?;
    let mut api = server.endpoint.connect().await?;
    let doors = Doors::open(node_address(&mut api).await?).await?;
    let address = doors.serve(&mut api).await?;
    add(&server, "few", FEW).await?;
    until_answered(address).await?;
    let few = connect_times(address, sizes.connections).await?;
    add(&server, "many", sizes.services - FEW).await?;
    server.stop().await?;

    // Everything anew: the rules of the former run are replaced in one step.
    let server = world.start_with(&folder, 0, &flags).await?;
    let mut api = server.endpoint.connect().await?;
    let first_sync = first_sync(&folder).await?;
    until_answered(address).await?;
    let many = connect_times(address, sizes.connections).await?;
    let changes = doors.change(&mut api, address, sizes.changes).await?;
    let names = Names::find(&mut api).await?;
    let (rate, took) = names.ask(sizes.questions, sizes.services).await?;
    let cpu = server.cpu()?;
    names.ask(sizes.questions, sizes.services).await?;
    let cpu = (server.cpu()? - cpu).as_secs_f64() / sizes.questions as f64;
    server.stop().await?;

    let ms = |times: &[Duration], share| at_quantile(times, share).as_secs_f64() * 1e3;
    let count = sizes.services;
    let endpoints = count * u64::from(ENDPOINTS);
    Ok(vec![
        Measurement::new(
            format!("first sync of {count} Services, {endpoints} endpoints"),
            first_sync.as_secs_f64(),
            "s",
        )
        .at_most(3.0)
        .note("from the node's addresses to the rules in the kernel, as its log says"),
        Measurement::new("change of one endpoint to connections, p50", ms(&changes, 0.5), "ms"),
        Measurement::new("change of one endpoint to connections, p99", ms(&changes, 0.99), "ms")
            .at_most(20.0)
            .note("from sending the write to the first new connection that follows it"),
        Measurement::new(format!("connection through one of {FEW} Services, p50"), 1e3 * ms(&few, 0.5), "µs"),
        Measurement::new(
            format!("connection through one of {count} Services, p50"),
            1e3 * ms(&many, 0.5),
            "µs",
        )
        .note(format!("p99 {:.0} µs", 1e3 * ms(&many, 0.99))),
        Measurement::new("names of Services, answers", rate, "/s").note(format!(
            "{QUESTIONS} questions at a time, client and server share the cores; server CPU {:.1} µs each",
            cpu * 1e6
        )),
        Measurement::new("names of Services, p99", ms(&took, 0.99), "ms").at_most(2.0),
    ])
}

/// Services without pods, and their endpoints.
async fn add(server: &Server, prefix: &'static str, count: u64) -> anyhow::Result<()> {
    let service = Template::new(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": HOLE},
        "spec": {"ports": [{"port": PORT}]},
    }));
    let endpoints: Vec<Value> = (1..=ENDPOINTS).map(|last| endpoint(&format!("10.244.200.{last}"))).collect();
    let slice = Template::new(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": HOLE, "labels": {"kubernetes.io/service-name": HOLE}},
        "ports": [{"port": 8080}], "endpoints": endpoints,
    }));
    fill(server, SERVICES, service, prefix, 0..count).await?;
    fill(server, SLICES, slice, prefix, 0..count).await.map(drop)
}

fn endpoint(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true}})
}

/// The node's own address: one of the loopback is no endpoint.
async fn node_address(api: &mut Connection) -> anyhow::Result<IpAddr> {
    let node = read(api, "/api/v1/nodes/bench").await?;
    let addresses = node["status"]["addresses"].as_array();
    let own = addresses.into_iter().flatten().find(|address| address["type"] == "InternalIP");
    let own = own.and_then(|own| own["address"].as_str()).context("the node has no address")?;
    own.parse().context("reading the node's address")
}

async fn read(api: &mut Connection, path: &str) -> anyhow::Result<Value> {
    let answer = api.get(path).await?.expect(path, hyper::StatusCode::OK)?;
    serde_json::from_slice(&answer.body).with_context(|| format!("reading {path}"))
}

/// How long the rules took, by the times of two lines of the server's log.
async fn first_sync(folder: &Folder) -> anyhow::Result<Duration> {
    let path = folder.log();
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let log = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let at = |text: &str| {
            let line = log.lines().find(|line| line.contains(text))?;
            line.split_whitespace().find_map(seconds_of_day)
        };
        if let (Some(from), Some(to)) = (at("Pods get addresses"), at("Rules of all Services written")) {
            return Ok(Duration::from_secs_f64((to - from).rem_euclid(86_400.0)));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("{path} does not say that the rules were written")
}

/// The time in `2026-11-29T09:30:00.123456Z`, or in the part after the `T`.
fn seconds_of_day(word: &str) -> Option<f64> {
    let time = word.rsplit('T').next()?.trim_end_matches('Z');
    let mut parts = time.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = hours.parse::<u32>().ok()? * 3_600 + minutes.parse::<u32>().ok()? * 60;
    Some(f64::from(whole) + seconds.parse::<f64>().ok()?)
}

/// Two ports of the harness, which say which one they are.
struct Doors {
    ports: [SocketAddr; 2],
}

impl Doors {
    async fn open(address: IpAddr) -> anyhow::Result<Self> {
        let mut ports = [SocketAddr::new(address, 0); 2];
        for (number, port) in (0_u8..).zip(&mut ports) {
            let listener =
                TcpListener::bind(*port).await.with_context(|| format!("listening on {address}"))?;
            *port = listener.local_addr().context("reading the listener's address")?;
            tokio::spawn(async move {
                while let Ok((mut connection, _)) = listener.accept().await {
                    // A client that left is no news.
                    let _ = connection.write_all(&[number]).await;
                }
            });
        }
        Ok(Self { ports })
    }

    fn slice(&self, number: usize) -> Value {
        let door = self.ports[number];
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": PROBE, "labels": {"kubernetes.io/service-name": PROBE}},
            "ports": [{"port": door.port()}], "endpoints": [endpoint(&door.ip().to_string())],
        })
    }

    /// Makes the Service that leads here; where it is reached.
    async fn serve(&self, api: &mut Connection) -> anyhow::Result<SocketAddr> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": PROBE},
            "spec": {"ports": [{"port": PORT}]},
        });
        let made = api.create(SERVICES, service.to_string().into()).await?;
        api.create(SLICES, self.slice(0).to_string().into()).await?;
        let made: Value = serde_json::from_slice(&made.body).context("reading the Service")?;
        let ip = made["spec"]["clusterIP"].as_str().context("the Service has no address")?;
        Ok(SocketAddr::new(ip.parse().context("reading the Service's address")?, PORT))
    }

    /// Moves the Service from one door to the other, time after time; how long each took, sorted.
    async fn change(
        &self,
        api: &mut Connection,
        address: SocketAddr,
        times: usize,
    ) -> anyhow::Result<Vec<Duration>> {
        let mut took = Vec::new();
        for turn in 1..=times {
            let wanted = turn % 2;
            let body = json!({"ports": self.slice(wanted)["ports"]}).to_string();
            let path = format!("{SLICES}/{PROBE}");
            let sent = Instant::now();
            let patch = api.call(Method::PATCH, &path, "application/merge-patch+json", body.into()).await?;
            patch.expect(&path, hyper::StatusCode::OK)?;
            while knock(address).await? != wanted as u8 {
                ensure!(sent.elapsed() < PATIENCE, "the endpoint's change is not seen");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            took.push(sent.elapsed());
        }
        took.sort_unstable();
        Ok(took)
    }
}

/// Which door opens.
async fn knock(address: SocketAddr) -> anyhow::Result<u8> {
    let mut connection =
        TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    connection.read_u8().await.with_context(|| format!("reading from {address}"))
}

async fn until_answered(address: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(200), knock(address)).await {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    bail!("nobody answers at {address}")
}

/// How long connecting takes, sorted.
async fn connect_times(address: SocketAddr, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        let connection =
            TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        took.push(started.elapsed());
        drop(connection);
    }
    took.sort_unstable();
    Ok(took)
}

/// Cluster DNS of the node.
struct Names {
    socket: UdpSocket,
}

impl Names {
    async fn find(api: &mut Connection) -> anyhow::Result<Self> {
        let path = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-bench";
        let slice = read(api, path).await?;
        let server = slice["endpoints"][0]["addresses"][0].as_str().context("cluster DNS has no address")?;
        let server: IpAddr = server.parse().context("reading the address of cluster DNS")?;
        let socket = UdpSocket::bind("0.0.0.0:0").await.context("making a socket")?;
        socket.connect((server, 53)).await.context("connecting to cluster DNS")?;
        Ok(Self { socket })
    }

    /// Answers a second, and how long each took, sorted.
    async fn ask(&self, count: usize, services: u64) -> anyhow::Result<(f64, Vec<Duration>)> {
        let started = Instant::now();
        let mut sent_at = vec![started; 1 << 16];
        let (mut took, mut sent, mut buffer) = (Vec::with_capacity(count), 0, [0; 1500]);
        while took.len() < count {
            while sent < count && sent - took.len() < QUESTIONS {
                let service = sent as u64 % (services - FEW);
                let id = sent as u16;
                sent_at[usize::from(id)] = Instant::now();
                let question = question(id, &format!("many-{service}.{NAMESPACE}.svc.cluster.local"));
                self.socket.send(&question).await.context("asking")?;
                sent += 1;
            }
            let answer = tokio::time::timeout(PATIENCE, self.socket.recv(&mut buffer));
            let len = answer.await.context("an answer was lost")?.context("reading an answer")?;
            let answer = &buffer[..len];
            let word =
                |at: usize| answer.get(at..at + 2).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]));
            ensure!(word(2) & 0x0f == 0 && word(6) == 1, "a name is not known: {answer:?}");
            took.push(sent_at[usize::from(word(0))].elapsed());
        }
        let rate = count as f64 / started.elapsed().as_secs_f64();
        took.sort_unstable();
        Ok((rate, took))
    }
}

/// A question for the IPv4 addresses of a name.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = Vec::from(id.to_be_bytes());
    // Recursion is desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_in_words_of_a_log() {
        assert_eq!(seconds_of_day("2026-11-29T01:02:03.5Z"), Some(3_723.5));
        assert_eq!(seconds_of_day("01:00:00"), Some(3_600.0));
        assert_eq!(seconds_of_day("INFO"), None);
        assert_eq!(seconds_of_day("network::pod_network"), None);
    }

    #[test]
    fn a_question_is_as_the_protocol_has_it() {
        let want = b"\x01\x02\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x01\x00\x01";
        assert_eq!(question(0x0102, "a.bc"), want);
    }
}
