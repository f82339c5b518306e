//! `pintle image`: the images of a data directory, also while a cluster runs there.
//!
//! Owns: what the flags mean and what a person sees: [`progress`] of a pull, the [`table`] of images. Never touches:
//! the store's files, which crate `image` shares among processes.

mod progress;
mod table;

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use ::image::build::Build;
use ::image::registry::Credential;
use ::image::{ImageConfig, ImageRecord, Options, Pull, Store};
use anyhow::{Context, bail};
use camino::Utf8Path;

use crate::cli::{
    BuildArguments, ExportArguments, ImageCommand, ImportArguments, ListArguments, PullArguments,
    RemoveArguments, StoreArguments,
};
use progress::Bars;

/// Where images lie in a data directory.
pub const FOLDER: &str = "images";
/// Where registries are configured in a data directory.
pub const REGISTRIES_FOLDER: &str = "registries";
/// Of a password.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

pub fn run(command: ImageCommand) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        match command {
            ImageCommand::Pull(arguments) => pull(arguments).await,
            ImageCommand::Import(arguments) => import(arguments).await,
            ImageCommand::Export(arguments) => export(arguments).await,
            ImageCommand::Ls(arguments) => list(arguments).await,
            ImageCommand::Rm(arguments) => remove(arguments).await,
            ImageCommand::Build(arguments) => build(*arguments).await,
        }
    })
}

async fn open(arguments: &StoreArguments, options: Options) -> anyhow::Result<Store> {
    let root = arguments.data_dir.join(FOLDER);
    Store::open(&root, options).await.with_context(|| format!("opening the images in {root}"))
}

async fn pull(arguments: PullArguments) -> anyhow::Result<()> {
    let registries = arguments.registries.unwrap_or_else(|| arguments.store.data_dir.join(REGISTRIES_FOLDER));
    let store = open(&arguments.store, Options { registries: Some(registries) }).await?;
    let mut credentials = Vec::new();
    if let Some(username) = arguments.username {
        let mut password = String::new();
        std::io::stdin()
            .take(PASSWORD_BYTES_MAX)
            .read_to_string(&mut password)
            .context("reading the password from stdin")?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        credentials.push(Credential { username, password, ..Credential::default() });
    }
    for image in arguments.images {
        let bars = Arc::new(Bars::new(&image));
        let pull = Pull { credentials: credentials.clone(), progress: bars.clone(), ..Pull::default() };
        let record = store.pull(&image, pull).await?;
        bars.finish();
        println!("{}", table::line_of(&record));
    }
    Ok(())
}

async fn import(arguments: ImportArguments) -> anyhow::Result<()> {
    let archive: Box<dyn Read + Send> = if arguments.archive == "-" {
        Box::new(std::io::stdin())
    } else {
        let path = &arguments.archive;
        Box::new(File::open(path).with_context(|| format!("opening {path}"))?)
    };
    let store = open(&arguments.store, Options::default()).await?;
    let imported = store.import(archive, arguments.name).await;
    // What came with it and belongs to no image, or all of it.
    store.collect().await?;
    print_all(&imported?);
    Ok(())
}

async fn export(arguments: ExportArguments) -> anyhow::Result<()> {
    let store = open(&arguments.store, Options::default()).await?;
    if arguments.output == "-" {
        use std::io::IsTerminal;
        if std::io::stdout().is_terminal() {
            bail!("an archive is nothing for a terminal: name a file with --output, or use a pipe");
        }
        return Ok(store.export(&arguments.images, std::io::stdout()).await?);
    }
    // A file that is there stays as it was until the new one is whole.
    let path = &arguments.output;
    let fresh =
        path.with_file_name(format!(".{}.{}", path.file_name().unwrap_or("image"), rt::name_suffix(8)));
    let file = File::create_new(&fresh).with_context(|| format!("creating {fresh}"))?;
    let written = store.export(&arguments.images, std::io::BufWriter::new(file)).await;
    let outcome = match written {
        Ok(()) => std::fs::rename(&fresh, path).with_context(|| format!("writing {path}")),
        Err(error) => Err(error.into()),
    };
    if outcome.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    outcome
}

async fn list(arguments: ListArguments) -> anyhow::Result<()> {
    let images = open(&arguments.store, Options::default()).await?.images().await?;
    let text = if arguments.quiet {
        images.iter().map(|image| format!("{}\n", image.id)).collect()
    } else {
        table::of(&images, rt::now().into())
    };
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

async fn remove(arguments: RemoveArguments) -> anyhow::Result<()> {
    let store = open(&arguments.store, Options::default()).await?;
    let mut failure = None;
    for image in &arguments.images {
        let removed = match store.resolve(image).await {
            Ok(None) => Err(::image::Error::NotFound(format!("image {image:?} not found"))),
            // One that is damaged can still be removed.
            Ok(Some(_)) | Err(_) => store.remove(image).await,
        };
        match removed {
            Ok(()) => println!("image {image:?} removed"),
            // The others are removed all the same.
            Err(error) if failure.is_none() => failure = Some(error),
            Err(error) => eprintln!("error: {}", telemetry::chain(&error)),
        }
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}

async fn build(arguments: BuildArguments) -> anyhow::Result<()> {
    let store = open(&arguments.store, Options::default()).await?;
    let source = &arguments.source;
    let build = match (&source.from_dir, &source.binary) {
        (Some(folder), _) => Build::from_folder(folder.clone()),
        (None, Some(binary)) => {
            check_static(binary)?;
            Build::from_binary(binary.clone())
        }
        (None, None) => Build::of_this_process()?,
    };
    let record = store.build(configured(build, &arguments), &arguments.name).await?;
    println!("{}", table::line_of(&record));
    Ok(())
}

/// What the flags say about how it runs, over what the source says.
fn configured(mut build: Build, arguments: &BuildArguments) -> Build {
    let own = std::mem::take(&mut build.config);
    let env = arguments.env.iter().map(|(name, value)| format!("{name}={value}"));
    build.config = ImageConfig {
        entrypoint: if arguments.entrypoint.is_empty() {
            own.entrypoint
        } else {
            arguments.entrypoint.clone()
        },
        cmd: arguments.cmd.clone(),
        env: own.env.into_iter().chain(env).collect(),
        user: arguments.user.clone(),
        working_dir: arguments.workdir.clone(),
        labels: arguments.label.iter().cloned().collect(),
        ..ImageConfig::default()
    };
    for port in &arguments.expose {
        build.expose(port);
    }
    build
}

/// A program that asks for a loader finds none in an image of its own.
fn check_static(binary: &Utf8Path) -> anyhow::Result<()> {
    let mut start = Vec::new();
    File::open(binary)
        .and_then(|file| file.take(1 << 16).read_to_end(&mut start))
        .with_context(|| format!("reading {binary}"))?;
    if asks_for_a_loader(&start) {
        bail!(
            "{binary} is linked dynamically and would not run alone: link it statically, or use --from-dir with a folder \
             that has its libraries"
        );
    }
    Ok(())
}

/// Whether an ELF file of 64 bits has a `PT_INTERP` among its program headers.
fn asks_for_a_loader(start: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let (Some(b"\x7fELF\x02"), Some(order)) = (start.get(..5), start.get(5)) else { return false };
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = start.get(at..at.checked_add(bytes)?)?;
        let place = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if *order == 1 { field.iter().rev().fold(0, place) } else { field.iter().fold(0, place) })
    };
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else {
        return false;
    };
    (0..count).any(|index| {
        let at = table.checked_add(index * size).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| number(at, 4)) == Some(u64::from(PT_INTERP))
    })
}

fn print_all(records: &[ImageRecord]) {
    for record in records {
        println!("{}", table::line_of(record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::build::Source;

    #[test]
    fn a_program_with_a_loader_is_told_from_one_without() {
        // This test is linked dynamically, unless somebody builds it for musl.
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(asks_for_a_loader(&own[..1 << 16]), cfg!(target_env = "gnu"));
        for start in [&b""[..], b"#!/bin/sh", b"\x7fELF\x02\x01", &[0xff; 100]] {
            assert!(!asks_for_a_loader(start));
        }
    }

    #[test]
    fn the_source_may_come_with_what_runs() {
        let binary = Build::from_binary("/opt/app");
        assert!(matches!(&binary.source, Source::Files(files) if files.contains_key(Utf8Path::new("/app"))));
        assert_eq!(binary.config.entrypoint, ["/app"]);
    }
}
