// RMSNorm for long rows on a graphics adapter. The mathematics stands in rms-norm.wgsl, which reads every row twice; this file reads
// it once. A workgroup holds a row in registers, GROUPS_PER_THREAD groups of four elements to a thread, and reads only the part beyond
// these again. A workgroup of backward walks over the rows of one slice and adds up dw on its way.
//
// Shapes: x, y, dy, dx [rows, width]; w, dw [width]; r [rows]. A row is stored as `groups` groups of four elements, each one Word.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const GROUPS_PER_THREAD: u32 = 4u;                                           // @param  groups of a row that a thread holds
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

struct Shape { rows: u32, groups: u32, rowsOfSlice: u32, width: f32, epsilon: f32, accumulate: u32 }
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
  var kept = array<vec4f, GROUPS_PER_THREAD>();
  var squares = 0.0;
  for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { kept[k] = unpack(x[start + i]); }
    squares += dot(kept[k], kept[k]);
  }
  for (var i = thread + GROUPS_PER_THREAD * THREADS; i < shape.groups; i += THREADS) {
    let value = unpack(x[start + i]);
    squares += dot(value, value);
  }
  let r = inverseSqrt(sumOverWorkgroup(squares, thread) / shape.width + shape.epsilon);
  for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { y[start + i] = pack(kept[k] * r * gainOf(weight[i])); }
  }
  for (var i = thread + GROUPS_PER_THREAD * THREADS; i < shape.groups; i += THREADS) {
    y[start + i] = pack(unpack(x[start + i]) * r * gainOf(weight[i]));
  }
  if (thread == 0u) { inverseRoot[row] = r; }
}

// Writes dx or, with `accumulate`, adds to the dx that other operations have left.
fn addToInput(at: u32, value: vec4f) {
  if (shape.accumulate == 1u) { dx[at] += value; } else { dx[at] = value; }
}

// ---- backward: a workgroup takes one slice ------------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn backward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let slice = workgroup.x;
  let first = slice * shape.rowsOfSlice;
  var gain = array<vec4f, GROUPS_PER_THREAD>();
  for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { gain[k] = gainOf(weight[i]); }
  }
  var dw = array<vec4f, GROUPS_PER_THREAD>();
  for (var row = first; row < min(first + shape.rowsOfSlice, shape.rows); row++) {
    let start = row * shape.groups;
    let r = inverseRoot[row];
    var keptX = array<vec4f, GROUPS_PER_THREAD>();
    var keptDy = array<vec4f, GROUPS_PER_THREAD>();
    var alignment = 0.0;                                                     // sum_i g[row,i] x[row,i]
    for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
      let i = thread + k * THREADS;
      if (i < shape.groups) {
        keptX[k] = unpack(x[start + i]);
        keptDy[k] = dy[start + i];
      }
      alignment += dot(keptDy[k] * gain[k], keptX[k]);
    }
    for (var i = thread + GROUPS_PER_THREAD * THREADS; i < shape.groups; i += THREADS) {
      alignment += dot(dy[start + i] * gainOf(weight[i]), unpack(x[start + i]));
    }
    let p = r * r * sumOverWorkgroup(alignment, thread) / shape.width;
    for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
      let i = thread + k * THREADS;
      if (i < shape.groups) { addToInput(start + i, r * (keptDy[k] * gain[k] - p * keptX[k])); }
      dw[k] += keptDy[k] * keptX[k] * r;
    }
    for (var i = thread + GROUPS_PER_THREAD * THREADS; i < shape.groups; i += THREADS) {
      let at = slice * shape.groups + i;
      let value = unpack(x[start + i]);
      let gradient = dy[start + i];
      addToInput(start + i, r * (gradient * gainOf(weight[i]) - p * value));
      dwPartial[at] = select(dwPartial[at], vec4f(), row == first) + gradient * value * r;
    }
  }
  for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { dwPartial[slice * shape.groups + i] = dw[k]; }
  }
}
