//! What can be computed.
