//! Which devices a class has.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::{CONFIGURATIONS_MAX, claim, each, selector};
use crate::validation::fields::Fields;
use crate::validation::resources::is_extended;

pub(super) fn spec(spec: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root("spec");
    selector::selectors(&mut errors, spec, &path);
    each(&mut errors, spec.list("config"), CONFIGURATIONS_MAX, &path.child("config"), claim::configuration);
    if let Some(name) = spec.maybe_text("extendedResourceName").filter(|name| !is_extended(name)) {
        let path = path.child("extendedResourceName");
        errors.push(Error::invalid(&path, name, "must be a valid extended resource name"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_class_selects_and_configures() {
        let complaints = |class: Value| spec(&class).iter().map(ToString::to_string).collect::<Vec<String>>();
        let parameters = json!({"driver": "d.example.com", "parameters": {"a": 1}});
        assert_eq!(
            complaints(json!({
                "selectors": [{"cel": {"expression": "device.driver == 'd.example.com'"}}],
                "config": [{"opaque": parameters}],
                "extendedResourceName": "example.com/gpu",
            })),
            Vec::<String>::new()
        );
        assert_eq!(
            complaints(json!({"selectors": [{}], "config": [{}], "extendedResourceName": "gpu"})),
            [
                "spec.selectors[0].cel: Required value",
                "spec.config[0].opaque: Required value",
                "spec.extendedResourceName: Invalid value: \"gpu\": must be a valid extended resource name",
            ]
        );
    }
}
