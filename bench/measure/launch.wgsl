// The cost of a dispatch: one thread adds one to one number, so that each dispatch has to wait for the one before.

@group(0) @binding(0) var<storage, read_write> count: array<f32>;            // [1]

@compute @workgroup_size(1)
fn increment() { count[0] += 1.0; }
