//! Images, as a person reads them.

use std::time::{Duration, SystemTime};

use ::image::{ImageRecord, Reference};

/// What stands where there is nothing.
const NONE: &str = "<none>";
const ID_DIGITS: usize = 12;
const HEADER: [&str; 5] = ["IMAGE", "TAG", "ID", "SIZE", "AGE"];
const GAP: usize = 3;

/// Columns as kubectl aligns them; one row for each name. The age is that of the last use.
pub fn of(images: &[ImageRecord], now: SystemTime) -> String {
    let mut rows: Vec<[String; 5]> = Vec::new();
    for image in images {
        let names = if image.tags.is_empty() { &image.digests } else { &image.tags };
        let age = now.duration_since(image.last_used).map_or_else(|_| "0s".to_owned(), age);
        let row = |name: String, tag: String| {
            [name, tag, short(&image.id).to_owned(), size(image.size), age.clone()]
        };
        if names.is_empty() {
            rows.push(row(NONE.to_owned(), NONE.to_owned()));
        }
        for name in names {
            match name.parse::<Reference>() {
                Ok(parsed) => rows.push(row(parsed.repository(), parsed.tag().unwrap_or(NONE).to_owned())),
                Err(_) => rows.push(row(name.clone(), NONE.to_owned())),
            }
        }
    }
    rows.sort();
    rows.insert(0, HEADER.map(str::to_owned));
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let line: String =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:0$}", width + GAP)).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One image in a line.
pub fn line_of(image: &ImageRecord) -> String {
    let name = image.tags.first().or_else(|| image.digests.first()).map_or(NONE, String::as_str);
    format!("{name}  {}  {}", short(&image.id), size(image.size))
}

fn short(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..ID_DIGITS).unwrap_or(hex)
}

/// Three digits.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            let digits = if unit == "B" || value >= 99.95 {
                0
            } else if value >= 9.995 {
                1
            } else {
                2
            };
            return format!("{value:.digits$}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.2}TB")
}

/// The largest unit that says something, as kubectl has it.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (12_345, "12.3kB"),
            (999_999, "1.00MB"),
            (187_600_000, "188MB"),
            (5_000_000_000_000, "5.00TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [(5, "5s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn every_name_has_a_row() {
        let image = |id: &str, tags: &[&str], digests: &[&str]| ImageRecord {
            id: format!("sha256:{}", id.repeat(64)),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            digests: digests.iter().map(|digest| (*digest).to_owned()).collect(),
            size: 1_234_567,
            config: ::image::ImageConfig::default(),
            platform: "linux/amd64".to_owned(),
            created: String::new(),
            last_used: SystemTime::UNIX_EPOCH,
        };
        let digest = format!("a.example/app@sha256:{}", "c".repeat(64));
        let images = [
            image("b", &["docker.io/library/nginx:1", "docker.io/library/nginx:latest"], &[]),
            image("a", &[], &[]),
            image("c", &[], &[&digest]),
        ];
        let text = of(&images, SystemTime::UNIX_EPOCH + Duration::from_secs(300));
        let wanted = "\
IMAGE                     TAG      ID             SIZE     AGE
<none>                    <none>   aaaaaaaaaaaa   1.23MB   5m
a.example/app             <none>   cccccccccccc   1.23MB   5m
docker.io/library/nginx   1        bbbbbbbbbbbb   1.23MB   5m
docker.io/library/nginx   latest   bbbbbbbbbbbb   1.23MB   5m
";
        assert_eq!(text, wanted);
        assert_eq!(line_of(&images[0]), "docker.io/library/nginx:1  bbbbbbbbbbbb  1.23MB");
    }
}
