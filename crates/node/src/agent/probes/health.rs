//! The health of a gRPC server: `grpc.health.v1.Health/Check`.

use std::time::Duration;

use grpc::{Client, Code, Endpoint, Options};
use http::HeaderValue;

use super::check::Outcome;
use super::dial::{authority, duration_text};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

pub(super) const SERVING: i32 = 1;

/// Any failure is the container's.
pub(super) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = authority(host, port);
    let client =
        Client::with_user_agent(Endpoint::Tcp(address.clone()), HeaderValue::from_static("kube-probe/1.36"));
    let began_at = rt::instant();
    // As the kubelet's client, which tries again until the time is over: why a connection failed is not told.
    match rt::timeout(timeout, client.connect()).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => {
            let timeout = duration_text(timeout);
            return Outcome::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {timeout}: context deadline exceeded"
            ));
        }
    }
    let options = Options::timeout(timeout.saturating_sub(began_at.elapsed()));
    let request = HealthCheckRequest { service: service.to_owned() };
    match client.unary::<_, HealthCheckResponse>("/grpc.health.v1.Health/Check", &request, options).await {
        Ok(answer) if answer.status == SERVING => Outcome::Success,
        Ok(answer) => {
            Outcome::Failure(format!("service unhealthy (responded with \"{}\")", status_text(answer.status)))
        }
        Err(status) => Outcome::Failure(match status.code {
            Code::Unimplemented => format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message
            ),
            Code::DeadlineExceeded => {
                format!("timeout: health rpc did not complete within {}", duration_text(timeout))
            }
            _ => format!("error: health rpc probe failed: {status}"),
        }),
    }
}

fn status_text(status: i32) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        SERVING => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}
