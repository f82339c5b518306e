//! Files of the node's log directory, as upstream's static file server shows them.

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::answer::{self, Answer};

const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_MAX: usize = 4;
const NOT_IN_LINKS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'/').remove(b'~');
/// Names of one directory that are shown.
const NAMES_MAX: usize = 10_000;

/// Shows a file or a directory below `root`; nothing outside of it, whatever `path` and symbolic links say.
pub(super) async fn serve(root: &Utf8Path, path: &str) -> Answer {
    let Some(wanted) = below(root, path) else { return not_found() };
    let (Ok(root), Ok(real)) = tokio::join!(tokio::fs::canonicalize(root), tokio::fs::canonicalize(&wanted))
    else {
        return not_found();
    };
    if !real.starts_with(&root) {
        return not_found();
    }
    match tokio::fs::metadata(&real).await {
        Ok(metadata) if metadata.is_dir() => list(&real).await,
        Ok(metadata) if metadata.is_file() => match tokio::fs::File::open(&real).await {
            Ok(file) => send(file),
            Err(error) => answer::text(StatusCode::FORBIDDEN, error.to_string()),
        },
        _ => not_found(),
    }
}

fn not_found() -> Answer {
    answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn below(root: &Utf8Path, path: &str) -> Option<Utf8PathBuf> {
    let path = Utf8Path::new(path);
    let plain =
        path.components().all(|part| matches!(part, Utf8Component::Normal(_) | Utf8Component::CurDir));
    plain.then(|| root.join(path))
}

async fn list(directory: &std::path::Path) -> Answer {
    let names = async {
        let mut names = Vec::new();
        let mut entries = tokio::fs::read_dir(directory).await?;
        while let Some(entry) = entries.next_entry().await? {
            let slash = if entry.file_type().await?.is_dir() { "/" } else { "" };
            names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
            if names.len() == NAMES_MAX {
                break;
            }
        }
        Ok::<_, std::io::Error>(names)
    };
    let mut names = match names.await {
        Ok(names) => names,
        Err(error) => return answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    names.sort();
    let lines = names.iter().map(|name| format!("<a href=\"{}\">{}</a>\n", linked(name), escaped(name)));
    let page = format!(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{}</pre>\n",
        lines.collect::<String>()
    );
    answer::whole(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn linked(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, NOT_IN_LINKS).to_string()
}

fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}

fn send(mut file: tokio::fs::File) -> Answer {
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    rt::spawn("node log", async move {
        loop {
            let mut chunk = bytes::BytesMut::with_capacity(CHUNK_BYTES);
            match file.read_buf(&mut chunk).await {
                Ok(0) => return,
                Ok(_) if sender.send(chunk.freeze()).await.is_err() => return,
                Ok(_) => {}
                Err(error) => return tracing::warn!(%error, "Could not read a log of the node"),
            }
        }
    });
    answer::chunks(answer::TEXT, chunks)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn only_what_is_below_the_directory_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::try_from(folder.path().join("log")).unwrap();
        std::fs::create_dir_all(root.join("pods/a<b")).unwrap();
        std::fs::write(root.join("syslog"), "hello").unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), root.join("link")).unwrap();
        let get = async |path: &str| {
            let answer = serve(&root, path).await;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(get("syslog").await, (200, "hello".to_owned()));
        let (status, page) = get("").await;
        assert_eq!(status, 200);
        assert!(page.contains("<a href=\"pods/\">pods/</a>\n<a href=\"syslog\">"), "{page}");
        assert!(get("pods/").await.1.contains("<a href=\"a%3Cb/\">a&lt;b/</a>"));
        for outside in ["../secret", "link", "pods/../../secret", "/etc/passwd", "nothing"] {
            assert_eq!(get(outside).await.0, 404, "{outside}");
        }
    }
}
