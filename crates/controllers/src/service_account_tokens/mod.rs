//! The tokens controller: a Secret of the type `kubernetes.io/service-account-token` gets the token of the service
//! account that its annotation names, with the namespace and the authority to verify the server by; it goes with the
//! account.

use std::sync::Arc;

use api::gvr::{SECRETS, SERVICE_ACCOUNTS};
use apimachinery::{Object, Value};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;

use crate::{Options, TokenMaker};

const NAME: &str = "serviceaccount-token-controller";
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

pub fn descriptor() -> ControllerDescriptor<Options> {
    // As upstream it acts as the controller manager itself, which no account of it does yet when it has to start.
    ControllerDescriptor { name: NAME, service_account: "", event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let Some(tokens) = context.options.tokens.clone() else {
        tracing::info!("No key was given to sign service-account tokens with");
        return boxed(async {});
    };
    let (secrets, accounts) = (context.informers.of(&SECRETS), context.informers.of(&SERVICE_ACCOUNTS));
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        secrets: secrets.clone(),
        accounts: accounts.clone(),
        root_ca: context.options.root_ca.clone(),
        tokens,
    });
    let all = secrets.clone();
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .watches(&secrets, |delta, keys| match delta {
            Delta::Upsert { new, .. } if is_token(&new.to_value()) => keys.push(ObjectKey::from(&**new)),
            _ => {}
        })
        .watches(&accounts, move |delta, keys| {
            if let Delta::Delete { old } = delta {
                let of_account = all.list_namespace(old.namespace()).into_iter().filter(|secret| {
                    let secret = secret.to_value();
                    is_token(&secret) && annotation(&secret, ACCOUNT_NAME) == old.name()
                });
                keys.extend(of_account.map(|secret| ObjectKey::from(&*secret)));
            }
        });
    boxed(controller.run())
}

fn is_token(secret: &Value) -> bool {
    secret.str_at(&["type"]) == TYPE
}

fn annotation<'a>(secret: &'a Value, key: &str) -> &'a str {
    secret.str_at(&["metadata", "annotations", key])
}

struct Controller {
    api: Arc<dyn Api>,
    secrets: Arc<Informer>,
    accounts: Arc<Informer>,
    root_ca: String,
    tokens: Arc<dyn TokenMaker>,
}

#[async_trait]
impl Reconcile for Controller {
    /// The Secret.
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.secrets.get(&key.namespace, &key.name) else {
            return Ok(Action::await_change());
        };
        let secret = object.to_value();
        let account_name = annotation(&secret, ACCOUNT_NAME);
        if !is_token(&secret) || account_name.is_empty() || object.is_deleting() {
            return Ok(Action::await_change());
        }
        let Some(account) = self.account(&key.namespace, account_name).await? else {
            return self.delete(&object).await;
        };
        let claimed = annotation(&secret, ACCOUNT_UID);
        if !claimed.is_empty() && claimed != account.uid() {
            return self.delete(&object).await;
        }
        let mut wanted = secret.clone();
        self.complete(&mut wanted, &account, &key.name)?;
        if wanted == secret {
            return Ok(Action::await_change());
        }
        let options = WriteOptions::default();
        match self.api.update(&SECRETS, &key.namespace, &key.name, None, wanted, &options).await {
            Err(status) if !status.is_conflict() && !status.is_not_found() => Err(status.into()),
            // Somebody else wrote it, and that brings the key again.
            _ => Ok(Action::await_change()),
        }
    }
}

impl Controller {
    /// The account, asked for where it is not known yet: a Secret must not go because of that.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>> {
        if let Some(known) = self.accounts.get(namespace, name) {
            return Ok(Some(known));
        }
        match self.api.get(&SERVICE_ACCOUNTS, namespace, name).await {
            Ok(account) => Ok(Some(account)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    async fn delete(&self, secret: &Object) -> Result {
        let options = DeleteOptions::of(secret);
        match self.api.delete(&SECRETS, secret.namespace(), secret.name(), &options).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status.into()),
            _ => Ok(Action::await_change()),
        }
    }

    /// Puts in what is missing. A token that is there stays.
    fn complete(&self, secret: &mut Value, account: &Object, name: &str) -> Result<()> {
        let namespace = account.namespace();
        let root_ca = STANDARD.encode(&self.root_ca);
        if !self.root_ca.is_empty() && secret.str_at(&["data", "ca.crt"]) != root_ca {
            secret.set_at(&["data", "ca.crt"], root_ca);
        }
        if secret.str_at(&["data", "namespace"]).is_empty() {
            secret.set_at(&["data", "namespace"], STANDARD.encode(namespace));
        }
        if secret.str_at(&["data", "token"]).is_empty() {
            let token = self.tokens.legacy_token(namespace, account.name(), account.uid(), name);
            secret.set_at(&["data", "token"], STANDARD.encode(token.map_err(Error::failed)?));
        }
        secret.set_at(&["metadata", "annotations", ACCOUNT_UID], account.uid());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::testing::World;

    struct Spelled;

    impl TokenMaker for Spelled {
        fn legacy_token(
            &self,
            namespace: &str,
            account: &str,
            uid: &str,
            secret: &str,
        ) -> std::result::Result<String, String> {
            Ok(format!("{namespace}/{account}/{uid}/{secret}"))
        }
    }

    fn secret(name: &str, kind: &str, account: &str) -> Value {
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name, "namespace": "ns"},
        });
        secret.set_at(&["metadata", "annotations", ACCOUNT_NAME], account);
        secret
    }

    #[tokio::test]
    async fn a_secret_gets_its_accounts_token_and_goes_with_it() {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa", "namespace": "ns"},
        });
        let seeds = vec![
            account,
            secret("kept", TYPE, "sa"),
            secret("orphan", TYPE, "absent"),
            secret("other", "Opaque", "sa"),
        ];
        let options = Options { root_ca: "CA".into(), tokens: Some(Arc::new(Spelled)), ..Options::default() };
        let world = World::start_with(vec![descriptor()], seeds, options);
        let token = |fake: &client::fake::FakeApi, name: &str| {
            let secret = fake.peek(&SECRETS, "ns", name).map(|own| own.to_value()).unwrap_or_default();
            String::from_utf8(STANDARD.decode(secret.str_at(&["data", "token"])).unwrap()).unwrap()
        };
        world.wait_for("a token", |fake| !token(fake, "kept").is_empty()).await;
        let uid = world.fake.peek(&SERVICE_ACCOUNTS, "ns", "sa").unwrap().uid().to_owned();
        assert_eq!(token(&world.fake, "kept"), format!("ns/sa/{uid}/kept"));
        let kept = world.tree(&SECRETS, "ns", "kept");
        assert_eq!(annotation(&kept, ACCOUNT_UID), uid);
        assert_eq!(kept.str_at(&["data", "ca.crt"]), STANDARD.encode("CA"));
        world.wait_for("no orphan", |fake| fake.peek(&SECRETS, "ns", "orphan").is_none()).await;
        assert_eq!(token(&world.fake, "other"), "", "of another type");
        world.fake.drop_object(&SERVICE_ACCOUNTS, "ns", "sa");
        world.wait_for("gone with its account", |fake| fake.peek(&SECRETS, "ns", "kept").is_none()).await;
        assert!(world.fake.peek(&SECRETS, "ns", "other").is_some());
    }
}
