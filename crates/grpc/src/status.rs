//! How a call ended: codes, and their form in headers and trailers.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

pub(crate) const STATUS_HEADER: &str = "grpc-status";
pub(crate) const MESSAGE_HEADER: &str = "grpc-message";

/// The codes of gRPC, with their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// Each code, at the index of its number, with the name that users of grpc-go know.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "Canceled"),
    (Code::Unknown, "Unknown"),
    (Code::InvalidArgument, "InvalidArgument"),
    (Code::DeadlineExceeded, "DeadlineExceeded"),
    (Code::NotFound, "NotFound"),
    (Code::AlreadyExists, "AlreadyExists"),
    (Code::PermissionDenied, "PermissionDenied"),
    (Code::ResourceExhausted, "ResourceExhausted"),
    (Code::FailedPrecondition, "FailedPrecondition"),
    (Code::Aborted, "Aborted"),
    (Code::OutOfRange, "OutOfRange"),
    (Code::Unimplemented, "Unimplemented"),
    (Code::Internal, "Internal"),
    (Code::Unavailable, "Unavailable"),
    (Code::DataLoss, "DataLoss"),
    (Code::Unauthenticated, "Unauthenticated"),
];

impl Code {
    /// The code of a number on the wire; one that nobody knows is [`Code::Unknown`].
    pub fn from_number(number: u32) -> Code {
        usize::try_from(number)
            .ok()
            .and_then(|index| CODES.get(index))
            .map_or(Code::Unknown, |(code, _)| *code)
    }

    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(CODES[usize::from(self.number())].1)
    }
}

/// A call that did not succeed. Printed as grpc-go prints it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code} desc = {message}")]
pub struct Status {
    pub code: Code,
    pub message: String,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into() }
    }

    pub(crate) fn deadline() -> Status {
        Status::new(Code::DeadlineExceeded, "context deadline exceeded")
    }

    /// What the headers or trailers say; `None` where they say nothing of a status.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Result<(), Status>> {
        let number = headers.get(STATUS_HEADER)?;
        let code = number
            .to_str()
            .ok()
            .and_then(|number| number.parse().ok())
            .map_or(Code::Unknown, Code::from_number);
        if code == Code::Ok {
            return Some(Ok(()));
        }
        let message =
            headers.get(MESSAGE_HEADER).map(|value| decode_message(value.as_bytes())).unwrap_or_default();
        Some(Err(Status { code, message }))
    }

    /// Writes how a call ended into trailers, or into headers where there is no body.
    pub(crate) fn write(outcome: Result<(), &Status>, headers: &mut HeaderMap) {
        let code = outcome.map_or_else(|status| status.code, |()| Code::Ok);
        headers.insert(STATUS_HEADER, HeaderValue::from(u16::from(code.number())));
        if let Err(status) = outcome
            && !status.message.is_empty()
        {
            let message = HeaderValue::from_maybe_shared(Bytes::from(encode_message(&status.message)));
            headers.insert(MESSAGE_HEADER, message.expect("percent-encoded text is printable ASCII"));
        }
    }

    /// The status of an answer that is not gRPC's, by its HTTP status, as gRPC's specification maps them.
    pub(crate) fn of_http(status: StatusCode) -> Status {
        let code = match status {
            StatusCode::BAD_REQUEST => Code::Internal,
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND => Code::Unimplemented,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
            _ => Code::Unknown,
        };
        Status::new(
            code,
            format!("unexpected HTTP status code received from server: {}", http_status_text(status)),
        )
    }

    /// What became of a call whose connection or stream broke.
    pub(crate) fn of_transport(error: &(dyn std::error::Error + 'static)) -> Status {
        if let Some(status) = error.downcast_ref::<Status>() {
            return status.clone();
        }
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(status) = cause.downcast_ref::<Status>() {
                return status.clone();
            }
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Status::new(Code::Unavailable, format!("error reading from server: {text}"))
    }
}

fn http_status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} ({reason})", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// Printable ASCII stays, `%` and every other byte become `%XX`.
fn encode_message(message: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(byte);
        } else {
            encoded.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    encoded
}

/// The reverse of [`encode_message`]; what is not an escape stays as it is, as gRPC asks of readers.
fn decode_message(encoded: &[u8]) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&first, after)) = rest.split_first() {
        let escape = match after {
            [high, low, ..] if first == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                decoded.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            None => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_header_and_bad_escapes_stay() {
        for message in ["", "plain words", "100% of it", "über: \"zwei\"\nZeilen", "%zz"] {
            let encoded = encode_message(message);
            assert!(encoded.iter().all(|byte| (b' '..=b'~').contains(byte)), "{encoded:?}");
            assert_eq!(decode_message(&encoded), message);
        }
        for (encoded, decoded) in [("a%20b", "a b"), ("100%", "100%"), ("%4", "%4"), ("%zz%41", "%zzA")] {
            assert_eq!(decode_message(encoded.as_bytes()), decoded);
        }
    }

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let status = Status::new(Code::NotFound, "no container \"é\"");
        let mut headers = HeaderMap::new();
        Status::write(Err(&status), &mut headers);
        assert_eq!(headers[STATUS_HEADER], "5");
        assert_eq!(Status::read(&headers), Some(Err(status)));

        let mut headers = HeaderMap::new();
        assert_eq!(Status::read(&headers), None);
        Status::write(Ok(()), &mut headers);
        assert_eq!(Status::read(&headers), Some(Ok(())));
        headers.insert(STATUS_HEADER, HeaderValue::from_static("99"));
        assert_eq!(
            Status::read(&headers).map(|outcome| outcome.map_err(|status| status.code)),
            Some(Err(Code::Unknown))
        );
    }

    #[test]
    fn numbers_names_and_codes_agree() {
        for (index, (code, _)) in CODES.iter().enumerate() {
            assert_eq!(usize::from(code.number()), index);
            assert_eq!(Code::from_number(index as u32), *code);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        let status = Status::new(Code::DeadlineExceeded, "too late");
        assert_eq!(status.to_string(), "rpc error: code = DeadlineExceeded desc = too late");
    }
}
