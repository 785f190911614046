// RMSNorm divides each row of x by the root of its mean square, then multiplies it by a gain a, made of a weight w.
// For row t and element i:                                                    Zhang and Sennrich 2019, arXiv 1910.07467
//   r[t]    = 1 / sqrt(mean_i x[t,i]^2 + epsilon)
//   y[t,i]  = x[t,i] r[t] a[i]                          a[i] = 1 + w[i] (Gemma), or a[i] = w[i] (Llama)
//
// Backward turns dy, the gradient of the loss with respect to y, into dx and dw. With g[t,i] = dy[t,i] a[i]:
//   p[t]    = r[t]^2 mean_i g[t,i] x[t,i]               p x is the part of g along x, because a longer x gives the same y
//   dx[t,i] = r[t] (g[t,i] - p[t] x[t,i])
//   dw[i]   = sum_t dy[t,i] x[t,i] r[t]                 da/dw = 1 for both gains
//
// p is a mean along a row, dw a sum over rows. So a workgroup of backward takes a slice, at most ROWS consecutive rows, and reads it
// twice: along each row for p, then down each column for dx and for the slice's share of dw. reduce.wgsl adds the shares in order.
//
// Shapes: x, y, dy, dx [rows, width]; w, dw [width]; r [rows]. A row is stored as `groups` groups of four elements, each one Word, with
// zeros beyond `width`. w and gradients are f32, whatever the storage. All sums are f32 and run in a fixed order.
//
// A kernel file is valid as it stands. The host may replace a declaration marked @param: a number by another, the rest by the
// alternatives below it, marked @or. Pass over these at a first reading. An entry point gets only the bindings that it uses.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const ROWS: u32 = 64u;                                                       // a slice has at most so many rows
alias Word = vec4f;                                                          // @param  four elements as they are stored
// @or f16, bf16  alias Word = vec2u;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
fn pack(value: vec4f) -> Word { return value; }                              // @param
// @or f16   fn pack(value: vec4f) -> Word { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0));
// @or f16     let nan = select(vec4u(), vec4u(0x7e00u), (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or f16     return vec2u(pack2x16float(safe.xy), pack2x16float(safe.zw)) | nan.xz | (nan.yw << vec2u(16u)); }
// @or bf16  fn pack(value: vec4f) -> Word { let bits = bitcast<vec4u>(value); let half = ((bits >> vec4u(16u)) & vec4u(1u)) + 0x7fffu;
// @or bf16    let kept = select((bits + half) >> vec4u(16u), vec4u(0x7fc0u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or bf16    return kept.xz | (kept.yw << vec2u(16u)); }
fn gainOf(weight: vec4f) -> vec4f { return 1.0 + weight; }                   // @param
// @or plain  fn gainOf(weight: vec4f) -> vec4f { return weight; }
fn sumOfThreads(value: f32, thread: u32) -> f32 { return sumOverWorkgroup(value, thread); } // @param
// @or subgroups  fn sumOfThreads(value: f32, thread: u32) -> f32 { return subgroupAdd(value); } // where a workgroup is one subgroup

struct Shape { rows: u32, groups: u32, rowsOfSlice: u32, width: f32, epsilon: f32, accumulate: u32 } // accumulate: 1 or 0
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> weight: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<Word>;
@group(0) @binding(4) var<storage, read_write> inverseRoot: array<f32>;     // r, saved for backward
@group(0) @binding(5) var<storage, read> dy: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> dx: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> dwPartial: array<vec4f>;     // each slice's share of dw [slices, groups]
var<workgroup> partial: array<f32, THREADS>;
var<workgroup> factors: array<vec2f, ROWS>;                                  // (r, p) of each row of a slice

// The sum of `value` over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: f32, thread: u32) -> f32 {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

// ---- forward: a workgroup takes one row. The grid has two axes because one holds at most 65,535 workgroups -------------
@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  if (row >= shape.rows) { return; }
  let start = row * shape.groups;
  var squares = 0.0;
  for (var group = thread; group < shape.groups; group += THREADS) {
    let value = unpack(x[start + group]);
    squares += dot(value, value);
  }
  let r = inverseSqrt(sumOfThreads(squares, thread) / shape.width + shape.epsilon);
  for (var group = thread; group < shape.groups; group += THREADS) {
    y[start + group] = pack(unpack(x[start + group]) * r * gainOf(weight[group]));
  }
  if (thread == 0u) { inverseRoot[row] = r; }
}

// ---- backward: a workgroup takes one slice ------------------------------------------------------------------------------
// Writes dx or, with `accumulate`, adds to the dx that other operations have left.
fn addToInput(at: u32, value: vec4f) {
  if (shape.accumulate == 1u) { dx[at] += value; } else { dx[at] = value; }
}

@compute @workgroup_size(THREADS) fn backward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let slice = workgroup.x;
  let first = slice * shape.rowsOfSlice;
  let end = min(first + shape.rowsOfSlice, shape.rows);
  for (var row = first; row < end; row++) {
    let start = row * shape.groups;
    var alignment = 0.0;                                                     // sum_i g[row,i] x[row,i]
    for (var group = thread; group < shape.groups; group += THREADS) {
      alignment += dot(dy[start + group] * gainOf(weight[group]), unpack(x[start + group]));
    }
    let r = inverseRoot[row];
    let p = r * r * sumOfThreads(alignment, thread) / shape.width;
    if (thread == 0u) { factors[row - first] = vec2f(r, p); }
  }
  workgroupBarrier();
  for (var group = thread; group < shape.groups; group += THREADS) {
    let gain = gainOf(weight[group]);
    var dw = vec4f();
    var at = first * shape.groups + group;
    for (var row = first; row < end; row++) {
      let r = factors[row - first].x; let p = factors[row - first].y;
      let value = unpack(x[at]);
      let gradient = dy[at];
      addToInput(at, r * (gradient * gain - p * value));
      dw += gradient * value * r;
      at += shape.groups;
    }
    dwPartial[slice * shape.groups + group] = dw;
  }
}
