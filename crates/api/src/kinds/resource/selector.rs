//! Expressions that choose devices.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::each;
use crate::devices::{Selector, SelectorError};
use crate::validation::expression::refused;
use crate::validation::fields::Fields;

const SELECTORS_MAX: usize = 32;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
/// The selectors of a class or of a request.
pub(super) fn selectors(errors: &mut ErrorList, holder: &Value, path: &Path<'_>) {
    let path = path.child("selectors");
    each(errors, holder.list("selectors"), SELECTORS_MAX, &path, |errors, selector, path| {
        let path = path.child("cel");
        match selector.maybe("cel") {
            None => errors.push(Error::required(&path, "")),
            Some(cel) => expression(errors, cel.text("expression"), &path.child("expression")),
        }
    });
}

fn expression(errors: &mut ErrorList, text: &str, path: &Path<'_>) {
    if text.len() > EXPRESSION_BYTES_MAX {
        errors.push(Error::too_long(path, EXPRESSION_BYTES_MAX));
        return;
    }
    match Selector::compile(text) {
        Err(SelectorError::Refused(refusal)) => refused(errors, refusal, text, path),
        Err(why @ SelectorError::Output(_)) => errors.push(Error::invalid(path, text, why.to_string())),
        Ok(selector) if selector.is_too_complex() => {
            errors.push(Error::forbidden(path, "too complex, exceeds cost limit"));
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::ENVIRONMENT;

    fn complaints(text: &str) -> Vec<String> {
        let mut errors = ErrorList::new();
        expression(&mut errors, text, &Path::root("e"));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn expressions_decide_about_a_device() {
        for text in [
            "true",
            "device.attributes['dra.example.com'].aBool",
            "device.attributes['a'].b ? true : device.attributes['c'].d",
            "device.driver == 'dra.example.com' && device.allowMultipleAllocations",
            "cel.bind(dra, device.attributes['dra.example.com'], dra.oneBool && dra.anotherBool)",
            "device.capacity['dra.example.com'].memory.isGreaterThan(quantity('1Gi'))",
            "device.attributes['dra.example.com'].version.isGreaterThan(semver('0.0.1'))",
        ] {
            assert_eq!(complaints(text), Vec::<String>::new(), "{text}");
        }
        for (text, wanted) in [
            ("1", "e: Invalid value: \"1\": must evaluate to bool or the unknown type, not int"),
            (
                "dyn(true)",
                "e: Invalid value: \"dyn(true)\": must evaluate to bool or the unknown type, not dyn",
            ),
            (
                "device.attributes['a'].b.c",
                "e: Invalid value: \"device.attributes['a'].b.c\": must evaluate to bool or the unknown type, not dyn",
            ),
            (
                "device.attributes['a']",
                "e: Invalid value: \"device.attributes['a']\": must evaluate to bool or the unknown type, not map(string, google.protobuf.Any)",
            ),
            (
                "device.attributes['a'].b.exists(x, x == 1)",
                "e: Invalid value: \"device.attributes['a'].b.exists(x, x == 1)\": compilation failed: ERROR: <input>:1:23: expression of type 'any' cannot be range of a comprehension (must be list, map, or dynamic)\n | device.attributes['a'].b.exists(x, x == 1)\n | ......................^",
            ),
            (
                "device.nothing",
                "e: Invalid value: \"device.nothing\": compilation failed: ERROR: <input>:1:7: undefined field 'nothing'\n | device.nothing\n | ......^",
            ),
            (
                "device.attributes['a'].all(x, device.attributes['b'].all(y, device.attributes['c'].all(z, device.attributes['d'].all(v, v + z + y + x == ''))))",
                "e: Forbidden: too complex, exceeds cost limit",
            ),
        ] {
            assert_eq!(complaints(text), [wanted], "{text}");
        }
        assert_eq!(
            complaints(&"x".repeat(EXPRESSION_BYTES_MAX + 1)),
            ["e: Too long: may not be more than 10240 bytes"]
        );
    }

    /// As upstream's own tests expect them.
    #[test]
    fn expressions_cost_what_the_largest_device_costs() {
        for (text, cost) in [
            (r#"device.attributes["no-such-domain"].noSuchAttr.isGreaterThan(quantity("0"))"#, 6),
            (r#""dra.example.com" in device.attributes"#, 3),
            (r#"device.driver == """#, 2),
            (r#"device.driver == "dra.example.com""#, 4),
            (r#"device.attributes["dra.example.com"].name"#, 4),
            (r#"device.attributes["dra.example.com"]["name"]"#, 4),
            (r#"cel.bind(dra, device.attributes["dra.example.com"], dra.name)"#, 15),
            (r#"device.attributes["dra.example.com"].name > 0"#, 5),
            (r#"device.attributes["dra.example.com"].name == "fish""#, 5),
            (r#"device.attributes["dra.example.com"].name.isGreaterThan(semver("0.0.1"))"#, 6),
            (r#"device.capacity["dra.example.com"].name.isGreaterThan(quantity("1Ki"))"#, 6),
            (r#"device.attributes.exists_one(x, x == "dra.example.com")"#, 164),
            (r#"device.attributes["dra.example.com"].exists_one(x, x == "services")"#, 133),
            (r#"device.attributes["dra.example.com"].services.split("example").size() >= 2"#, 19),
            (r#"device.attributes["dra.example.com"].services.matches("[^a]?sym")"#, 18),
            (r#"device.capacity.exists_one(x, x == "dra.example.com")"#, 164),
            (r#"device.capacity["dra.example.com"].exists_one(x, x == "memory")"#, 133),
        ] {
            let estimate = ENVIRONMENT.compile(text).map(|program| program.estimate().max);
            assert_eq!(estimate.ok(), Some(cost), "{text}");
        }
    }
}
