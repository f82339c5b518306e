//! Which protocol a request for an upgrade asks for, and what it is answered.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::{Answer, refusal};

const STREAM_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOL_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// A subprotocol and what it means to the caller.
pub(crate) type Offer<T> = (&'static str, T);

/// What is spoken after the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken<S, W> {
    Spdy(S),
    WebSocket(W),
}

/// Chooses among what the server speaks over either transport; the client's first choice wins. On WebSocket, a client
/// that names no protocol gets the one that is offered as `""`. The answer switches protocols, or says why not.
pub(crate) fn choose<B, S: Copy, W: Copy>(
    request: &Request<B>,
    spdy: &[Offer<S>],
    web_socket: &[Offer<W>],
) -> Result<(Spoken<S, W>, Answer), Box<Answer>> {
    let headers = request.headers();
    let upgrade = tokens(headers, &header::UPGRADE).next().unwrap_or_default().to_ascii_lowercase();
    let connection = tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    match upgrade.as_str() {
        "websocket" if connection => choose_web_socket(request, web_socket),
        "spdy/3.1" if connection => choose_spdy(headers, spdy),
        _ => {
            let message = "unable to upgrade: missing upgrade headers in request";
            Err(Box::new(refusal(StatusCode::BAD_REQUEST, message)))
        }
    }
}

fn choose_spdy<S: Copy, W>(
    headers: &HeaderMap,
    offers: &[Offer<S>],
) -> Result<(Spoken<S, W>, Answer), Box<Answer>> {
    let wanted: Vec<&str> = tokens(headers, &STREAM_PROTOCOL_VERSION).collect();
    if wanted.is_empty() {
        let message = "unable to upgrade: X-Stream-Protocol-Version is required";
        return Err(Box::new(refusal(StatusCode::BAD_REQUEST, message)));
    }
    let Some((name, chosen)) = first(&wanted, offers) else {
        let known: Vec<&str> = offers.iter().map(|(name, _)| *name).collect();
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            wanted.join(" "),
            known.join(" ")
        );
        let mut answer = refusal(StatusCode::FORBIDDEN, &message);
        for name in known {
            answer.headers_mut().append(ACCEPTED_PROTOCOL_VERSIONS, HeaderValue::from_static(name));
        }
        return Err(Box::new(answer));
    };
    let mut answer = switching("SPDY/3.1");
    answer.headers_mut().insert(STREAM_PROTOCOL_VERSION, HeaderValue::from_static(name));
    Ok((Spoken::Spdy(chosen), answer))
}

fn choose_web_socket<B, S, W: Copy>(
    request: &Request<B>,
    offers: &[Offer<W>],
) -> Result<(Spoken<S, W>, Answer), Box<Answer>> {
    let headers = request.headers();
    let bad = |message: &str| Box::new(refusal(StatusCode::BAD_REQUEST, message));
    if request.method() != Method::GET {
        return Err(bad("unable to upgrade: a WebSocket begins with GET"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = bad("unable to upgrade: only version 13 of the WebSocket protocol is spoken");
        answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(answer);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| bad("unable to upgrade: Sec-WebSocket-Key is required"))?;
    let mut wanted: Vec<&str> = tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL).collect();
    if wanted.is_empty() {
        wanted.push("");
    }
    let Some((name, chosen)) = first(&wanted, offers) else {
        let known: Vec<&str> = offers.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            wanted.join(" "),
            known.join(" ")
        );
        return Err(Box::new(refusal(StatusCode::FORBIDDEN, &message)));
    };
    let mut answer = switching("websocket");
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let accept = HeaderValue::from_str(&accept).expect("base64 is a header's value");
    answer.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if !name.is_empty() {
        answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok((Spoken::WebSocket(chosen), answer))
}

fn first<T: Copy>(wanted: &[&str], offers: &[Offer<T>]) -> Option<Offer<T>> {
    wanted.iter().find_map(|wanted| offers.iter().find(|(name, _)| name == wanted)).copied()
}

fn switching(protocol: &'static str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    answer
}

/// The values of a header that is a list, however many lines it has.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPDY: &[Offer<u8>] = &[("v4.channel.k8s.io", 4), ("channel.k8s.io", 1)];
    const WEB_SOCKET: &[Offer<u8>] = &[("v5.channel.k8s.io", 5), ("", 1)];

    fn asked(headers: &[(&str, &str)]) -> Result<(Spoken<u8, u8>, Answer), Box<Answer>> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        choose(&request.body(()).unwrap(), SPDY, WEB_SOCKET)
    }

    #[test]
    fn the_clients_first_choice_that_is_known_wins() {
        let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let versions = ["v9.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];
        let mut lines = upgrade.to_vec();
        lines.extend(versions.map(|version| ("x-stream-protocol-version", version)));
        let (spoken, answer) = asked(&lines).unwrap();
        assert_eq!(spoken, Spoken::Spdy(4));
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
        // All on one line, as a proxy may put them.
        let list = ("x-stream-protocol-version", "channel.k8s.io, v4.channel.k8s.io");
        assert_eq!(asked(&[upgrade[0], upgrade[1], list]).unwrap().0, Spoken::Spdy(1));

        let unknown = ("x-stream-protocol-version", "v9.channel.k8s.io");
        let answer = asked(&[upgrade[0], upgrade[1], unknown]).unwrap_err();
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.headers().get_all("x-accepted-stream-protocol-versions").iter().count(), 2);
        assert_eq!(asked(&upgrade).unwrap_err().status(), 400);
        assert_eq!(asked(&[]).unwrap_err().status(), 400);
        assert_eq!(
            asked(&[upgrade[1], list]).unwrap_err().status(),
            400,
            "it is no upgrade without Connection"
        );
    }

    #[test]
    fn a_web_socket_is_accepted_by_its_key() {
        // The example of RFC 6455, 1.3.
        let base = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let (spoken, answer) = asked(&base).unwrap();
        assert_eq!(spoken, Spoken::WebSocket(1));
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(answer.headers().get("sec-websocket-protocol").is_none());
        let with = |protocols| {
            let mut headers = base.to_vec();
            headers.push(("sec-websocket-protocol", protocols));
            asked(&headers)
        };
        let (spoken, answer) = with("v5.channel.k8s.io,v4.channel.k8s.io").unwrap();
        assert_eq!(spoken, Spoken::WebSocket(5));
        assert_eq!(answer.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        assert_eq!(with("nothing").unwrap_err().status(), 403);
        assert_eq!(asked(&base[..3]).unwrap_err().status(), 400);
        assert_eq!(asked(&[base[0], base[1], base[3]]).unwrap_err().status(), 400);
    }
}
