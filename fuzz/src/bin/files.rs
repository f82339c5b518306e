//! Files that an administrator writes. The first letter of the input says which.
#![no_main]

use std::sync::LazyLock;

use api::Features;
use api::builtin::RuntimeConfig;
use auth::StaticTokens;
use auth::jwt::JwtAuthenticators;
use auth::jwt::configuration::AuthenticationConfiguration;
use camino::Utf8PathBuf;
use webhook::ClientConfig;

/// Where a kubeconfig lies: it is read from its file, because it may name others.
static KUBECONFIG: LazyLock<(tempfile::TempDir, Utf8PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = Utf8PathBuf::from_path_buf(folder.path().join("config")).expect("a UTF-8 path");
    (folder, path)
});

libfuzzer_sys::fuzz_target!(|input: &str| {
    let Some((which, text)) = input.split_at_checked(1) else { return };
    match which {
        "a" => drop(audit::Policy::parse(text)),
        "b" => drop(auth::authorization::parse(text)),
        "f" => drop(Features::parse(text)),
        "k" => {
            std::fs::write(&KUBECONFIG.1, text).expect("a file");
            drop(ClientConfig::from_kubeconfig(&KUBECONFIG.1));
        }
        "n" => {
            if let Ok(configuration) = AuthenticationConfiguration::parse(text) {
                drop(JwtAuthenticators::new(
                    &configuration,
                    vec!["https://kubernetes.default.svc".to_owned()],
                ));
            }
        }
        "r" => drop(RuntimeConfig::parse(text)),
        "t" => drop(StaticTokens::parse(text)),
        _ => {}
    }
});
