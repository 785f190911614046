// The roof of memory: it copies, reads and writes vectors of four, with next to no arithmetic.
//
// Thread t of the grid takes RUN neighbouring vectors from t RUN on, then moves on by the whole grid, `turns` times in all.
// Shapes: source, target [turns x threads of the grid x RUN].

const THREADS: u32 = 64u;
const RUN: u32 = 1u;                                                         // @param

struct Shape { turns: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> source: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> target_: array<vec4f>;

// The grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn first(grid: Grid, thread: u32) -> u32 { return ((grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread) * RUN; }
fn far(count: vec3u) -> u32 { return count.x * count.y * THREADS * RUN; }

@compute @workgroup_size(THREADS)
fn copyAll(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  var at = first(grid, thread);
  for (var turn = 0u; turn < shape.turns; turn++) {
    for (var i = 0u; i < RUN; i++) { target_[at + i] = source[at + i]; }
    at += far(grid.count);
  }
}

@compute @workgroup_size(THREADS)
fn readAll(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  var at = first(grid, thread);
  var sum = vec4f();
  for (var turn = 0u; turn < shape.turns; turn++) {
    for (var i = 0u; i < RUN; i++) { sum += source[at + i]; }
    at += far(grid.count);
  }
  if (sum.x + sum.y + sum.z + sum.w > 1e30) { target_[at] = sum; }           // never true, but no compiler knows
}

@compute @workgroup_size(THREADS)
fn writeAll(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  var at = first(grid, thread);
  for (var turn = 0u; turn < shape.turns; turn++) {
    for (var i = 0u; i < RUN; i++) { target_[at + i] = vec4f(f32(i)); }
    at += far(grid.count);
  }
}
