//! ECDSA P-256 key pairs.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

use crate::{Error, x509};

/// A private key with its public half.
pub(crate) struct KeyPair {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
}

impl KeyPair {
    pub fn generate() -> Result<Self, Error> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Crypto { operation: "generating a key" })?;
        Self::from_pkcs8(pkcs8.as_ref()).map_err(|_| Error::Crypto { operation: "reading a generated key" })
    }

    /// From a `PRIVATE KEY` section. The error is what is wrong with the text.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("it holds no PEM section PRIVATE KEY ({error})"))?;
        Self::from_pkcs8(der.secret_pkcs8_der())
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, String> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &SystemRandom::new())
            .map(|pair| Self { pkcs8: der.to_vec(), pair })
            .map_err(|error| format!("it is no ECDSA P-256 key in PKCS #8 form ({error})"))
    }

    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub fn to_pem(&self) -> String {
        x509::pem("PRIVATE KEY", &self.pkcs8)
    }

    /// The uncompressed point.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public key as it stands in certificates.
    pub fn public_key_info(&self) -> Vec<u8> {
        x509::public_key_info(self.public_key())
    }

    /// An ASN.1 signature over the SHA-256 of `message`.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| Error::Crypto { operation: "signing" })
    }
}

/// Random lower-case letters and digits, for secrets: about 5 bits each.
pub fn random_text(len: usize) -> Result<String, Error> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // The largest multiple of the alphabet's size: beyond it some letters would come more often.
    const LIMIT: u8 = 252;
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Crypto { operation: "drawing a secret" })?;
        let letters = bytes.iter().filter(|byte| **byte < LIMIT).map(|byte| ALPHABET[usize::from(byte % 36)]);
        text.extend(letters.take(len - text.len()).map(char::from));
    }
    Ok(text)
}
