//! The prompt language.

pub(crate) mod arrays;
pub(crate) mod raised;
pub(crate) mod source;
