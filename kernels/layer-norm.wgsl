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
// A mean that is large against the deviation is only known to its own last bit, which would be an offset in every n. The mean of
// x - m, taken in a second pass, is that offset: m is the pair (centre, rest), subtracted one after the other.
//
// Both read a row once: a workgroup holds it in registers, KEEP groups to a thread, and reads again only what is longer. Backward
// walks a slice of the rows and adds up dw and db on its way; the slices' sums are added in order by reduce.wgsl.
//
// Shapes: x, y, dy, dx [rows, width]; weight, bias, dw, db [width]; statistics [rows], each (centre, rest, r, 0). Rows are read in
// groups of four (Value; of one where width is no multiple of four). Gradients are f32, whatever the storage. All sums are f32
// and run in a fixed order.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const KEEP: u32 = 4u;                                                        // @param  groups of a row that a thread holds
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
fn sumOfThreads(value: vec2f, thread: u32) -> vec2f { return sumOverWorkgroup(value, thread); } // @param
// @or subgroups  fn sumOfThreads(value: vec2f, thread: u32) -> vec2f { return subgroupAdd(value); } // of a workgroup that is one subgroup

struct Shape { rows: u32, groups: u32, slices: u32, width: f32, epsilon: f32, accumulate: u32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> weight: array<Word>;
@group(0) @binding(3) var<storage, read> bias: array<Word>;
@group(0) @binding(4) var<storage, read_write> y: array<Word>;
@group(0) @binding(5) var<storage, read_write> statistics: array<vec4f>;     // saved for backward
@group(0) @binding(6) var<storage, read> dy: array<Value>;
@group(0) @binding(7) var<storage, read_write> dx: array<Value>;
@group(0) @binding(8) var<storage, read_write> dwPartial: array<Value>;     // [slices, groups]
@group(0) @binding(9) var<storage, read_write> dbPartial: array<Value>;     // [slices, groups]

var<workgroup> partial: array<vec2f, THREADS>;

// The sums of both components over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: vec2f, thread: u32) -> vec2f {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

// The grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn rowOf(workgroup: vec3u, workgroups: vec3u) -> u32 { return workgroup.y * workgroups.x + workgroup.x; }

fn normalised(value: Value, ofRow: vec4f) -> Value { return ((value - ofRow.x) - ofRow.y) * ofRow.z; }

// ---- forward: one workgroup a row ------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(workgroup, workgroups);
  if (row >= shape.rows) { return; }
  let start = row * shape.groups;
  var kept = array<Value, KEEP>();
  var sum = 0.0;
  for (var k = 0u; k < KEEP; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { kept[k] = unpack(x[start + i]); }
    sum += total(kept[k]);
  }
  for (var i = thread + KEEP * THREADS; i < shape.groups; i += THREADS) { sum += total(unpack(x[start + i])); }
  let centre = sumOfThreads(vec2f(sum, 0.0), thread).x / shape.width;

  var moments = vec2f();                                                     // of x - centre: first and second
  for (var k = 0u; k < KEEP; k++) {
    if (thread + k * THREADS < shape.groups) {
      let shifted = kept[k] - centre;
      moments += vec2f(total(shifted), total(shifted * shifted));
    }
  }
  for (var i = thread + KEEP * THREADS; i < shape.groups; i += THREADS) {
    let shifted = unpack(x[start + i]) - centre;
    moments += vec2f(total(shifted), total(shifted * shifted));
  }
  moments = sumOfThreads(moments, thread) / shape.width;
  let rest = moments.x;
  let variance = max(moments.y - rest * rest, 0.0);
  let ofRow = vec4f(centre, rest, inverseSqrt(variance + shape.epsilon), 0.0);
  for (var k = 0u; k < KEEP; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { y[start + i] = pack(normalised(kept[k], ofRow) * unpack(weight[i]) + unpack(bias[i])); }
  }
  for (var i = thread + KEEP * THREADS; i < shape.groups; i += THREADS) {
    y[start + i] = pack(normalised(unpack(x[start + i]), ofRow) * unpack(weight[i]) + unpack(bias[i]));
  }
  if (thread == 0u) { statistics[row] = ofRow; }
}

// The gradient of x, or with `accumulate` one more share of it, to which other operations have given theirs.
fn addToInput(at: u32, value: Value) {
  if (shape.accumulate == 1u) { dx[at] += value; } else { dx[at] = value; }
}

// ---- backward: dx, and dw and db of every slices-th row; one workgroup a slice -----------------------------------------

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let slice = workgroup.x;
  var gain = array<Value, KEEP>();
  for (var k = 0u; k < KEEP; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { gain[k] = unpack(weight[i]); }
  }
  var dw = array<Value, KEEP>();
  var db = array<Value, KEEP>();
  for (var row = slice; row < shape.rows; row += shape.slices) {
    let start = row * shape.groups;
    let ofRow = statistics[row];
    var keptN = array<Value, KEEP>();
    var keptDy = array<Value, KEEP>();
    var means = vec2f();                                                     // of g and of g n
    for (var k = 0u; k < KEEP; k++) {
      let i = thread + k * THREADS;
      if (i < shape.groups) {
        keptN[k] = normalised(unpack(x[start + i]), ofRow);
        keptDy[k] = dy[start + i];
      }
      let g = keptDy[k] * gain[k];
      means += vec2f(total(g), total(g * keptN[k]));
    }
    for (var i = thread + KEEP * THREADS; i < shape.groups; i += THREADS) {
      let g = dy[start + i] * unpack(weight[i]);
      means += vec2f(total(g), total(g * normalised(unpack(x[start + i]), ofRow)));
    }
    means = sumOfThreads(means, thread) / shape.width;
    for (var k = 0u; k < KEEP; k++) {
      let i = thread + k * THREADS;
      if (i < shape.groups) { addToInput(start + i, ofRow.z * (keptDy[k] * gain[k] - means.x - keptN[k] * means.y)); }
      dw[k] += keptDy[k] * keptN[k];
      db[k] += keptDy[k];
    }
    for (var i = thread + KEEP * THREADS; i < shape.groups; i += THREADS) {
      let at = slice * shape.groups + i;
      let gradient = dy[start + i];
      let n = normalised(unpack(x[start + i]), ofRow);
      addToInput(start + i, ofRow.z * (gradient * unpack(weight[i]) - means.x - n * means.y));
      dwPartial[at] = select(dwPartial[at], Value(), row == slice) + gradient * n;
      dbPartial[at] = select(dbPartial[at], Value(), row == slice) + gradient;
    }
  }
  for (var k = 0u; k < KEEP; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) {
      dwPartial[slice * shape.groups + i] = dw[k];
      dbPartial[slice * shape.groups + i] = db[k];
    }
  }
}
