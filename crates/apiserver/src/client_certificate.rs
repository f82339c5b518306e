//! By what this server proves who it is to those it calls.

use std::time::Duration;

use parking_lot::Mutex;
use webhook::ClientCertificate;

/// A certificate lives this long. It is renewed with the server's next start, and halfway through its life.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A new certificate of a user with a key of its own.
pub(crate) fn issue(
    authority: &pki::Authority,
    user: &str,
    groups: &[&str],
) -> Result<ClientCertificate, pki::Error> {
    let issued = authority.issue_client(user, groups, VALIDITY, rt::now().into())?;
    Ok(ClientCertificate {
        certificate_pem: issued.certificate_pem.into_bytes(),
        key_pem: issued.key_pem.into_bytes(),
    })
}

/// Something that has an issued certificate in it, and is made anew when half of the certificate's life is over.
pub(crate) struct Renewed<T>(Mutex<Option<(rt::Instant, T)>>);

impl<T> Default for Renewed<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Renewed<T> {
    pub(crate) fn get_or_make<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut slot = self.0.lock();
        if let Some((made, own)) = &*slot
            && made.elapsed() < VALIDITY / 2
        {
            return Ok(own.clone());
        }
        let new = make()?;
        *slot = Some((rt::instant(), new.clone()));
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_certificate_is_kept_and_a_failure_is_not() {
        let renewed = Renewed::default();
        assert_eq!(renewed.get_or_make(|| Err("no")), Err("no"));
        assert_eq!(renewed.get_or_make(|| Ok::<_, ()>(1)), Ok(1));
        assert_eq!(renewed.get_or_make(|| Ok::<_, ()>(2)), Ok(1));
    }
}
