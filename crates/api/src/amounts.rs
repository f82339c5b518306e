//! [`Amounts`]: how much of each resource, and the arithmetic that quotas, limits and pods share.

use std::collections::BTreeMap;

use apimachinery::{Quantity, Str, Value};

use crate::validation::resources::quantity;

/// Amounts by resource name, sorted by name: a `v1.ResourceList` to calculate with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub BTreeMap<Str, Quantity>);

impl Amounts {
    /// Reads a `v1.ResourceList`; what is not an amount is left out, as validation has seen to it.
    pub fn of(list: Option<&Value>) -> Self {
        let list = list.and_then(Value::as_object).into_iter().flatten();
        Self(list.filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect())
    }

    pub fn to_value(&self) -> Value {
        self.0.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect()
    }

    pub fn get(&self, name: &str) -> Option<Quantity> {
        self.0.get(name).copied()
    }

    pub fn set(&mut self, name: impl Into<Str>, amount: Quantity) {
        self.0.insert(name.into(), amount);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Str, Quantity)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }

    pub fn names(&self) -> impl Iterator<Item = &Str> {
        self.0.keys()
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.0.entry(name.clone()).and_modify(|own| *own = own.add(amount)).or_insert(amount);
        }
    }

    /// Raises each amount to that of `other` where that is more.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            match self.0.get_mut(name) {
                Some(own) if *own >= amount => {}
                Some(own) => *own = amount,
                None => self.set(name.clone(), amount),
            }
        }
    }

    /// What this is more than `other`, and nothing where it is less.
    #[must_use]
    pub fn increase_from(&self, other: &Self) -> Self {
        let mut increase = self.clone();
        for (name, amount) in other.iter() {
            let own = increase.0.entry(name.clone()).or_default();
            *own = own.sub(amount);
        }
        increase
            .0
            .values_mut()
            .filter(|amount| amount.sign() < 0)
            .for_each(|amount| *amount = Quantity::ZERO);
        increase
    }

    /// Only the amounts whose names pass.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(name, _)| keep(name))
                .map(|(name, amount)| (name.clone(), *amount))
                .collect(),
        )
    }

    #[must_use]
    pub fn without_zeros(&self) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(_, amount)| !amount.is_zero())
                .map(|(name, amount)| (name.clone(), *amount))
                .collect(),
        )
    }
}

/// `cpu=1,memory=2Gi`
impl std::fmt::Display for Amounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, amount)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{name}={amount}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn arithmetic_is_per_name() {
        let a = Amounts::of(Some(&json!({"cpu": "1", "memory": "1Gi"})));
        let b = Amounts::of(Some(&json!({"cpu": "1500m", "pods": 2})));
        let mut sum = a.clone();
        sum.add(&b);
        assert_eq!(sum.to_string(), "cpu=2500m,memory=1Gi,pods=2");
        let mut most = a.clone();
        most.raise_to(&b);
        assert_eq!(most.to_string(), "cpu=1500m,memory=1Gi,pods=2");
        assert_eq!(b.increase_from(&a).to_string(), "cpu=500m,memory=0,pods=2");
        assert_eq!(a.increase_from(&b).without_zeros().to_string(), "memory=1Gi");
        assert_eq!(a.only(|name| name == "cpu").to_string(), "cpu=1");
    }
}
