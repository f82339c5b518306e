//! The certificate of the HTTPS listener, replaced while serving.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::Issuer;
use crate::{Error, IssuedCertificate, ServerNames};

const VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What the listener shows to clients.
///
/// Hand it to rustls as the certificate resolver; [`ServingCertificate::renew`] changes what new connections see and
/// leaves open ones alone. The caller sleeps until [`ServingCertificate::renew_at`] and calls `renew`.
pub struct ServingCertificate {
    issuer: Arc<Issuer>,
    state: RwLock<State>,
}

struct State {
    names: ServerNames,
    renew_at: SystemTime,
    shown: Arc<CertifiedKey>,
}

impl ServingCertificate {
    pub(crate) fn issue(issuer: Arc<Issuer>, names: ServerNames, now: SystemTime) -> Result<Self, Error> {
        let state = State::issue(&issuer, names, now)?;
        Ok(Self { issuer, state: RwLock::new(state) })
    }

    /// When it should be replaced: well before it expires.
    pub fn renew_at(&self) -> SystemTime {
        self.state.read().renew_at
    }

    /// Replaces the certificate by one that starts `now`.
    pub fn renew(&self, now: SystemTime) -> Result<(), Error> {
        let names = self.state.read().names.clone();
        self.replace(names, now)
    }

    /// Replaces the certificate if `names` differ from those it was made for. True if it was replaced.
    pub fn set_names(&self, names: ServerNames, now: SystemTime) -> Result<bool, Error> {
        if self.state.read().names == names {
            return Ok(false);
        }
        self.replace(names, now).map(|()| true)
    }

    fn replace(&self, names: ServerNames, now: SystemTime) -> Result<(), Error> {
        // Keys are made outside of the lock: handshakes do not wait for them.
        let state = State::issue(&self.issuer, names, now)?;
        *self.state.write() = state;
        Ok(())
    }
}

impl State {
    fn issue(issuer: &Issuer, names: ServerNames, now: SystemTime) -> Result<Self, Error> {
        let certificate = issuer.issue_server(&names, VALIDITY, now)?;
        Ok(Self { names, renew_at: certificate.renew_at(), shown: certified_key(&certificate)? })
    }
}

fn certified_key(certificate: &IssuedCertificate) -> Result<Arc<CertifiedKey>, Error> {
    let key = any_ecdsa_type(&certificate.key_der()).map_err(|error| Error::Tls(error.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.certificate_der().clone()], key)))
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state.read().shown))
    }
}

impl std::fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingCertificate").field("renew_at", &self.renew_at()).finish_non_exhaustive()
    }
}
