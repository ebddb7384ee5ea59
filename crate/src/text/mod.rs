//! Text to tokens and back.
//!
//! * [`tokenizer`] encodes and decodes, as Hugging Face's `tokenizers` does; [`gguf_tokenizer`] rebuilds its file from a GGUF.
//! * [`template`] turns a conversation into a prompt.
//! * [`stream`] turns tokens into whole characters as they come, and [`stop`] ends the text where the caller said.

pub mod gguf_tokenizer;
mod index;
mod python_json;
pub mod stop;
pub mod stream;
mod strftime;
pub mod template;
pub mod tokenizer;

pub use stop::{StopStrings, Stopped};
pub use stream::TextStream;
pub use template::{ChatTemplate, Message, RenderOptions};
pub use tokenizer::Tokenizer;
