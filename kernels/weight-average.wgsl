// Exponential moving average (EMA) of weights.              after Polyak and Juditsky 1992; openpi, scripts/train.py (ema_params)
//
//   average = decay average + (1 - decay) value                    after every update of the optimizer, unless it was skipped
//
// `exchange` swaps averages and values, so that whatever reads the weights reads their averages until the next exchange.
//
// A value in bfloat16 changes places with the upper half of its average, which is the average rounded to nearest: 2^15 is added to the
// bits of stored averages, so that cutting off their lower half rounds. The lower half stays where it is, and nothing is lost.
//
// Shapes: value, average [4 groups]: the parameters of one arena, and their averages in f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two
alias Value = vec4u;                                                         // @param  bits of four values
// @or bf16  alias Value = vec2u;
fn unpack(bits: Value) -> vec4f { return bitcast<vec4f>(bits); }            // @param
// @or bf16  fn unpack(bits: Value) -> vec4f { return bitcast<vec4f>(vec4u(bits << vec2u(16u), bits & vec2u(0xffff0000u)).xzyw); }
const HALF: u32 = 0u;                                                        // @param  added to the bits of averages: 2^15 for bfloat16
struct Exchanged { value: Value, average: vec4u }
fn exchanged(value: Value, average: vec4u) -> Exchanged { return Exchanged(average, value); } // @param
// @or bf16  fn exchanged(value: Value, average: vec4u) -> Exchanged {
// @or bf16    let wide = vec4u(value << vec2u(16u), value & vec2u(0xffff0000u)).xzyw; let high = average >> vec4u(16u);
// @or bf16    return Exchanged(high.xz | (high.yw << vec2u(16u)), wide | (average & vec4u(0xffffu))); }

struct Shape { groups: u32, run: u32, near: u32, far: u32, decay: f32 }
struct Norm { length: f32, scale: f32, clip: f32, unusable: f32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> value: array<Value>;
@group(0) @binding(2) var<storage, read_write> average: array<vec4u>;
@group(0) @binding(3) var<storage, read> norms: array<Norm>;                // see gradient-norms.wgsl

// The groups of a thread, `shape.near` apart; see streaming.ts. The grid is two-dimensional because one axis holds at most 65,535.
struct Walk { first: u32, end: u32 }
fn walk(grid: Grid, thread: u32) -> Walk {
  let first = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS * shape.run + thread * shape.far;
  return Walk(first, min(first + shape.run * shape.near, shape.groups));
}

@compute @workgroup_size(THREADS) fn begin(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) { average[i] = bitcast<vec4u>(unpack(value[i])) + vec4u(HALF); }
}

@compute @workgroup_size(THREADS) fn update(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  if (norms[0].unusable != 0.0) { return; }
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) {
    let before = bitcast<vec4f>(average[i] - vec4u(HALF));
    average[i] = bitcast<vec4u>(shape.decay * before + (1.0 - shape.decay) * unpack(value[i])) + vec4u(HALF);
  }
}

@compute @workgroup_size(THREADS) fn exchange(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) {
    let after = exchanged(value[i], average[i]);
    value[i] = after.value;
    average[i] = after.average;
  }
}
