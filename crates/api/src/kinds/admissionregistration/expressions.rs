//! What is wrong with an expression, in upstream's words.

use apimachinery::field::{ErrorList, Path};
use cel::Type;
use cel::admission::{self, Scope};

use crate::validation::expression::refused;

/// Where an expression of a policy stands, which decides what it sees and what it must be.
#[derive(Clone, Copy)]
pub enum Place {
    Validation,
    Message,
    AuditAnnotation,
    ApplyConfiguration,
    JsonPatch,
}

impl Place {
    fn types(self) -> Vec<Type> {
        match self {
            Self::Validation => vec![Type::Bool],
            Self::Message => vec![Type::String],
            Self::AuditAnnotation => vec![Type::String, Type::Null],
            Self::ApplyConfiguration => vec![admission::object_type()],
            Self::JsonPatch => vec![admission::json_patch_type()],
        }
    }
}

/// A condition of a webhook or a policy.
pub fn match_condition(errors: &mut ErrorList, text: &str, params: bool, path: &Path<'_>) {
    let scope = Scope { params, authorizer: true, mutations: false };
    if let Err(refusal) = admission::environment(scope, None).compile_as(text, &[Type::Bool]) {
        refused(errors, refusal, text, path);
    }
}

/// The expressions of one policy.
pub struct Expressions {
    params: bool,
    /// Variables so far, with their types; nothing where a policy has no `variables`.
    variables: Option<Vec<(String, Type)>>,
}

impl Expressions {
    pub fn new(params: bool, composes: bool) -> Self {
        Self { params, variables: composes.then(Vec::new) }
    }

    fn environment(&self, authorizer: bool, mutations: bool) -> cel::Environment {
        let variables: Option<Vec<(&str, Type)>> = self
            .variables
            .as_ref()
            .map(|variables| variables.iter().map(|(name, ty)| (&**name, ty.clone())).collect());
        admission::environment(Scope { params: self.params, authorizer, mutations }, variables.as_deref())
    }

    /// Checks a variable and lets those after it read it; one that does not compile may be anything.
    pub fn add_variable(&mut self, errors: &mut ErrorList, name: &str, text: &str, path: &Path<'_>) {
        let ty = match self.environment(true, false).compile_as(text, &[]) {
            Ok(program) => program.output().clone(),
            Err(refusal) => {
                refused(errors, refusal, text, path);
                Type::Dyn
            }
        };
        if let Some(variables) = &mut self.variables {
            variables.push((name.into(), ty));
        }
    }

    pub fn check(&self, errors: &mut ErrorList, place: Place, text: &str, path: &Path<'_>) {
        let mutations = matches!(place, Place::ApplyConfiguration | Place::JsonPatch);
        let environment = self.environment(!matches!(place, Place::Message), mutations);
        if let Err(refusal) = environment.compile_as(text, &place.types()) {
            refused(errors, refusal, text, path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(check: impl FnOnce(&mut ErrorList, &Path<'_>)) -> Vec<String> {
        let mut errors = ErrorList::new();
        check(&mut errors, &Path::root("e"));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_place_wants_its_type() {
        let expressions = Expressions::new(false, false);
        for (place, text, wanted) in [
            (Place::Validation, "object.x > 1", None),
            (Place::Validation, "1 + 1", Some("must evaluate to bool but got int")),
            (Place::Message, "'a' + object.x", None),
            (Place::Message, "true", Some("must evaluate to string but got bool")),
            (Place::AuditAnnotation, "null", None),
            (
                Place::AuditAnnotation,
                "[1]",
                Some("must evaluate to one of [string null_type] but got list(int)"),
            ),
            (Place::ApplyConfiguration, "Object{spec: Object.spec{paused: true}}", None),
            (Place::ApplyConfiguration, "{'a': 1}", Some("must evaluate to Object but got map(string, int)")),
            (Place::JsonPatch, "[JSONPatch{op: 'remove', path: '/a'}]", None),
            (Place::JsonPatch, "['a']", Some("must evaluate to list(JSONPatch) but got list(string)")),
        ] {
            let found = complaints(|errors, path| expressions.check(errors, place, text, path));
            let wanted: Vec<String> =
                wanted.iter().map(|wanted| format!("e: Invalid value: {text:?}: {wanted}")).collect();
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn what_an_expression_sees_depends_on_its_place() {
        let authorizer = "authorizer.group('').resource('pods').check('get').reason()";
        let mut expressions = Expressions::new(false, true);
        let refused = |expressions: &Expressions, place, text: &str| {
            !complaints(|errors, path| expressions.check(errors, place, text, path)).is_empty()
        };
        assert!(refused(&expressions, Place::Message, authorizer));
        assert!(!refused(&expressions, Place::AuditAnnotation, authorizer));
        assert!(refused(&expressions, Place::Validation, "params.x == 1"));
        assert!(!refused(&Expressions::new(true, false), Place::Validation, "params.x == 1"));
        assert!(refused(&expressions, Place::Validation, "variables.a"));
        for (name, text) in [("a", "object.x > 1"), ("b", "variables.a ? 1 : 2"), ("broken", "1 +")] {
            complaints(|errors, path| expressions.add_variable(errors, name, text, path));
        }
        assert!(!refused(&expressions, Place::Validation, "variables.a && variables.broken"));
        assert!(refused(&expressions, Place::Validation, "variables.b"));
    }

    #[test]
    fn constants_without_a_value_are_an_error_of_the_server() {
        let found = complaints(|errors, path| match_condition(errors, "int('x') == 1", false, path));
        assert_eq!(
            found,
            ["e: Internal error: program instantiation failed: type conversion error from 'string' to 'int'"]
        );
    }
}
