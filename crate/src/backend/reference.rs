//! Plain f32 loops: the oracle.
