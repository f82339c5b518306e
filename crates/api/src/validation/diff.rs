//! What changed between two trees, as a person reads it: for complaints about fields that may not change.

use apimachinery::Value;

/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;
/// A change may not show more lines than this, on each side.
const LINES_MAX: usize = 200;

/// The lines of indented JSON that differ, with some context, in unified form. All changes are one hunk.
pub fn unified(old: &Value, new: &Value) -> String {
    let (old, new) = (lines(old), lines(new));
    let shorter = old.len().min(new.len());
    let same_at_start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let same_at_end = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(|(old, new)| old == new)
        .count()
        .min(shorter - same_at_start);
    let first = same_at_start.saturating_sub(CONTEXT);
    let end = |lines: &[String]| {
        (lines.len() - same_at_end, (lines.len() - same_at_end + CONTEXT).min(lines.len()))
    };
    let ((old_changed, old_end), (new_changed, new_end)) = (end(&old), end(&new));
    let mut text = format!("@@ -{},{} +{},{} @@\n", first + 1, old_end - first, first + 1, new_end - first);
    let mut push = |mark: char, lines: &[String]| {
        for line in lines.iter().take(LINES_MAX) {
            text.push(mark);
            text.push_str(line);
            text.push('\n');
        }
    };
    push(' ', &old[first..same_at_start]);
    push('-', &old[same_at_start..old_changed]);
    push('+', &new[same_at_start..new_changed]);
    push(' ', &old[old_changed..old_end]);
    text
}

fn lines(value: &Value) -> Vec<String> {
    let mut lines = vec![String::new()];
    write(value, 0, &mut lines);
    lines
}

fn write(value: &Value, depth: usize, lines: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let entries = map.iter().map(|(key, value)| (format!("\"{key}\": "), value));
            write_items('{', entries, '}', depth, lines);
        }
        Value::Array(items) if !items.is_empty() => {
            write_items('[', items.iter().map(|item| (String::new(), item)), ']', depth, lines);
        }
        leaf => append(lines, &leaf.to_json_string()),
    }
}

fn write_items<'a>(
    open: char,
    items: impl ExactSizeIterator<Item = (String, &'a Value)>,
    close: char,
    depth: usize,
    lines: &mut Vec<String>,
) {
    append(lines, &open.to_string());
    let count = items.len();
    for (index, (label, item)) in items.enumerate() {
        lines.push(" ".repeat(depth + 1) + &label);
        write(item, depth + 1, lines);
        if index + 1 < count {
            append(lines, ",");
        }
    }
    lines.push(" ".repeat(depth) + &close.to_string());
}

fn append(lines: &mut [String], text: &str) {
    if let Some(last) = lines.last_mut() {
        last.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_change_is_shown_with_its_context() {
        let old = json!({"a": 1, "b": {"c": [1, 2]}, "d": 4, "e": 5, "f": 6, "g": 7});
        let mut new = old.clone();
        new.set_at(&["b", "c"], json!([1, 3]));
        assert_eq!(
            unified(&old, &new),
            "@@ -3,7 +3,7 @@\n  \"b\": {\n   \"c\": [\n    1,\n-   2\n+   3\n   ]\n  },\n  \"d\": 4,\n"
        );
    }

    #[test]
    fn pure_additions_and_equal_trees_do_not_panic() {
        assert!(unified(&json!({}), &json!({"a": 1})).contains("+ \"a\": 1"));
        unified(&json!({}), &json!({}));
    }
}
