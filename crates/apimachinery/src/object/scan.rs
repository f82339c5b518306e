//! Hot path: one pass over canonical JSON that notes where the metadata lies and skips everything else.
//!
//! Trusts nothing: bytes may come from a damaged disk, so every step is bounds-checked and a surprise is an error.

use super::{Layout, MalformedObject, OwnerSpan, Span};
use crate::value::plain_len;

type Result<T> = std::result::Result<T, MalformedObject>;

pub(super) fn layout<'f>(json: &[u8], fields: impl ExactSizeIterator<Item = &'f str>) -> Result<Layout> {
    if u32::try_from(json.len()).is_err() {
        return Err(MalformedObject { at: 0, what: "longer than 4 GiB" });
    }
    if simdutf8::basic::from_utf8(json).is_err() {
        return Err(MalformedObject { at: 0, what: "not UTF-8" });
    }
    let mut scan = Scan { json, at: 0 };
    let mut layout = Layout { fields: vec![Span::default(); fields.len()].into(), ..Layout::default() };
    let mut wanted: Vec<(&str, usize)> = fields.enumerate().map(|(index, path)| (path, index)).collect();
    scan.expect(b"{\"apiVersion\":")?;
    scan.string()?;
    scan.expect(b",\"kind\":")?;
    scan.string()?;
    scan.expect(b",")?;
    layout.body_at = scan.at as u32;
    scan.expect(b"\"metadata\":")?;
    metadata(&mut scan, &mut layout)?;
    wanted.retain(|(path, index)| match *path {
        "metadata.name" => {
            layout.fields[*index] = quoted(layout.name);
            false
        }
        "metadata.namespace" => {
            layout.fields[*index] = quoted(layout.namespace);
            false
        }
        _ => true,
    });
    while scan.peek()? == b',' {
        scan.at += 1;
        let key = scan.string()?;
        scan.expect(b":")?;
        scan.selectable(&json[key.start as usize..key.end as usize], &wanted, &mut layout.fields)?;
    }
    scan.expect(b"}")?;
    if scan.at != json.len() {
        return Err(scan.error("bytes after the end"));
    }
    Ok(layout)
}

/// Widens a string's span to its quotes, which is how selectable fields are kept.
fn quoted(span: Span) -> Span {
    if span == Span::default() { span } else { Span { start: span.start - 1, end: span.end + 1 } }
}

/// End of the JSON value that starts at `at`.
pub(super) fn end_of_value(json: &[u8], at: usize) -> Option<usize> {
    let mut scan = Scan { json, at };
    scan.skip().ok()?;
    Some(scan.at)
}

fn metadata(scan: &mut Scan<'_>, layout: &mut Layout) -> Result<()> {
    scan.expect(b"{")?;
    let mut slot_found = false;
    let mut any_before_slot = false;
    if scan.peek()? == b'}' {
        layout.revision_at = scan.at as u32;
        scan.at += 1;
        return Ok(());
    }
    loop {
        let field_at = scan.at;
        let key = scan.string()?;
        let key = &scan.json[key.start as usize..key.end as usize];
        scan.expect(b":")?;
        if !slot_found && key > b"resourceVersion".as_slice() {
            slot_found = true;
            layout.revision_at = field_at as u32;
            layout.revision_comma_after = true;
        }
        match key {
            b"name" => layout.name = scan.plain_string()?,
            b"namespace" => layout.namespace = scan.plain_string()?,
            b"uid" => layout.uid = scan.plain_string()?,
            b"creationTimestamp" => layout.creation_timestamp = scan.plain_string_or_null()?,
            b"deletionTimestamp" => layout.deletion_timestamp = scan.plain_string_or_null()?,
            b"generation" => layout.generation = scan.integer()?,
            b"labels" => layout.labels = scan.string_map()?,
            b"finalizers" => layout.finalizers = scan.string_list()?,
            b"ownerReferences" => layout.owners = scan.owners()?,
            b"resourceVersion" => return Err(scan.error("a stored object has no resourceVersion")),
            _ => scan.skip()?,
        }
        if !slot_found {
            any_before_slot = true;
        }
        match scan.next()? {
            b',' => {}
            b'}' => break,
            _ => return Err(scan.error("expected , or } in metadata")),
        }
    }
    if !slot_found {
        layout.revision_at = scan.at as u32 - 1;
        layout.revision_comma_before = any_before_slot;
    }
    Ok(())
}

struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn error(&self, what: &'static str) -> MalformedObject {
        MalformedObject { at: self.at, what }
    }

    fn peek(&self) -> Result<u8> {
        self.json.get(self.at).copied().ok_or_else(|| self.error("unexpected end"))
    }

    fn next(&mut self) -> Result<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, text: &'static [u8]) -> Result<()> {
        if !self.json[self.at..].starts_with(text) {
            return Err(self.error("not in canonical form"));
        }
        self.at += text.len();
        Ok(())
    }

    /// Consumes a string and returns the span between its quotes.
    fn string(&mut self) -> Result<Span> {
        if self.next()? != b'"' {
            return Err(self.error("expected a string"));
        }
        let start = self.at;
        loop {
            let rest = self.json.get(self.at..).unwrap_or_default();
            let plain = plain_len(rest);
            match rest.get(plain) {
                Some(b'"') => {
                    let end = self.at + plain;
                    self.at = end + 1;
                    return Ok(Span { start: start as u32, end: end as u32 });
                }
                Some(b'\\') => self.at += plain + 2,
                // A control character, which our writer escapes.
                Some(_) => self.at += plain + 1,
                None => return Err(self.error("unterminated string")),
            }
        }
    }

    /// A string whose text needs no unescaping: names, labels, times.
    fn plain_string(&mut self) -> Result<Span> {
        let span = self.string()?;
        if memchr::memchr(b'\\', &self.json[span.start as usize..span.end as usize]).is_some() {
            return Err(self.error("an escape where none is allowed"));
        }
        Ok(span)
    }

    fn plain_string_or_null(&mut self) -> Result<Span> {
        if self.peek()? == b'n' {
            self.skip()?;
            return Ok(Span::default());
        }
        self.plain_string()
    }

    fn integer(&mut self) -> Result<i64> {
        let start = self.at;
        self.skip()?;
        std::str::from_utf8(&self.json[start..self.at])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.error("expected an integer"))
    }

    fn boolean(&mut self) -> Result<bool> {
        let start = self.at;
        self.skip()?;
        Ok(&self.json[start..self.at] == b"true")
    }

    fn string_map(&mut self) -> Result<Box<[(Span, Span)]>> {
        let mut entries = Vec::new();
        self.each_field(|scan, key| {
            entries.push((key, scan.plain_string()?));
            Ok(())
        })?;
        Ok(entries.into())
    }

    fn string_list(&mut self) -> Result<Box<[Span]>> {
        let mut items = Vec::new();
        self.each_item(|scan| {
            items.push(scan.plain_string()?);
            Ok(())
        })?;
        Ok(items.into())
    }

    fn owners(&mut self) -> Result<Box<[OwnerSpan]>> {
        let mut owners = Vec::new();
        self.each_item(|scan| {
            let mut owner = OwnerSpan::default();
            scan.each_field(|scan, key| {
                match &scan.json[key.start as usize..key.end as usize] {
                    b"apiVersion" => owner.api_version = scan.plain_string()?,
                    b"kind" => owner.kind = scan.plain_string()?,
                    b"name" => owner.name = scan.plain_string()?,
                    b"uid" => owner.uid = scan.plain_string()?,
                    b"controller" => owner.controller = scan.boolean()?,
                    b"blockOwnerDeletion" => owner.block_owner_deletion = scan.boolean()?,
                    _ => scan.skip()?,
                }
                Ok(())
            })?;
            owners.push(owner);
            Ok(())
        })?;
        Ok(owners.into())
    }

    /// Notes the spans of wanted fields below the field `name` and skips the rest.
    fn selectable(&mut self, name: &[u8], wanted: &[(&str, usize)], fields: &mut [Span]) -> Result<()> {
        let below: smallvec::SmallVec<[(&str, usize); 8]> = wanted
            .iter()
            .filter_map(|&(path, index)| {
                let rest = path.as_bytes().strip_prefix(name)?;
                match rest.first() {
                    None => Some(("", index)),
                    Some(b'.') => Some((&path[name.len() + 1..], index)),
                    Some(_) => None,
                }
            })
            .collect();
        let start = self.at;
        let leaf = below.iter().find(|(path, _)| path.is_empty()).map(|&(_, index)| index);
        if leaf.is_none() && !below.is_empty() && self.peek()? == b'{' {
            return self.each_field(|scan, key| {
                let key = &scan.json[key.start as usize..key.end as usize];
                scan.selectable(key, &below, fields)
            });
        }
        self.skip()?;
        if let Some(index) = leaf {
            fields[index] = Span { start: start as u32, end: self.at as u32 };
        }
        Ok(())
    }

    fn each_field(&mut self, mut visit: impl FnMut(&mut Self, Span) -> Result<()>) -> Result<()> {
        if self.peek()? == b'n' {
            return self.skip();
        }
        self.expect(b"{")?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b":")?;
            visit(self, key)?;
            match self.next()? {
                b',' => {}
                b'}' => return Ok(()),
                _ => return Err(self.error("expected , or }")),
            }
        }
    }

    fn each_item(&mut self, mut visit: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if self.peek()? == b'n' {
            return self.skip();
        }
        self.expect(b"[")?;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            visit(self)?;
            match self.next()? {
                b',' => {}
                b']' => return Ok(()),
                _ => return Err(self.error("expected , or ]")),
            }
        }
    }

    /// Consumes one value of any type.
    fn skip(&mut self) -> Result<()> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'{' | b'[' => self.skip_nested(),
            _ => {
                let rest = &self.json[self.at..];
                self.at += rest.iter().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(rest.len());
                Ok(())
            }
        }
    }

    fn skip_nested(&mut self) -> Result<()> {
        /// Below the parser's limit of 128 levels, so that what is stored can always be read again.
        const DEPTH_MAX: usize = 120;
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' if depth == DEPTH_MAX => return Err(self.error("nested too deeply")),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }
}
