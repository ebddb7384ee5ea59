// Output: y = activation(gate) * up. A block is two rows of gate and the same two of up, which follow p.rows further down.
fn block_row(block: u32, j: u32, token: u32) -> u32 {
    return min(2u * block + (j & 1u), p.rows - 1u) + (j >> 1u) * p.rows;
}

fn finish(block: u32, token: u32, sums: vec4f) {
    for (var j = 0u; j < 2u; j++) {
        let row = 2u * block + j;
        if row >= p.rows {
            return;
        }
        var gate = sums[j];
        var up = sums[j + 2u];
        if p.has_bias != 0u {
            gate += bias[row];
            up += bias[p.rows + row];
        }
        y[token * p.out_stride + row] = gated(p.activation, gate, up);
    }
}

