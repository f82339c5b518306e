//! The file that tells kubectl where the cluster is and who one is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::Utf8Path;

use crate::files::write_private;
use crate::{Error, IssuedCertificate};

/// The name of the context, and of the cluster in it.
pub const CONTEXT: &str = "pintle";

/// How the user of a kubeconfig proves who it is.
pub enum Credential<'a> {
    Certificate(&'a IssuedCertificate),
    Token(&'a str),
    /// A file, relative to the kubeconfig's folder, that holds certificate and key.
    File(&'a str),
}

/// A kubeconfig with one cluster, one user and one context; everything is embedded, nothing refers to other files.
pub struct Kubeconfig<'a> {
    /// `https://host:port`
    pub server: &'a str,
    pub ca_pem: &'a str,
    /// The name of the user's entry. The server does not see it.
    pub user: &'a str,
    pub credential: Credential<'a>,
}

impl Kubeconfig<'_> {
    /// The file's text, in the order that `kubectl config view` prints.
    pub fn render(&self) -> String {
        let (server, user) = (scalar(self.server), scalar(self.user));
        let ca = STANDARD.encode(self.ca_pem);
        let credential = match &self.credential {
            Credential::Certificate(issued) => format!(
                "client-certificate-data: {}\n    client-key-data: {}",
                STANDARD.encode(&issued.certificate_pem),
                STANDARD.encode(&issued.key_pem)
            ),
            Credential::Token(token) => format!("token: {}", scalar(token)),
            Credential::File(path) => {
                format!("client-certificate: {}\n    client-key: {}", scalar(path), scalar(path))
            }
        };
        format!(
            "apiVersion: v1
kind: Config
clusters:
- name: {CONTEXT}
  cluster:
    certificate-authority-data: {ca}
    server: {server}
contexts:
- name: {CONTEXT}
  context:
    cluster: {CONTEXT}
    user: {user}
current-context: {CONTEXT}
users:
- name: {user}
  user:
    {credential}
"
        )
    }

    /// Writes it for the owner alone, whole or not at all.
    pub fn write(&self, path: &Utf8Path) -> Result<(), Error> {
        write_private(path, self.render().as_bytes())
    }
}

/// A YAML string: quoted, since JSON strings are YAML too and no name can break out of them.
fn scalar(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_name_can_not_break_the_file() {
        let kubeconfig = Kubeconfig {
            server: "https://127.0.0.1:6443",
            ca_pem: "CA",
            user: "a\nb: \"c\"",
            credential: Credential::Token("secret"),
        };
        expect![[r#"
            apiVersion: v1
            kind: Config
            clusters:
            - name: pintle
              cluster:
                certificate-authority-data: Q0E=
                server: "https://127.0.0.1:6443"
            contexts:
            - name: pintle
              context:
                cluster: pintle
                user: "a\nb: \"c\""
            current-context: pintle
            users:
            - name: "a\nb: \"c\""
              user:
                token: "secret"
        "#]]
        .assert_eq(&kubeconfig.render());
    }
}
