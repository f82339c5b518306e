//! [`Wanted`]: what claims ask for, with what names in them stand for, ready to be looked for on any node.

use std::sync::Arc;

use api::view::{DeviceClass, DeviceRequest, DeviceSelector, ExactDeviceRequest, ResourceClaim};
use apimachinery::Str;

use super::constraint::RequestName;
use super::selectors::{ExpressionId, Selectors};

/// Claims that are to get devices.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub claims: Vec<WantedClaim>,
}

/// A claim with its requests.
#[derive(Clone, Debug)]
pub struct WantedClaim {
    pub claim: Arc<ResourceClaim>,
    pub requests: Vec<WantedRequest>,
}

/// A request: one alternative, or a list of which the first that can be had is taken.
#[derive(Clone, Debug)]
pub struct WantedRequest {
    pub is_list: bool,
    pub alternatives: Vec<Alternative>,
}

/// What `exactly` or an entry of `firstAvailable` stands for.
#[derive(Clone, Debug)]
pub struct Alternative {
    pub class: Arc<DeviceClass>,
    class_selectors: Vec<ExpressionId>,
    selectors: Vec<ExpressionId>,
}

/// Who says which devices will do, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chooser {
    Class,
    Claim,
}

// === impl Wanted ===

impl Wanted {
    /// An error says why no node can have such devices.
    pub fn new(
        claims: impl IntoIterator<Item = Arc<ResourceClaim>>,
        selectors: &mut Selectors,
        class: impl Fn(&str) -> Option<Arc<DeviceClass>>,
    ) -> Result<Self, String> {
        let claims = claims.into_iter().map(|claim| WantedClaim::new(claim, selectors, &class));
        Ok(Self { claims: claims.collect::<Result<_, _>>()? })
    }

    /// Whether nodes differ in how much what they offer is liked.
    pub fn has_lists(&self) -> bool {
        self.claims.iter().flat_map(|claim| &claim.requests).any(|request| request.is_list)
    }
}

// === impl WantedClaim ===

impl WantedClaim {
    fn new(
        claim: Arc<ResourceClaim>,
        selectors: &mut Selectors,
        class: &impl Fn(&str) -> Option<Arc<DeviceClass>>,
    ) -> Result<Self, String> {
        let mut requests = Vec::with_capacity(claim.spec.devices.requests.len());
        for request in &claim.spec.devices.requests {
            let mut alternatives = Vec::new();
            for exact in alternatives_of(request) {
                let name = &exact_name(request, exact);
                let refused = |why: String| format!("claim {}, request {name}{why}", key(&claim));
                alternatives.push(Alternative::new(exact, selectors, class).map_err(refused)?);
            }
            requests.push(WantedRequest { is_list: request.exactly.is_none(), alternatives });
        }
        Ok(Self { claim, requests })
    }

    /// The fields of an alternative.
    pub fn exact(&self, request: usize, alternative: usize) -> &ExactDeviceRequest {
        let request = &self.claim.spec.devices.requests[request];
        request.exactly.as_ref().unwrap_or_else(|| &request.first_available[alternative])
    }

    /// How constraints and results name an alternative.
    pub fn name(&self, request: usize, alternative: usize) -> RequestName<'_> {
        let wanted = &self.claim.spec.devices.requests[request];
        let alternative = wanted.first_available.get(alternative).filter(|_| wanted.exactly.is_none());
        RequestName { request: &wanted.name, alternative: alternative.map(|own| own.name.as_str()) }
    }

    /// How errors name an alternative.
    pub fn short_name(&self, request: usize, alternative: usize) -> &str {
        let name = self.name(request, alternative);
        name.alternative.unwrap_or(name.request)
    }
}

// === impl Alternative ===

impl Alternative {
    fn new(
        exact: &ExactDeviceRequest,
        selectors: &mut Selectors,
        class: &impl Fn(&str) -> Option<Arc<DeviceClass>>,
    ) -> Result<Self, String> {
        let own = numbers(&exact.selectors, selectors)
            .map_err(|at| format!(", selector #{at}: CEL expression empty (unsupported selector type?)"))?;
        let name = &exact.device_class_name;
        if name.is_empty() {
            return Err(": missing device class name (unsupported request type?)".to_owned());
        }
        let class = class(name).ok_or_else(|| {
            format!(
                ": could not retrieve device class {name}: deviceclass.resource.k8s.io \"{name}\" not found"
            )
        })?;
        let class_selectors = numbers(&class.spec.selectors, selectors).unwrap_or_default();
        Ok(Self { class, class_selectors, selectors: own })
    }

    /// The expressions, those of the class first, each with whose it is and its position there.
    pub fn expressions(&self) -> impl Iterator<Item = (Chooser, usize, ExpressionId)> + '_ {
        let of_class = self.class_selectors.iter().enumerate().map(|(at, id)| (Chooser::Class, at, *id));
        of_class.chain(self.selectors.iter().enumerate().map(|(at, id)| (Chooser::Claim, at, *id)))
    }
}

/// The position of a selector that is no expression is the error.
fn numbers(of: &[DeviceSelector], selectors: &mut Selectors) -> Result<Vec<ExpressionId>, usize> {
    let number = |(at, selector): (usize, &DeviceSelector)| {
        Ok(selectors.number(&selector.cel.as_ref().ok_or(at)?.expression))
    };
    of.iter().enumerate().map(number).collect()
}

/// `exactly`, or the entries of `firstAvailable`.
pub fn alternatives_of(request: &DeviceRequest) -> impl Iterator<Item = &ExactDeviceRequest> {
    let list = request.first_available.iter().filter(|_| request.exactly.is_none());
    request.exactly.iter().chain(list)
}

fn exact_name(request: &DeviceRequest, exact: &ExactDeviceRequest) -> Str {
    if request.exactly.is_some() { request.name.clone() } else { exact.name.clone() }
}

/// `namespace/name`.
pub fn key(claim: &ResourceClaim) -> String {
    let metadata = &claim.metadata;
    format!("{}/{}", metadata.namespace, metadata.name)
}
