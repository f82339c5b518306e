//! Certificates signed by the cluster's authority.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::key::KeyPair;
use crate::x509::{self, AltName, CLIENT_AUTH, DIGITAL_SIGNATURE, Extensions, Name, SERVER_AUTH};
use crate::{Error, SigningRequest, Usages};

/// Certificates are valid from a little before now, since the clocks of client and server differ.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// Signed requests that are good for less than this end when they were told to.
const SHORT_LIVED: Duration = Duration::from_secs(8 * 60 * 60);

/// The first address of the default Service range 10.96.0.0/12: the Service `kubernetes`.
const FIRST_SERVICE_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

/// The names inside a cluster under which the API server is called.
const IN_CLUSTER_NAMES: [&str; 5] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
];

/// A certificate, its private key, and until when it is valid.
#[derive(Clone)]
pub struct IssuedCertificate {
    pub certificate_pem: String,
    /// PKCS #8.
    pub key_pem: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl IssuedCertificate {
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }

    /// When to replace it: two thirds into its life, so that a third is left to retry in.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life * 2 / 3
    }
}

impl std::fmt::Debug for IssuedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("IssuedCertificate").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The names and addresses that a serving certificate is valid for.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct ServerNames {
    dns: BTreeSet<String>,
    ips: BTreeSet<IpAddr>,
}

impl ServerNames {
    /// What an API server of this cluster always answers to, on loopback and inside the cluster.
    pub fn in_cluster() -> Self {
        Self {
            dns: IN_CLUSTER_NAMES.map(str::to_owned).into(),
            ips: [FIRST_SERVICE_IP, Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()].into(),
        }
    }

    /// Adds an address, or a host name where `host` is none. Brackets around an IPv6 address are taken off.
    pub fn with(mut self, host: &str) -> Self {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            // 0.0.0.0 and :: are where a listener binds, not where a client goes.
            Ok(ip) if ip.is_unspecified() => {}
            Ok(ip) => _ = self.ips.insert(ip),
            Err(_) if bare.is_empty() => {}
            Err(_) => _ = self.dns.insert(bare.to_ascii_lowercase()),
        }
        self
    }

    pub(crate) fn subject_alt_names(&self) -> Result<Vec<AltName<'_>>, Error> {
        if let Some(host) = self.dns.iter().find(|host| !is_dns_name(host)) {
            let problem = "a host name has letters, digits, '-' and '.' only".to_owned();
            return Err(Error::BadName { value: host.clone(), problem });
        }
        let dns = self.dns.iter().map(|host| AltName::Dns(host));
        Ok(dns.chain(self.ips.iter().copied().map(AltName::Ip)).collect())
    }
}

fn is_dns_name(host: &str) -> bool {
    let label_is_good = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    host.len() <= 253 && host.split('.').all(label_is_good)
}

/// Who signs: the authority's name and key, and until when it may.
pub(crate) struct Issuer {
    pub name: Name,
    pub key: KeyPair,
    pub not_after: SystemTime,
}

impl Issuer {
    /// A certificate for the HTTPS listener.
    pub fn issue_server(
        &self,
        names: &ServerNames,
        validity: Duration,
        now: SystemTime,
    ) -> Result<IssuedCertificate, Error> {
        let subject = Name::new("kube-apiserver", &[]);
        self.issue(&subject, SERVER_AUTH, names.subject_alt_names()?, validity, now)
    }

    /// A certificate that says who a client is: the user as CN, each group as an O.
    pub fn issue_client(
        &self,
        user: &str,
        groups: &[&str],
        validity: Duration,
        now: SystemTime,
    ) -> Result<IssuedCertificate, Error> {
        reject_empty(user, "a user")?;
        groups.iter().try_for_each(|group| reject_empty(group, "a group"))?;
        self.issue(&Name::new(user, groups), CLIENT_AUTH, Vec::new(), validity, now)
    }

    /// The certificate, in PEM, that a signing request asks for.
    pub fn sign_request(
        &self,
        request: &SigningRequest,
        usages: &Usages,
        validity: Duration,
        now: SystemTime,
    ) -> Result<String, Error> {
        // As upstream: of a day's work the five minutes of backdating are not taken off as well.
        let end = if validity < SHORT_LIVED { now + validity } else { now + validity - CLOCK_SKEW };
        let template = x509::Template {
            issuer: &self.name,
            issuer_key: &self.key,
            subject: request.subject(),
            public_key_info: request.public_key_info(),
            public_key: request.public_key(),
            not_before: now - CLOCK_SKEW,
            not_after: end.min(self.not_after),
            extensions: Extensions::Leaf {
                key_usage: usages.key_usage,
                purposes: usages.purposes.clone(),
                alt_names: request.alt_names(),
            },
        };
        Ok(x509::pem("CERTIFICATE", &template.sign()?))
    }

    /// A new key and a certificate for it, valid for `validity` but not longer than its issuer.
    fn issue(
        &self,
        subject: &Name,
        purpose: &'static [u64],
        alt_names: Vec<AltName<'_>>,
        validity: Duration,
        now: SystemTime,
    ) -> Result<IssuedCertificate, Error> {
        let key = KeyPair::generate()?;
        let (not_before, not_after) = (now - CLOCK_SKEW, (now + validity).min(self.not_after));
        let template = x509::Template {
            issuer: &self.name,
            issuer_key: &self.key,
            subject,
            public_key_info: &key.public_key_info(),
            public_key: key.public_key(),
            not_before,
            not_after,
            extensions: Extensions::Leaf { key_usage: DIGITAL_SIGNATURE, purposes: vec![purpose], alt_names },
        };
        let certificate = template.sign()?;
        Ok(IssuedCertificate {
            certificate_pem: x509::pem("CERTIFICATE", &certificate),
            key_pem: key.to_pem(),
            not_before,
            not_after,
            key: key.pkcs8().to_vec(),
            certificate,
        })
    }
}

/// A self-signed authority.
pub(crate) fn new_authority(
    name: &str,
    validity: Duration,
    now: SystemTime,
) -> Result<(Issuer, CertificateDer<'static>), Error> {
    let (name, key) = (Name::new(name, &[]), KeyPair::generate()?);
    let not_after = now + validity;
    let template = x509::Template {
        issuer: &name,
        issuer_key: &key,
        subject: &name,
        public_key_info: &key.public_key_info(),
        public_key: key.public_key(),
        not_before: now - CLOCK_SKEW,
        not_after,
        extensions: Extensions::Authority,
    };
    let certificate = template.sign()?;
    Ok((Issuer { name, key, not_after }, certificate))
}

fn reject_empty(value: &str, what: &str) -> Result<(), Error> {
    if value.is_empty() {
        return Err(Error::BadName { value: String::new(), problem: format!("{what} has a name") });
    }
    Ok(())
}
