//! Belongs: YAML text -> a tree that knows line and column; reading typed values out of it, every mistake noted.
//! Never: files, what a key means.
//! Start here: `form.rs`; `node.rs` has the tree.

mod form;
mod node;

pub use form::{Fields, Form, Spot};
pub use node::{Broken, Node, Place, Value, tree};
