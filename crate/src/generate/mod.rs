//! Prefill, decode, sample, stop.
