//! A catalogue of bad input: what each request is answered with, and that the server goes on after it.
//!
//! Codes, reasons and texts are upstream's. What upstream was recorded to answer is in `replay`; here is the rest.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::Server;
use crate::wire::{APPLY, Client, JSON, MERGE};

const MAPS: &str = "/api/v1/namespaces/t/configmaps";
const MAP: &str = "/api/v1/namespaces/t/configmaps/m";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MEDIA_TYPES: &str = "the body of the request was in an unknown format - accepted media types include: \
                           application/json, application/yaml, application/vnd.kubernetes.protobuf";
const NOT_ALLOWED: &str = "the server does not allow this method on the requested resource";

/// A request and what it is answered with; the message needs to begin so.
struct Case<'a> {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Bytes,
    code: u16,
    reason: &'static str,
    message: &'a str,
}

fn get<'a>(target: impl Into<String>, code: u16, reason: &'static str, message: &'a str) -> Case<'a> {
    Case {
        method: "GET",
        target: target.into(),
        headers: Vec::new(),
        body: Bytes::new(),
        code,
        reason,
        message,
    }
}

fn send<'a>(
    method: &'static str,
    target: &str,
    media: &'static str,
    body: impl Into<Vec<u8>>,
    (code, reason, message): (u16, &'static str, &'a str),
) -> Case<'a> {
    let headers = vec![("content-type", media)];
    Case { method, target: target.into(), headers, body: Bytes::from(body.into()), code, reason, message }
}

fn bad(message: &str) -> (u16, &'static str, &str) {
    (400, "BadRequest", message)
}

fn invalid(message: &str) -> (u16, &'static str, &str) {
    (422, "Invalid", message)
}

/// A server with a ConfigMap to work on.
async fn server() -> (Server, Client) {
    let (server, admin) = Server::with_namespace().await;
    admin.post(MAPS, &json!({"metadata": {"name": "m"}, "data": {"k": "v"}})).await.expect(201);
    (server, admin)
}

/// Sends each and looks afterwards whether a good request is answered as before.
async fn check(server: &Server, admin: &Client, cases: Vec<Case<'_>>) {
    let mut wrong = Vec::new();
    for case in cases {
        let method: Method = case.method.parse().expect("a method");
        let reply = admin.send(method, &case.target, &case.headers, case.body.clone()).await;
        let status: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let text = |key: &str| status[key].as_str().unwrap_or_default();
        let fits = reply.status == case.code
            && text("reason") == case.reason
            && text("message").starts_with(case.message)
            && (case.code < 400 || status["code"] == case.code && status["kind"] == "Status");
        if !fits {
            let shown = String::from_utf8_lossy(&case.body[..case.body.len().min(60)]).into_owned();
            wrong.push(format!(
                "{} {} {:?} {shown}\n    expected {} {} {:?}\n    got      {} {} {:?}",
                case.method,
                case.target,
                case.headers,
                case.code,
                case.reason,
                case.message,
                reply.status,
                text("reason"),
                text("message"),
            ));
        }
    }
    server.admin().get("/version").await.expect(200);
    let kept = admin.get(MAP).await.expect(200);
    assert_eq!(kept["data"], json!({"k": "v"}), "a refused request changes nothing");
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_no_objects() {
    let (server, admin) = server().await;
    let post = |media, body: &[u8], expected| send("POST", MAPS, media, body, expected);
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): ";
    let json_error = &format!("{unrecognized}couldn't get version/kind; json parse error: ");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let no_struct = &format!("{json_error}json: cannot unmarshal array into Go value of type struct");
    check(
        &server,
        &admin,
        vec![
            post(JSON, b"{", bad(&format!("{json_error}unexpected end of JSON input"))),
            post(JSON, b"{\"a\":1,}", bad(json_error)),
            post(JSON, b"nope", bad(json_error)),
            post(JSON, b"[]", bad(no_struct)),
            post(JSON, b"1", bad(json_error)),
            post(JSON, deep.as_bytes(), bad(json_error)),
            post(JSON, b"{\"metadata\":{\"name\":\"\xff\"}} \xff", bad(json_error)),
            post(YAML, b"a: [", bad(unrecognized)),
            post(YAML, b"a: b: c", bad(unrecognized)),
            post(YAML, b"\xff\xfe", bad(unrecognized)),
            post(YAML, b"a: *nowhere", bad(unrecognized)),
            post(PROTOBUF, b"k8s", bad(unrecognized)),
            post(PROTOBUF, b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", bad(unrecognized)),
            post(PROTOBUF, b"k8s\0\x12\x05\x0a\xff\x01", bad(unrecognized)),
            post(PROTOBUF, b"{}", bad(unrecognized)),
            post("text/csv", b"a,b", (415, "UnsupportedMediaType", MEDIA_TYPES)),
            post("application/json; charset=utf-8; q", b"{", bad(json_error)),
            post("", b"{", bad(json_error)),
            post("/", b"{}", (415, "UnsupportedMediaType", MEDIA_TYPES)),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_the_wrong_type_and_unknown_ones() {
    let (server, admin) = server().await;
    let cannot = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: ";
    let typed = |field: &str, found: &str, wanted: &str| {
        format!("{cannot}json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")
    };
    let post = |query: &str, body: &str, expected: &str| {
        let expected = expected.to_owned().leak();
        send("POST", &format!("{MAPS}?dryRun=All{query}"), JSON, body, bad(expected))
    };
    let strict = |problem: &str| format!("{cannot}strict decoding error: {problem}");
    check(
        &server,
        &admin,
        vec![
            post("", r#"{"metadata":[]}"#, &typed("ConfigMap.metadata", "array", "v1.ObjectMeta")),
            post("", r#"{"metadata":{"name":1}}"#, &typed("ObjectMeta.metadata.name", "number", "string")),
            post(
                "",
                r#"{"metadata":{"name":"a","labels":{"a":true}}}"#,
                &typed("ObjectMeta.metadata.labels", "bool", "string"),
            ),
            post(
                "",
                r#"{"metadata":{"name":"a"},"data":"x"}"#,
                &typed("ConfigMap.data", "string", "map[string]string"),
            ),
            post(
                "",
                r#"{"metadata":{"name":"a"},"immutable":"x"}"#,
                &typed("ConfigMap.immutable", "string", "bool"),
            ),
            post(
                "",
                r#"{"metadata":{"name":"a"},"binaryData":{"a":"*"}}"#,
                &format!("{cannot}illegal base64 data at input byte 0"),
            ),
            post(
                "",
                r#"{"metadata":{"name":"a","creationTimestamp":"x"}}"#,
                &format!("{cannot}parsing time \"x\" as "),
            ),
            post(
                "&fieldValidation=Strict",
                r#"{"metadata":{"name":"a"},"nope":1}"#,
                &strict("unknown field \"nope\""),
            ),
            post(
                "&fieldValidation=Strict",
                r#"{"metadata":{"name":"a","name":"b"}}"#,
                &strict("duplicate field \"metadata.name\""),
            ),
            post(
                "&fieldValidation=Strict",
                r#"{"metadata":{"name":"a","nope":{}},"data":{"a":"1","a":"2"}}"#,
                &strict("duplicate field \"data.a\", unknown field \"metadata.nope\""),
            ),
        ],
    )
    .await;
    let body = r#"{"metadata":{"name":"a","name":"a"},"nope":1}"#;
    for (validation, warning) in [
        ("Ignore", ""),
        ("Warn", "299 - \"duplicate field \\\"metadata.name\\\"\", 299 - \"unknown field \\\"nope\\\"\""),
        ("", "299 - \"duplicate field \\\"metadata.name\\\"\", 299 - \"unknown field \\\"nope\\\"\""),
    ] {
        let target = format!("{MAPS}?dryRun=All&fieldValidation={validation}");
        let reply = admin.send(Method::POST, &target, &[("content-type", JSON)], body).await;
        assert_eq!((reply.status, reply.header("warning").as_str()), (201, warning), "{validation}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn yaml_with_fields_given_twice() {
    let (server, admin) = server().await;
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: twice}\ndata: {a: \"1\"}\ndata: {b: \"2\"}\nnope: 1\n";
    let refused = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal \
                   errors:\n  line 5: key \"data\" already set in map, unknown field \"nope\"";
    let target = format!("{MAPS}?dryRun=All&fieldValidation=Strict");
    check(&server, &admin, vec![send("POST", &target, YAML, body, bad(refused))]).await;
    let target = format!("{MAPS}?dryRun=All");
    let reply = admin.send(Method::POST, &target, &[("content-type", YAML)], body).await;
    assert_eq!(
        (reply.status, reply.header("warning").as_str()),
        (201, "299 - \"unknown field \\\"nope\\\"\"")
    );
    assert_eq!(reply.json()["data"]["b"], "2", "the last one counts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_values_that_mean_nothing() {
    let (server, admin) = server().await;
    let integer = "strconv.ParseInt: parsing \"x\": invalid syntax";
    let list = |query: &str, (code, reason, message)| get(format!("{MAPS}?{query}"), code, reason, message);
    let delete = |query: &str, expected| send("DELETE", &format!("{MAP}?{query}"), JSON, "", expected);
    let post = |query: &str, expected| send("POST", &format!("{MAPS}?{query}"), JSON, "{}", expected);
    let options = |kind: &str, rest: &str| -> &'static str {
        format!("{kind}.meta.k8s.io \"\" is invalid: {rest}").leak()
    };
    let dry_run = "dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"";
    check(
        &server,
        &admin,
        vec![
            list("limit=x", bad(integer)),
            list("timeoutSeconds=x", bad(integer)),
            list("watch=1&timeoutSeconds=x", bad(integer)),
            list("limit=99999999999999999999", bad("strconv.ParseInt: parsing \"99999999999999999999\": value out of range")),
            list("limit=-1", (200, "", "")),
            list("labelSelector=a%3D%3D%3D", bad("unable to parse requirement: ")),
            list("labelSelector=-a", bad("unable to parse requirement: ")),
            list("labelSelector=a+in+(", bad("unable to parse requirement: ")),
            list("fieldSelector=a", bad("invalid selector: 'a'; can't understand 'a'")),
            list("fieldSelector=spec.x%3D1", bad("\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")),
            list("continue=%21", bad("invalid continue token: continue key is not valid: illegal base64 data at input byte 0")),
            list("continue=AAAA", bad("invalid continue token: continue key is not valid: ")),
            list("continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ", bad("invalid continue token: continue key is not valid: ")),
            list("resourceVersion=x", (500, "", "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax")),
            list("resourceVersion=-1", (500, "", "resourceVersion: Invalid value: \"-1\": strconv.ParseUint: parsing \"-1\": invalid syntax")),
            list(
                "resourceVersion=99999999&limit=1",
                (504, "Timeout", "Too large resource version: 99999999, current: "),
            ),
            list(
                "resourceVersionMatch=Nope&resourceVersion=1",
                invalid(options("ListOptions", "resourceVersionMatch: Unsupported value: \"Nope\": supported values: \"Exact\", \"NotOlderThan\", \"\"")),
            ),
            list(
                "sendInitialEvents=true",
                invalid(options("ListOptions", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")),
            ),
            list(
                "watch=1&resourceVersionMatch=Exact",
                invalid(options("ListOptions", "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")),
            ),
            post("dryRun=Some", invalid(options("CreateOptions", dry_run))),
            post(
                "fieldValidation=Nope",
                invalid(options("CreateOptions", "fieldValidation: Unsupported value: \"Nope\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"")),
            ),
            post(
                &format!("fieldManager={}", "x".repeat(129)),
                invalid(options("CreateOptions", "fieldManager: Too long: may not be more than 128 bytes")),
            ),
            post(
                "fieldManager=%07",
                invalid(options("CreateOptions", "fieldManager: Invalid value: \"\\a\": should only contain printable characters")),
            ),
            delete("dryRun=Some", invalid(options("DeleteOptions", dry_run))),
            delete("gracePeriodSeconds=x", bad(integer)),
            delete(
                "propagationPolicy=Nope",
                invalid(options("DeleteOptions", "propagationPolicy: Unsupported value: \"Nope\": supported values: ")),
            ),
            delete(
                "propagationPolicy=Orphan&orphanDependents=true",
                invalid(options("DeleteOptions", "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set")),
            ),
            send("DELETE", MAP, JSON, "{\"dryRun\":\"All\"}", bad("")),
            send("DELETE", MAP, JSON, "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}", bad("")),
            send("DELETE", MAP, JSON, "[", bad("")),
            send("DELETE", MAP, "text/csv", "a", (415, "UnsupportedMediaType", MEDIA_TYPES)),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_methods_and_media_types_that_are_not_served() {
    let (server, admin) = server().await;
    let accept = |media, code, reason, message| Case {
        headers: vec![("accept", media)],
        ..get(MAP, code, reason, message)
    };
    let none = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
                application/vnd.kubernetes.protobuf";
    let lost = "the server could not find the requested resource";
    check(
        &server,
        &admin,
        vec![
            accept("text/csv", 406, "NotAcceptable", none),
            accept("application/json;as=Table;v=v9;g=meta.k8s.io", 406, "NotAcceptable", none),
            accept("application/json;as=Nope;v=v1;g=meta.k8s.io", 406, "NotAcceptable", none),
            accept("application/json;q=nope, text/csv", 200, "", ""),
            get("/api/v1/namespaces/t/nopes", 404, "NotFound", lost),
            get("/apis/nope/v1/things", 404, "NotFound", lost),
            get("/api/v1/namespaces/t/configmaps/m/nope", 404, "NotFound", lost),
            get("/api/v1/namespaces/t/configmaps/%zz", 400, "BadRequest", ""),
            get("/api/v1/namespaces/t/configmaps?labelSelector=%zz", 400, "BadRequest", ""),
            get("/api/v1/namespaces/t/configmaps/%00", 404, "NotFound", "configmaps \"\\x00\" not found"),
            send("PUT", MAPS, JSON, "{}", (405, "MethodNotAllowed", NOT_ALLOWED)),
            send("POST", MAP, JSON, "{}", (405, "MethodNotAllowed", NOT_ALLOWED)),
            send("BREW", MAP, JSON, "{}", (405, "MethodNotAllowed", NOT_ALLOWED)),
            send("TRACE", MAPS, JSON, "", (405, "MethodNotAllowed", NOT_ALLOWED)),
            send("OPTIONS", MAPS, JSON, "", (405, "MethodNotAllowed", NOT_ALLOWED)),
            send("DELETE", "/api/v1/namespaces", JSON, "", (405, "MethodNotAllowed", NOT_ALLOWED)),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_that_cannot_be_applied() {
    let (server, admin) = server().await;
    let patch = |media, body: &str, expected| send("PATCH", MAP, media, body, expected);
    let absent = |body: &str, message| patch(JSON_PATCH, body, (422, "Invalid", message));
    let unprocessable = "the server rejected our request due to an error in our request";
    check(
        &server,
        &admin,
        vec![
            patch("text/plain", "{}", (415, "UnsupportedMediaType", "415: Unsupported Media Type")),
            patch(JSON, "{}", (415, "UnsupportedMediaType", "415: Unsupported Media Type")),
            patch(MERGE, "{", bad("error decoding patch: ")),
            patch(MERGE, "[]", bad("error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}")),
            patch(MERGE, "{\"data\":{\"k\":1}}", invalid(" \"\" is invalid: patch: Invalid value: ")),
            patch(MERGE, "{\"kind\":\"Pod\"}", bad("")),
            patch(MERGE, "{\"metadata\":{\"name\":\"other\"}}", invalid("ConfigMap \"m\" is invalid: metadata.name: Invalid value: \"other\": field is immutable")),
            patch(MERGE, "{\"metadata\":{\"resourceVersion\":\"1\"}}", (409, "Conflict", "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again")),
            patch(MERGE, "{\"metadata\":{\"uid\":\"x\"}}", (409, "Conflict", "Operation cannot be fulfilled on configmaps \"m\": ")),
            patch(STRATEGIC, "[]", bad("error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}")),
            patch(STRATEGIC, "{\"$patch\":\"nope\"}", (500, "", "")),
            patch(STRATEGIC, "{\"data\":{\"$patch\":1}}", (500, "", "")),
            patch(JSON_PATCH, "{", bad("error decoding patch: ")),
            patch(JSON_PATCH, "{}", bad("error decoding patch: ")),
            absent("[{\"op\":\"nope\",\"path\":\"/data\"}]", unprocessable),
            absent("[{\"op\":\"remove\",\"path\":\"/nope\"}]", unprocessable),
            absent("[{\"op\":\"replace\",\"path\":\"/data/x\",\"value\":\"1\"}]", unprocessable),
            absent("[{\"op\":\"test\",\"path\":\"/data/k\",\"value\":\"x\"}]", unprocessable),
            absent("[{\"op\":\"add\",\"path\":\"/metadata/finalizers/5\",\"value\":\"x\"}]", unprocessable),
            absent("[{\"op\":\"add\",\"path\":\"data\",\"value\":\"x\"}]", unprocessable),
            absent("[{\"op\":\"copy\",\"from\":\"/nope\",\"path\":\"/data/x\"}]", unprocessable),
            absent("[{\"op\":\"move\",\"from\":\"/nope\",\"path\":\"/data/x\"}]", unprocessable),
            patch(APPLY, "{}", invalid("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")),
            send("PATCH", &format!("{MAP}?fieldManager=a"), APPLY, "a: [", bad("error decoding YAML: ")),
            send("PATCH", &format!("{MAP}?fieldManager=a"), APPLY, "[]", bad("error decoding YAML: ")),
            send("PATCH", &format!("{MAP}?fieldManager=a"), APPLY, "{}", bad("")),
            send("PATCH", &format!("{MAP}?force=true"), MERGE, "{}", invalid("PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch")),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_that_lead_nowhere() {
    let (server, admin) = server().await;
    let upgrade = |target: &str, code, reason, message| Case {
        headers: vec![("connection", "Upgrade"), ("upgrade", "nonsense")],
        ..get(target.to_owned(), code, reason, message)
    };
    check(
        &server,
        &admin,
        vec![
            upgrade(MAP, 200, "", ""),
            upgrade(
                "/api/v1/namespaces/t/pods/p/exec?command=ls&stdout=1",
                404,
                "NotFound",
                "pods \"p\" not found",
            ),
            get("/api/v1/namespaces/t/pods/p/attach?stdout=1", 404, "NotFound", "pods \"p\" not found"),
            upgrade("/api/v1/namespaces/t/pods/p/portforward", 404, "NotFound", "pods \"p\" not found"),
        ],
    )
    .await;
}

/// Sends bytes on a connection of its own and reads what comes back until the server closes.
async fn exchange(admin: &Client, bytes: &[u8], half_close: bool) -> String {
    let mut raw = admin.raw().await;
    // The server may have had enough before all is written.
    let _ = raw.write_all(bytes).await;
    let _ = raw.flush().await;
    if half_close {
        let _ = raw.shutdown().await;
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let read = async {
        while let Ok(count @ 1..) = raw.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), read)
        .await
        .expect("the server ends the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_http() {
    let (server, admin) = server().await;
    let close = "Host: x\r\nConnection: close\r\n";
    let many: String = (0..10_000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (bytes, expected) in [
        ("\0\0\0\0\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("GET\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (format!("GET /version HTTP/9.9\r\n{close}\r\n"), "HTTP/1.1 400"),
        (format!("GET /ver sion HTTP/1.1\r\n{close}\r\n"), "HTTP/1.1 400"),
        (format!("GET /version HTTP/1.1\r\n{close}no colon\r\n\r\n"), "HTTP/1.1 400"),
        (format!("GET /version HTTP/1.1\r\n{close}A\0: b\r\n\r\n"), "HTTP/1.1 400"),
        (format!("GET /version HTTP/1.1\r\n{close}{many}\r\n"), "HTTP/1.1 431"),
        (format!("POST {MAPS} HTTP/1.1\r\n{close}Content-Length: -1\r\n\r\n"), "HTTP/1.1 400"),
        (format!("POST {MAPS} HTTP/1.1\r\n{close}{chunked}zz\r\n"), "HTTP/1.1 400"),
        (format!("POST {MAPS} HTTP/1.1\r\n{close}{chunked}ffffffffffffffffff\r\n"), "HTTP/1.1 400"),
        (format!("GET /version HTTP/1.1\r\n{close}\r\n"), "HTTP/1.1 200"),
    ] {
        let answer = exchange(&admin, bytes.as_bytes(), false).await;
        let shown = &bytes[..bytes.len().min(80)];
        assert!(answer.starts_with(expected), "{shown:?}: {:?}", &answer[..answer.len().min(200)]);
    }
    server.admin().get("/version").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_stall_or_end_halfway_hold_up_nobody() {
    let (server, admin) = server().await;
    let halves = [
        String::new(),
        "GET /ver".to_owned(),
        "GET /version HTTP/1.1\r\nHost: x\r\n".to_owned(),
        format!(
            "POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        ),
    ];
    let mut stalled = Vec::new();
    for half in halves.iter().cycle().take(200) {
        let mut raw = admin.raw().await;
        raw.write_all(half.as_bytes()).await.expect("the server reads");
        raw.flush().await.expect("the server reads");
        stalled.push(raw);
    }
    server.admin().get("/version").await.expect(200);
    server.admin().get(MAP).await.expect(200);
    drop(stalled);
    for half in &halves {
        let answer = exchange(&admin, half.as_bytes(), true).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{half}: {answer}");
    }
    let whole = "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(exchange(&admin, whole.as_bytes(), false).await.starts_with("HTTP/1.1 200"));
    let names = server.admin().get(MAPS).await.names();
    assert_eq!(names, ["kube-root-ca.crt", "m"], "half a request creates nothing");
}
