//! The processor: SIMD kernels on threads.

pub mod parts;
pub mod pool;
pub mod threads;
