//! Which form an answer takes.

use api::protobuf;
use api::table::MetaVersion;
use apimachinery::{Status, cbor};

/// How the bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    JsonPretty,
    Yaml,
    Cbor,
    /// Only for a client that takes nothing else.
    Protobuf,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    /// `meta.k8s.io` `Table` in this version.
    Table(MetaVersion),
    /// `PartialObjectMetadata` or its list.
    Metadata(MetaVersion),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub encoding: Encoding,
    pub shape: Shape,
}

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::JsonPretty => "application/json",
            Self::Yaml => "application/yaml",
            Self::Cbor => cbor::CONTENT_TYPE,
            Self::Protobuf => protobuf::CONTENT_TYPE,
        }
    }

    pub fn watch_content_type(self) -> &'static str {
        match self {
            Self::Protobuf => protobuf::WATCH_CONTENT_TYPE,
            Self::Cbor => cbor::SEQUENCE_CONTENT_TYPE,
            _ => "application/json",
        }
    }
}

/// Picks the first acceptable form in the client's order of preference. `transformable` answers may be asked for as a
/// table or as metadata only. What is stored is JSON, so protobuf comes last wherever the client puts it. `cbor` says
/// whether that is spoken.
pub fn accept(header: &str, transformable: bool, pretty: bool, cbor: bool) -> Result<Accepted, Status> {
    let json = if pretty { Encoding::JsonPretty } else { Encoding::Json };
    if header.trim().is_empty() {
        return Ok(Accepted { encoding: json, shape: Shape::Object });
    }
    let mut clauses: Vec<(f32, Clause<'_>)> = header.split(',').map(Clause::parse).collect();
    // A stable sort keeps the order of equally preferred clauses.
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut protobuf = None;
    for (_, clause) in clauses {
        let encoding = match clause.media {
            "application/json" | "*/*" | "application/*" => json,
            "application/yaml" => Encoding::Yaml,
            cbor::CONTENT_TYPE | cbor::SEQUENCE_CONTENT_TYPE if cbor => Encoding::Cbor,
            protobuf::CONTENT_TYPE => {
                // There are no tables in protobuf.
                let shape = clause.shape().filter(|shape| match shape {
                    Shape::Object => true,
                    Shape::Metadata(_) => transformable,
                    Shape::Table(_) => false,
                });
                protobuf = protobuf.or(shape);
                continue;
            }
            _ => continue,
        };
        let shape = match clause.shape() {
            Some(Shape::Object) => Shape::Object,
            Some(shape) if transformable => shape,
            _ => continue,
        };
        return Ok(Accepted { encoding, shape });
    }
    match protobuf {
        Some(shape) => Ok(Accepted { encoding: Encoding::Protobuf, shape }),
        None => Err(not_acceptable(&format!(
            ", application/vnd.kubernetes.protobuf{}",
            if cbor { ", application/cbor" } else { "" }
        ))),
    }
}

/// For a client that takes protobuf only, of a kind that has none.
pub fn no_protobuf() -> Status {
    not_acceptable("")
}

fn not_acceptable(more: &str) -> Status {
    let available = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml";
    Status::not_acceptable(format!("{available}{more}"))
        .with_details(apimachinery::status::Details::default())
}

struct Clause<'a> {
    media: &'a str,
    r#as: &'a str,
    version: &'a str,
    group: &'a str,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> (f32, Self) {
        let mut parts = text.split(';').map(str::trim);
        let mut clause = Self { media: parts.next().unwrap_or_default(), r#as: "", version: "", group: "" };
        let mut quality = 1.0;
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key {
                "as" => clause.r#as = value,
                "v" => clause.version = value,
                "g" => clause.group = value,
                "q" => quality = value.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        (quality, clause)
    }

    fn shape(&self) -> Option<Shape> {
        if self.r#as.is_empty() {
            return Some(Shape::Object);
        }
        if self.group != "meta.k8s.io" {
            return None;
        }
        let version = MetaVersion::parse(self.version)?;
        match self.r#as {
            "Table" => Some(Shape::Table(version)),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Shape::Metadata(version)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_we_have_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let cases = [
            ("", Encoding::Json, Shape::Object),
            ("*/*", Encoding::Json, Shape::Object),
            ("application/vnd.kubernetes.protobuf,application/json", Encoding::Json, Shape::Object),
            ("application/vnd.kubernetes.protobuf", Encoding::Protobuf, Shape::Object),
            ("application/vnd.kubernetes.protobuf;stream=watch", Encoding::Protobuf, Shape::Object),
            ("application/yaml", Encoding::Yaml, Shape::Object),
            ("application/yaml;q=0.5, application/json", Encoding::Json, Shape::Object),
            (&format!("{table},application/json"), Encoding::Json, Shape::Table(MetaVersion::V1)),
            (
                "application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io",
                Encoding::Json,
                Shape::Metadata(MetaVersion::V1Beta1),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,\
                 application/vnd.kubernetes.protobuf",
                Encoding::Protobuf,
                Shape::Metadata(MetaVersion::V1),
            ),
            ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Encoding::Json, Shape::Object),
        ];
        for (header, encoding, shape) in cases {
            assert_eq!(accept(header, true, false, false).unwrap(), Accepted { encoding, shape }, "{header}");
        }
        assert_eq!(accept("application/msword", true, false, false).unwrap_err().code, 406);
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        assert_eq!(accept(metadata, false, false, false).unwrap_err().code, 406);
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(accept(table, true, false, false).unwrap_err().code, 406);
        assert_eq!(accept(table, false, false, false).unwrap_err().code, 406);
    }

    #[test]
    fn cbor_is_taken_where_it_is_spoken() {
        let table = "application/cbor;as=Table;v=v1;g=meta.k8s.io";
        for (header, shape) in [
            ("application/cbor", Shape::Object),
            ("application/cbor-seq", Shape::Object),
            (table, Shape::Table(MetaVersion::V1)),
        ] {
            assert_eq!(
                accept(header, true, false, true).unwrap(),
                Accepted { encoding: Encoding::Cbor, shape },
                "{header}"
            );
            assert_eq!(accept(header, true, false, false).unwrap_err().code, 406, "{header}");
        }
        let both = "application/json, application/cbor";
        assert_eq!(accept(both, true, false, true).unwrap().encoding, Encoding::Json);
        assert_eq!(accept("application/*", true, false, true).unwrap().encoding, Encoding::Json);
    }
}
