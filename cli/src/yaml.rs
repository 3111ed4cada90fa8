//! YAML, as JSON values: [`read`] tells on which line each value stands, [`write()`] makes a document of one.
//!
//! Only what JSON can say is read: keys are text, and tags are refused. Where to start: [`read`].

mod read;
mod write;

pub use read::{Document, SyntaxError, read};
pub use write::write;
