// The sum of gradients that meet: a tensor that several ops read receives one gradient from each, added in tape order.
//
//   sum[i]     = a[i] + b[i]
//   target[i] += b[i]                      (a parameter's gradient, which outlives the step)
//
// f32, in groups of four. The last group may reach into the padding behind the tensor: of a sum nobody reads it; behind a
// parameter's gradient it stays zero, because norms are taken over whole arenas.

const THREADS: u32 = 64u;                                                    // @param  a power of two

struct Shape { elements: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> sum: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> target_: array<vec4f>;

// The grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn position(grid: Grid, thread: u32) -> u32 { return (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread; }

@compute @workgroup_size(THREADS) fn add(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (4u * i < shape.elements) { sum[i] = a[i] + b[i]; }
}

@compute @workgroup_size(THREADS) fn addInto(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (4u * i >= shape.elements) { return; }
  let real = vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u) < vec4u(shape.elements);
  target_[i] += select(vec4f(), b[i], real);
}
