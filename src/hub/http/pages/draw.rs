use std::sync::LazyLock;

use rust_embed::RustEmbed;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tera::{Context, Tera};

use super::{Words, style};
use crate::core::{Code, Problem};

/// Templates, sentences, style and script of the pages, embedded in the binary.
#[derive(RustEmbed)]
#[folder = "templates/hub/"]
struct Files;

static PAGES: LazyLock<Result<Tera, String>> = LazyLock::new(|| {
    let mut tera = Tera::default();
    let pages = Files::iter().filter(|n| n.ends_with(".html"));
    let pages: Vec<(String, String)> = pages.map(|n| (n.to_string(), file(&n))).collect();
    tera.add_raw_templates(pages.iter().map(|(n, t)| (n.as_str(), t.as_str()))).map_err(|e| e.to_string())?;
    Ok(tera)
});

/// The style sheet: the written part, and the positions that Rust counts out.
pub static STYLE: LazyLock<String> = LazyLock::new(|| file("hub.css") + &style::positions());
/// The script; the pages work without it.
pub static SCRIPT: LazyLock<String> = LazyLock::new(|| file("hub.js"));
/// Ends the life of cached style and script when they change.
pub static STAMP: LazyLock<String> = LazyLock::new(|| {
    let both = Sha256::new().chain_update(STYLE.as_bytes()).chain_update(SCRIPT.as_bytes());
    hex::encode(both.finalize())[..12].to_owned()
});

/// An embedded file's text; empty when there is none.
pub fn file(name: &str) -> String {
    Files::get(name).map(|f| String::from_utf8_lossy(&f.data).into_owned()).unwrap_or_default()
}

/// The names of all templates.
#[cfg(test)]
pub fn names() -> impl Iterator<Item = std::borrow::Cow<'static, str>> {
    Files::iter().filter(|n| n.ends_with(".html"))
}

/// Renders a template with the catalogue `t`, the frame `page` and the values of the page itself as `v`.
pub fn draw(name: &str, words: &Words, page: &impl Serialize, values: &impl Serialize) -> Result<String, Problem> {
    let mut context = Context::new();
    context.insert("t", words);
    context.insert("page", page);
    context.insert("v", values);
    context.insert("stamp", &*STAMP);
    rendered(name, &context)
}

/// Renders a piece of a page from its own values only; what it is put into takes it as it is.
pub fn part(name: &str, values: &impl Serialize) -> Result<String, Problem> {
    rendered(name, &Context::from_serialize(values).map_err(|e| not_drawn(name, e.to_string()))?)
}

fn rendered(name: &str, context: &Context) -> Result<String, Problem> {
    let tera = PAGES.as_ref().map_err(|e| not_drawn(name, e.clone()))?;
    tera.render(name, context).map_err(|e| not_drawn(name, e.to_string()))
}

fn not_drawn(name: &str, why: String) -> Problem {
    Problem::new(Code::Internal, format!("the page {name} does not render")).detail([why])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_templates_are_read() {
        assert!(PAGES.is_ok(), "{:?}", PAGES.as_ref().err());
        assert!(names().count() > 5);
    }

    /// The content security policy forbids inline script and style, so a page that has some would break silently.
    #[test]
    fn nothing_is_inline() {
        for name in names() {
            // Drawn by row.html, where all is escaped.
            let text = file(&name).to_ascii_lowercase().replace("{{ row.html | safe }}", "");
            for bad in
                [" style=", "<style", " onclick=", " onload=", " onsubmit=", " onchange=", "javascript:", "| safe"]
            {
                assert!(!text.contains(bad), "{name} has {bad}");
            }
            for (at, _) in text.match_indices("<script") {
                assert!(text[at..].starts_with("<script src="), "{name} has an inline script");
            }
        }
    }

    #[test]
    fn every_form_that_changes_something_carries_the_token() {
        for name in names() {
            let text = file(&name);
            for (at, _) in text.match_indices("method=\"post\"") {
                let form = text[at..].split("</form>").next().unwrap_or_default();
                assert!(
                    form.contains("name=\"csrf\"")
                        || form.contains("data-csrf=\"none\"")
                        || form.contains("include \"hidden.html\"")
                        || form.contains("include \"token.html\""),
                    "{name}"
                );
            }
        }
    }
}
