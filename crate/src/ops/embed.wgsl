// y[t] = table[ids[t]]; one segment of the table: ids outside it belong to another dispatch.
struct Params {
    tokens: u32,
    quads: u32,
    row_quads: u32,
    first_row: u32,
    rows: u32,
    first_id: u32, // of the step's ids
    by_position: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let token = id.y;
    let index = select(ids[p.first_id + token], ids[0] + token, p.by_position != 0u);
    let row = index - p.first_row; // wraps to a large number below the first row
    if id.x >= p.quads || row >= p.rows {
        return;
    }
    y[token * p.quads + id.x] = unpack4(row * p.row_quads + id.x);
}

