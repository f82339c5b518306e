use apimachinery::json;

use super::*;

/// A configuration of one issuer with this in place of its mappings and rules.
fn file(issuer: &str, rest: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {issuer}\n{rest}"
    )
}

const ISSUER: &str = "{url: 'https://issuer.example', audiences: [me]}";
const BY_NAME: &str = "  claimMappings: {username: {claim: sub, prefix: 'oidc:'}}\n";

fn complaint(text: &str) -> String {
    let configuration = match AuthenticationConfiguration::parse(text) {
        Ok(configuration) => configuration,
        Err(error) => return error.to_string(),
    };
    let own = vec!["https://kubernetes.default.svc".to_owned()];
    match JwtAuthenticators::new(&configuration, own) {
        Ok(_) => String::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

#[test]
fn what_is_wrong_with_a_configuration_is_named_by_its_path() {
    let mapped = |mappings: &str| file(ISSUER, &format!("  claimMappings: {mappings}\n"));
    let cases = [
        (file(ISSUER, BY_NAME), ""),
        (
            file(ISSUER, "  claimMapping: {}\n"),
            "jwt[0].claimMapping: unknown field `claimMapping`, expected one of",
        ),
        (file("{url: 5}", ""), "jwt[0].issuer.url: invalid type: integer `5`, expected a string"),
        ("kind: Other".to_owned(), "kind: Unsupported value: \"Other\""),
        (
            file("{url: 'http://issuer.example?x=1', audiences: [me]}", BY_NAME),
            "jwt[0].issuer.url: Invalid value: \"http://issuer.example?x=1\": URL scheme must be https; \
             jwt[0].issuer.url: Invalid value: \"http://issuer.example?x=1\": URL must not contain a query",
        ),
        (
            file("{url: 'https://kubernetes.default.svc', audiences: [me]}", BY_NAME),
            "jwt[0].issuer.url: Invalid value: \"https://kubernetes.default.svc\": URL must not overlap with \
             disallowed issuers: [https://kubernetes.default.svc]",
        ),
        (
            file("{url: 'https://issuer.example', audiences: [a, b]}", BY_NAME),
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for \
             multiple audiences",
        ),
        (mapped("{}"), "jwt[0].claimMappings.username: Required value: claim or expression is required"),
        (
            mapped("{username: {claim: sub}}"),
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be \
             set to an empty string to disable prefixing",
        ),
        (
            mapped("{username: {expression: claims.sub +}}"),
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.sub +\": compilation failed: ",
        ),
        (
            mapped("{username: {expression: claims.email}}"),
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be \
             used in",
        ),
        (
            mapped(
                "{username: {expression: claims.sub}, extra: [{key: k8s.io/x, valueExpression: claims.a}]}",
            ),
            "jwt[0].claimMappings.extra[0].key: Invalid value: \"k8s.io/x\": k8s.io, kubernetes.io and their \
             subdomains are reserved for Kubernetes use",
        ),
        (
            file(ISSUER, &format!("{BY_NAME}  claimValidationRules: [{{expression: claims.sub}}]\n")),
            "jwt[0].claimValidationRules[0].expression: Invalid value: \"claims.sub\": must evaluate to bool",
        ),
        (
            file(
                ISSUER,
                &format!("{BY_NAME}anonymous: {{enabled: false, conditions: [{{path: /livez}}]}}\n"),
            ),
            "anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined",
        ),
    ];
    for (text, expected) in cases {
        let complaint = complaint(&text);
        assert!(complaint.starts_with(expected), "{text}\n{complaint}");
        assert_eq!(complaint.is_empty(), expected.is_empty(), "{text}\n{complaint}");
    }
}

fn mapped(rest: &str, claims: &Value) -> String {
    let configuration = AuthenticationConfiguration::parse(&file(ISSUER, rest)).unwrap();
    let mapping = match Mapping::compile(&configuration.jwt[0], "jwt[0]") {
        Ok(mapping) => mapping,
        Err(errors) => return errors[0].to_string(),
    };
    match mapping.user(claims) {
        Ok(user) => {
            format!("{}|{}|{}|{:?}", user.name(), user.uid(), user.groups().join(","), user.extra())
        }
        Err(error) => error,
    }
}

#[test]
fn claims_become_a_user() {
    let claims = json!({
        "sub": "42", "name": "jane", "groups": ["dev", "ops"], "team": "blue", "email": "j@x",
        "email_verified": false, "admin": false,
    });
    let by_expression = "  claimMappings:\n    username: {expression: '\"x:\" + claims.name'}\n    \
        groups: {expression: 'claims.groups.filter(g, g != \"ops\")'}\n    uid: {expression: claims.sub}\n    \
        extra: [{key: acme.io/team, valueExpression: claims.team}]\n";
    let rule = |rule: &str| format!("{by_expression}  claimValidationRules: [{rule}]\n");
    let cases = [
        (
            "  claimMappings: {username: {claim: sub, prefix: 'o:'}, groups: {claim: groups, prefix: 'g:'}}\n".to_owned(),
            "o:42||g:dev,g:ops|{}",
        ),
        (
            "  claimMappings: {username: {claim: email, prefix: ''}}\n".to_owned(),
            "oidc: email not verified",
        ),
        (
            "  claimMappings: {username: {claim: nothing, prefix: ''}}\n".to_owned(),
            "oidc: parse username claims \"nothing\": claim not present",
        ),
        (by_expression.to_owned(), r#"x:jane|42|dev|{"acme.io/team": ["blue"]}"#),
        (rule("{claim: team, requiredValue: blue}"), r#"x:jane|42|dev|{"acme.io/team": ["blue"]}"#),
        (
            rule("{claim: team, requiredValue: red}"),
            "oidc: required claim team value does not match. Got = blue, want = red",
        ),
        (rule("{claim: none, requiredValue: red}"), "oidc: required claim none not present in ID token"),
        (
            rule("{expression: claims.admin == true, message: no admin}"),
            "oidc: error evaluating claim validation expression: validation expression 'claims.admin == true' failed: \
             no admin",
        ),
        (
            format!("{by_expression}  userValidationRules: [{{expression: \"!user.username.startsWith('x:')\", message: bad name}}]\n"),
            "oidc: error evaluating user info validation rule: validation expression \
             '!user.username.startsWith('x:')' failed: bad name",
        ),
    ];
    for (rest, expected) in cases {
        assert_eq!(mapped(&rest, &claims), expected, "{rest}");
    }
}

#[test]
fn a_token_is_good_until_its_end() {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let claims = json!({"exp": 100});
    assert_eq!(check_time(&claims, at(93)), Ok(Duration::from_secs(7)));
    assert_eq!(check_time(&claims, at(100)), Ok(Duration::ZERO));
    assert!(check_time(&claims, at(101)).is_err() && check_time(&json!({}), at(1)).is_err());
    assert!(check_time(&json!({"exp": 100, "nbf": 500}), at(50)).is_err());
}

#[tokio::test]
async fn a_token_that_was_good_is_known_until_its_time_or_another_configuration() {
    let configuration = AuthenticationConfiguration::parse(&file(ISSUER, BY_NAME)).unwrap();
    let authenticators = JwtAuthenticators::new(&configuration, Vec::new()).unwrap();
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let kept = |authenticators: &JwtAuthenticators| {
        let key = fingerprint(b"t");
        authenticators.state.read().kept.put(key, UserInfo::new("jane"), KEPT_FOR, at(0));
    };
    let user = async |authenticators: &JwtAuthenticators, now| {
        let found = authenticators.authenticate("t", &["a".to_owned()], now).await.unwrap();
        found.map(|found| (found.user.name().to_owned(), found.audiences))
    };
    kept(&authenticators);
    assert_eq!(user(&authenticators, at(9)).await, Some(("jane".to_owned(), vec!["a".to_owned()])));
    assert_eq!(user(&authenticators, at(10)).await, None);
    authenticators.replace(&configuration).unwrap();
    assert_eq!(user(&authenticators, at(9)).await, None);
}
