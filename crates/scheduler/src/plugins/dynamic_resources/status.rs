//! `status.allocation` of a claim, as it is written. Pure.

use api::placement::NAME_FIELD;
use api::view::{NodeSelectorRequirement, NodeSelectorTerm};
use apimachinery::{Map, Str, Value, json};

use super::allocator::{Allocation, Pick};
use super::constraint::RequestName;
use super::wanted::WantedClaim;

/// The allocation that a claim gets. `claim` is the claim's tree, `class` gives those of classes: they hold what only
/// drivers understand. An error says which slice cannot be told where it is reachable.
pub fn allocation<'c>(
    wanted: &WantedClaim,
    found: &Allocation,
    node: &str,
    claim: &Value,
    class: impl Fn(&str) -> Option<&'c Value>,
) -> Result<Value, String> {
    let results: Vec<Value> = found.devices.iter().map(|pick| result(wanted, pick, claim)).collect();
    let mut configuration = of_classes(wanted, found, class);
    configuration.extend(of_claim(wanted, found, claim));
    let mut devices = json!({});
    set_unless_empty(&mut devices, "results", results);
    set_unless_empty(&mut devices, "config", configuration);
    let mut allocation = json!({});
    allocation.set_at(&["devices"], devices);
    if let Some(selector) = node_selector(&found.devices, node)? {
        allocation.set_at(&["nodeSelector"], selector);
    }
    Ok(allocation)
}

fn result(wanted: &WantedClaim, pick: &Pick, claim: &Value) -> Value {
    let (spec, device) = (&pick.slice.view.spec, &pick.slice.devices()[pick.device]);
    let name = wanted.name(pick.request, pick.alternative);
    let exact = request_tree(claim, pick, name);
    let mut result = json!({
        "request": name.to_string(), "driver": spec.driver.as_str(), "pool": spec.pool.name.as_str(),
        "device": device.name.as_str(),
    });
    if wanted.exact(pick.request, pick.alternative).admin_access {
        result.set_at(&["adminAccess"], true);
    }
    set_unless_empty(&mut result, "tolerations", exact.array_at(&["tolerations"]).to_vec());
    set_unless_empty(&mut result, "bindingConditions", texts(&device.binding_conditions));
    set_unless_empty(&mut result, "bindingFailureConditions", texts(&device.binding_failure_conditions));
    if let Some(share) = &pick.share {
        result.set_at(&["shareID"], rt::uuid());
        if !share.is_empty() {
            let amounts: Map =
                share.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
            result.set_at(&["consumedCapacity"], Value::Object(amounts));
        }
    }
    result
}

/// What the claim says about the alternative, as it stands there.
fn request_tree<'v>(claim: &'v Value, pick: &Pick, name: RequestName<'_>) -> &'v Value {
    let request = &claim.array_at(&["spec", "devices", "requests"])[pick.request];
    match name.alternative {
        None => &request["exactly"],
        Some(_) => &request["firstAvailable"][pick.alternative],
    }
}

/// What the classes of the chosen alternatives configure, once for each class.
fn of_classes<'c>(
    wanted: &WantedClaim,
    found: &Allocation,
    class: impl Fn(&str) -> Option<&'c Value>,
) -> Vec<Value> {
    let mut classes: Vec<(&Str, Vec<Value>)> = Vec::new();
    for (request, &alternative) in found.chosen.iter().enumerate() {
        let own = &wanted.requests[request].alternatives[alternative].class.metadata.name;
        let name = wanted.name(request, alternative).to_string().into();
        match classes.iter_mut().find(|(known, _)| *known == own) {
            Some((_, requests)) => requests.push(name),
            None => classes.push((own, vec![name])),
        }
    }
    let mut all = Vec::new();
    for (name, requests) in classes {
        let Some(class) = class(name) else { continue };
        let entries = class.array_at(&["spec", "config"]).iter();
        all.extend(entries.map(|entry| configuration("FromClass", requests.clone(), entry)));
    }
    all
}

/// What the claim configures for its requests, or for the alternatives that were chosen.
fn of_claim(wanted: &WantedClaim, found: &Allocation, claim: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for entry in claim.array_at(&["spec", "devices", "config"]) {
        let requests = entry.array_at(&["requests"]);
        let names = |name: &str| requests.iter().any(|own| own.as_str() == Some(name));
        let meant = found.chosen.iter().enumerate().filter(|(request, alternative)| {
            let name = wanted.name(*request, **alternative);
            names(name.request) || names(&name.to_string())
        });
        let times = if requests.is_empty() { 1 } else { meant.count() };
        all.extend((0..times).map(|_| configuration("FromClaim", requests.to_vec(), entry)));
    }
    all
}

fn configuration(source: &str, requests: Vec<Value>, entry: &Value) -> Value {
    let mut made = json!({"source": source});
    set_unless_empty(&mut made, "requests", requests);
    if let Some(opaque) = entry.get("opaque") {
        made.set_at(&["opaque"], opaque.clone());
    }
    made
}

/// Where a pod must run that uses all of these devices; `None` is anywhere.
fn node_selector(picks: &[Pick], node: &str) -> Result<Option<Value>, String> {
    let mut all = NodeSelectorTerm::default();
    for pick in picks {
        let (spec, device) = (&pick.slice.view.spec, &pick.slice.devices()[pick.device]);
        let (name, selector) = match spec.per_device_node_selection {
            true => (&device.node_name, &device.node_selector),
            false => (&spec.node_name, &spec.node_selector),
        };
        if name.is_some() || device.binds_to_node {
            let term = json!({"matchFields": [{"key": NAME_FIELD, "operator": "In", "values": [node]}]});
            return Ok(Some(selector_of(term)));
        }
        match selector.as_ref().map(|selector| &selector.node_selector_terms[..]) {
            None | Some([]) => {}
            Some([term]) => {
                add_new(&mut all.match_fields, &term.match_fields);
                add_new(&mut all.match_expressions, &term.match_expressions);
            }
            Some(terms) => {
                return Err(format!("unsupported ResourceSlice.NodeSelector with {} terms", terms.len()));
            }
        }
    }
    let mut term = json!({});
    set_unless_empty(&mut term, "matchFields", all.match_fields.iter().map(requirement).collect());
    set_unless_empty(&mut term, "matchExpressions", all.match_expressions.iter().map(requirement).collect());
    let is_empty = all.match_fields.is_empty() && all.match_expressions.is_empty();
    Ok(if is_empty { None } else { Some(selector_of(term)) })
}

fn selector_of(term: Value) -> Value {
    let mut selector = json!({});
    selector.set_at(&["nodeSelectorTerms"], vec![term]);
    selector
}

fn add_new(all: &mut Vec<NodeSelectorRequirement>, more: &[NodeSelectorRequirement]) {
    let same = |a: &NodeSelectorRequirement, b: &NodeSelectorRequirement| {
        let has_all = |a: &[Str], b: &[Str]| a.iter().all(|value| b.contains(value));
        a.key == b.key
            && a.operator == b.operator
            && has_all(&a.values, &b.values)
            && has_all(&b.values, &a.values)
    };
    for new in more {
        if !all.iter().any(|own| same(own, new)) {
            all.push(new.clone());
        }
    }
}

fn requirement(requirement: &NodeSelectorRequirement) -> Value {
    let mut tree = json!({"key": requirement.key.as_str(), "operator": requirement.operator.as_str()});
    set_unless_empty(&mut tree, "values", texts(&requirement.values));
    tree
}

fn texts(texts: &[Str]) -> Vec<Value> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

fn set_unless_empty(tree: &mut Value, field: &str, items: Vec<Value>) {
    if !items.is_empty() {
        tree.set_at(&[field], items);
    }
}
