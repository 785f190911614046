// Exponential moving average (EMA) of weights.              after Polyak and Juditsky 1992; openpi, scripts/train.py (ema_params)
//
//   average = decay average + (1 - decay) value                    after every update of the optimizer
//
// `exchange` swaps averages and values, so that whatever reads the weights reads their averages until the next exchange.
//
// Shapes: value, average [4 groups]: the parameters of one arena, and their averages. f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two

struct Shape { groups: u32, run: u32, near: u32, far: u32, decay: f32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> value: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> average: array<vec4f>;

// The groups of a thread, `shape.near` apart; see streaming.ts. The grid is two-dimensional because one axis holds at most 65,535.
struct Walk { first: u32, end: u32 }
fn walk(grid: Grid, thread: u32) -> Walk {
  let first = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS * shape.run + thread * shape.far;
  return Walk(first, min(first + shape.run * shape.near, shape.groups));
}

@compute @workgroup_size(THREADS) fn update(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) {
    average[i] = shape.decay * average[i] + (1.0 - shape.decay) * value[i];
  }
}

@compute @workgroup_size(THREADS) fn exchange(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) {
    let before = value[i];
    value[i] = average[i];
    average[i] = before;
  }
}
