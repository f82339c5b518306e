//! The audit log: what is recorded of a request, and where it goes.
//!
//! Owns: the policy that says how much is recorded ([`Policy`]), the events of one request ([`Record`]), the file and
//! the webhook that they are written to. Never touches: HTTP, or what a request means.
//!
//! A server without a policy has no [`Auditor`], and a request of level `None` has no [`Record`]: then nothing of this
//! runs.

mod event;
mod file;
mod hook;
mod policy;

use std::sync::Arc;

use auth::Attributes;
use parking_lot::Mutex;

pub use event::{Begin, Record, ResponseStatus, Stage};
pub use file::FileOptions;
pub use hook::HookOptions;
pub use policy::{Level, Policy, PolicyError};

use crate::event::Event;
use crate::file::File;
use crate::hook::Hook;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("opening the audit log {path}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("reading the configuration of the audit webhook")]
    Kubeconfig(#[from] webhook::KubeconfigError),
    #[error("preparing the client of the audit webhook")]
    Client(#[from] webhook::ConfigError),
}

/// What an administrator may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Without one nothing is recorded.
    pub policy: Option<Policy>,
    pub file: Option<FileOptions>,
    pub hook: Option<HookOptions>,
}

/// Decides how much is recorded of each request, and takes the events.
#[derive(Debug)]
pub struct Auditor {
    policy: Policy,
    file: Option<File>,
    hook: Option<Hook>,
    tasks: Mutex<Tasks>,
}

/// What writes events that requests do not wait for. It goes on as long as there are requests.
#[derive(Debug, Default)]
struct Tasks {
    end: rt::Shutdown,
    running: rt::Tasks,
}

impl Auditor {
    /// Opens what events are written to; `None` where nothing is recorded.
    pub fn open(options: Options) -> Result<Option<Arc<Self>>, OpenError> {
        let Options { policy, file, hook } = options;
        let Some(policy) = policy else { return Ok(None) };
        if file.is_none() && hook.is_none() {
            return Ok(None);
        }
        let mut tasks = Tasks::default();
        let file = file.map(|options| File::open(options, &mut tasks)).transpose()?;
        let hook = hook.map(|options| Hook::start(options, &mut tasks)).transpose()?;
        Ok(Some(Arc::new(Self { policy, file, hook, tasks: Mutex::new(tasks) })))
    }

    /// Writes what still waits. Call when the last request is answered; later events may be lost.
    pub async fn close(&self) {
        let running = {
            let mut tasks = self.tasks.lock();
            tasks.end.cancel();
            std::mem::take(&mut tasks.running)
        };
        running.ended().await;
    }

    /// Begins the record of a request; `None` if the policy says so.
    pub fn begin(self: &Arc<Self>, request: &Attributes<'_>, begin: Begin<'_>) -> Option<Box<Record>> {
        let audited = self.policy.evaluate(request);
        telemetry::metrics().audit.level(audited.level.name());
        (audited.level > Level::None).then(|| Box::new(Record::new(self.clone(), audited, request, begin)))
    }

    fn process(&self, event: &Event) {
        telemetry::metrics().audit.events.inc();
        let json = match serde_json::to_vec(event) {
            Ok(json) => json,
            Err(error) => {
                tracing::error!(%error, "An audit event could not be written as JSON");
                return;
            }
        };
        if let Some(file) = &self.file {
            file.write(event, &json);
        }
        if let Some(hook) = &self.hook {
            hook.send(event, json);
        }
    }
}
