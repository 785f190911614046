// Softmax over rows.
//
//   y[t,i]  = exp(x[t,i] - m[t]) / sum_j exp(x[t,j] - m[t]),  m[t] = max_j x[t,j]
//
// and backward:
//
//   dx[t,i] = y[t,i] (dy[t,i] - sum_j dy[t,j] y[t,j])
//
// Maximum and sum come from one walk along the row: a sum relative to an old maximum is rescaled by exp(old - new) when a larger
// element is met (Milakov and Gimelshein 2018, arXiv 1805.02867).
//
// Shapes: x, y, dy, dx [rows, width], f32. Rows are read in groups of four (Value; of one where width is no multiple of four).
// All sums run in a fixed order.

const THREADS: u32 = 64u;                                                    // @param  a power of two
alias Value = vec4f;                                                         // @param  a group of elements
// @or single  alias Value = f32;
fn total(value: Value) -> f32 { return dot(value, vec4f(1.0)); }             // @param  the sum over a group
// @or single  fn total(value: Value) -> f32 { return value; }
fn largest(value: Value) -> f32 { return max(max(value.x, value.y), max(value.z, value.w)); }  // @param  over a group
// @or single  fn largest(value: Value) -> f32 { return value; }
fn joinedOfThreads(part: vec2f, thread: u32) -> vec2f { return joinedOverWorkgroup(part, thread); } // @param
// @or subgroups  fn joinedOfThreads(part: vec2f, thread: u32) -> vec2f {
// @or subgroups    let m = subgroupMax(part.x); return vec2f(m, subgroupAdd(part.y * exp(part.x - m))); }
fn sumOfThreads(value: f32, thread: u32) -> f32 { return sumOverWorkgroup(value, thread); } // @param
// @or subgroups  fn sumOfThreads(value: f32, thread: u32) -> f32 { return subgroupAdd(value); } // where a workgroup is one subgroup

struct Shape { rows: u32, groups: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Value>;
@group(0) @binding(2) var<storage, read_write> y: array<Value>;
@group(0) @binding(3) var<storage, read> forwardY: array<Value>;            // y, as backward reads it
@group(0) @binding(4) var<storage, read> dy: array<Value>;
@group(0) @binding(5) var<storage, read_write> dx: array<Value>;

var<workgroup> parts: array<vec2f, THREADS>;
var<workgroup> partial: array<f32, THREADS>;

// A part of a row as (maximum, sum of exp(x - maximum)); two parts make one.
fn joined(a: vec2f, b: vec2f) -> vec2f {
  let m = max(a.x, b.x);
  return vec2f(m, a.y * exp(a.x - m) + b.y * exp(b.x - m));
}

// The parts of the threads of the workgroup as one, the same in every thread.
fn joinedOverWorkgroup(part: vec2f, thread: u32) -> vec2f {
  parts[thread] = part;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { parts[thread] = joined(parts[thread], parts[thread + half]); }
  }
  return workgroupUniformLoad(&parts[0]);
}

// The sum of `value` over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: f32, thread: u32) -> f32 {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

fn rowOf(grid: Grid) -> u32 { return grid.workgroup.y * grid.count.x + grid.workgroup.x; }

// ---- forward: one workgroup a row ------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(grid);
  if (row >= shape.rows) { return; }
  let start = row * shape.groups;
  var part = vec2f(largest(x[start]), 0.0);                                  // an element of the row, counted zero times
  for (var i = thread; i < shape.groups; i += THREADS) {
    let value = x[start + i];
    let m = max(part.x, largest(value));
    part = vec2f(m, part.y * exp(part.x - m) + total(exp(value - m)));
  }
  let all = joinedOfThreads(part, thread);
  for (var i = thread; i < shape.groups; i += THREADS) { y[start + i] = exp(x[start + i] - all.x) / all.y; }
}

// ---- backward: one workgroup a row -----------------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn backward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(grid);
  if (row >= shape.rows) { return; }
  let start = row * shape.groups;
  var sum = 0.0;
  for (var i = thread; i < shape.groups; i += THREADS) { sum += total(dy[start + i] * forwardY[start + i]); }
  let delta = sumOfThreads(sum, thread);
  for (var i = thread; i < shape.groups; i += THREADS) { dx[start + i] = forwardY[start + i] * (dy[start + i] - delta); }
}
