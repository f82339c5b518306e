//! `pintle demo`: a small web service that calls others, for examples that need something to run.
//!
//! Every request is answered with who answers, and with what its backends said; `/ready` and `/alive` answer probes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// Bytes of a backend's answer that are passed on.
const ANSWER_MAX: usize = 64 << 10;

/// How long it serves on once it is told to end: until then somebody may not have heard that it does.
const DRAIN: Duration = Duration::from_secs(1);

/// A backend that takes longer is told of as one that failed.
const BACKEND_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct DemoArguments {
    /// Address and port to serve HTTP on
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,

    /// What this service is called
    #[arg(long, value_name = "NAME", default_value = "demo")]
    name: String,

    /// Services to ask with every request; repeatable
    #[arg(long, value_name = "HOST:PORT")]
    backend: Vec<String>,
}

pub fn run(arguments: DemoArguments) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: DemoArguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("--listen {}: choose another address or port", arguments.listen))?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    let arguments = Arc::new(arguments);
    let over = async {
        tokio::select! {
            _ = terminate.recv() => rt::sleep(DRAIN).await,
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(over);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("accepting a connection: {error}");
                    rt::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut over => return Ok(()),
        };
        let arguments = arguments.clone();
        rt::spawn("connection", async move {
            let service = service_fn(move |request| {
                let arguments = arguments.clone();
                async move { Ok::<_, Infallible>(answer(&arguments, &request).await) }
            });
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = serving.await {
                eprintln!("serving a connection: {error}");
            }
        });
    }
}

async fn answer(arguments: &DemoArguments, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/ready" | "/alive" => (StatusCode::OK, "ok\n".to_owned()),
        _ => tell(arguments).await,
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

/// Who answers, and what every backend said, indented below.
async fn tell(arguments: &DemoArguments) -> (StatusCode, String) {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let mut text = format!("{} on {host}\n", arguments.name);
    let mut status = StatusCode::OK;
    let asked = arguments.backend.iter().map(|backend| rt::timeout(BACKEND_TIMEOUT, ask(backend)));
    let answers = futures::future::join_all(asked).await;
    for (backend, answer) in arguments.backend.iter().zip(answers) {
        let said = match answer {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => {
                status = StatusCode::BAD_GATEWAY;
                format!("{backend}: {error:#}\n")
            }
            Err(_) => {
                status = StatusCode::GATEWAY_TIMEOUT;
                format!("{backend}: no answer within {} s\n", BACKEND_TIMEOUT.as_secs())
            }
        };
        said.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    (status, text)
}

async fn ask(backend: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(backend).await.context("connecting")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    rt::spawn("backend", async move {
        let _ = connection.await;
    });
    let request = Request::get("/").header("host", backend).body(Full::<Bytes>::default())?;
    let response = sender.send_request(request).await?;
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
