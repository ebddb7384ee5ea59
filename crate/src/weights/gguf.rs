//! GGUF: the header of a file (metadata and tensor table), read from its first bytes.

mod metadata;

pub use metadata::{Metadata, Value};
