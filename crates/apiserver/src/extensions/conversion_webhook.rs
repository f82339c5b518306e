//! Conversion webhooks: who makes objects of one version of a custom resource from those of another.
//!
//! Owns: what a webhook is sent and may answer (`ConversionReview`). A webhook may change everything of an object but
//! who it is: its metadata stay, save labels and annotations.

use std::sync::Arc;
use std::time::Duration;

use api::conversion::Converting;
use apiextensions::conversion::ConversionWebhook;
use apimachinery::{GroupVersion, GroupVersionKind, Map, Status, Str, Value, field, json, label};
use bytes::Bytes;
use webhook::{Call, Client, ClientConfig, Clients, ServiceResolver};

/// The answer holds every object of a list.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// For a whole list; requests end before that anyway.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Calls the webhooks of definitions. Connections are kept while a definition stays as it is.
pub struct ConversionWebhooks {
    /// By the definition's name.
    clients: Clients<Str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    V1,
    V1Beta1,
}

impl ConversionWebhooks {
    pub fn new(resolver: Arc<dyn ServiceResolver>) -> Self {
        Self { clients: Clients::new(resolver) }
    }

    /// Ends the connections to the webhook of a definition that is gone.
    pub fn forget(&self, definition: &str) {
        self.clients.remove(definition);
    }

    fn client(&self, definition: &Value) -> Result<Arc<Client>, String> {
        let name = definition.str_at(&["metadata", "name"]);
        let config = ClientConfig::of_hook(&definition["spec"]["conversion"]["webhook"]["clientConfig"])?;
        self.clients.get(name.into(), config).map_err(|error| error.to_string())
    }

    async fn ask(&self, definition: &Value, to: &str, objects: &[Value]) -> Result<Vec<Value>, Failure> {
        let webhook = &definition["spec"]["conversion"]["webhook"];
        let version = Version::preferred(webhook)
            .ok_or_else(|| Failure::Other("no supported conversion review versions".to_owned()))?;
        let client = self.client(definition).map_err(Failure::Other)?;
        let uid = rt::uuid();
        let call = Call {
            method: http::Method::POST,
            path: "",
            query: "",
            body: Bytes::from(question(version, &uid, to, objects).to_json()),
            timeout: TIMEOUT,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let answer = client.post(call).await.map_err(|error| Failure::Call(error.to_string()))?;
        let answer = Value::parse(&answer).map_err(|error| {
            let why = error.go_text(&answer);
            Failure::Call(format!("couldn't get version/kind; json parse error: {why}"))
        })?;
        converted_objects(version, &uid, answer).map_err(Failure::Call)
    }
}

/// How a conversion failed, which decides what is said around it.
enum Failure {
    Call(String),
    Other(String),
}

impl ConversionWebhook for ConversionWebhooks {
    fn convert<'a>(
        &'a self,
        definition: &'a Value,
        desired_api_version: &'a str,
        objects: Vec<Value>,
    ) -> Converting<'a, Vec<Value>> {
        Box::pin(async move {
            let Some(first) = objects.first() else { return Ok(objects) };
            let kind = shown_kind(first);
            let answer = self.ask(definition, desired_api_version, &objects).await;
            let converted = answer.map_err(|failure| {
                failed(match failure {
                    Failure::Call(why) => format!("conversion webhook for {kind} failed: {why}"),
                    Failure::Other(why) => why,
                })
            })?;
            if converted.len() != objects.len() {
                let (got, expected) = (converted.len(), objects.len());
                return Err(failed(format!(
                    "conversion webhook for {kind} returned {got} objects, expected {expected}"
                )));
            }
            let checked = objects.iter().zip(converted).enumerate().map(|(index, (original, converted))| {
                check(original, converted, desired_api_version).map_err(|(what, why)| {
                    failed(format!(
                        "conversion webhook for {kind} returned invalid {what} at index {index}: {why}"
                    ))
                })
            });
            checked.collect()
        })
    }
}

/// Upstream hands these on as they are, without making a reason of them.
fn failed(why: String) -> Status {
    Status::new(500, "", why)
}

fn shown_kind(object: &Value) -> String {
    let GroupVersion { group, version } =
        GroupVersion::parse(object.str_at(&["apiVersion"])).unwrap_or_else(|| GroupVersion::new("", ""));
    GroupVersionKind { group, version, kind: object.str_at(&["kind"]).into() }.to_string()
}

impl Version {
    fn preferred(webhook: &Value) -> Option<Self> {
        webhook.array_at(&["conversionReviewVersions"]).iter().find_map(|version| match version.as_str()? {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        })
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "apiextensions.k8s.io/v1",
            Self::V1Beta1 => "apiextensions.k8s.io/v1beta1",
        }
    }
}

fn question(version: Version, uid: &str, to: &str, objects: &[Value]) -> Value {
    let mut review = json!({
        "kind": "ConversionReview", "apiVersion": version.api_version(),
        "request": {"uid": uid, "desiredAPIVersion": to},
    });
    review.set_at(&["request", "objects"], Value::Array(objects.to_vec()));
    review
}

/// The objects in an answer, or what is wrong with it.
fn converted_objects(version: Version, uid: &str, mut review: Value) -> Result<Vec<Value>, String> {
    if version == Version::V1 {
        let (api_version, kind) = (review.str_at(&["apiVersion"]), review.str_at(&["kind"]));
        if (api_version, kind) != (version.api_version(), "ConversionReview") {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            return Err(format!(
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {group}/{version}, \
                 Kind={kind}"
            ));
        }
    }
    let response = &review["response"];
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    let given = response.str_at(&["uid"]);
    if version == Version::V1 && given != uid {
        return Err(format!(
            "expected response.uid={}, got {}",
            field::go_quote(uid),
            field::go_quote(given)
        ));
    }
    let result = &response["result"];
    match (result.str_at(&["status"]), result.str_at(&["message"])) {
        ("Success", _) => {}
        (status, "") => return Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => return Err(message.to_owned()),
    }
    Ok(match review.remove_at(&["response", "convertedObjects"]) {
        Some(Value::Array(objects)) => objects,
        _ => Vec::new(),
    })
}

/// The converted object with the metadata it had, or which part of it is not as it must be.
fn check(original: &Value, mut converted: Value, to: &str) -> Result<Value, (&'static str, String)> {
    let object = |why: String| ("converted object", why);
    let got = converted.str_at(&["apiVersion"]);
    if got != to {
        return Err(object(format!("invalid groupVersion (expected {to}, received {got})")));
    }
    let (expected, got) = (original.str_at(&["kind"]), converted.str_at(&["kind"]));
    if got != expected {
        return Err(object(format!("invalid kind (expected {expected}, received {got})")));
    }
    for (key, shown) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let path = ["metadata", key];
        let (expected, got) = (original.str_at(&path), converted.str_at(&path));
        if got != expected {
            return Err(object(format!("must have the same {shown}: {expected} != {got}")));
        }
    }
    let metadata =
        restored(&original["metadata"], &converted["metadata"]).map_err(|why| ("metadata in object", why))?;
    converted.set_at(&["metadata"], metadata);
    Ok(converted)
}

/// The original's metadata with the labels and annotations of the converted object.
fn restored(original: &Value, converted: &Value) -> Result<Value, String> {
    if !converted.is_object() {
        return Err("missing metadata in converted object".to_owned());
    }
    let mut metadata = original.clone();
    for name in ["labels", "annotations"] {
        match &converted[name] {
            Value::Null => drop(metadata.remove_at(&[name])),
            Value::Object(given) => {
                let before = original[name].as_object();
                check_texts(name, given)?;
                if before != Some(given) {
                    check_changed(name, given)?;
                }
                metadata.set_at(&[name], given.clone());
            }
            _ => return Err(format!("invalid metadata.{name} in converted object")),
        }
    }
    Ok(metadata)
}

fn check_texts(name: &str, given: &Map) -> Result<(), String> {
    match given.iter().find(|(_, value)| value.as_str().is_none()) {
        None => Ok(()),
        Some((key, value)) => {
            let found = value.json_type();
            Err(format!("metadata.{name}[{key}] must be a string, but is {found} in converted object"))
        }
    }
}

fn check_changed(name: &str, given: &Map) -> Result<(), String> {
    let path = field::Path::root("metadata");
    let mut errors = field::ErrorList::new();
    if name == "annotations" {
        api::validation::meta::annotations(&mut errors, Some(given), &path.child("annotation"));
    } else {
        let path = path.child("labels");
        for (key, value) in given {
            let value = value.as_str().unwrap_or_default();
            let of_key = label::key_errors(key).into_iter().map(|why| (key.as_str(), why));
            let of_value = label::value_errors(value).into_iter().map(|why| (value, why));
            errors
                .extend(of_key.chain(of_value).map(|(shown, why)| field::Error::invalid(&path, shown, why)));
        }
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.to_string()),
        many => {
            let texts: Vec<String> = many.iter().map(ToString::to_string).collect();
            Err(format!("[{}]", texts.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(api_version: &str, metadata: Value) -> Value {
        let mut object = json!({"apiVersion": api_version, "kind": "Widget"});
        object.set_at(&["metadata"], metadata);
        object
    }

    #[test]
    fn an_object_stays_who_it_is() {
        let was =
            object("e/v1", json!({"name": "w", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}}));
        let given =
            object("e/v2", json!({"name": "w", "uid": "u", "generation": 9, "annotations": {"k": "v"}}));
        let checked = check(&was, given, "e/v2").unwrap();
        let metadata = json!({"name": "w", "uid": "u", "resourceVersion": "7", "annotations": {"k": "v"}});
        assert_eq!(checked, object("e/v2", metadata));
        for (given, why) in [
            (
                object("e/v1", json!({"name": "w", "uid": "u"})),
                "invalid groupVersion (expected e/v2, received e/v1)",
            ),
            (object("e/v2", json!({"name": "x", "uid": "u"})), "must have the same name: w != x"),
            (object("e/v2", json!({"name": "w", "uid": "v"})), "must have the same UID: u != v"),
            (
                object("e/v2", json!({"name": "w", "uid": "u", "labels": {"n": 1}})),
                "metadata.labels[n] must be a string, but is number in converted object",
            ),
        ] {
            assert_eq!(check(&was, given, "e/v2").unwrap_err().1, why);
        }
        let bad = object("e/v2", json!({"name": "w", "uid": "u", "labels": {"a b": "c"}}));
        assert!(
            check(&was, bad, "e/v2").unwrap_err().1.starts_with("metadata.labels: Invalid value: \"a b\"")
        );
    }

    #[test]
    fn an_answer_is_checked_as_upstream_does() {
        let review = |response: Value| {
            let mut review = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"});
            review.set_at(&["response"], response);
            review
        };
        let success = json!({"status": "Success"});
        let good = review(json!({"uid": "u", "result": success, "convertedObjects": [1]}));
        assert_eq!(converted_objects(Version::V1, "u", good), Ok(vec![json!(1)]));
        for (answer, why) in [
            (
                json!({"kind": "Pod", "apiVersion": "v1"}),
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /v1, Kind=Pod",
            ),
            (review(Value::Null), "no response provided"),
            (review(json!({"uid": "v", "result": success})), "expected response.uid=\"u\", got \"v\""),
            (review(json!({"uid": "u", "result": {"status": "Failure", "message": "no"}})), "no"),
            (review(json!({"uid": "u"})), "response.result.status was '', not 'Success'"),
        ] {
            assert_eq!(converted_objects(Version::V1, "u", answer), Err(why.to_owned()));
        }
        // The older version is trusted more.
        let beta = json!({"response": {"result": success}});
        assert_eq!(converted_objects(Version::V1Beta1, "u", beta), Ok(Vec::new()));
    }
}
