// RMSNorm, with a gain a of 1 + weight (Gemma) or of the weight (Llama).     Zhang and Sennrich 2019, arXiv 1910.07467
//
//   r[t]    = 1 / sqrt(mean_i x[t,i]^2 + epsilon)
//   y[t,i]  = x[t,i] r[t] a[i]                                               a[i] = 1 + w[i], or a[i] = w[i]
//
// and with g = dy a, backward (da/dw = 1 for both gains):
//
//   dx[t,i] = r[t] (g[t,i] - x[t,i] p[t])                                    p[t] = r[t]^2 mean_j g[t,j] x[t,j]
//   dw[i]   = sum_t dy[t,i] x[t,i] r[t]
//
// Backward needs p of a whole row before the first dx of that row, and dw is a sum over rows. So a workgroup takes a slice of the
// rows twice: along each row for p, then down each column for dx and for the slice's share of dw. Slices are added in order by
// reduce.wgsl.
//
// Shapes: x, y, dy, dx [rows, width]; w, dw [width]; r [rows]. Rows are stored in groups of four (Word), `groups` to a row;
// beyond `width` they hold zeros. Gradients are f32, whatever the storage. All sums are f32 and run in a fixed order.
//
// A kernel file is valid as it stands; the host may replace the declarations marked @param (engine/kernel.ts), here by other sizes,
// by f16 and bf16 storage, or by the other gain. An entry point uses some of the bindings; only those are bound.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const ROWS: u32 = 64u;                                                       // of a slice, at most
alias Word = vec4f;                                                          // @param  storage of four elements
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
// @or subgroups  fn sumOfThreads(value: f32, thread: u32) -> f32 { return subgroupAdd(value); } // of a workgroup that is one subgroup

struct Shape { rows: u32, groups: u32, rowsOfSlice: u32, width: f32, epsilon: f32, accumulate: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> weight: array<Word>;
@group(0) @binding(3) var<storage, read_write> y: array<Word>;
@group(0) @binding(4) var<storage, read_write> inverseRoot: array<f32>;     // r, saved for backward
@group(0) @binding(5) var<storage, read> dy: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> dx: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> dwPartial: array<vec4f>;     // [slices, groups]

var<workgroup> partial: array<f32, THREADS>;
var<workgroup> factors: array<vec2f, ROWS>;                                  // r and p of the rows of a slice

// The sum of `value` over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: f32, thread: u32) -> f32 {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

// ---- forward: one workgroup a row; the grid is two-dimensional because one axis holds at most 65,535 ------------------

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  if (row >= shape.rows) { return; }
  let start = row * shape.groups;
  var squares = 0.0;
  for (var i = thread; i < shape.groups; i += THREADS) {
    let value = unpack(x[start + i]);
    squares += dot(value, value);
  }
  let r = inverseSqrt(sumOfThreads(squares, thread) / shape.width + shape.epsilon);
  for (var i = thread; i < shape.groups; i += THREADS) {
    y[start + i] = pack(unpack(x[start + i]) * r * gainOf(unpack(weight[i])));
  }
  if (thread == 0u) { inverseRoot[row] = r; }
}

// The gradient of x, or with `accumulate` one more share of it, to which other operations have given theirs.
fn addToInput(at: u32, value: vec4f) {
  if (shape.accumulate == 1u) { dx[at] += value; } else { dx[at] = value; }
}

// ---- backward: dx, and dw of a slice of the rows; one workgroup a slice -----------------------------------------------

@compute @workgroup_size(THREADS) fn backward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let slice = workgroup.x;
  let first = slice * shape.rowsOfSlice;
  let end = min(first + shape.rowsOfSlice, shape.rows);
  for (var row = first; row < end; row++) {
    let start = row * shape.groups;
    var alignment = 0.0;                                                     // sum_j g x
    for (var i = thread; i < shape.groups; i += THREADS) {
      alignment += dot(dy[start + i] * gainOf(unpack(weight[i])), unpack(x[start + i]));
    }
    let r = inverseRoot[row];
    let p = r * r * sumOfThreads(alignment, thread) / shape.width;
    if (thread == 0u) { factors[row - first] = vec2f(r, p); }
  }
  workgroupBarrier();
  for (var i = thread; i < shape.groups; i += THREADS) {
    let gain = gainOf(unpack(weight[i]));
    var dw = vec4f();
    var at = first * shape.groups + i;
    for (var row = first; row < end; row++) {
      let r = factors[row - first].x;
      let p = factors[row - first].y;
      let value = unpack(x[at]);
      let gradient = dy[at];
      addToInput(at, r * (gradient * gain - p * value));
      dw += gradient * value * r;
      at += shape.groups;
    }
    dwPartial[slice * shape.groups + i] = dw;
  }
}
