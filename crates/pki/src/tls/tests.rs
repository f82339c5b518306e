use std::sync::Arc;
use std::time::{Duration, SystemTime};

use camino::Utf8Path;
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;

use super::*;
use crate::{Authority, ServerNames, ServingCertificate};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// rustls looks at the machine's clock, so these tests do too.
fn now() -> SystemTime {
    rt::now().into()
}

struct World {
    _directory: tempfile::TempDir,
    authority: Authority,
    serving: Arc<ServingCertificate>,
}

impl World {
    fn new(names: ServerNames) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap();
        let authority = Authority::load_or_create(path, now()).unwrap();
        let serving = authority.serving_certificate(names, now()).unwrap();
        Self { _directory: directory, authority, serving }
    }

    /// Shakes hands; returns both ends.
    fn connect(
        &self,
        name: &str,
        client: Option<&IssuedCertificate>,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let verifier = self.authority.client_verifier().unwrap();
        let server = server_config(self.serving.clone(), &verifier).unwrap();
        let client = client_config(self.authority.ca_pem(), client).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        let mut wire = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            wire.clear();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok((client, server))
    }

    fn issue(&self, validity: Duration, now: SystemTime) -> IssuedCertificate {
        self.authority.issue_client("jane", &["dev", "ops"], validity, now).unwrap()
    }
}

#[test]
fn the_server_answers_to_its_names_and_to_no_others() {
    let world =
        World::new(ServerNames::in_cluster().with("Node-1.example").with("[fd00::1]").with("0.0.0.0"));
    for name in ["localhost", "127.0.0.1", "10.96.0.1", "kubernetes.default.svc", "node-1.example", "fd00::1"]
    {
        let (client, _) = world.connect(name, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    }
    for name in ["example.com", "0.0.0.0", "10.96.0.2"] {
        assert!(world.connect(name, None).is_err(), "{name}");
    }
}

#[test]
fn a_bad_host_name_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(directory.path()).unwrap();
    let authority = Authority::load_or_create(path, now()).unwrap();
    for host in ["under_score", "-a", "a..b", "a b", "ü"] {
        let names = ServerNames::in_cluster().with(host);
        assert!(authority.serving_certificate(names, now()).is_err(), "{host}");
    }
}

#[test]
fn a_clients_certificate_arrives_and_names_it() {
    let world = World::new(ServerNames::in_cluster());
    let verifier = world.authority.client_verifier().unwrap();
    let certificate = world.issue(HOUR, now());
    let (_, server) = world.connect("localhost", Some(&certificate)).unwrap();
    let identity = verifier.verify(server.peer_certificates().unwrap(), now()).unwrap();
    assert_eq!(
        (identity.user.as_str(), identity.groups.as_slice()),
        ("jane", &["dev".to_owned(), "ops".to_owned()][..])
    );
    assert_eq!(identity.uid, None);
    let (_, server) = world.connect("localhost", None).unwrap();
    assert!(server.peer_certificates().is_none());
}

#[test]
fn bad_client_certificates_pass_the_handshake_and_are_no_identity() {
    let world = World::new(ServerNames::in_cluster());
    let verifier = world.authority.client_verifier().unwrap();
    let expired = world.issue(HOUR, now() - 2 * HOUR);
    let future = world.issue(HOUR, now() + HOUR);
    let foreign = World::new(ServerNames::in_cluster()).issue(HOUR, now());
    for (case, certificate) in [("expired", expired), ("future", future), ("foreign", foreign)] {
        let (_, server) = world.connect("localhost", Some(&certificate)).unwrap();
        let chain = server.peer_certificates().unwrap();
        assert!(verifier.verify(chain, now()).is_err(), "{case}");
    }
    assert!(verifier.verify(&[], now()).is_err());
    assert!(verifier.verify(&[CertificateDer::from(vec![1, 2, 3])], now()).is_err());
}

#[test]
fn the_certificate_is_replaced_while_serving() {
    let world = World::new(ServerNames::in_cluster());
    let shown = || {
        let (client, _) = world.connect("localhost", None).unwrap();
        client.peer_certificates().unwrap()[0].clone()
    };
    let (first, renew_at) = (shown(), world.serving.renew_at());
    assert_eq!(shown(), first);
    let later = now() + HOUR;
    // Valid from five minutes before `later`, so it is for the future: only the shown certificate counts here.
    world.serving.renew(now()).unwrap();
    assert_ne!(shown(), first);
    world.serving.renew(later).unwrap();
    assert!(world.serving.renew_at() > renew_at);
}

#[test]
fn new_names_make_a_new_certificate_and_the_same_names_do_not() {
    let world = World::new(ServerNames::in_cluster());
    let names = ServerNames::in_cluster().with("node-1");
    assert!(world.connect("node-1", None).is_err());
    assert!(world.serving.set_names(names.clone(), now()).unwrap());
    assert!(world.connect("node-1", None).is_ok());
    assert!(!world.serving.set_names(names, now()).unwrap());
}
