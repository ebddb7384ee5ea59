//! Embedding: the rows of a table at token ids, `y[t] = table[ids[t]]`, or at the tokens' positions.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel},
};
use crate::{
    backend::{Backend, Input},
    error::Result,
    quant::Format,
};

/// Bindings: ids, y, the table's segment.
pub fn kernels() -> Vec<Kernel> {
    Kernel::for_formats("embed", &[include_str!("embed.wgsl")], &[Access::Read, Access::Write])
}

/// What chooses a row of the table for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Ids, from this word of their buffer on.
    Id(usize),
    /// The token's position; the first one's is word 0 of the buffer.
    Position,
}

/// A segment of `rows` rows that starts at row `first_row` of the table.
pub fn call(format: Format, cols: usize, tokens: usize, first_row: usize, rows: usize, by: By) -> Call {
    let (first_id, by_position) = match by {
        By::Id(first) => (first, 0),
        By::Position => (0, 1),
    };
    let params = [tokens, cols / 4, format.row_quads(cols), first_row, rows, first_id, by_position];
    Call {
        kernel: ("embed", Some(format.planes())),
        params: params.map(|v| v as u32).to_vec(),
        groups: [cols.div_ceil(4 * 64) as u32, tokens as u32, 1],
    }
}

/// `table`: `[vocab, cols]`; returns `[ids, cols]`.
pub fn reference(table: &[f32], cols: usize, ids: &[u32]) -> Vec<f32> {
    ids.iter().flat_map(|&id| &table[id as usize * cols..][..cols]).copied().collect()
}

/// Every format, tables of one and of several segments.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(1);
    for format in Format::ALL {
        for (cols, vocab, split, rows) in [(32, 50, 50, 1), (80, 33, 20, 7), (576, 100, 64, 65)] {
            let segments = if split == vocab { vec![(format, vocab)] } else { vec![(format, split), (format, vocab - split)] };
            let (table, dense) = check::random_weight(backend, &mut random, cols, &segments).await?;
            let ids: Vec<u32> = (0..rows).map(|_| random.below(vocab) as u32).collect();
            let session = check::session(backend, 1, 4, rows, vocab)?;
            backend.begin(session, Input::Tokens(&ids))?;
            let y = backend.embed(table);
            backend.end()?;
            let actual = backend.read(y).await?;
            backend.drop_session(session);
            let name = format!("embed {} [{vocab}, {cols}] in {} segments, {rows} ids", format.name(), segments.len());
            outcomes.push(Outcome { name, expected: reference(&dense, cols, &ids), actual });
        }
    }
    for (past, rows) in [(0, 5), (9, 1), (9, 30)] {
        let (table, dense) = check::random_weight(backend, &mut random, 32, &[(Format::F32, 25), (Format::F32, 25)]).await?;
        let positions: Vec<u32> = (past as u32..(past + rows) as u32).collect();
        let actual = check::one_step(backend, past, rows, |b| b.embed_positions(table)).await?;
        outcomes.push(Outcome { name: format!("embed {rows} positions from {past}"), expected: reference(&dense, 32, &positions), actual });
    }
    Ok(outcomes)
}
