//! Belongs to tests: files that are made from code, committed, and checked to be fresh.

use std::{env, fmt::Write, fs, path::Path};

use serde_json::Value;

/// Asserts that the committed file at `path` (from the repository's root) is `fresh`.
///
/// With KUBECAMP_BLESS=1 it writes the file instead; `test` is the filter that runs just this check.
pub(crate) fn assert_fresh(path: &str, fresh: &str, test: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var_os("KUBECAMP_BLESS").is_some() {
        fs::write(&file, fresh).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == fresh, "{path} is stale; write it anew with: KUBECAMP_BLESS=1 cargo test --lib {test}");
}

/// The reference page of a file's keys, from its schema; `types` is where they are declared, `guide` explains them.
pub(crate) fn keys_page(title: &str, types: &str, guide: &str, schema: &schemars::Schema) -> String {
    let root = schema.as_value();
    let mut out = format!(
        "# {title}\n\nMade from `{types}`; a test keeps it fresh. Rules and examples: [the guide](../guide/{guide}.md).\n"
    );
    group(&mut out, "The file", root, root);
    out
}

/// One table per group of keys, and after it those of the groups that it names.
fn group(out: &mut String, title: &str, group_schema: &Value, root: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    write!(out, "\n## {title}\n\n{}\n\n", text(&group_schema["description"])).unwrap();
    out.push_str("| Key | Needed | Value | What it says |\n|---|---|---|---|\n");
    let needed: Vec<String> = group_schema["required"].as_array().into_iter().flatten().map(&text).collect();
    let mut inner = vec![];
    for (key, value) in group_schema["properties"].as_object().unwrap() {
        let item = if value["items"].is_object() { &value["items"] } else { value };
        let item = item["anyOf"].as_array().and_then(|either| either.last()).unwrap_or(item);
        let target = resolve(item, root);
        if target["properties"].is_object() {
            inner.push((key.clone(), target));
        }
        let need = if needed.contains(key) { "yes" } else { "no" };
        let describe = text(&value["description"]);
        writeln!(out, "| `{key}` | {need} | {} | {describe} |", kind(value, root)).unwrap();
    }
    for (key, target) in inner {
        group(out, &format!("`{key}`"), target, root);
    }
}

fn resolve<'v>(value: &'v Value, root: &'v Value) -> &'v Value {
    match value["$ref"].as_str() {
        Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

fn kind(value: &Value, root: &Value) -> String {
    let value = resolve(value, root);
    if let Some(choices) = value["oneOf"].as_array() {
        let words: Vec<String> = choices
            .iter()
            .map(|c| format!("`{}`: {}", c["const"].as_str().unwrap(), c["description"].as_str().unwrap()))
            .collect();
        return words.join("<br>");
    }
    if value["items"].is_object() {
        return format!("list of {}s", kind(&value["items"], root));
    }
    if let Some(either) = value["anyOf"].as_array() {
        return either.iter().map(|one| kind(one, root)).collect::<Vec<_>>().join("s or ");
    }
    let plain = match &value["type"] {
        Value::Array(either) => either[0].as_str().unwrap_or_default(),
        other => other.as_str().unwrap_or_default(),
    };
    match plain {
        "object" => "group".into(),
        "integer" => "number".into(),
        _ => "text".into(),
    }
}
