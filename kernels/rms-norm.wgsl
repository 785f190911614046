// RMSNorm, with Gemma's gain of (1 + weight).                       Zhang and Sennrich 2019, arXiv 1910.07467
//
//   r[t]    = 1 / sqrt(mean_i x[t,i]^2 + epsilon)
//   y[t,i]  = x[t,i] r[t] (1 + w[i])
//
// and with g = dy (1 + w), backward:
//
//   dx[t,i] = r[t] (g[t,i] - x[t,i] r[t]^2 mean_j g[t,j] x[t,j])
//   dw[i]   = sum_t dy[t,i] x[t,i] r[t]
//
// Shapes: x, y, dy, dx [rows, width]; w, dw [width]; r [rows]. Rows are stored in groups of four (Word), `groups` to a row;
// beyond `width` they hold zeros. Gradients are f32, whatever the storage. All sums are f32 and run in a fixed order.
//
// A kernel file is valid as it stands; the host may replace the declarations marked @param (engine/kernel.ts), here by other sizes
// or by f16 and bf16 storage. An entry point uses some of the bindings; only those are bound.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const ROW_SLICES: u32 = 16u;                                                 // @param  partial sums per column of dw
alias Word = vec4f;                                                          // @param  storage of four elements
fn unpack(word: Word) -> vec4f { return word; }                              // @param
fn pack(value: vec4f) -> Word { return value; }                              // @param

struct Shape { rows: u32, groups: u32, width: f32, epsilon: f32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> weight: array<Word>;
@group(0) @binding(3) var<storage, read_write> y: array<Word>;
@group(0) @binding(4) var<storage, read_write> inverseRoot: array<f32>;     // r, saved for backward
@group(0) @binding(5) var<storage, read> dy: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> dx: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> dwPartial: array<vec4f>;     // [ROW_SLICES, groups]
@group(0) @binding(8) var<storage, read_write> dw: array<vec4f>;

var<workgroup> partial: array<f32, THREADS>;

// The sum of `value` over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: f32, thread: u32) -> f32 {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

// The row of a workgroup; the grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn rowOf(workgroup: vec3u, workgroups: vec3u) -> u32 { return workgroup.y * workgroups.x + workgroup.x; }

// ---- forward: one workgroup a row ------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(workgroup, workgroups);
  if (row >= shape.rows) { return; }
  let start = row * shape.groups;
  var squares = 0.0;
  for (var i = thread; i < shape.groups; i += THREADS) {
    let value = unpack(x[start + i]);
    squares += dot(value, value);
  }
  let r = inverseSqrt(sumOverWorkgroup(squares, thread) / shape.width + shape.epsilon);
  for (var i = thread; i < shape.groups; i += THREADS) {
    y[start + i] = pack(unpack(x[start + i]) * r * (1.0 + unpack(weight[i])));
  }
  if (thread == 0u) { inverseRoot[row] = r; }
}

// ---- backward: dx, one workgroup a row --------------------------------------------------------------------------------

@compute @workgroup_size(THREADS)
fn backwardInput(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(workgroup, workgroups);
  if (row >= shape.rows) { return; }
  let start = row * shape.groups;
  let r = inverseRoot[row];
  var alignment = 0.0;                                                       // sum_j g x
  for (var i = thread; i < shape.groups; i += THREADS) {
    alignment += dot(dy[start + i] * (1.0 + unpack(weight[i])), unpack(x[start + i]));
  }
  let pull = r * r * sumOverWorkgroup(alignment, thread) / shape.width;
  for (var i = thread; i < shape.groups; i += THREADS) {
    let g = dy[start + i] * (1.0 + unpack(weight[i]));
    dx[start + i] = r * (g - pull * unpack(x[start + i]));
  }
}

// ---- backward: dw, rows in ROW_SLICES slices, then the slices in order -------------------------------------------------

@compute @workgroup_size(THREADS)
fn backwardWeightSlices(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= shape.groups) { return; }
  var sum = vec4f();
  for (var row = id.y; row < shape.rows; row += ROW_SLICES) {
    let at = row * shape.groups + column;
    sum += dy[at] * unpack(x[at]) * inverseRoot[row];
  }
  dwPartial[id.y * shape.groups + column] = sum;
}

@compute @workgroup_size(THREADS)
fn backwardWeight(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= shape.groups) { return; }
  var sum = vec4f();
  for (var slice = 0u; slice < ROW_SLICES; slice++) { sum += dwPartial[slice * shape.groups + id.x]; }
  dw[id.x] = sum;
}
