//! Parameters of operations.

use crate::builtin::tables;

/// A parameter as operations list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub name: &'static str,
    /// `query` or `path`.
    pub place: &'static str,
    /// A JSON type.
    pub kind: &'static str,
    /// Its key among the document's shared parameters; `None` for one that every operation spells out.
    pub key: Option<&'static str>,
}

/// Parameters that upstream spells out everywhere, since their descriptions differ.
const DRY_RUN: Parameter = Parameter { name: "dryRun", place: "query", kind: "string", key: None };
const FIELD_VALIDATION: Parameter =
    Parameter { name: "fieldValidation", place: "query", kind: "string", key: None };
pub(super) const NAME: Parameter = Parameter { name: "name", place: "path", kind: "string", key: None };

/// Keys of shared bodies.
pub(super) const DELETE_OPTIONS_BODY: &str = "body-2Y1dVQaQ";
pub(super) const PATCH_BODY: &str = "body-78PwaGsr";

/// The shared parameters, read once for a document.
pub(super) struct Shared {
    all: Vec<tables::Parameter>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { all: tables::parameters().collect() }
    }

    pub(super) fn all(&self) -> &[tables::Parameter] {
        &self.all
    }

    pub(super) fn namespace(&self) -> Parameter {
        self.only("namespace")
    }

    pub(super) fn pretty(&self) -> Parameter {
        self.only("pretty")
    }

    /// Of lists and watches.
    pub(super) fn list(&self) -> Vec<Parameter> {
        let mut parameters = self.selection();
        parameters.extend([self.only("allowWatchBookmarks"), self.only("watch")]);
        parameters
    }

    /// Of reading a custom resource; upstream does not describe it for built-in kinds.
    pub(super) fn custom_get(&self) -> Vec<Parameter> {
        self.named(&["resourceVersion"])
    }

    pub(super) fn delete(&self) -> Vec<Parameter> {
        let mut parameters = self.named(&[
            "gracePeriodSeconds",
            "ignoreStoreReadErrorWithClusterBreakingPotential",
            "orphanDependents",
            "propagationPolicy",
        ]);
        parameters.push(DRY_RUN);
        parameters
    }

    pub(super) fn delete_collection(&self) -> Vec<Parameter> {
        let mut parameters = self.delete();
        parameters.extend(self.selection());
        parameters
    }

    /// Of creates and updates.
    pub(super) fn write(&self) -> Vec<Parameter> {
        vec![DRY_RUN, FIELD_VALIDATION, self.by_key("fieldManager-Qy4HdaTW")]
    }

    pub(super) fn patch(&self) -> Vec<Parameter> {
        vec![DRY_RUN, FIELD_VALIDATION, self.by_key("fieldManager-7c6nTn1T"), self.only("force")]
    }

    /// Of `pods/log`.
    pub(super) fn log(&self) -> Vec<Parameter> {
        let mut parameters = self.named(&[
            "follow",
            "insecureSkipTLSVerifyBackend",
            "limitBytes",
            "previous",
            "sinceSeconds",
            "stream",
            "tailLines",
            "timestamps",
        ]);
        parameters.push(self.by_key("container-1GeXxFDC"));
        parameters
    }

    /// Of a connection, by the kind of its options. The same name means something else from kind to kind.
    pub(super) fn connect(&self, options_kind: &str) -> Vec<Parameter> {
        let keys: &[&str] = match options_kind {
            "NodeProxyOptions" => &["path-rFDtV0x9"],
            "PodAttachOptions" => &[
                "container-_Q-EJ3nR",
                "stderr-26jJhFUR",
                "stdin-sEFnN3IS",
                "stdout-005YMKE6",
                "tty-g7MlET_l",
            ],
            "PodExecOptions" => &[
                "command-Py3eQybp",
                "container-i5dOmRiM",
                "stderr-W_1TNlWc",
                "stdin-PSzNhyUC",
                "stdout--EZLRwV1",
                "tty-s0flW37O",
            ],
            "PodPortForwardOptions" => &["ports-91KROJmm"],
            "PodProxyOptions" => &["path-oPbzgLUj"],
            "ServiceProxyOptions" => &["path-QCf0eosM"],
            _ => &[],
        };
        keys.iter().map(|key| self.by_key(key)).collect()
    }

    /// The rest of a proxied path.
    pub(super) fn proxied_path(&self) -> Parameter {
        self.by_key("path-z6Ciiujn")
    }

    fn selection(&self) -> Vec<Parameter> {
        self.named(&[
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "shardSelector",
            "timeoutSeconds",
        ])
    }

    fn named(&self, names: &[&str]) -> Vec<Parameter> {
        names.iter().map(|name| self.only(name)).collect()
    }

    fn only(&self, name: &str) -> Parameter {
        self.find(|own| own.name == name, name)
    }

    fn by_key(&self, key: &str) -> Parameter {
        self.find(|own| own.key == key, key)
    }

    fn find(&self, is_it: impl Fn(&tables::Parameter) -> bool, wanted: &str) -> Parameter {
        let row = self.all.iter().find(|row| is_it(row));
        let row = row.unwrap_or_else(|| panic!("parameters.txt lacks {wanted}"));
        Parameter { name: row.name, place: row.place, kind: row.kind, key: Some(row.key) }
    }
}
