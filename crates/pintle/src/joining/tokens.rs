//! `pintle token`: bootstrap tokens of a running cluster, as kubeadm's command of that name.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use api::gvr::{CONFIG_MAPS, SECRETS};
use apimachinery::{Object, Value, json, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Api, DeleteOptions, ListOptions, WriteOptions};
use jiff::{SignedDuration, Timestamp};

use super::{Token, invitation};
use crate::cli::{TokenCommand, TokenCreateArguments};
use crate::kubeconfig::connect;

const NAMESPACE: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

const USAGES: [(&str, &str); 2] =
    [("authentication", "usage-bootstrap-authentication"), ("signing", "usage-bootstrap-signing")];

pub fn run(command: TokenCommand) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        match command {
            TokenCommand::Create(arguments) => {
                let api = connect(&arguments.cluster)?;
                print!("{}", create(&*api, arguments).await?);
            }
            TokenCommand::List { cluster } => {
                let api = connect(&cluster)?;
                let options =
                    ListOptions { field_selector: format!("type={SECRET_TYPE}"), ..ListOptions::default() };
                let secrets = api.list(&SECRETS, NAMESPACE, &options).await.context("reading the tokens")?;
                let rows: Vec<Row> = secrets.items.iter().filter_map(|secret| Row::of(secret)).collect();
                print!("{}", table(&rows, rt::now()));
            }
            TokenCommand::Delete { cluster, tokens } => {
                let api = connect(&cluster)?;
                for token in tokens {
                    println!("{}", delete(&*api, &token).await?);
                }
            }
        }
        Ok(())
    })
}

/// Makes the token and returns what a person is told: the command by which a machine joins.
async fn create(api: &dyn Api, arguments: TokenCreateArguments) -> anyhow::Result<String> {
    let server = match &arguments.server {
        Some(server) => server.clone(),
        None => server_for_others(api).await?,
    };
    let authority = api
        .get(&CONFIG_MAPS, NAMESPACE, "extension-apiserver-authentication")
        .await
        .context("reading the cluster's authority")?
        .to_value();
    let hashes = pki::public_key_hashes(authority["data"].str_at(&["client-ca-file"]))
        .context("reading the cluster's authority")?;
    let token = match arguments.token.clone() {
        Some(token) => token,
        None => Token::random()?,
    };
    let secret = secret(&token, &arguments, rt::now())?;
    match api.create(&SECRETS, NAMESPACE, secret, &WriteOptions::default()).await {
        Err(status) if status.is_already_exists() => {
            bail!(
                "a token with the id {} is there already: `pintle token delete {}` takes it away",
                token.id,
                token.id
            )
        }
        made => made.context("making the token")?,
    };
    let mut command = format!("pintle node --server {server} --token {token}");
    for hash in hashes {
        let _ = write!(command, " --discovery-token-ca-cert-hash {hash}");
    }
    Ok(command + "\n")
}

/// Where other machines reach the API, as the cluster says of itself.
async fn server_for_others(api: &dyn Api) -> anyhow::Result<String> {
    let server = invitation::server(api).await.context("reading where the cluster says that it is")?;
    let host = server.strip_prefix("https://").unwrap_or(&server);
    let leads_nowhere = |at: SocketAddr| at.ip().is_loopback() || at.ip().is_unspecified();
    if server.is_empty() || host.parse().is_ok_and(leads_nowhere) {
        bail!(
            "the API says that it is at {server:?}, where no other machine reaches it: start the cluster with --listen \
             0.0.0.0:6443 and, if need be, --advertise-address, or say with --server how others reach it"
        );
    }
    Ok(server)
}

fn secret(token: &Token, arguments: &TokenCreateArguments, now: Timestamp) -> anyhow::Result<Value> {
    let mut data = json!({"token-id": token.id.as_str(), "token-secret": token.secret.as_str()});
    let mut set = |key: &str, value: String| {
        if !value.is_empty() {
            data.set_at(&[key], value);
        }
    };
    set("description", arguments.description.clone());
    if !arguments.ttl.is_zero() {
        let end = SignedDuration::try_from(arguments.ttl)
            .ok()
            .and_then(|ttl| now.checked_add(ttl).ok())
            .with_context(|| format!("--ttl: {} s is longer than time goes", arguments.ttl.as_secs()))?;
        set("expiration", time::format_seconds(end));
    }
    for (usage, key) in USAGES {
        if arguments.usages.iter().any(|own| own == usage) {
            set(key, "true".to_owned());
        }
    }
    set("auth-extra-groups", arguments.groups.join(","));
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
        "metadata": {"name": format!("{NAME_PREFIX}{}", token.id), "namespace": NAMESPACE},
        "stringData": data,
    }))
}

async fn delete(api: &dyn Api, token: &str) -> anyhow::Result<String> {
    let id = match token.parse::<Token>() {
        Ok(token) => token.id,
        Err(_) if Token::is_id(token) => token.to_owned(),
        Err(_) => bail!("{token:?} is neither a token, as abcdef.0123456789abcdef, nor the id of one"),
    };
    match api.delete(&SECRETS, NAMESPACE, &format!("{NAME_PREFIX}{id}"), &DeleteOptions::default()).await {
        Err(status) if status.is_not_found() => bail!("there is no token with the id {id}"),
        deleted => deleted.with_context(|| format!("deleting the token {id}"))?,
    }
    Ok(format!("bootstrap token {id} deleted"))
}

/// A token in the list.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    token: String,
    expires: Option<Timestamp>,
    usages: String,
    description: String,
    groups: String,
}

impl Row {
    fn of(secret: &Object) -> Option<Self> {
        let tree = secret.to_value();
        let data = |key: &str| {
            let bytes = STANDARD.decode(tree["data"].str_at(&[key])).unwrap_or_default();
            String::from_utf8(bytes).unwrap_or_default()
        };
        let usages: Vec<&str> =
            USAGES.iter().filter(|(_, key)| data(key) == "true").map(|(usage, _)| *usage).collect();
        (tree.str_at(&["type"]) == SECRET_TYPE).then(|| Self {
            token: format!("{}.{}", data("token-id"), data("token-secret")),
            expires: time::parse(&data("expiration")),
            usages: usages.join(","),
            description: data("description"),
            groups: data("auth-extra-groups"),
        })
    }

    fn cells(&self, now: Timestamp) -> [String; 6] {
        let (ttl, expires) = match self.expires {
            None => ("<forever>".to_owned(), "<never>".to_owned()),
            Some(end) if end <= now => ("<invalid>".to_owned(), time::format_seconds(end)),
            Some(end) => {
                let left = end.duration_since(now).as_secs();
                (api::columns::human_duration(left), time::format_seconds(end))
            }
        };
        let or_none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
        [
            self.token.clone(),
            ttl,
            expires,
            or_none(&self.usages),
            or_none(&self.description),
            or_none(&self.groups),
        ]
    }
}

fn table(rows: &[Row], now: Timestamp) -> String {
    let head = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned);
    let lines: Vec<[String; 6]> =
        std::iter::once(head).chain(rows.iter().map(|row| row.cells(now))).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("   ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use client::fake::FakeApi;
    use expect_test::expect;

    use super::*;
    use crate::cli::{Cli, Command};

    fn arguments(text: &[&str]) -> TokenCreateArguments {
        let all = ["pintle", "token", "create"].iter().chain(text);
        match Cli::try_parse_from(all).map(|cli| cli.command) {
            Ok(Command::Token(TokenCommand::Create(arguments))) => arguments,
            Ok(_) => panic!("another command"),
            Err(error) => panic!("{error}"),
        }
    }

    fn now() -> Timestamp {
        "2027-01-15T08:00:00Z".parse().expect("a time")
    }

    #[test]
    fn a_token_is_a_secret_of_its_own_type() {
        let token: Token = "abcdef.0123456789abcdef".parse().expect("a token");
        let made =
            secret(&token, &arguments(&["--ttl", "2h", "--description", "rack 7"]), now()).expect("a Secret");
        assert_eq!(
            made["stringData"],
            json!({
                "token-id": "abcdef", "token-secret": "0123456789abcdef", "description": "rack 7",
                "expiration": "2027-01-15T10:00:00Z", "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": "system:bootstrappers:pintle:default-node-token",
            })
        );
        let lasting =
            secret(&token, &arguments(&["--ttl", "0", "--usages", "signing"]), now()).expect("a Secret");
        assert!(lasting["stringData"].get("expiration").is_none());
        assert!(lasting["stringData"].get("usage-bootstrap-authentication").is_none());
        assert!(secret(&token, &arguments(&["--ttl", "2000000h"]), now()).is_ok());
    }

    #[tokio::test]
    async fn the_command_is_printed_if_others_reach_the_server() {
        let fake = FakeApi::new();
        let folder = tempfile::tempdir().expect("a folder");
        let path = camino::Utf8Path::from_path(folder.path()).expect("text");
        let authority = pki::Authority::load_or_create(path, rt::now().into()).expect("an authority");
        fake.seed(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "extension-apiserver-authentication", "namespace": NAMESPACE},
            "data": {"client-ca-file": authority.ca_pem()}}));
        let info = |server: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "data": {"kubeconfig": invitation::kubeconfig(server, authority.ca_pem())}})
        };
        fake.seed(info("https://127.0.0.1:6443"));
        let own = ["abcdef.0123456789abcdef"];
        let error = create(&*fake, arguments(&own)).await.expect_err("nobody would reach it").to_string();
        assert!(error.contains("--listen"), "{error}");
        assert!(fake.peek_all(&SECRETS).is_empty());
        fake.edit(&CONFIG_MAPS, "kube-public", "cluster-info", |map| {
            map.set_at(&["data"], info("https://192.0.2.1:6443")["data"].clone());
        });
        let said = create(&*fake, arguments(&own)).await.expect("a command");
        let hash = &pki::public_key_hashes(authority.ca_pem()).expect("hashes")[0];
        assert_eq!(
            said,
            format!(
                "pintle node --server https://192.0.2.1:6443 --token abcdef.0123456789abcdef \
             --discovery-token-ca-cert-hash {hash}\n"
            )
        );
        let error = create(&*fake, arguments(&own)).await.expect_err("it is there").to_string();
        assert!(error.contains("pintle token delete abcdef"), "{error}");
        for wrong in ["ABC", "ghijkl"] {
            assert!(delete(&*fake, wrong).await.is_err(), "{wrong}");
        }
        assert_eq!(delete(&*fake, "abcdef").await.expect("deleted"), "bootstrap token abcdef deleted");
    }

    #[test]
    fn the_list_says_what_each_is_for() {
        let row = |token: &str, expires: Option<&str>, description: &str| Row {
            token: token.to_owned(),
            expires: expires.map(|text| text.parse().expect("a time")),
            usages: "authentication,signing".to_owned(),
            description: description.to_owned(),
            groups: String::new(),
        };
        let rows = [
            row("abcdef.0123456789abcdef", Some("2027-01-15T10:00:00Z"), "rack 7"),
            row("ghijkl.0123456789abcdef", None, ""),
            row("mnopqr.0123456789abcdef", Some("2027-01-15T07:00:00Z"), ""),
        ];
        expect![[r#"
            TOKEN                     TTL         EXPIRES                USAGES                   DESCRIPTION   EXTRA GROUPS
            abcdef.0123456789abcdef   120m        2027-01-15T10:00:00Z   authentication,signing   rack 7        <none>
            ghijkl.0123456789abcdef   <forever>   <never>                authentication,signing   <none>        <none>
            mnopqr.0123456789abcdef   <invalid>   2027-01-15T07:00:00Z   authentication,signing   <none>        <none>
        "#]]
        .assert_eq(&table(&rows, now()));
    }
}
