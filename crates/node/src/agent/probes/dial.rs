//! Connections to containers, and why there is none, in Go's words.

use std::io;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The number of a port that is given by number or by its name in the container.
pub(super) fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => {
                    name.parse().map_err(|_| format!("strconv.Atoi: parsing {name:?}: invalid syntax"))?
                }
            }
        }
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("invalid port number: {number}")),
    }
}

/// Connects within `timeout`. The error reads `dial tcp 10.0.0.1:80: connect: connection refused`.
pub(super) async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let address = authority(host, port);
    let dial = async {
        let resolved: Vec<_> = match tokio::net::lookup_host((host, port)).await {
            Ok(resolved) => resolved.collect(),
            Err(_) => return Err(format!("dial tcp: lookup {host}: no such host")),
        };
        let mut problem = format!("dial tcp: lookup {host}: no such host");
        for address in resolved {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => problem = format!("dial tcp {address}: connect: {}", errno_text(&error)),
            }
        }
        Err(problem)
    };
    rt::timeout(timeout, dial).await.unwrap_or_else(|_| Err(format!("dial tcp {address}: i/o timeout")))
}

/// The system's word for an error, as Go prints it.
pub(super) fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// A duration of whole seconds, or parts of one, as Go prints it.
pub(super) fn duration_text(duration: Duration) -> String {
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    match (hours, minutes) {
        (0, 0) if seconds == 0 => format!("{}ms", duration.as_millis()),
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ContainerPort;

    use super::*;

    #[test]
    fn a_port_is_a_number_a_name_or_a_number_in_a_string() {
        let port =
            ContainerPort { name: Some("web".to_owned()), container_port: 8080, ..ContainerPort::default() };
        let container = Container { ports: Some(vec![port]), ..Container::default() };
        let string = |text: &str| IntOrString::String(text.to_owned());
        for (port, expected) in [
            (IntOrString::Int(80), Ok(80)),
            (IntOrString::Int(65535), Ok(65535)),
            (IntOrString::Int(0), Err("invalid port number: 0")),
            (IntOrString::Int(65536), Err("invalid port number: 65536")),
            (string("web"), Ok(8080)),
            (string("81"), Ok(81)),
            (string("metrics"), Err("strconv.Atoi: parsing \"metrics\": invalid syntax")),
        ] {
            assert_eq!(resolve_port(&port, &container), expected.map_err(str::to_owned), "{port:?}");
        }
    }

    #[test]
    fn durations_are_printed_as_by_go() {
        for (seconds, text) in [(1, "1s"), (59, "59s"), (60, "1m0s"), (3661, "1h1m1s")] {
            assert_eq!(duration_text(Duration::from_secs(seconds)), text);
        }
    }
}
