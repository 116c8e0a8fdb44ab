//! Manifests: the YAML of one commit to [`crate::model::Desired`].
//!
//! A file is split into documents, each is parsed to a tree that knows where everything was
//! written, an App's tree is merged over its bases, and each tree is decoded field by field.
//! Then the documents are held against each other. Every mistake of a commit is found at once,
//! and tied to the object that it belongs to: the others stay usable.
//!
//! This module never reads a file itself, and no text leaves it that isn't one of the checked
//! types of [`crate::model`].

mod base;
mod decode;
mod document;
mod file;
mod link;
mod mistake;
mod node;
mod parse;
mod reader;
mod reference;
mod render;
pub mod schema;
mod syntax;
mod text;

pub use reader::{Reader, Reading};
pub use reference::reference_markdown;
pub use render::{render, render_warnings};
pub use schema::json_schema;
