//! A webhook of a test's own: an HTTPS server with an authority of its own.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What the webhook makes of a review; `None` closes the connection without a word.
type Answer = dyn Fn(&Value) -> Option<Bytes> + Send + Sync;

pub struct Hook {
    port: u16,
    ca_pem: String,
    /// Every review that came in.
    seen: Arc<Mutex<Vec<Value>>>,
    shutdown: rt::Shutdown,
}

impl Hook {
    /// Answers with a whole review around what `respond` makes of the request.
    pub async fn start(respond: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::raw(move |review| {
            let mut response = respond(&review["request"]);
            response["uid"] = review["request"]["uid"].clone();
            let answer = json!({
                "apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response,
            });
            Some(answer.to_string().into())
        })
        .await
    }

    /// Answers with these bytes.
    pub async fn raw(answer: impl Fn(&Value) -> Option<Bytes> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = camino::Utf8Path::from_path(folder.path()).expect("a UTF-8 path");
        let authority = pki::Authority::load_or_create(keys, SystemTime::now()).expect("keys");
        let names = pki::ServerNames::in_cluster().with("hook.t.svc");
        let certificate = authority.serving_certificate(names, SystemTime::now()).expect("a certificate");
        let verifier = authority.client_verifier().expect("a verifier");
        let mut tls = pki::server_config(certificate, &verifier).expect("TLS");
        tls.alpn_protocols.clear();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (seen, shutdown) = (Arc::new(Mutex::new(Vec::new())), rt::Shutdown::new());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let answer: Arc<Answer> = Arc::new(answer);
        rt::spawn("hook", accept(listener, acceptor, answer, seen.clone(), shutdown.clone()));
        Self { port, ca_pem: authority.ca_pem().to_owned(), seen, shutdown }
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/hook", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn ca_bundle(&self) -> String {
        STANDARD.encode(&self.ca_pem)
    }

    /// PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Every body so far.
    pub fn bodies(&self) -> Vec<Value> {
        self.seen.lock().clone()
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Value> {
        self.seen.lock().iter().map(|review| review["request"].clone()).collect()
    }

    /// A configuration that sends ConfigMaps of namespace `t` here, with changes.
    pub fn configuration(&self, kind: &str, name: &str, change: &Value) -> Value {
        let mut hook = json!({
            "name": format!("{name}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": self.url(), "caBundle": self.ca_bundle()},
            "rules": [{
                "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["configmaps"],
            }],
        });
        for (key, value) in change.as_object().into_iter().flatten() {
            hook[key] = value.clone();
        }
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "webhooks": [hook],
        })
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<Value>>>,
    shutdown: rt::Shutdown,
) {
    loop {
        let connection = tokio::select! {
            () = shutdown.cancelled() => return,
            connection = listener.accept() => connection,
        };
        let Ok((tcp, _)) = connection else { return };
        let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), seen.clone());
        rt::spawn("hook connection", async move {
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            let service = service_fn(|request| serve(request, &answer, &seen));
            // The client closing it, or an answer that is none, ends the connection.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn serve(
    request: Request<Incoming>,
    answer: &Arc<Answer>,
    seen: &Mutex<Vec<Value>>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let review: Value = match body.as_ref() {
        // A question without a body is its path.
        [] => json!({ "path": path }),
        body => serde_json::from_slice(body).map_err(std::io::Error::other)?,
    };
    seen.lock().push(review.clone());
    let body = answer(&review).ok_or_else(|| std::io::Error::other("nothing to say"))?;
    Ok(Response::new(Full::new(body)))
}
