//! Belongs: an opened file -> text; YAML text -> a tree that knows line and column; reading typed values out of it, every mistake noted.
//! Never: opening files, what a key means.
//! Start here: `form.rs`; `node.rs` has the tree.

mod form;
mod node;
mod text;

pub use form::{Fields, Form, Spot};
pub use node::{Broken, Node, Place, Value, tree};
pub use text::{text, unread};
