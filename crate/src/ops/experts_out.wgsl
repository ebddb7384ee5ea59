
// Output: y = sums + bias. A block is four consecutive rows of an expert, of which some may lie in another segment.
fn block_row(block: u32, j: u32, route: u32) -> u32 {
    return min(row_here(route, min(4u * block + j, p.expert_rows - 1u)), p.rows - 1u);
}

fn finish(block: u32, route: u32, sums: vec4f) {
    for (var j = 0u; j < 4u; j++) {
        let row = 4u * block + j;
        if row >= p.expert_rows {
            return;
        }
        if row_here(route, row) < p.rows {
            var value = sums[j];
            if p.has_bias != 0u {
                value += bias[expert_start(route) + row];
            }
            y[route * p.out_stride + row] = value;
        }
    }
}
