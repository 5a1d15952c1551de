//! Flags, and what they mean.
