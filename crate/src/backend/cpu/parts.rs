//! An output that the threads of a job write in parts.

// Safe Rust splits a slice only before threads take the pieces; here a thread learns which piece is its own while it runs.
#![allow(unsafe_code)]

use std::{marker::PhantomData, ops::Range};

/// A slice that the threads of a job write in parts.
pub struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out parts, and whoever asks for them promises that they do not overlap; that is sending `&mut [T]`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// The parts of `data`.
    pub fn new(data: &'a mut [T]) -> Parts<'a, T> {
        Parts { data: data.as_mut_ptr(), len: data.len(), _borrow: PhantomData }
    }

    /// The elements in `range`.
    ///
    /// # Safety
    /// No two parts that overlap may be alive at the same time.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} elements", self.len);
        // SAFETY: within the slice that is borrowed for `'a`, and not aliased, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "of 4 elements")]
    fn a_part_outside_is_refused() {
        let mut data = [0; 4];
        let parts = Parts::new(&mut data);
        // SAFETY: the only part.
        unsafe { parts.part(2..5) };
    }
}
