//! `/livez`, `/readyz`, `/healthz`: which roles are ready.

use parking_lot::RwLock;

/// Named checks, each marked ready once by its role; the server is ready when all are.
#[derive(Default)]
pub struct Readiness {
    checks: RwLock<Vec<(String, bool)>>,
    changed: tokio::sync::watch::Sender<()>,
}

impl Readiness {
    /// Registers a role that has to become ready.
    pub fn expect(&self, name: &str) {
        self.checks.write().push((name.to_owned(), false));
    }

    pub fn set_ready(&self, name: &str) {
        if let Some(check) = self.checks.write().iter_mut().find(|check| check.0 == name) {
            check.1 = true;
        }
        self.changed.send_replace(());
    }

    pub fn is_ready(&self) -> bool {
        self.checks.read().iter().all(|check| check.1)
    }

    /// Waits until every role is ready.
    pub async fn ready(&self) {
        let mut changes = self.changed.subscribe();
        while !self.is_ready() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Checks in order of registration, leaving out those named in `excluded`.
    pub(crate) fn report(&self, excluded: &[&str]) -> Vec<(String, bool)> {
        let mut checks = vec![("ping".to_owned(), true)];
        checks.extend(self.checks.read().iter().cloned());
        checks.retain(|(name, _)| !excluded.contains(&name.as_str()));
        checks
    }
}

/// The answer of a health endpoint, in upstream's words: status code and text.
pub(crate) fn answer(endpoint: &str, checks: &[(String, bool)], verbose: bool) -> (u16, String) {
    let healthy = checks.iter().all(|check| check.1);
    if healthy && !verbose {
        return (200, "ok".to_owned());
    }
    let mut text = String::new();
    for (name, ok) in checks {
        let line =
            if *ok { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: reason withheld\n") };
        text.push_str(&line);
    }
    if healthy {
        text.push_str(&format!("{endpoint} check passed\n"));
        (200, text)
    } else {
        text.push_str(&format!("{endpoint} check failed\n"));
        (500, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_is_when_every_role_is() {
        let readiness = Readiness::default();
        readiness.expect("scheduler");
        readiness.expect("controllers");
        readiness.set_ready("scheduler");
        assert!(!readiness.is_ready());
        assert_eq!(
            answer("readyz", &readiness.report(&[]), false),
            (
                500,
                "[+]ping ok\n[+]scheduler ok\n[-]controllers failed: reason withheld\nreadyz check failed\n"
                    .into()
            )
        );
        assert_eq!(answer("readyz", &readiness.report(&["controllers"]), false), (200, "ok".into()));
        readiness.set_ready("controllers");
        readiness.ready().await;
        assert_eq!(answer("readyz", &readiness.report(&[]), false), (200, "ok".into()));
    }
}
