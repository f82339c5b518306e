//! What can be wrong with protobuf, or with a tree that is to become protobuf.

use apimachinery::decode::DecodeError;
use apimachinery::quantity::QuantityError;
use apimachinery::value::ParseError;

/// Why an object could not be read or written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    #[error("Object 'Kind' is missing in the protobuf envelope")]
    KindMissing,
    #[error("no kind \"{kind}\" with a protobuf form is known for version \"{api_version}\"")]
    Kind { api_version: String, kind: String },
    #[error("no protobuf message \"{0}\" is known")]
    Message(String),
    #[error("a frame is longer than 4 GiB")]
    TooLong,
    /// The field is a JSON name, or says where bytes are that belong to no known field.
    #[error("protobuf message {message}, at {field}: {fault}")]
    At { message: &'static str, field: String, fault: Fault },
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    #[error("the message ends within it")]
    Truncated,
    #[error("a number is longer than 64 bits")]
    Overflow,
    #[error("field number {0} is not allowed")]
    FieldNumber(u64),
    #[error("wire type {0} is not allowed (groups are not supported)")]
    WireType(u8),
    #[error("wire type {found}, expected {wanted}")]
    OtherWireType { found: u8, wanted: u8 },
    #[error("messages are nested deeper than {0}")]
    Depth(usize),
    #[error("a content encoding is not supported")]
    ContentEncoding,
    #[error("seconds {0} are no time between the years 1 and 9999")]
    Time(i64),
    #[error("the embedded JSON is invalid: {0}")]
    Json(String),
    #[error(transparent)]
    Quantity(QuantityError),
    #[error(transparent)]
    Normalize(DecodeError),
    #[error("the embedded object is invalid: {0}")]
    Embedded(Box<Error>),
    /// The tree has something else there.
    #[error("the value is not of type {wanted}")]
    Type { wanted: &'static str },
}

impl Error {
    pub(super) fn at(message: &'static str, field: impl Into<String>, fault: Fault) -> Self {
        Self::At { message, field: field.into(), fault }
    }
}

impl From<QuantityError> for Fault {
    fn from(error: QuantityError) -> Self {
        Self::Quantity(error)
    }
}

impl From<ParseError> for Fault {
    fn from(error: ParseError) -> Self {
        Self::Json(error.to_string())
    }
}
