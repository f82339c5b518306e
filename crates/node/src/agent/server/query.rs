//! A request's query, and what is asked of a log in it.

use http::Uri;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;

use super::logs::line::{Selection, Stream};
use super::logs::stream::Wanted;

/// Decoded pairs, in their order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(decode_pair).collect())
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first value, if it says anything.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }
}

fn decode_pair((name, value): (&str, &str)) -> (String, String) {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    (decode(name), decode(value))
}

/// What is asked of a container's log.
#[derive(Debug, Default)]
pub(super) struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub wanted: Wanted,
}

/// Why a query about a log is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadLogOptions {
    /// A value that cannot be read.
    Undecodable,
    /// Values that make no sense.
    Invalid,
}

impl LogOptions {
    pub(super) fn read(query: &Query, now: Timestamp) -> Result<Self, BadLogOptions> {
        let tail = match query.first("tail") {
            // Of old clients; "all" is as if it were not there.
            Some("all") => None,
            Some(tail) => Some(tail),
            None => query.first("tailLines"),
        };
        let (tail_lines, limit) = (number(tail)?, number(query.first("limitBytes"))?);
        let seconds = number(query.first("sinceSeconds"))?;
        let time = match query.first("sinceTime") {
            None => None,
            Some(text) => Some(text.parse::<Timestamp>().map_err(|_| BadLogOptions::Undecodable)?),
        };
        let stream = match query.first("stream") {
            None | Some("All") => None,
            Some("Stdout") => Some(Stream::Stdout),
            Some("Stderr") => Some(Stream::Stderr),
            Some(_) => return Err(BadLogOptions::Invalid),
        };
        let sane = tail_lines.is_none_or(|lines| lines >= 0)
            && limit.is_none_or(|bytes| bytes >= 1)
            && seconds.is_none_or(|seconds| seconds >= 1)
            && !(seconds.is_some() && time.is_some())
            && !(stream.is_some() && tail_lines.is_some());
        if !sane {
            return Err(BadLogOptions::Invalid);
        }
        let ago = seconds.map(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(now));
        let selection = Selection {
            stream,
            since: ago.or(time),
            timestamps: flag(query.first("timestamps"))?,
            limit_bytes: limit.map(i64::unsigned_abs),
        };
        Ok(Self {
            follow: flag(query.first("follow"))?,
            previous: flag(query.first("previous"))?,
            wanted: Wanted { selection, tail_lines: tail_lines.map(i64::unsigned_abs) },
        })
    }
}

fn number(text: Option<&str>) -> Result<Option<i64>, BadLogOptions> {
    text.map(str::parse).transpose().map_err(|_| BadLogOptions::Undecodable)
}

/// As upstream reads a bool of a query: everything but two words is true.
fn flag(text: Option<&str>) -> Result<bool, BadLogOptions> {
    Ok(text.is_some_and(|text| !matches!(text.to_ascii_lowercase().as_str(), "0" | "false")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<LogOptions, BadLogOptions> {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        LogOptions::read(&Query::of(&uri), "2026-01-01T01:00:00Z".parse().unwrap())
    }

    #[test]
    fn options_are_read_as_upstream_reads_them() {
        let all = "follow=true&previous=1&timestamps=true&tailLines=5&limitBytes=9&sinceSeconds=60";
        let options = read(all).unwrap();
        assert!(options.follow && options.previous && options.wanted.selection.timestamps);
        assert_eq!(options.wanted.tail_lines, Some(5));
        assert_eq!(options.wanted.selection.limit_bytes, Some(9));
        assert_eq!(options.wanted.selection.since, Some("2026-01-01T00:59:00Z".parse().unwrap()));
        let options =
            read("follow=false&tail=all&tailLines=3&sinceTime=2025-12-31T23%3A00%3A00%2B00%3A00").unwrap();
        assert!(!options.follow && options.wanted.tail_lines.is_none());
        assert_eq!(options.wanted.selection.since, Some("2025-12-31T23:00:00Z".parse().unwrap()));
        assert_eq!(read("stream=Stderr").unwrap().wanted.selection.stream, Some(Stream::Stderr));

        let undecodable = ["tailLines=x", "sinceTime=yesterday", "limitBytes=1.5"];
        for query in undecodable {
            assert_eq!(read(query).unwrap_err(), BadLogOptions::Undecodable, "{query}");
        }
        let invalid = [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "stream=Both",
            "stream=Stdout&tailLines=1",
            "sinceSeconds=1&sinceTime=2025-12-31T23:00:00Z",
        ];
        for query in invalid {
            assert_eq!(read(query).unwrap_err(), BadLogOptions::Invalid, "{query}");
        }
    }

    #[test]
    fn words_of_a_command_keep_their_order_and_their_letters() {
        let uri: Uri = "/x?command=sh&command=-c&command=echo+%22%24a%22%3B+%2B&input=1".parse().unwrap();
        let query = Query::of(&uri);
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo \"$a\"; +"]);
        assert_eq!((query.first("input"), query.first("output")), (Some("1"), None));
    }
}
