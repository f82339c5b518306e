//! Plugins about certificates: approving, signing and attesting need a right on the signer, and no client certificate
//! makes its holder a master.

use std::sync::Arc;

use apimachinery::field::go_quote;
use apimachinery::{Status, Value};
use auth::{Authorizer, UserInfo};
use pki::SigningRequest;
use registry::admission::{Attributes, Operation};

use crate::plugins::Environment;
use crate::{Plugin, forbidden};

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// `CertificateApproval`: whoever approves or denies a request may `approve` for its signer.
pub struct CertificateApproval {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateApproval {
    pub fn new(environment: &Environment<'_>) -> Self {
        Self { authorizer: environment.authorizer.clone() }
    }
}

impl Plugin for CertificateApproval {
    fn validate(&self, attributes: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        let approves = attributes.is_sub(GROUP, "certificatesigningrequests", "approval");
        if !approves || attributes.operation != Operation::Update {
            return Ok(());
        }
        let Some(old) = attributes.old_value() else { return Ok(()) };
        let signer = old.str_at(&["spec", "signerName"]);
        if may(&*self.authorizer, attributes.user, "approve", signer) {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {}", go_quote(signer));
        Err(forbidden(attributes, why))
    }
}

/// `CertificateSigning`: whoever writes a certificate or conditions may `sign` for the request's signer.
pub struct CertificateSigning {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateSigning {
    pub fn new(environment: &Environment<'_>) -> Self {
        Self { authorizer: environment.authorizer.clone() }
    }
}

impl Plugin for CertificateSigning {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let signs = attributes.operation == Operation::Update
            && attributes.is_sub(GROUP, "certificatesigningrequests", "status");
        let Some(request) = object.filter(|_| signs) else { return Ok(()) };
        let Some(old) = attributes.old_value() else { return Ok(()) };
        let same = |key: &str| {
            let filled = |value: &Value| match value {
                Value::Array(list) if list.is_empty() => Value::Null,
                other => other.clone(),
            };
            filled(&request["status"][key]) == filled(&old["status"][key])
        };
        if same("certificate") && same("conditions") {
            return Ok(());
        }
        let signer = old.str_at(&["spec", "signerName"]);
        if may(&*self.authorizer, attributes.user, "sign", signer) {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {}", go_quote(signer));
        Err(forbidden(attributes, why))
    }
}

/// `ClusterTrustBundleAttest`: whoever publishes a signer's roots may `attest` for it.
pub struct ClusterTrustBundleAttest {
    authorizer: Arc<dyn Authorizer>,
}

impl ClusterTrustBundleAttest {
    pub fn new(environment: &Environment<'_>) -> Self {
        Self { authorizer: environment.authorizer.clone() }
    }
}

impl Plugin for ClusterTrustBundleAttest {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let writes = crate::is_write(attributes) && attributes.is(GROUP, "clustertrustbundles");
        let Some(bundle) = object.filter(|_| writes) else { return Ok(()) };
        let signer = bundle.str_at(&["spec", "signerName"]);
        let collected = attributes.old_value().is_some_and(|old| only_collected(bundle, &old));
        if signer.is_empty() || collected || may(&*self.authorizer, attributes.user, "attest", signer) {
            return Ok(());
        }
        let why = format!("user not permitted to attest for signerName {}", go_quote(signer));
        Err(forbidden(attributes, why))
    }
}

/// Whether nothing but what the garbage collector writes is different.
fn only_collected(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        for key in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            object.remove_at(&["metadata", key]);
        }
        object
    };
    rest(new) == rest(old)
}

/// Whether a user has `verb` on a signer, or on all of its domain.
fn may(authorizer: &dyn Authorizer, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_owned(), format!("{domain}/*")].iter().any(|name| {
        let attributes = auth::Attributes {
            api_group: GROUP,
            api_version: "*",
            name,
            ..auth::Attributes::resource(user, verb, "signers")
        };
        authorizer.authorize(&attributes).is_allowed()
    })
}

/// `CertificateSubjectRestriction`: the signer of API clients makes no masters.
pub struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let creates =
            attributes.operation == Operation::Create && attributes.is(GROUP, "certificatesigningrequests");
        let Some(request) = object.filter(|_| creates) else { return Ok(()) };
        if request.str_at(&["spec", "signerName"]) != CLIENT_SIGNER {
            return Ok(());
        }
        let parsed =
            parse(request).map_err(|why| forbidden(attributes, format!("failed to parse CSR: {why}")))?;
        if parsed.groups.iter().any(|group| group == auth::user::MASTERS) {
            let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
            return Err(forbidden(attributes, why));
        }
        Ok(())
    }
}

/// What a CertificateSigningRequest's `spec.request` asks for.
pub(crate) fn parse(request: &Value) -> Result<SigningRequest, String> {
    use base64::Engine as _;
    let encoded = request.str_at(&["spec", "request"]);
    let pem = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    SigningRequest::from_pem(&pem).map_err(|error| error.to_string())
}
