//! The vocabulary: names, images, revisions, what is desired, what was observed, and the typed
//! HAProxy configuration. Text is parsed into these types once, at the edge; nothing in here
//! does I/O, reads a clock or draws a random number.

mod container;
mod desired;
mod files;
mod image;
mod name;
mod observed;
mod proxy;
mod quantity;
mod record;
mod shared;

pub use container::*;
pub use desired::*;
pub use files::*;
pub use image::*;
pub use name::*;
pub use observed::*;
pub use proxy::*;
pub use quantity::*;
pub use record::*;
pub use shared::*;
