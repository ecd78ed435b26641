use std::{fs, path::Path};

/// One apt source: where packages of some suites come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The archive's base, as it stands in the file.
    pub uri: String,
    /// Its suites, as `bookworm` and `bookworm-updates`.
    pub suites: Vec<String>,
    /// Its components, as `main`.
    pub components: Vec<String>,
    /// The keyring file that signs it, where one is named.
    pub signed_by: Option<String>,
}

/// The apt sources of a computer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Those of this computer; files that cannot be read count as empty.
    pub fn here() -> Self {
        Self::read(Path::new("/etc/apt"))
    }

    fn read(apt: &Path) -> Self {
        let mut lines = fs::read_to_string(apt.join("sources.list")).unwrap_or_default();
        let mut stanzas = String::new();
        let entries = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.map(|e| e.path()).collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let into = match file.extension().and_then(|e| e.to_str()) {
                Some("list") => &mut lines,
                Some("sources") => &mut stanzas,
                _ => continue,
            };
            into.push('\n');
            into.push_str(&text);
            into.push_str("\n\n");
        }
        Self::parse(&lines, &stanzas)
    }

    /// Reads the one-line format and the deb822 format; what cannot be understood is left out, as apt's own
    /// complaint is better.
    pub fn parse(lines: &str, stanzas: &str) -> Self {
        let mut found: Vec<_> = lines.lines().filter_map(one_line).collect();
        let bare: Vec<&str> = stanzas.lines().filter(|l| !l.starts_with('#')).collect();
        for stanza in bare.split(|line| line.trim().is_empty()) {
            found.extend(deb822(stanza));
        }
        Self(found)
    }

    /// The first source that has the component `main` of `suite`.
    pub fn main(&self, suite: &str) -> Option<&Source> {
        self.0.iter().find(|s| s.suites.iter().any(|x| x == suite) && s.components.iter().any(|c| c == "main"))
    }
}

/// `deb [signed-by=FILE arch=x] URI SUITE COMPONENT...`
fn one_line(line: &str) -> Option<Source> {
    let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).map(str::to_owned);
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source { uri, suites: vec![suite], components: words.collect(), signed_by })
}

/// One stanza: `Key: value` lines, continued by lines that begin with a blank. One source for each URI.
fn deb822(lines: &[&str]) -> Vec<Source> {
    let mut fields: Vec<(String, String)> = vec![];
    for line in lines {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |name: &str| fields.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str());
    let words = |name: &str| field(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if field("enabled").eq_ignore_ascii_case("no") || !words("types").iter().any(|t| t == "deb") {
        return vec![];
    }
    // A key may stand in the file itself; then there is no keyring to name.
    let signed_by = Some(field("signed-by").to_owned()).filter(|k| k.starts_with('/') && !k.contains('\n'));
    let source =
        |uri| Source { uri, suites: words("suites"), components: words("components"), signed_by: signed_by.clone() };
    words("uris").into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let lines = "# deb http://no.example x main\n\
            deb-src http://no.example bookworm main\n\
            deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian bookworm main contrib # mine\n";
        let stanzas = "Types: deb\n# a remark\nURIs: http://b.example/debian\nSuites: trixie trixie-updates\n\
            Components: main\nSigned-By: /usr/share/keyrings/x.gpg\n\n\
            Types: deb\nEnabled: no\nURIs: http://off.example\nSuites: sid\nComponents: main\n\n\
            Types: deb\nURIs: http://c.example\nSuites: noble\nComponents: main\nSigned-By:\n -----BEGIN PGP\n .\n";
        let sources = Sources::parse(lines, stanzas);
        assert_eq!(sources.0.len(), 3);
        let first = sources.main("bookworm").unwrap();
        assert_eq!((first.uri.as_str(), first.signed_by.as_deref()), ("http://a.example/debian", Some("/k.gpg")));
        let second = sources.main("trixie").unwrap();
        assert_eq!(second.signed_by.as_deref(), Some("/usr/share/keyrings/x.gpg"));
        assert_eq!(sources.main("noble").unwrap().signed_by, None);
        assert_eq!(sources.main("sid"), None);
    }

    #[test]
    fn files_of_other_kinds_are_not_sources() {
        let apt = tempfile::tempdir().unwrap();
        fs::create_dir(apt.path().join("sources.list.d")).unwrap();
        fs::write(apt.path().join("sources.list.d/a.sources.off"), "Types: deb\nURIs: x\nSuites: s\n").unwrap();
        fs::write(apt.path().join("sources.list.d/b.list"), "deb http://d.example s main").unwrap();
        assert_eq!(Sources::read(apt.path()).main("s").unwrap().uri, "http://d.example");
    }
}
