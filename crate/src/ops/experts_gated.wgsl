
// Output: y = activation(gate) * up. A block is two rows of an expert's gate and the same two of its up, which follow p.out_stride
// rows further down; the segment holds whole experts.
fn block_row(block: u32, j: u32, route: u32) -> u32 {
    return min(row_here(route, min(2u * block + (j & 1u), p.out_stride - 1u) + (j >> 1u) * p.out_stride), p.rows - 1u);
}

fn finish(block: u32, route: u32, sums: vec4f) {
    if row_here(route, 0u) >= p.rows {
        return;
    }
    for (var j = 0u; j < 2u; j++) {
        let row = 2u * block + j;
        if row >= p.out_stride {
            return;
        }
        var gate = sums[j];
        var up = sums[j + 2u];
        if p.has_bias != 0u {
            gate += bias[expert_start(route) + row];
            up += bias[expert_start(route) + p.out_stride + row];
        }
        y[route * p.out_stride + row] = gated(p.activation, gate, up);
    }
}
