//! From claims to a user: claims by name, or expressions over them.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use apimachinery::{Value, json};
use cel::{Activation, Budget, Decl, Environment, Field, ListKind, ObjectType, Program, Type, limits};

use super::configuration::{ClaimValidationRule, JwtAuthenticator, PrefixedClaim};
use crate::field_path::PathError;
use crate::user::{Extra, UserInfo};

static CLAIMS: LazyLock<Declared> =
    LazyLock::new(|| Declared::new("claims", Decl::map(Decl::string(), Decl::dynamic(), 0)));

static USER: LazyLock<Declared> = LazyLock::new(|| {
    let strings = || Decl::list(Decl::string(), 0, ListKind::Atomic);
    let fields = vec![
        Field::new("username", Decl::string()),
        Field::new("uid", Decl::string()),
        Field::new("groups", strings()),
        Field::new("extra", Decl::map(Decl::string(), strings(), 0)),
    ];
    Declared::new("user", Decl::object(Arc::new(ObjectType::new("kubernetes.UserInfo", fields))))
});

/// An environment with one variable.
struct Declared {
    environment: Environment,
    variable: usize,
    decl: Decl,
}

impl Declared {
    fn new(name: &str, decl: Decl) -> Self {
        let environment = Environment::new().variable(name, decl.clone());
        let variable = environment.index_of(name).expect("it was declared one line above");
        Self { environment, variable, decl }
    }
}

/// An expression over a [`Declared`] variable.
struct Expression {
    program: Program,
    text: String,
    over: &'static Declared,
}

/// A rule that must hold.
enum Rule {
    Claim { claim: String, value: String },
    Expression { expression: Expression, message: String },
}

/// A claim with what stands before it, or an expression that says it all.
enum Source {
    Claim { claim: String, prefix: String },
    Expression(Expression),
}

/// What the claims of an issuer mean.
pub(super) struct Mapping {
    username: Source,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Expression)>,
    claim_rules: Vec<Rule>,
    user_rules: Vec<Rule>,
}

impl Mapping {
    pub fn compile(jwt: &JwtAuthenticator, path: &str) -> Result<Self, Vec<PathError>> {
        let mut errors = Vec::new();
        let claim_rules = claim_rules(&mut errors, &jwt.claim_validation_rules, path);
        let mappings = format!("{path}.claimMappings");
        let of = &jwt.claim_mappings;
        let username = prefixed(&mut errors, &of.username, &format!("{mappings}.username"), true);
        let groups = prefixed(&mut errors, &of.groups, &format!("{mappings}.groups"), false);
        let uid = match (of.uid.claim.as_str(), of.uid.expression.as_str()) {
            ("", "") => None,
            (claim, "") => Some(Source::Claim { claim: claim.to_owned(), prefix: String::new() }),
            ("", text) => {
                let path = format!("{mappings}.uid.expression");
                compiled(&mut errors, &CLAIMS, text, &path, None).map(Source::Expression)
            }
            _ => {
                let detail = "claim and expression can't both be set";
                errors.push(PathError::invalid(format!("{mappings}.uid"), "", detail));
                None
            }
        };
        let extra = extra(&mut errors, jwt, &mappings);
        let user_rules = user_rules(&mut errors, jwt, path);
        check_email(&mut errors, jwt, &mappings);
        match username {
            Some(username) if errors.is_empty() => {
                Ok(Self { username, groups, uid, extra, claim_rules, user_rules })
            }
            _ => Err(errors),
        }
    }

    pub fn user(&self, claims: &Value) -> Result<UserInfo, String> {
        let mut user = UserInfo::new(self.username(claims)?).with_groups(self.groups(claims)?);
        if let Some(uid) = &self.uid {
            user = user.with_uid(match uid {
                Source::Claim { claim, .. } => string_claim(claims, claim)
                    .map_err(|why| format!("oidc: parse uid claim \"{claim}\": {why}"))?,
                Source::Expression(expression) => {
                    let failed = |why| format!("oidc: error evaluating uid claim expression: {why}");
                    let value = expression.eval(claims).map_err(failed)?;
                    let uid = value.as_str().ok_or("uid claim expression must return a string");
                    uid.map_err(|why| failed(why.to_owned()))?.to_owned()
                }
            });
        }
        user = user.with_extras(self.extra(claims)?);
        for rule in &self.claim_rules {
            rule.check(claims, "claim validation expression")?;
        }
        if !self.user_rules.is_empty() {
            let shown = shown(&user);
            for rule in &self.user_rules {
                rule.check(&shown, "user info validation rule")?;
            }
        }
        Ok(user)
    }

    fn username(&self, claims: &Value) -> Result<String, String> {
        match &self.username {
            Source::Claim { claim, prefix } => {
                let name = string_claim(claims, claim)
                    .map_err(|why| format!("oidc: parse username claims \"{claim}\": {why}"))?;
                // As upstream, an address counts only if the issuer has not said that it did not check it.
                if claim == "email" && !claims["email_verified"].is_null() {
                    match claims["email_verified"].as_bool() {
                        Some(true) => {}
                        Some(false) => return Err("oidc: email not verified".to_owned()),
                        None => return Err("oidc: parse 'email_verified' claim: it is no bool".to_owned()),
                    }
                }
                Ok(format!("{prefix}{name}"))
            }
            Source::Expression(expression) => {
                let failed = |why| format!("oidc: error evaluating username claim expression: {why}");
                let value = expression.eval(claims).map_err(failed)?;
                match value.as_str() {
                    None => Err(failed("username claim expression must return a string".to_owned())),
                    Some("") => Err("oidc: empty username via CEL expression is not allowed".to_owned()),
                    Some(name) => Ok(name.to_owned()),
                }
            }
        }
    }

    fn groups(&self, claims: &Value) -> Result<Vec<String>, String> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Source::Claim { claim, prefix }) => {
                let groups = strings(&claims[claim.as_str()])
                    .map_err(|why| format!("oidc: parse groups claim \"{claim}\": {why}"))?;
                Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
            Some(Source::Expression(expression)) => expression
                .eval(claims)
                .and_then(|value| strings(&value))
                .map_err(|why| format!("oidc: error evaluating group claim expression: {why}")),
        }
    }

    fn extra(&self, claims: &Value) -> Result<Extra, String> {
        let mut extra = Extra::new();
        for (key, expression) in &self.extra {
            let values = expression.eval(claims).and_then(|value| strings(&value)).map_err(|why| {
                format!("oidc: error evaluating extra claim expression: {}: {why}", expression.text)
            })?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(extra)
    }
}

impl Expression {
    fn eval(&self, variable: &Value) -> Result<Value, String> {
        let mut activation = Activation::new(&self.over.environment);
        let value = cel::Value::declared(variable, &self.over.decl).map_err(|error| error.to_string())?;
        activation.bind(self.over.variable, value);
        let mut budget = Budget::new(limits::PER_CALL);
        let result = self.program.eval(&activation, &mut budget).map_err(|error| error.to_string())?;
        result.to_json().map_err(|error| error.to_string())
    }
}

impl Rule {
    fn check(&self, variable: &Value, what: &str) -> Result<(), String> {
        match self {
            Self::Claim { claim, value } => {
                if variable[claim.as_str()].is_null() {
                    return Err(format!("oidc: required claim {claim} not present in ID token"));
                }
                let own = string_claim(variable, claim)
                    .map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
                if own == *value {
                    return Ok(());
                }
                Err(format!("oidc: required claim {claim} value does not match. Got = {own}, want = {value}"))
            }
            Self::Expression { expression, message } => {
                let failed = |why: String| format!("oidc: error evaluating {what}: {why}");
                let value = expression.eval(variable).map_err(failed)?;
                if value.as_bool() == Some(true) {
                    return Ok(());
                }
                let text = &expression.text;
                let message = if message.is_empty() { "" } else { message.as_str() };
                Err(failed(format!("validation expression '{text}' failed: {message}")))
            }
        }
    }
}

fn string_claim(claims: &Value, claim: &str) -> Result<String, String> {
    match &claims[claim] {
        Value::Null => Err("claim not present".to_owned()),
        Value::String(text) => Ok(text.to_string()),
        _ => Err("it is no string".to_owned()),
    }
}

/// A string, a list of them, or nothing. Empty ones are left out.
fn strings(value: &Value) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_owned();
    let all = match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.to_string()],
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    Ok(all.into_iter().filter(|text| !text.is_empty()).collect())
}

/// A user as rules see it.
fn shown(user: &UserInfo) -> Value {
    let extra = serde_json::to_value(user.extra()).unwrap_or_default();
    json!({
        "username": user.name(), "uid": user.uid(), "groups": user.groups().to_vec(), "extra": Value::from(extra),
    })
}

// === Compiling ===

fn compiled(
    errors: &mut Vec<PathError>,
    over: &'static Declared,
    text: &str,
    path: &str,
    wanted: Option<Type>,
) -> Option<Expression> {
    match over.environment.compile(text) {
        Ok(program) => {
            if let Some(wanted) = wanted.filter(|wanted| program.output() != wanted) {
                let detail = format!("must evaluate to {}", wanted.name());
                errors.push(PathError::invalid(path, text, detail));
                return None;
            }
            Some(Expression { program, text: text.to_owned(), over })
        }
        Err(error) => {
            errors.push(PathError::invalid(path, text, format!("compilation failed: {error}")));
            None
        }
    }
}

fn prefixed(
    errors: &mut Vec<PathError>,
    mapping: &PrefixedClaim,
    path: &str,
    required: bool,
) -> Option<Source> {
    match (mapping.claim.as_str(), mapping.expression.as_str()) {
        ("", "") => {
            if required {
                errors.push(PathError::required(path, "claim or expression is required"));
            }
            None
        }
        (claim, "") => {
            let Some(prefix) = mapping.prefix.clone() else {
                let detail = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                errors.push(PathError::required(format!("{path}.prefix"), detail));
                return None;
            };
            Some(Source::Claim { claim: claim.to_owned(), prefix })
        }
        ("", text) => {
            if let Some(prefix) = &mapping.prefix {
                let detail = "prefix can't be set when expression is set";
                errors.push(PathError::invalid(format!("{path}.prefix"), prefix, detail));
            }
            compiled(errors, &CLAIMS, text, &format!("{path}.expression"), None).map(Source::Expression)
        }
        _ => {
            errors.push(PathError::invalid(path, "", "claim and expression can't both be set"));
            None
        }
    }
}

fn claim_rules(errors: &mut Vec<PathError>, rules: &[ClaimValidationRule], path: &str) -> Vec<Rule> {
    let (mut all, mut claims, mut expressions) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("{path}.claimValidationRules[{index}]");
        match (rule.claim.as_str(), rule.expression.as_str()) {
            ("", "") => errors.push(PathError::required(path, "claim or expression is required")),
            (claim, "") => {
                if !rule.message.is_empty() {
                    let detail = "may not be specified when claim is set";
                    errors.push(PathError::invalid(format!("{path}.message"), &rule.message, detail));
                }
                if !claims.insert(claim) {
                    errors.push(PathError::duplicate(format!("{path}.claim"), claim));
                }
                all.push(Rule::Claim { claim: claim.to_owned(), value: rule.required_value.clone() });
            }
            ("", text) => {
                if !rule.required_value.is_empty() {
                    let detail = "may not be specified when expression is set";
                    let path = format!("{path}.requiredValue");
                    errors.push(PathError::invalid(path, &rule.required_value, detail));
                }
                let path = format!("{path}.expression");
                if !expressions.insert(text) {
                    errors.push(PathError::duplicate(path, text));
                    continue;
                }
                let expression = compiled(errors, &CLAIMS, text, &path, Some(Type::Bool));
                let message = rule.message.clone();
                all.extend(expression.map(|expression| Rule::Expression { expression, message }));
            }
            (claim, _) => {
                errors.push(PathError::invalid(path, claim, "claim and expression can't both be set"));
            }
        }
    }
    all
}

fn user_rules(errors: &mut Vec<PathError>, jwt: &JwtAuthenticator, path: &str) -> Vec<Rule> {
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, rule) in jwt.user_validation_rules.iter().enumerate() {
        let path = format!("{path}.userValidationRules[{index}].expression");
        if rule.expression.is_empty() {
            errors.push(PathError::required(path, "expression is required"));
        } else if !seen.insert(&rule.expression) {
            errors.push(PathError::duplicate(path, &rule.expression));
        } else {
            let expression = compiled(errors, &USER, &rule.expression, &path, Some(Type::Bool));
            let message = rule.message.clone();
            all.extend(expression.map(|expression| Rule::Expression { expression, message }));
        }
    }
    all
}

fn extra(errors: &mut Vec<PathError>, jwt: &JwtAuthenticator, path: &str) -> Vec<(String, Expression)> {
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, mapping) in jwt.claim_mappings.extra.iter().enumerate() {
        let (key, path) = (mapping.key.as_str(), format!("{path}.extra[{index}]"));
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        if key.is_empty() {
            errors.push(PathError::required(format!("{path}.key"), ""));
        } else if domain.is_empty() || key.ends_with('/') {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(PathError::invalid(format!("{path}.key"), key, detail));
        }
        if key != key.to_lowercase() {
            errors.push(PathError::invalid(format!("{path}.key"), key, "must be lowercase"));
        }
        let reserved = |own: &str| domain == own || domain.ends_with(&format!(".{own}"));
        if reserved("kubernetes.io") || reserved("k8s.io") {
            let detail = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            errors.push(PathError::invalid(format!("{path}.key"), key, detail));
        }
        if !seen.insert(key) {
            errors.push(PathError::duplicate(format!("{path}.key"), key));
        } else if mapping.value_expression.is_empty() {
            errors.push(PathError::required(format!("{path}.valueExpression"), ""));
        } else {
            let (text, path) = (&mapping.value_expression, format!("{path}.valueExpression"));
            let expression = compiled(errors, &CLAIMS, text, &path, None);
            all.extend(expression.map(|expression| (key.to_owned(), expression)));
        }
    }
    all
}

/// Who takes an address for a name has to look at whether the issuer checked it.
fn check_email(errors: &mut Vec<PathError>, jwt: &JwtAuthenticator, mappings: &str) {
    let username = jwt.claim_mappings.username.expression.as_str();
    let extra = jwt.claim_mappings.extra.iter().map(|mapping| mapping.value_expression.as_str());
    let rules = jwt.claim_validation_rules.iter().map(|rule| rule.expression.as_str());
    let verified = std::iter::once(username).chain(extra).chain(rules);
    if reads(username, "email") && !verified.into_iter().any(|text| reads(text, "email_verified")) {
        let detail = "claims.email_verified must be used in claimMappings.username.expression or \
                      claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when \
                      claims.email is used in claimMappings.username.expression";
        errors.push(PathError::invalid(format!("{mappings}.username.expression"), username, detail));
    }
}

/// Whether an expression selects a field of the claims.
fn reads(expression: &str, field: &str) -> bool {
    let text: String = expression.chars().filter(|c| !c.is_whitespace() && *c != '?').collect();
    let path = format!("claims.{field}");
    text.match_indices(&path).any(|(at, _)| {
        let next = text[at + path.len()..].chars().next();
        !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}
