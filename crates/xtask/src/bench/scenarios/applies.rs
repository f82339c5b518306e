//! Server-side apply: what it costs, and what is kept of it.

use super::super::connection::Connection;
use super::super::load::{self, Rate, Until};
use super::super::objects::{self, Template};
use super::super::report::Measurement;
use super::super::server::Server;
use super::{FILLING_CONNECTIONS, Folder, Measured, NO_TIME_LIMIT, World, create_namespace, memory_row};

const NAMESPACE: &str = "bench";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/bench/deployments";
const PODS: &str = "/api/v1/namespaces/bench/pods";
/// Enough to share syncs, few enough for the server's own work to show.
const CONNECTIONS: usize = 16;
/// Deployments that are applied again.
const CHOICE: u64 = 500;
/// What an apply may cost the server, in microseconds.
const APPLY_US_MAX: f64 = 200.0;
/// Memory that applied objects may take, as a multiple of their JSON.
const MEMORY_RATIO_MAX: f64 = 2.0;

pub(super) async fn deployments(world: World) -> Measured {
    let folder = Folder::new()?;
    // Its controller observes every generation, which is a write of its own.
    let server = world.start_with(&folder, 1, &["--controllers=*,-deployment-controller"]).await?;
    create_namespace(&server, NAMESPACE).await?;
    let notes = ["a", "b"].map(objects::service_deployment);
    let only = |template: &Template| {
        let template = template.clone();
        move |number: u64| (number % CHOICE, template.clone())
    };
    let created = notes[0].clone();
    let first = applies(&server, world.until(), "first", move |number| (number, created.clone())).await?;
    let each_once = Until { requests: CHOICE, elapsed: NO_TIME_LIMIT };
    applies(&server, each_once, "again", only(&notes[0])).await?;
    let same = applies(&server, world.until(), "again", only(&notes[0])).await?;
    // Each round over all of them says what the round before did not.
    let other = move |number| (number % CHOICE, notes[(number / CHOICE + 1) as usize % 2].clone());
    let changed = applies(&server, world.until(), "again", other).await?;
    server.stop().await?;
    let row = |what: &str, rate: &Rate| {
        let note = format!("{:.0}/s on {CONNECTIONS} connections", rate.per_second());
        let what = format!("server CPU of an apply of a Deployment of 4 KiB, {what}");
        Measurement::new(what, rate.cpu_ms() * 1e3, "µs").at_most(APPLY_US_MAX).note(note)
    };
    Ok(vec![row("the first", &first), row("the same again", &same), row("one change", &changed)])
}

pub(super) async fn memory(world: World) -> Measured {
    let folder = Folder::new()?;
    let server = world.start(&folder, 1).await?;
    create_namespace(&server, NAMESPACE).await?;
    let before = server.resident()?;
    // Nobody schedules them: what is measured is the store and the API.
    let template = objects::service_pod("nobody");
    let until = Until { requests: world.sizes().list_second, elapsed: NO_TIME_LIMIT };
    let rate = load::run(&server, FILLING_CONNECTIONS, 0, until, move |connection, number| {
        apply(connection, PODS, format!("pod-{number}"), template.clone())
    })
    .await?;
    let after = server.resident()?;
    let bytes = server.endpoint.connect().await?.measure(PODS).await?;
    server.stop().await?;
    let what = format!("memory with {} applied pods against their JSON", world.sizes().list_second);
    Ok(vec![memory_row(what, before, after, bytes, &rate).at_most(MEMORY_RATIO_MAX)])
}

/// Applies what `choose` makes of each number: the number in the name, and what is applied.
async fn applies(
    server: &Server,
    until: Until,
    prefix: &'static str,
    choose: impl Fn(u64) -> (u64, Template) + Clone + Send + Sync + 'static,
) -> anyhow::Result<Rate> {
    load::run(server, CONNECTIONS, 0, until, move |connection, number| {
        let (number, template) = choose(number);
        apply(connection, DEPLOYMENTS, format!("{prefix}-{number}"), template)
    })
    .await
}

async fn apply(
    mut connection: Connection,
    collection: &str,
    name: String,
    template: Template,
) -> anyhow::Result<Connection> {
    connection.apply(&format!("{collection}/{name}"), template.named(&name)).await?;
    Ok(connection)
}
