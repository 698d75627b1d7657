// The device's half of the exchange; the host's is in pattern.rs.

// Four neighbouring words. The host owns all but `device`.
struct Cell {
    early: u32,
    device: u32,
    late: array<u32, 2>,
}

@group(0) @binding(0) var<storage, read> input: array<u32>;
@group(0) @binding(1) var<storage, read_write> output: array<u32>;
@group(0) @binding(2) var<storage, read_write> cells: array<Cell>;

@compute @workgroup_size(64)
fn transform(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if (i < arrayLength(&output)) {
        output[i] = reverseBits(input[i]) ^ (i * 0x9E3779B1u);
    }
}

@compute @workgroup_size(64)
fn answer(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if (i < arrayLength(&cells)) {
        let early = cells[i].early;
        let late = cells[i].late[1u - (early & 1u)];
        cells[i].device = (early ^ reverseBits(late)) + i * 0x85EBCA6Bu;
    }
}
