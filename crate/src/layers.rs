//! What architectures share.
