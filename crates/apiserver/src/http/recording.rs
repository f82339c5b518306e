//! What the audit log is told about a request, and the id under which.

use std::net::IpAddr;
use std::sync::Arc;

use api::protobuf;
use apimachinery::{Value, cbor};
use audit::{Auditor, Begin, Level, Record, ResponseStatus, Stage};
use auth::{Attributes, UserInfo};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Response, header};

use super::body::ResponseBody;
use super::exchange::Exchange;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The record of a request whose answer goes on; it is complete when this is dropped.
pub struct Recording(Box<Record>);

impl Drop for Recording {
    fn drop(&mut self) {
        self.0.stage(Stage::ResponseComplete);
    }
}

impl Exchange<'_> {
    /// Begins the record of the request, if there is to be one, as that of `user`.
    pub(super) fn begin_record(&mut self, auditor: Option<&Arc<Auditor>>, user: &UserInfo) {
        let Some(auditor) = auditor else { return };
        let id = self.audit_id();
        let begin = Begin {
            id: id.to_str().unwrap_or_default(),
            uri: self.uri().path_and_query().map_or("", |target| target.as_str()),
            user_agent: self.header(header::USER_AGENT),
            source_ips: source_ips(&self.headers, self.peer.ip()),
            received: rt::now(),
        };
        let record = auditor.begin(&Attributes { user, ..self.attributes() }, begin);
        if let Some(record) = &record {
            record.stage(Stage::RequestReceived);
        }
        self.headers.insert(AUDIT_ID, id);
        self.record = record;
    }

    /// The id that the client gave, or a new one.
    fn audit_id(&self) -> HeaderValue {
        match self.headers.get(AUDIT_ID) {
            Some(id) if !id.is_empty() => id.clone(),
            _ => HeaderValue::from_str(&rt::uuid()).unwrap_or(HeaderValue::from_static("")),
        }
    }

    pub(super) fn record_impersonation(&self, requester: &UserInfo) {
        if let Some(record) = self.record.as_ref().filter(|_| self.user != *requester) {
            record.impersonated(&self.user);
        }
    }

    /// Names the id in the answer, and ends the record or lets it end with the answer's last byte.
    pub(super) fn end_record(
        mut self,
        mut response: Response<ResponseBody>,
        failure: Option<ResponseStatus>,
        panicked: bool,
    ) -> Response<ResponseBody> {
        response.headers_mut().insert(AUDIT_ID, self.audit_id());
        let Some(record) = self.record.take() else { return response };
        for (key, value) in self.warnings.take_annotations() {
            record.annotate(&key, &value);
        }
        let code = response.status().as_u16();
        record.answered(failure.unwrap_or_else(|| ResponseStatus::code(code)));
        if panicked {
            record.stage(Stage::Panic);
            return response;
        }
        if self.is_long_running() {
            record.stage(Stage::ResponseStarted);
            return response.map(|body| body.recorded(Recording(record)));
        }
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let content_type = content_type.as_ref().and_then(|own| own.to_str().ok()).unwrap_or_default();
        response.map(|body| {
            let body = if record.level() < Level::RequestResponse { body } else { body.collected() };
            if record.level() == Level::RequestResponse
                && let Some(object) = body.bytes().and_then(|bytes| object(content_type, bytes))
            {
                record.response_object(object);
            }
            record.stage(Stage::ResponseComplete);
            body
        })
    }
}

/// The object that an answer is, in whatever encoding.
fn object(content_type: &str, bytes: &[u8]) -> Option<Value> {
    match content_type {
        protobuf::CONTENT_TYPE => protobuf::decode(bytes).ok().map(|decoded| decoded.value),
        cbor::CONTENT_TYPE => cbor::decode(bytes).ok(),
        "application/yaml" => Value::parse_yaml(std::str::from_utf8(bytes).ok()?).ok(),
        _ => Value::parse(bytes).ok(),
    }
}

/// Where a request came from: what proxies say, then the other end of the connection.
fn source_ips(headers: &HeaderMap, peer: IpAddr) -> Vec<String> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parse = |text: &str| text.trim().parse::<IpAddr>().ok();
    let mut found: Vec<IpAddr> = text(FORWARDED_FOR).split(',').filter_map(parse).collect();
    if found.is_empty() {
        found.extend(parse(text(REAL_IP)));
    }
    if found.last() != Some(&peer) {
        found.push(peer);
    }
    found.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_before_the_peer_and_nonsense_counts_as_nothing() {
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        let cases = [
            ("", "", "10.0.0.9"),
            ("1.2.3.4, nonsense, ::1", "", "1.2.3.4 ::1 10.0.0.9"),
            ("10.0.0.9", "", "10.0.0.9"),
            ("", "5.6.7.8", "5.6.7.8 10.0.0.9"),
            ("1.2.3.4", "5.6.7.8", "1.2.3.4 10.0.0.9"),
        ];
        for (forwarded_for, real_ip, wanted) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_FOR, HeaderValue::from_static(forwarded_for));
            headers.insert(REAL_IP, HeaderValue::from_static(real_ip));
            assert_eq!(source_ips(&headers, peer).join(" "), wanted, "{forwarded_for} {real_ip}");
        }
    }
}
