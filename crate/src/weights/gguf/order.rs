//! The order of rows: as the publisher has them, from what llama.cpp's converter made of it.

use super::architecture::Rows;

/// How rows, or elements of a bias, are put back in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// They are.
    AsStored,
    /// Of each head's rows, `2j` goes to `j` and `2j + 1` to `j + head_dim / 2`, so that rope rotates the pair `j`,
    /// `j + head_dim / 2`.
    Interleaved {
        /// Elements of a head.
        head_dim: usize,
    },
    /// All of q, all of k, all of v become q, k and v of the first head, then of the second, ...
    ByPart {
        /// Heads.
        heads: usize,
        /// Elements of a head.
        head_dim: usize,
    },
}

impl Order {
    /// The order of `rows` for heads of these sizes.
    pub fn new(rows: Rows, heads: usize, head_dim: usize) -> Order {
        match rows {
            Rows::AsPublished => Order::AsStored,
            Rows::Interleaved => Order::Interleaved { head_dim },
            Rows::SplitByPart => Order::ByPart { heads, head_dim },
        }
    }

    /// Rows that have to be at hand together.
    pub fn together(self) -> usize {
        match self {
            Order::AsStored => 1,
            Order::Interleaved { head_dim } => head_dim,
            Order::ByPart { heads, head_dim } => 3 * heads * head_dim,
        }
    }

    /// Puts rows of `bytes` bytes in order: a multiple of [`Order::together`].
    pub fn restore(self, rows: Vec<u8>, bytes: usize) -> Vec<u8> {
        if self == Order::AsStored {
            return rows;
        }
        let mut out = Vec::with_capacity(rows.len());
        for rows in rows.chunks_exact(self.together() * bytes) {
            for i in 0..self.together() {
                out.extend(&rows[self.stored(i) * bytes..][..bytes]);
            }
        }
        out
    }

    /// Where the file keeps the publisher's row `i`, of the first [`Order::together`].
    pub fn stored(self, i: usize) -> usize {
        match self {
            Order::AsStored => i,
            Order::Interleaved { head_dim } => i % (head_dim / 2) * 2 + i / (head_dim / 2),
            Order::ByPart { heads, head_dim } => {
                let (head, part, row) = (i / (3 * head_dim), i / head_dim % 3, i % head_dim);
                (part * heads + head) * head_dim + row
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_the_publishers_order() {
        let restored = |order: Order, rows: &[u8]| order.restore(rows.to_vec(), 1);
        assert_eq!(restored(Order::AsStored, b"abc"), b"abc");
        assert_eq!(restored(Order::Interleaved { head_dim: 4 }, b"aAbBcCdD"), b"abABcdCD");
        assert_eq!(restored(Order::ByPart { heads: 2, head_dim: 2 }, b"qqQQkkKKvvVV"), b"qqkkvvQQKKVV");
    }
}
