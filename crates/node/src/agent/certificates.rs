//! The node's own certificates: asked for by CertificateSigningRequest and replaced before they end, as the kubelet
//! does.
//!
//! Owns: when a certificate is asked for, the request, and the wait for it. Never touches: whether it is granted, which
//! is for approvers and signers to say, and what the certificate is then used for: [`Keeper::on_new`] is told.
//!
//! Start at [`obtain`] and [`Keeper::run`].

use std::time::{Duration, SystemTime};

use api::gvr::CERTIFICATE_SIGNING_REQUESTS;
use apimachinery::{Object, Status, Value, json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::Utf8PathBuf;
use client::{Api, WatchEvent, WatchOptions, WriteOptions};
use futures::StreamExt;
use pki::{CertificateRequest, KeyedCertificate, ServerNames};

const NODES: &str = "system:nodes";

/// A request that nobody has answered after this time is made anew, as the kubelet does.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// However short a certificate's life is, the next one is asked for no sooner.
const PAUSE_MIN: Duration = Duration::from_secs(10);

/// Between attempts, doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(64);

/// What a certificate proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Who the node is to the API server.
    Client,
    /// That the kubelet's API is this node's.
    Serving,
}

/// A certificate that the node needs.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub node_name: String,
    pub purpose: Purpose,
    /// Where a listener is reached; none for a client.
    pub names: ServerNames,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the certificate signing request {name} was refused: {message}")]
    Refused { name: String, message: String },
    #[error("nobody answered the certificate signing request {name} within {} min", PATIENCE.as_secs() / 60)]
    Unanswered { name: String },
    #[error(transparent)]
    Api(#[from] Status),
    #[error(transparent)]
    Pki(#[from] pki::Error),
}

impl Wanted {
    pub fn client(node_name: &str) -> Self {
        Self { node_name: node_name.to_owned(), purpose: Purpose::Client, names: ServerNames::default() }
    }

    /// Whether what there is will do, for now.
    pub fn is_met_by(&self, certificate: &KeyedCertificate, now: SystemTime) -> bool {
        certificate.user == self.user()
            && certificate.names == self.names
            && certificate.not_before <= now
            && now < certificate.not_after
    }

    fn user(&self) -> String {
        format!("system:node:{}", self.node_name)
    }

    fn signer(&self) -> &'static str {
        match self.purpose {
            Purpose::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Purpose::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    fn request(&self, request_pem: &str) -> Value {
        let usage = match self.purpose {
            Purpose::Client => "client auth",
            Purpose::Serving => "server auth",
        };
        json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "csr-"},
            "spec": {
                "request": STANDARD.encode(request_pem), "signerName": self.signer(),
                // A key on an elliptic curve enciphers no other keys.
                "usages": ["digital signature", usage],
            },
        })
    }
}

/// Asks for a certificate under a fresh key, and waits until it was given or refused.
pub async fn obtain(api: &dyn Api, wanted: &Wanted) -> Result<KeyedCertificate, Error> {
    let request = CertificateRequest::new(&wanted.user(), &[NODES], &wanted.names)?;
    let body = wanted.request(&request.request_pem);
    let made = api.create(&CERTIFICATE_SIGNING_REQUESTS, "", body, &WriteOptions::default()).await?;
    let name = made.name().to_owned();
    let certificate =
        rt::timeout(PATIENCE, answer(api, &name)).await.unwrap_or(Err(Error::Unanswered { name }))?;
    Ok(KeyedCertificate::new(certificate, request.key_pem)?)
}

/// The certificate, in PEM, once it is there.
async fn answer(api: &dyn Api, name: &str) -> Result<String, Error> {
    loop {
        let options =
            WatchOptions { field_selector: format!("metadata.name={name}"), ..WatchOptions::default() };
        let mut events = match api.watch(&CERTIFICATE_SIGNING_REQUESTS, "", &options).await {
            Ok(events) => events,
            // A server that starts again still has the request.
            Err(status) if is_no_answer(&status) => {
                rt::sleep(RETRY_MIN).await;
                continue;
            }
            Err(status) => return Err(status.into()),
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(request) | WatchEvent::Modified(request)) => {
                    if let Some(certificate) = issued(&request)? {
                        return Ok(certificate);
                    }
                }
                Ok(WatchEvent::Deleted(_)) => {
                    return Err(Error::Refused {
                        name: name.to_owned(),
                        message: "it was deleted".to_owned(),
                    });
                }
                Ok(WatchEvent::Bookmark(_)) => {}
                // The watch ends, as all do; the request is still there.
                Err(_) => break,
            }
        }
        rt::sleep(RETRY_MIN).await;
    }
}

/// Whether the server is away or busy, rather than answering something else.
pub fn is_no_answer(status: &Status) -> bool {
    matches!(status.code, 429 | 500 | 503 | 504)
}

/// What a request was answered: nothing yet, a certificate, or that there will be none.
fn issued(request: &Object) -> Result<Option<String>, Error> {
    let tree = request.to_value();
    for condition in tree.array_at(&["status", "conditions"]) {
        let (kind, message) = (condition.str_at(&["type"]), condition.str_at(&["message"]));
        if matches!(kind, "Denied" | "Failed") {
            let message = if message.is_empty() { condition.str_at(&["reason"]) } else { message };
            return Err(Error::Refused { name: request.name().to_owned(), message: message.to_owned() });
        }
    }
    let certificate = STANDARD.decode(tree["status"].str_at(&["certificate"])).unwrap_or_default();
    let certificate = String::from_utf8(certificate).unwrap_or_default();
    Ok((!certificate.is_empty()).then_some(certificate))
}

/// When a certificate is replaced: after 70 to 90 % of its life, so that nodes that joined together do not ask
/// together. `jitter` is between 0 and 1.
pub fn renew_at(certificate: &KeyedCertificate, jitter: f64) -> SystemTime {
    certificate.not_before + certificate.life().mul_f64(0.7 + 0.2 * jitter.clamp(0.0, 1.0))
}

/// Told of each new certificate, after it is on disk.
pub type OnNew = Box<dyn Fn(&KeyedCertificate) -> Result<(), String> + Send + Sync>;

/// Keeps one certificate fresh.
pub struct Keeper {
    pub wanted: Wanted,
    pub path: Utf8PathBuf,
    pub on_new: OnNew,
}

impl Keeper {
    /// Replaces `current` in time, for as long as the node runs; asks at once where there is none that will do.
    pub async fn run(self, api: &dyn Api, current: Option<KeyedCertificate>, shutdown: rt::Shutdown) {
        let keep = async {
            let now = || SystemTime::from(rt::now());
            let mut current = current.filter(|own| self.wanted.is_met_by(own, now()));
            let mut retry = RETRY_MIN;
            loop {
                if let Some(certificate) = current.take() {
                    let at = renew_at(&certificate, rt::jitter());
                    rt::sleep(at.duration_since(now()).unwrap_or_default().max(PAUSE_MIN)).await;
                }
                match self.renew(api).await {
                    Ok(certificate) => {
                        tracing::info!(purpose = ?self.wanted.purpose, "The node has a new certificate");
                        (current, retry) = (Some(certificate), RETRY_MIN);
                    }
                    Err(error) => {
                        self.complain(&error);
                        rt::sleep(rt::jittered(retry, 0.5)).await;
                        retry = (retry * 2).min(RETRY_MAX);
                    }
                }
            }
        };
        tokio::select! {
            () = keep => {}
            () = shutdown.cancelled() => {}
        }
    }

    fn complain(&self, error: &Error) {
        let error = telemetry::chain(error);
        tracing::warn!(%error, purpose = ?self.wanted.purpose, "The node's certificate is not renewed");
    }

    async fn renew(&self, api: &dyn Api) -> Result<KeyedCertificate, Error> {
        let certificate = obtain(api, &self.wanted).await?;
        certificate.save(&self.path)?;
        (self.on_new)(&certificate).map_err(|problem| pki::Error::Tls(problem).into()).map(|()| certificate)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use client::fake::FakeApi;
    use pki::{Authority, SigningRequest, Usages};

    use super::*;

    struct World {
        directory: tempfile::TempDir,
        authority: Authority,
        api: Arc<FakeApi>,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a folder");
            let at = Utf8PathBuf::from_path_buf(directory.path().join("ca")).expect("text");
            let authority = Authority::load_or_create(&at, rt::now().into()).expect("an authority");
            Self { directory, authority, api: FakeApi::new() }
        }

        fn path(&self) -> Utf8PathBuf {
            Utf8PathBuf::from_path_buf(self.directory.path().join("own.pem")).expect("text")
        }

        fn sign(&self, request: &[u8], life: Duration) -> String {
            let request = SigningRequest::from_pem(request).expect("a request");
            let usages = Usages::from_names(["digital signature", "client auth"]).expect("usages");
            self.authority.sign_request(&request, &usages, life, rt::now().into()).expect("a certificate")
        }

        /// Answers the next request that has no answer yet.
        async fn answer(&self, status: impl Fn(&[u8]) -> Value) {
            loop {
                for request in self.api.peek_all(&CERTIFICATE_SIGNING_REQUESTS) {
                    let mut tree = request.to_value();
                    if tree.get("status").is_none() {
                        let pem = STANDARD.decode(tree["spec"].str_at(&["request"])).expect("base64");
                        tree.set_at(&["status"], status(&pem));
                        let (gvr, options) = (&CERTIFICATE_SIGNING_REQUESTS, WriteOptions::default());
                        self.api
                            .update(gvr, "", request.name(), Some("status"), tree, &options)
                            .await
                            .expect("updated");
                        return;
                    }
                }
                rt::sleep(Duration::from_millis(100)).await;
            }
        }

        async fn grant(&self, life: Duration) {
            self.answer(|pem| json!({"certificate": STANDARD.encode(self.sign(pem, life))})).await;
        }
    }

    #[tokio::test]
    async fn a_certificate_is_what_was_asked_for() {
        let world = World::new();
        let wanted = Wanted {
            purpose: Purpose::Serving,
            names: ServerNames::default().with("n").with("192.0.2.7"),
            ..Wanted::client("n")
        };
        let (obtained, ()) =
            tokio::join!(obtain(&*world.api, &wanted), world.grant(Duration::from_secs(3600)));
        let certificate = obtained.expect("a certificate");
        let now = SystemTime::from(rt::now());
        assert!(wanted.is_met_by(&certificate, now), "{certificate:?}");
        for other in [
            Wanted::client("n"),
            Wanted { node_name: "m".into(), ..wanted.clone() },
            Wanted { names: wanted.names.clone().with("192.0.2.8"), ..wanted.clone() },
        ] {
            assert!(!other.is_met_by(&certificate, now), "{other:?}");
        }
        assert!(!wanted.is_met_by(&certificate, certificate.not_after), "it has ended");
        let request = world.api.peek_all(&CERTIFICATE_SIGNING_REQUESTS)[0].to_value();
        assert_eq!(request["spec"].str_at(&["signerName"]), "kubernetes.io/kubelet-serving");
        assert_eq!(request["spec"]["usages"], json!(["digital signature", "server auth"]));
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let world = World::new();
        let wanted = Wanted::client("n");
        let no =
            |_: &[u8]| json!({"conditions": [{"type": "Denied", "reason": "Policy", "message": "not you"}]});
        let (obtained, ()) = tokio::join!(obtain(&*world.api, &wanted), world.answer(no));
        let error = obtained.expect_err("it was denied").to_string();
        assert!(error.ends_with("was refused: not you"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_replaced_before_it_ends_and_after_a_failure() {
        let world = World::new();
        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        let keeper = Keeper {
            wanted: Wanted::client("n"),
            path: world.path(),
            on_new: Box::new(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }),
        };
        let shutdown = rt::Shutdown::new();
        let api: Arc<dyn Api> = world.api.clone();
        let ending = shutdown.clone();
        let running = rt::spawn("keeper", async move { keeper.run(&*api, None, ending).await });
        let life = Duration::from_secs(600);
        for round in 1..=3 {
            if round == 2 {
                world.answer(|_| json!({"conditions": [{"type": "Denied", "message": "not now"}]})).await;
            }
            world.grant(life).await;
            while told.load(Ordering::Relaxed) < round {
                rt::sleep(Duration::from_millis(100)).await;
            }
            let kept = KeyedCertificate::load(&world.path()).expect("it can be read").expect("it is there");
            assert!(Wanted::client("n").is_met_by(&kept, rt::now().into()));
        }
        shutdown.cancel();
        running.await.expect("it ends");
    }

    #[test]
    fn renewal_is_well_before_the_end() {
        let world = World::new();
        let request =
            CertificateRequest::new("system:node:n", &[NODES], &ServerNames::default()).expect("a request");
        let pem = world.sign(request.request_pem.as_bytes(), Duration::from_secs(1000));
        let certificate = KeyedCertificate::new(pem, request.key_pem).expect("a pair");
        let life = certificate.life();
        for (jitter, from, to) in [(0.0, 0.69, 0.71), (1.0, 0.89, 0.91)] {
            let at = renew_at(&certificate, jitter).duration_since(certificate.not_before).expect("after");
            assert!(at > life.mul_f64(from) && at < life.mul_f64(to), "{at:?} of {life:?}");
        }
    }
}
