//! The signers: what is approved for one of the cluster's own signers, and is what that signer gives out, gets its
//! certificate; what is not such a request is marked as failed.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::CERTIFICATE_SIGNING_REQUESTS;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::typed::view;
use client::{Api, Informer, ObjectKey, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;
use pki::{SigningRequest, Usages};

use super::rules::Signer;
use super::{APPROVED, CertificateSigningRequest, DENIED, FAILED, Spec, add_condition};
use crate::Options;

const NAME: &str = "certificatesigningrequest-signing-controller";

/// How long certificates are good for that ask for nothing shorter, unless somebody says otherwise.
pub const SIGNING_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Who asks for less gets this: twice by how much certificates are backdated.
const DURATION_MIN: Duration = Duration::from_secs(10 * 60);

pub(crate) fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "certificate-controller",
        event_source: NAME,
        workers: 2,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let Some(signer) = context.options.signer.clone() else {
        tracing::info!("No key was given to sign certificates with");
        return boxed(async {});
    };
    let requests = context.informers.of(&CERTIFICATE_SIGNING_REQUESTS);
    let duration = context.options.signing_duration.unwrap_or(SIGNING_DURATION);
    let reconciler =
        Arc::new(Controller { api: context.api.clone(), requests: requests.clone(), signer, duration });
    boxed(controller_runtime::Controller::new(&context, reconciler).for_kind(&requests).run())
}

struct Controller {
    api: Arc<dyn Api>,
    requests: Arc<Informer>,
    signer: Arc<dyn pki::Signer>,
    /// The longest that is given.
    duration: Duration,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.requests.get("", &key.name) else { return Ok(Action::await_change()) };
        let csr = view::<CertificateSigningRequest>(&object)?;
        let status = &csr.status;
        let approved = status.has(APPROVED) && !status.has(DENIED);
        if status.is_issued() || !approved || status.is_true(FAILED) {
            return Ok(Action::await_change());
        }
        let Some(signer) = Signer::of_name(&csr.spec.signer_name) else {
            return Ok(Action::await_change());
        };
        let request = SigningRequest::from_pem(&csr.spec.request)
            .map_err(|error| Error::Stalled { reason: format!("unable to parse csr: {error}") })?;
        let mut answered = object.to_value();
        match signer.check(&request, &csr.spec.usages) {
            Ok(()) => {
                let certificate = self.sign(&csr.spec, &request)?;
                answered.set_at(&["status", "certificate"], STANDARD.encode(certificate));
            }
            Err(unfit) => {
                add_condition(&mut answered, FAILED, "SignerValidationFailure", &unfit.to_string());
            }
        }
        let (gvr, options) = (&CERTIFICATE_SIGNING_REQUESTS, WriteOptions::default());
        self.api.update(gvr, "", &key.name, Some("status"), answered, &options).await?;
        Ok(Action::await_change())
    }
}

impl Controller {
    fn sign(&self, spec: &Spec, request: &SigningRequest) -> Result<String> {
        let usages = Usages::from_names(spec.usages.iter().map(String::as_str));
        let signed = usages.and_then(|usages| {
            let validity = validity(spec.expiration_seconds, self.duration);
            self.signer.sign(request, &usages, validity, rt::now().into())
        });
        signed.map_err(|error| Error::failed(format!("error auto signing csr: {error}")))
    }
}

/// As long as was asked for, within bounds; the upper one counts.
pub(super) fn validity(expiration_seconds: Option<i64>, longest: Duration) -> Duration {
    let asked = expiration_seconds.map(|seconds| Duration::from_secs(seconds.try_into().unwrap_or(0)));
    asked.map_or(longest, |asked| asked.max(DURATION_MIN).min(longest))
}
