//! What `pintle image` is told.

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};

use super::default_data_dir;

const AFTER_IMPORT: &str = "\
Examples:
  docker save app:1 | pintle image import -
  pintle image import layout.tar --name registry.example/app:1";

const AFTER_EXPORT: &str = "\
Examples:
  pintle image export app:1 -o app.tar
  pintle image export app:1 | docker load";

const AFTER_BUILD: &str = "\
The same files and flags give the same image, byte for byte.

Examples:
  pintle image build app:1 --binary target/x86_64-unknown-linux-musl/release/app
  pintle image build site:1 --from-dir rootfs --entrypoint /bin/httpd --cmd -f --expose 80
  pintle image build pintle:self --self";

#[derive(Subcommand)]
pub enum ImageCommand {
    /// Fetch images from their registries
    Pull(PullArguments),
    /// Take over the images of an archive: an OCI layout, or what `docker save` writes
    #[command(after_help = AFTER_IMPORT)]
    Import(ImportArguments),
    /// Write images into an archive that is an OCI layout and that `docker load` reads
    #[command(after_help = AFTER_EXPORT)]
    Export(ExportArguments),
    /// List images
    #[command(alias = "list")]
    Ls(ListArguments),
    /// Remove images, by name or ID; what a container is made from stays
    #[command(alias = "remove")]
    Rm(RemoveArguments),
    /// Make an image from a folder or a program
    #[command(after_help = AFTER_BUILD)]
    Build(Box<BuildArguments>),
}

/// Which images.
#[derive(Args)]
pub struct StoreArguments {
    /// The cluster's data directory; it may be running
    #[arg(long, value_name = "DIR", default_value_t = default_data_dir())]
    pub data_dir: Utf8PathBuf,
}

#[derive(Args)]
pub struct PullArguments {
    #[command(flatten)]
    pub store: StoreArguments,

    /// What to fetch, such as nginx:1.27 or registry.example/app@sha256:…
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,

    /// As whom the registry is asked
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    pub username: Option<String>,

    /// Read the password from stdin
    #[arg(long, requires = "username")]
    pub password_stdin: bool,

    /// Mirrors and certificates, as containerd has them: DIR/<registry>/hosts.toml [default: `registries` in the data
    /// directory]
    #[arg(long, value_name = "DIR")]
    pub registries: Option<Utf8PathBuf>,
}

#[derive(Args)]
pub struct ImportArguments {
    #[command(flatten)]
    pub store: StoreArguments,

    /// The archive, plain or compressed by gzip or zstd; - for stdin
    #[arg(value_name = "FILE|-")]
    pub archive: Utf8PathBuf,

    /// What to call an image that has no name in the archive, or the only one in it
    #[arg(long, value_name = "IMAGE", value_parser = parse_reference)]
    pub name: Option<::image::Reference>,
}

#[derive(Args)]
pub struct ExportArguments {
    #[command(flatten)]
    pub store: StoreArguments,

    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Where to write the archive; - for stdout
    #[arg(long, short, value_name = "FILE|-", default_value = "-")]
    pub output: Utf8PathBuf,
}

#[derive(Args)]
pub struct ListArguments {
    #[command(flatten)]
    pub store: StoreArguments,

    /// Only IDs
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Args)]
pub struct RemoveArguments {
    #[command(flatten)]
    pub store: StoreArguments,

    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

#[derive(Args)]
pub struct BuildArguments {
    #[command(flatten)]
    pub store: StoreArguments,

    /// What to call it
    #[arg(value_name = "IMAGE", value_parser = parse_reference)]
    pub name: ::image::Reference,

    #[command(flatten)]
    pub source: SourceArguments,

    /// What runs, one word each time; arguments of a container come after it
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub entrypoint: Vec<String>,

    /// Arguments unless a container has others, one word each time
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub cmd: Vec<String>,

    /// Environment; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub env: Vec<(String, String)>,

    /// As whom it runs: a name or number, or USER:GROUP
    #[arg(long, default_value = "")]
    pub user: String,

    /// Where it runs
    #[arg(long, value_name = "PATH", default_value = "")]
    pub workdir: String,

    /// Ports that it listens on; repeatable
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = parse_port)]
    pub expose: Vec<String>,

    /// Labels; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub label: Vec<(String, String)>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct SourceArguments {
    /// Everything in a folder, as the root of the image
    #[arg(long, value_name = "DIR")]
    pub from_dir: Option<Utf8PathBuf>,

    /// One program that is linked statically
    #[arg(long, value_name = "FILE")]
    pub binary: Option<Utf8PathBuf>,

    /// This program, with the libraries that it needs
    #[arg(long = "self")]
    pub own: bool,
}

fn parse_reference(text: &str) -> Result<::image::Reference, String> {
    text.parse().map_err(|error: ::image::Error| error.to_string())
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is no NAME=VALUE".to_owned()),
    }
}

fn parse_port(text: &str) -> Result<String, String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match port.parse::<u16>() {
        Ok(1..) if matches!(protocol, "tcp" | "udp" | "sctp") => Ok(format!("{port}/{protocol}")),
        _ => Err("it is no port such as 80 or 53/udp".to_owned()),
    }
}
