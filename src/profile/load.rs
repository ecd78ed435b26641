use std::{borrow::Cow, fs, path::Path};

use rust_embed::Embed;

use super::{
    Layout, Mirror, Profile,
    draft::{self, Draft},
    rules,
};
use crate::core::{
    Code, Problem, Problems, nearest,
    yaml::{self, Form, Place, tree},
};

#[derive(Embed)]
#[folder = "profiles/"]
struct Files;

/// The names of the shipped profiles, which are those of their layouts.
pub fn shipped() -> Vec<String> {
    Layout::SHIPPED.iter().map(ToString::to_string).collect()
}

/// The text of a shipped profile with its comments.
pub fn shipped_text(name: &str) -> Option<Cow<'static, str>> {
    let file = Files::get(&format!("{name}.yaml"))?;
    String::from_utf8(file.data.into_owned()).ok().map(Cow::Owned)
}

/// Loads a shipped profile by its name, as `3x2c4g`, or else the file of that path.
pub fn load(name_or_path: &str) -> Result<Profile, Problems> {
    if let Some(text) = shipped_text(name_or_path) {
        return parse(&text, &format!("{name_or_path}.yaml (shipped)"));
    }
    let path = Path::new(name_or_path);
    if !path.exists() {
        return Err(unknown(name_or_path).into());
    }
    parse(&yaml::text(fs::File::open(path), "profile", name_or_path, Code::ProfileSyntax)?, name_or_path)
}

/// The profile of a layout, with these mirrors in place of its own.
pub fn with_mirrors(layout: &str, mirrors: Vec<Mirror>) -> Result<Profile, Problems> {
    let profile = Profile { mirrors, ..load(layout)? };
    draft::check(&profile)?;
    Ok(profile)
}

/// Reads a profile from `text`; the error has every problem of the file, each with line and column.
pub fn parse(text: &str, file_name: &str) -> Result<Profile, Problems> {
    let mut form = Form::new(file_name, Code::ProfileSyntax);
    let mut draft = Draft::default();
    match tree(text) {
        Ok(Some(root)) => {
            draft = Draft::read(&mut form, &root);
            rules::judge(&mut form, &draft);
        }
        Ok(None) => {
            form.shape(Place { line: 1, column: 1 }, "the profile is empty");
        }
        Err(broken) => {
            form.shape(broken.place, format!("this is not YAML: {}", broken.what));
        }
    }
    form.finish()?;
    let incomplete = || Problem::new(Code::Internal, format!("{file_name} was read without a problem, yet not whole"));
    Ok(draft.complete().ok_or_else(incomplete)?)
}

/// The profile as YAML that [`parse`] reads back, without comments.
pub fn to_yaml(profile: &Profile) -> Result<String, Problem> {
    serde_yaml::to_string(profile)
        .map_err(|error| Problem::new(Code::Internal, "the profile cannot be written as YAML").because(error))
}

fn unknown(given: &str) -> Problem {
    let names = shipped();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hint = match nearest(given, &names) {
        _ if given.parse::<Layout>().is_ok() => format!(
            "Shipped are {}. Another layout needs a profile of your own: copy one with kubecamp profile show, change it, \
             and name it with kubecamp up --profile.",
            names.join(", ")
        ),
        Some(meant) => format!("Did you mean `{meant}`?"),
        None => format!("Shipped are {}; any other name is the path of a file.", names.join(", ")),
    };
    Problem::new(Code::ProfileUnknown, format!("there is neither a shipped profile nor a file `{given}`")).hint(hint)
}
