//! What comes in a request's head: paths, queries, forms; and the options of a delete in its body.
#![no_main]

use apimachinery::Value;
use apiserver::decode::{self, BodyMedia};
use apiserver::http::{negotiate, path, query};

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &str, &[u8])| {
    let (target, text, form, body) = input;
    let _ = path::is_well_escaped(target);
    if let path::Target::Resource(found) = path::parse(target) {
        let _ = path::verb(&http::Method::GET, &found, true);
    }
    let query = query::Query::parse(text);
    let _ = (query::list_request(&query), query::watch_options(&query));
    let _ = query::write_options(&query, "PatchOptions", true);
    let _ = (negotiate::accept(form, true, false, true), negotiate::accept(form, false, true, false));
    let options = decode::options(body, BodyMedia { content_type: form, cbor: true }).ok();
    let _ = query::delete_options(&query, options.as_ref().or(Some(&Value::Null)));
});
