use rust_embed::RustEmbed;
use tera::{Context, Tera};

use crate::core::{Code, Problem};

/// Text that is sent to hosts, embedded in the binary.
#[derive(RustEmbed)]
#[folder = "templates/"]
struct Files;

/// A template's text as it is, for files without variables.
pub fn text(name: &str) -> Result<String, Problem> {
    Files::get(name)
        .map(|f| String::from_utf8_lossy(&f.data).into_owned())
        .ok_or_else(|| Problem::new(Code::Internal, format!("there is no template {name}")))
}

/// Renders `templates/NAME` with `values`; an undefined variable is an error.
pub fn render(name: &str, values: &serde_json::Value) -> Result<String, Problem> {
    let fail = |e: tera::Error| Problem::new(Code::Internal, format!("the template {name} does not render")).because(e);
    let mut tera = Tera::default();
    tera.add_raw_template(name, &text(name)?).map_err(fail)?;
    let context = Context::from_serialize(values).map_err(fail)?;
    tera.render(name, &context).map_err(fail)
}
