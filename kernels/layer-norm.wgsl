// LayerNorm.                                                      Ba, Kiros and Hinton 2016, arXiv 1607.06450
//
//   m[t]    = mean_i x[t,i]
//   r[t]    = 1 / sqrt(mean_i (x[t,i] - m[t])^2 + epsilon)
//   n[t,i]  = (x[t,i] - m[t]) r[t]
//   y[t,i]  = n[t,i] weight[i] + bias[i]
//
// and with g = dy weight, backward:
//
//   dx[t,i] = r[t] (g[t,i] - mean_j g[t,j] - n[t,i] mean_j g[t,j] n[t,j])
//   dw[i]   = sum_t dy[t,i] n[t,i]
//   db[i]   = sum_t dy[t,i]
//
// A mean that is large against the deviation is only known to its own last bit, which would be an offset in every n. So m is the
// pair (centre, rest), subtracted one after the other: the row's first element, and the mean of x - centre. Rest and variance come
// from one walk along the row (Welford 1962); the parts of the threads are joined as by Chan, Golub and LeVeque 1979.
//
// Both take a slice of the rows to a workgroup, twice: along each row for its statistics or the means of g and g n, then down each
// column for y, or for dx and the slice's share of dw and db. Slices are added in order by reduce.wgsl.
//
// Shapes: x, y, dy, dx [rows, width]; weight, bias, dw, db [width]; statistics [rows], each (centre, rest, r, 0). Rows are read in
// groups of four (Value; of one where width is no multiple of four). Gradients are f32, whatever the storage. All sums are f32
// and run in a fixed order.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const ROWS: u32 = 64u;                                                       // of a slice, at most
alias Value = vec4f;                                                         // @param  a group of elements
// @or single  alias Value = f32;
alias Word = vec4f;                                                          // @param  its storage
// @or f16, bf16  alias Word = vec2u;
// @or single     alias Word = f32;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
// @or single  fn unpack(word: Word) -> Value { return word; }
fn pack(value: vec4f) -> Word { return value; }                              // @param
// @or f16   fn pack(value: vec4f) -> Word { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0));
// @or f16     let nan = select(vec4u(), vec4u(0x7e00u), (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or f16     return vec2u(pack2x16float(safe.xy), pack2x16float(safe.zw)) | nan.xz | (nan.yw << vec2u(16u)); }
// @or bf16  fn pack(value: vec4f) -> Word { let bits = bitcast<vec4u>(value); let half = ((bits >> vec4u(16u)) & vec4u(1u)) + 0x7fffu;
// @or bf16    let kept = select((bits + half) >> vec4u(16u), vec4u(0x7fc0u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or bf16    return kept.xz | (kept.yw << vec2u(16u)); }
// @or single  fn pack(value: Value) -> Word { return value; }
fn total(value: Value) -> f32 { return dot(value, vec4f(1.0)); }             // @param  the sum over a group
// @or single  fn total(value: Value) -> f32 { return value; }
fn firstOf(value: Value) -> f32 { return value.x; }                          // @param
// @or single  fn firstOf(value: Value) -> f32 { return value; }
fn sumOfThreads(value: vec2f, thread: u32) -> vec2f { return sumOverWorkgroup(value, thread); } // @param
// @or subgroups  fn sumOfThreads(value: vec2f, thread: u32) -> vec2f { return subgroupAdd(value); } // where a workgroup is one subgroup

struct Shape { rows: u32, groups: u32, rowsOfSlice: u32, width: f32, epsilon: f32, accumulate: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> weight: array<Value>;
@group(0) @binding(3) var<storage, read> bias: array<Value>;
@group(0) @binding(4) var<storage, read_write> y: array<Word>;
@group(0) @binding(5) var<storage, read_write> statistics: array<vec4f>;     // saved for backward
@group(0) @binding(6) var<storage, read> dy: array<Value>;
@group(0) @binding(7) var<storage, read_write> dx: array<Value>;
@group(0) @binding(8) var<storage, read_write> dwPartial: array<Value>;     // [slices, groups]
@group(0) @binding(9) var<storage, read_write> dbPartial: array<Value>;     // [slices, groups]

var<workgroup> partial: array<vec2f, THREADS>;
var<workgroup> ofRows: array<vec4f, ROWS>;                                   // statistics of the rows of a slice, and
var<workgroup> meansOfRows: array<vec2f, ROWS>;                              // the means of g and of g n

// The sums of both components over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: vec2f, thread: u32) -> vec2f {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

fn sliceOf(grid: Grid) -> u32 { return grid.workgroup.y * grid.count.x + grid.workgroup.x; }

fn normalised(value: Value, ofRow: vec4f) -> Value { return ((value - ofRow.x) - ofRow.y) * ofRow.z; }

// ---- forward: a slice of the rows; one workgroup a slice ---------------------------------------------------------------

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let first = sliceOf(grid) * shape.rowsOfSlice;
  let end = min(first + shape.rowsOfSlice, shape.rows);
  for (var row = first; row < end; row++) {
    let start = row * shape.groups;
    let centre = firstOf(unpack(x[start]));
    var count = 0.0;                                                         // of the groups that this thread has met,
    var mean = Value();                                                      // their mean,
    var squares = Value();                                                   // and the sum of their squared distances to it
    for (var i = thread; i < shape.groups; i += THREADS) {
      let shifted = unpack(x[start + i]) - centre;
      let distance = shifted - mean;
      count += 1.0;
      mean += distance * (1.0 / count);
      squares += distance * (shifted - mean);
    }
    let rest = sumOfThreads(vec2f(count * total(mean), 0.0), thread).x / shape.width;
    let apart = mean - rest;
    let variance = sumOfThreads(vec2f(total(squares) + count * total(apart * apart), 0.0), thread).x / shape.width;
    if (thread == 0u) {
      let ofRow = vec4f(centre, rest, inverseSqrt(variance + shape.epsilon), 0.0);
      statistics[row] = ofRow;
      ofRows[row - first] = ofRow;
    }
  }
  workgroupBarrier();
  for (var i = thread; i < shape.groups; i += THREADS) {
    let gain = weight[i];
    let offset = bias[i];
    var at = first * shape.groups + i;
    for (var row = first; row < end; row++) {
      y[at] = pack(normalised(unpack(x[at]), ofRows[row - first]) * gain + offset);
      at += shape.groups;
    }
  }
}

// The gradient of x, or with `accumulate` one more share of it, to which other operations have given theirs.
fn addToInput(at: u32, value: Value) {
  if (shape.accumulate == 1u) { dx[at] += value; } else { dx[at] = value; }
}

// ---- backward: dx, and dw and db of a slice of the rows; one workgroup a slice -----------------------------------------

@compute @workgroup_size(THREADS) fn backward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let slice = sliceOf(grid);
  let first = slice * shape.rowsOfSlice;
  let end = min(first + shape.rowsOfSlice, shape.rows);
  for (var row = first; row < end; row++) {
    let start = row * shape.groups;
    let ofRow = statistics[row];
    var sumOfG = Value();
    var sumOfGN = Value();
    for (var i = thread; i < shape.groups; i += THREADS) {
      let g = dy[start + i] * weight[i];
      sumOfG += g;
      sumOfGN += g * normalised(unpack(x[start + i]), ofRow);
    }
    let means = sumOfThreads(vec2f(total(sumOfG), total(sumOfGN)), thread) / shape.width;
    if (thread == 0u) {
      ofRows[row - first] = ofRow;
      meansOfRows[row - first] = means;
    }
  }
  workgroupBarrier();
  for (var i = thread; i < shape.groups; i += THREADS) {
    let gain = weight[i];
    var dw = Value();
    var db = Value();
    var at = first * shape.groups + i;
    for (var row = first; row < end; row++) {
      let ofRow = ofRows[row - first];
      let means = meansOfRows[row - first];
      let n = normalised(unpack(x[at]), ofRow);
      let gradient = dy[at];
      addToInput(at, ofRow.z * (gradient * gain - means.x - n * means.y));
      dw += gradient * n;
      db += gradient;
      at += shape.groups;
    }
    dwPartial[slice * shape.groups + i] = dw;
    dbPartial[slice * shape.groups + i] = db;
  }
}
