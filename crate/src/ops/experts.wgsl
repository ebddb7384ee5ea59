
// A token is a route: one of the experts that a row of x goes to.
@group(0) @binding(4) var<storage, read> ids: array<f32>;

// The first row of a route's expert in the whole weight.
fn expert_start(route: u32) -> u32 {
    return u32(ids[route]) * p.expert_rows;
}

// Where a row of a route's expert is in this segment; p.rows or more: elsewhere.
fn row_here(route: u32, row: u32) -> u32 {
    return expert_start(route) + row - p.out_start;
}

fn x_start(route: u32) -> u32 {
    return p.x_offset + route / p.share * p.x_stride;
}

// Nothing is read for an expert that lies elsewhere.
fn quads_of(route: u32) -> u32 {
    let start = expert_start(route);
    let here = start < p.out_start + p.rows && start + p.expert_rows > p.out_start;
    return select(0u, p.quads, here);
}
