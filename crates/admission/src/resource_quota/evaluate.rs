//! Which quotas a request falls under, what it asks of them, and whether they have it. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::amounts::Amounts;
use api::quota::{Change, Kind, Requirement, requirements};
use apimachinery::{Object, Str, Value};
use jiff::Timestamp;

use super::configuration::Limited;

pub struct Request<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub kind: &'a Kind,
    pub change: Change<'a>,
    pub now: Timestamp,
}

/// What a request asks of one quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub quota: Str,
    pub amounts: Amounts,
    /// It is charged even beyond the limit: what it reports is so already.
    pub unlimited: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Forbidden(String),
    /// An error that upstream does not turn into a refusal.
    Failed(String),
}

fn forbidden<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal::Forbidden(why))
}

/// What a request asks of the quotas of its namespace; nothing where it costs nothing more than before.
pub fn claims(quotas: &[Value], request: &Request<'_>, limited: &[Limited]) -> Result<Vec<Claim>, Refusal> {
    let (kind, object) = (request.kind, request.change.new);
    let usage = kind.usage(object, request.now);
    let scopes_to_cover: Vec<&Requirement> = limited
        .iter()
        .flat_map(|limited| &limited.scopes)
        .filter(|scope| kind.matches(object, scope))
        .collect();
    let names_to_cover = names_to_cover(limited, request, &usage);
    let (mut covered_names, mut covered_scopes) = (BTreeSet::<&str>::new(), BTreeSet::<Str>::new());
    let mut applying = Vec::new();
    for quota in quotas {
        let name = quota.str_at(&["metadata", "name"]);
        let scopes = requirements(&quota["spec"]);
        let in_scopes = scopes.iter().filter(|scope| kind.matches(object, scope));
        covered_scopes.extend(in_scopes.map(|scope| scope.scope.clone()));
        let hard = quota["status"]["hard"].as_object();
        let counted: Vec<&Str> =
            hard.into_iter().flat_map(|hard| hard.keys()).filter(|name| kind.counts_for(name)).collect();
        if counted.is_empty() || !kind.is_in_scope(object, &scopes) {
            continue;
        }
        if let Some(why) = kind.missing(counted.iter().copied(), object) {
            return forbidden(format!("failed quota: {name}: {why}"));
        }
        if counted.iter().any(|counted| quota["status"]["used"].get(counted).is_none()) {
            let list = counted.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",");
            return forbidden(format!("status unknown for quota: {name}, resources: {list}"));
        }
        covered_names.extend(counted.iter().map(|name| name.as_str()));
        applying.push((quota, scopes));
    }
    let negative: Vec<&str> =
        usage.iter().filter(|(_, amount)| amount.sign() < 0).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        return forbidden(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    let increase = match request.change.old {
        Some(old) => usage.increase_from(&kind.usage(old, request.now)),
        None => usage.clone(),
    };
    let asked_of = |scopes: &[Requirement]| {
        // An object that comes under a quota only now is charged whole.
        let was_under = request.change.old.is_none_or(|old| kind.is_in_scope(old, scopes));
        if was_under { &increase } else { &usage }.without_zeros()
    };
    let asked: Vec<_> = applying.iter().map(|(quota, scopes)| (*quota, asked_of(scopes))).collect();
    let costs = match asked.is_empty() {
        true => !increase.without_zeros().is_empty(),
        false => asked.iter().any(|(_, amounts)| !amounts.is_empty()),
    };
    if !costs {
        return Ok(Vec::new());
    }
    let open: Vec<&str> =
        names_to_cover.iter().map(Str::as_str).filter(|name| !covered_names.contains(name)).collect();
    if !open.is_empty() {
        return forbidden(format!("insufficient quota to consume: {}", open.join(",")));
    }
    let open: Vec<String> = scopes_to_cover
        .iter()
        .filter(|scope| !covered_scopes.contains(&scope.scope))
        .map(ToString::to_string)
        .collect();
    if !open.is_empty() {
        return Err(Refusal::Failed(format!(
            "insufficient quota to match these scopes: [{}]",
            open.join(" ")
        )));
    }
    let claims = asked.into_iter().map(|(quota, amounts)| Claim {
        quota: quota.str_at(&["metadata", "name"]).into(),
        amounts: amounts.only(|name| quota["status"]["hard"].get(name).is_some()),
        unlimited: request.change.subresource == "status",
    });
    Ok(claims.filter(|claim| !claim.amounts.is_empty()).collect())
}

/// The names that the configuration lets nobody consume without a quota on them.
fn names_to_cover(limited: &[Limited], request: &Request<'_>, usage: &Amounts) -> BTreeSet<Str> {
    let own =
        limited.iter().filter(|limited| limited.group == request.group && limited.resource == request.plural);
    let parts: Vec<&String> = own.flat_map(|limited| &limited.contains).collect();
    usage
        .iter()
        .filter(|(name, amount)| amount.sign() > 0 && parts.iter().any(|part| name.contains(part.as_str())))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Charges all claims of a request to copies of the quotas, or none of them.
pub fn charge_all(quotas: &mut [(Arc<Object>, Value)], claims: &[Claim]) -> Result<(), String> {
    let mut charged = Vec::with_capacity(claims.len());
    for claim in claims {
        // A quota that is gone, or written already, asks nothing.
        let found = quotas.iter().position(|(quota, _)| quota.name() == claim.quota);
        let Some(index) = found else { continue };
        charged.push((index, charge(&quotas[index].1, claim)?));
    }
    for (index, used) in charged {
        quotas[index].1.set_at(&["status", "used"], used.to_value());
    }
    Ok(())
}

/// What is used with a claim, if the quota allows it.
fn charge(quota: &Value, claim: &Claim) -> Result<Amounts, String> {
    let hard = Amounts::of(quota["status"].get("hard"));
    let used = Amounts::of(quota["status"].get("used"));
    let mut after = used.clone();
    after.add(&claim.amounts);
    let exceeds = |name: &str| {
        let limit = hard.get(name);
        claim.amounts.get(name).is_some() && limit.is_some_and(|limit| after.get(name) > Some(limit))
    };
    if !claim.unlimited && claim.amounts.names().any(|name| exceeds(name)) {
        return Err(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            claim.quota,
            claim.amounts.only(exceeds),
            used.only(exceeds),
            hard.only(exceeds)
        ));
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn quota(hard: Value, used: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
            "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
    }

    fn pod(memory: &str) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"memory": memory}}}
        ]}})
    }

    fn ask(
        quotas: &[Value],
        (group, plural): (&str, &str),
        new: &Value,
        old: Option<&Value>,
        limited: &[Limited],
    ) -> Result<String, Refusal> {
        let kind = Kind::of(group, plural).expect("counted");
        let change = Change { subresource: "", new, old };
        let request = Request { group, plural, kind: &kind, change, now: Timestamp::UNIX_EPOCH };
        let claims = claims(quotas, &request, limited)?;
        let mut copies: Vec<(Arc<Object>, Value)> = quotas
            .iter()
            .map(|quota| {
                (Arc::new(Object::from_value(quota, 1, &[] as &[&str]).expect("a quota")), quota.clone())
            })
            .collect();
        charge_all(&mut copies, &claims).map_err(Refusal::Forbidden)?;
        let used = copies.iter().map(|(_, quota)| quota["status"]["used"].to_json_string());
        Ok(used.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn refusals_read_as_upstream_words_them() {
        let memory = |used: &str| quota(json!({"requests.memory": "1Gi"}), json!({"requests.memory": used}));
        let forbidden = |why: &str| Err(Refusal::Forbidden(why.to_owned()));
        let unnamed = json!({"spec": {"containers": [{"name": "c"}]}});
        for (quotas, object, outcome) in [
            (vec![memory("0")], pod("1Gi"), Ok(r#"{"requests.memory":"1Gi"}"#.to_owned())),
            (
                vec![memory("0")],
                pod("2Gi"),
                forbidden(
                    "exceeded quota: q, requested: requests.memory=2Gi, used: requests.memory=0, limited: \
                           requests.memory=1Gi",
                ),
            ),
            (
                vec![memory("0")],
                unnamed.clone(),
                forbidden("failed quota: q: must specify requests.memory for: c"),
            ),
            (
                vec![quota(json!({"pods": "1"}), json!({}))],
                unnamed.clone(),
                forbidden("status unknown for quota: q, resources: pods"),
            ),
            (
                vec![quota(json!({"services": "1"}), json!({"services": "1"}))],
                unnamed,
                Ok(r#"{"services":"1"}"#.to_owned()),
            ),
        ] {
            assert_eq!(ask(&quotas, ("", "pods"), &object, None, &[]), outcome, "{object}");
        }
    }

    #[test]
    fn updates_are_charged_what_they_add() {
        let own = quota(
            json!({"services.nodeports": "2", "services": "5"}),
            json!({"services.nodeports": "1", "services": "1"}),
        );
        let service = |kind: &str, ports: usize| json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": vec![json!({"port": 1}); ports]}});
        let change =
            |new: &Value, old: &Value| ask(std::slice::from_ref(&own), ("", "services"), new, Some(old), &[]);
        assert_eq!(
            change(&service("NodePort", 2), &service("NodePort", 1)),
            Ok(r#"{"services":"1","services.nodeports":"2"}"#.to_owned())
        );
        assert_eq!(
            change(&service("ClusterIP", 1), &service("NodePort", 1)),
            Ok(r#"{"services":"1","services.nodeports":"1"}"#.to_owned()),
            "what becomes free is the controller's to count"
        );
        assert!(change(&service("NodePort", 3), &service("NodePort", 1)).is_err());
    }

    #[test]
    fn a_pod_that_comes_into_scope_is_charged_whole() {
        let mut own = quota(json!({"pods": "1"}), json!({"pods": "0"}));
        own.set_at(&["spec", "scopes"], json!(["Terminating"]));
        let mut ending = pod("1Gi");
        ending.set_at(&["spec", "activeDeadlineSeconds"], 5);
        let charged = ask(&[own.clone()], ("", "pods"), &ending, Some(&pod("1Gi")), &[]);
        assert_eq!(charged, Ok(r#"{"pods":"1"}"#.to_owned()));
        let outside = ask(&[own], ("", "pods"), &pod("1Gi"), None, &[]);
        assert_eq!(outside, Ok(r#"{"pods":"0"}"#.to_owned()));
    }

    #[test]
    fn what_is_limited_by_default_needs_a_quota() {
        let limited = [Limited {
            group: String::new(),
            resource: "pods".into(),
            contains: vec!["memory".into()],
            scopes: vec![Requirement {
                scope: "PriorityClass".into(),
                operator: "In".into(),
                values: vec!["high".into()],
            }],
        }];
        assert_eq!(
            ask(&[], ("", "pods"), &pod("1Gi"), None, &limited),
            Err(Refusal::Forbidden("insufficient quota to consume: memory,requests.memory".into()))
        );
        let covering = quota(
            json!({"memory": "1Gi", "requests.memory": "1Gi"}),
            json!({"memory": "0", "requests.memory": "0"}),
        );
        assert!(ask(std::slice::from_ref(&covering), ("", "pods"), &pod("1Gi"), None, &limited).is_ok());
        let mut high = pod("1Gi");
        high.set_at(&["spec", "priorityClassName"], "high");
        assert_eq!(
            ask(&[covering], ("", "pods"), &high, None, &limited),
            Err(Refusal::Failed(
                "insufficient quota to match these scopes: [{PriorityClass In [high]}]".into()
            ))
        );
    }

    #[test]
    fn all_quotas_are_charged_or_none() {
        let wide = quota(json!({"pods": "5"}), json!({"pods": "1"}));
        let mut full = quota(json!({"pods": "1"}), json!({"pods": "1"}));
        full.set_at(&["metadata", "name"], "full");
        assert_eq!(
            ask(&[wide, full], ("", "pods"), &pod("1"), None, &[]),
            Err(Refusal::Forbidden(
                "exceeded quota: full, requested: pods=1, used: pods=1, limited: pods=1".into()
            ))
        );
    }
}
