//! Embedding: the rows of a table at token ids. `y[t] = table[ids[t]]`.

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

/// A segment of `rows` rows that starts at row `first_row` of the table; the step's ids start at word `first_id` of their buffer.
pub fn call(format: Format, cols: usize, tokens: usize, first_row: usize, rows: usize, first_id: usize) -> Call {
    let params = [tokens, cols / 4, format.row_quads(cols), first_row, rows, first_id];
    Call {
        kernel: ("embed", Some(format)),
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
    Ok(outcomes)
}
