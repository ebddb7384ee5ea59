// Output: y = sums + bias + residual. A block is four consecutive rows.
fn block_row(block: u32, j: u32, token: u32) -> u32 {
    return min(4u * block + j, p.rows - 1u);
}

fn finish(block: u32, token: u32, sums: vec4f) {
    for (var j = 0u; j < 4u; j++) {
        let row = 4u * block + j;
        if row >= p.rows {
            return;
        }
        let column = p.out_start + row;
        var value = sums[j];
        if p.has_bias != 0u {
            value += bias[column];
        }
        if p.has_residual != 0u {
            value += residual[p.residual_offset + token * p.residual_stride + column];
        }
        y[token * p.out_stride + column] = value;
    }
}

