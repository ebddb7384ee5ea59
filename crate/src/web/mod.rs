//! The browser.

pub mod clock;
pub mod fetch;
mod js;
pub mod opfs;
