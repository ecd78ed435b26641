use std::collections::HashMap;

use serde_yaml::granit_parser::{Event, Parser, ScalarStyle};

/// What one document may weigh with its aliases written out; a profile weighs about fifty.
const MOST: usize = 20_000;

/// Bytes of text that weigh as much as a node: a long text behind many aliases is a bomb too.
const BYTES_PER_NODE: usize = 100;

/// A place in a text; line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

/// One value of a document and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
    /// What it and all beneath it weigh: nodes, and their text in [`BYTES_PER_NODE`].
    weight: usize,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text, number, truth value or nothing; which of them the reader decides.
    Scalar {
        /// The text without quotes.
        text: String,
        /// Whether it stood without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys and values in their order, with equal keys kept.
    Map(Vec<(Node, Node)>),
}

/// Why a text is not a document: what the parser met, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Where it was met.
    pub place: Place,
    /// What was met.
    pub what: String,
}

impl Node {
    /// Whether nothing was written: an empty value, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, in words for a message.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a group of keys",
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { text, plain: true } if text.parse::<f64>().is_ok() => "a number",
            Value::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "false") => "a truth value",
            Value::Scalar { .. } => "a text",
        }
    }
}

/// A list or map that is being read.
struct Open {
    node: Node,
    key: Option<Node>,
    anchor: usize,
}

/// Builds the tree without recursion, so that no nesting can exhaust the stack.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    total: usize,
    root: Option<Node>,
}

/// Reads the one document of `text`; `Ok(None)` when it is empty.
pub fn tree(text: &str) -> Result<Option<Node>, Broken> {
    // A parser that trips over a tab says so in words of its own, and often of a line after it.
    read(text).map_err(|broken| tab(text).unwrap_or(broken))
}

/// The first tab that indents something, as editors put it there at times.
fn tab(text: &str) -> Option<Broken> {
    let indents = |line: &str| {
        let indent = line.find(|c: char| !matches!(c, ' ' | '\t' | '-'))?;
        (!line[indent..].starts_with('#')).then(|| line[..indent].find('\t'))?
    };
    let (line, column) = text.lines().enumerate().find_map(|(line, words)| Some((line, indents(words)?)))?;
    Some(Broken {
        place: place(line + 1, column),
        what: "this line is indented by a tab: write spaces instead of tabs".into(),
    })
}

fn read(text: &str) -> Result<Option<Node>, Broken> {
    let mut builder = Builder::default();
    let mut documents = 0;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| Broken {
            place: place(error.marker().line(), error.marker().col()),
            what: error.info().to_string(),
        })?;
        let here = place(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(Broken {
                        place: here,
                        what: "a second document begins: the file may have only one".into(),
                    });
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let scalar = leaf(here, Value::Scalar { text: text.into_owned(), plain });
                charge(&mut builder.total, scalar.weight, here)?;
                builder.add(scalar, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => builder.begin(leaf(here, Value::List(vec![])), anchor)?,
            Event::MappingStart(_, anchor, _) => builder.begin(leaf(here, Value::Map(vec![])), anchor)?,
            Event::SequenceEnd | Event::MappingEnd => builder.end()?,
            Event::Alias(anchor) => builder.alias(here, anchor)?,
            _ => {}
        }
    }
    Ok(builder.root.filter(|root| !root.is_null()))
}

fn place(line: usize, column: usize) -> Place {
    Place { line: line.max(1) as u64, column: column as u64 + 1 }
}

fn leaf(place: Place, value: Value) -> Node {
    let text = if let Value::Scalar { text, .. } = &value { text.len() } else { 0 };
    Node { place, value, weight: 1 + text / BYTES_PER_NODE }
}

impl Builder {
    fn begin(&mut self, node: Node, anchor: usize) -> Result<(), Broken> {
        charge(&mut self.total, node.weight, node.place)?;
        self.open.push(Open { node, key: None, anchor });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Broken> {
        match self.open.pop() {
            Some(done) => self.add(done.node, done.anchor),
            None => Ok(()),
        }
    }

    /// A copy of the anchored node, standing where the alias stands so that messages point at the user's line.
    fn alias(&mut self, here: Place, anchor: usize) -> Result<(), Broken> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Broken { place: here, what: "the alias stands inside of what it names".into() });
        };
        // Before the copy: a bomb of aliases within aliases must not be built first and counted afterwards.
        charge(&mut self.total, node.weight, here)?;
        let copy = Node { place: here, ..node.clone() };
        self.add(copy, 0)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Broken> {
        if anchor != 0 {
            // The kept copy counts too: nested anchors would otherwise hold each level again.
            charge(&mut self.total, node.weight, node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.node.weight += node.weight;
        match &mut parent.node.value {
            Value::List(items) => items.push(node),
            Value::Map(pairs) => match parent.key.take() {
                Some(key) => pairs.push((key, node)),
                None => parent.key = Some(node),
            },
            Value::Scalar { .. } => {}
        }
        Ok(())
    }
}

/// Adds `weight` to the document's, unless that would be too much.
fn charge(total: &mut usize, weight: usize, place: Place) -> Result<(), Broken> {
    *total += weight;
    if *total > MOST {
        return Err(Broken { place, what: format!("more than {MOST} values: too many for a file of this kind") });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> String {
        let broken = tree(text).unwrap_err();
        format!("{}:{} {}", broken.place.line, broken.place.column, broken.what)
    }

    #[test]
    fn places_are_those_an_editor_shows() {
        let Some(Node { value: Value::Map(pairs), .. }) = tree("a: 1\nb:\n  - ü: [x, 'y']\n").unwrap() else {
            panic!()
        };
        assert_eq!(pairs[0].1.place, Place { line: 1, column: 4 });
        let Value::List(items) = &pairs[1].1.value else { panic!() };
        let Value::Map(inner) = &items[0].value else { panic!() };
        assert_eq!(inner[0].0.place, Place { line: 3, column: 5 });
        let Value::List(words) = &inner[0].1.value else { panic!() };
        assert_eq!(words[1].place, Place { line: 3, column: 12 });
    }

    #[test]
    fn a_tab_is_named_at_its_own_line() {
        let words = "this line is indented by a tab: write spaces instead of tabs";
        for (text, place) in [("a:\n  b: 1\n\tc: [\n", "3:1"), ("# x\n\t# y\nhosts:\n  - d: 1\n  \te: [\n", "5:3")] {
            assert_eq!(broken(text), format!("{place} {words}"), "{text:?}");
        }
        assert!(!broken("a: [x\ty\n").contains("spaces"), "it indents nothing");
        assert!(tree("a: x\ty\n").is_ok());
    }

    #[test]
    fn nothing_is_none() {
        for text in ["", "   \n", "# only a comment\n", "---\n", "~\n"] {
            assert_eq!(tree(text).unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn aliases_are_written_out_at_their_own_place() {
        let Some(Node { value: Value::Map(pairs), .. }) = tree("a: &x {c: 2}\nb: *x\n").unwrap() else { panic!() };
        assert_eq!(pairs[1].1.place, Place { line: 2, column: 4 });
        assert_eq!(pairs[1].1.kind(), "a group of keys");
    }

    #[test]
    fn bombs_and_knots_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let all = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{all}]\n"));
        }
        assert!(broken(&bomb).contains("more than 20000 values"));
        let long = format!("a: &x {}\nb: [{}]\n", "y".repeat(50_000), vec!["*x"; 1000].join(", "));
        assert!(broken(&long).contains("more than 20000 values"));
        assert!(broken("a: &x [*x]\n").contains("inside of what it names"));
        assert!(!broken(&"[".repeat(100_000)).is_empty());
        assert!(broken("a: 1\n---\nb: 2\n").contains("second document"));
    }
}
