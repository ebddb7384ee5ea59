//! Tests on every backend.
