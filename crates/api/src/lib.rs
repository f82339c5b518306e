//! Every built-in kind: schema, list-map keys, defaults, validation, conversion, table columns.
