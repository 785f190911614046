// RMSNorm as in rms-norm.wgsl, where the mathematics stands, for long rows on a graphics adapter: forward and backward read a row
// once. A workgroup holds it in registers, GROUPS_PER_THREAD groups to a thread, and reads again only what is longer; backward
// walks a slice of the rows and adds up dw on its way.
//
// Shapes: x, y, dy, dx [rows, width]; w, dw [width]; r [rows]. Rows are stored in groups of four (Word), `groups` to a row.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const GROUPS_PER_THREAD: u32 = 4u;                                           // @param  groups of a row that a thread holds
// @as rms-norm.wgsl  Word, unpack, pack, gainOf
alias Word = vec4f;                                                          // @param  storage of four elements
fn unpack(word: Word) -> vec4f { return word; }                              // @param
fn pack(value: vec4f) -> Word { return value; }                              // @param
fn gainOf(weight: vec4f) -> vec4f { return 1.0 + weight; }                   // @param

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
    if (i < shape.groups) { y[start + i] = pack(kept[k] * r * gainOf(unpack(weight[i]))); }
  }
  for (var i = thread + GROUPS_PER_THREAD * THREADS; i < shape.groups; i += THREADS) {
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
  var gain = array<vec4f, GROUPS_PER_THREAD>();
  for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { gain[k] = gainOf(unpack(weight[i])); }
  }
  var dw = array<vec4f, GROUPS_PER_THREAD>();
  for (var row = first; row < min(first + shape.rowsOfSlice, shape.rows); row++) {
    let start = row * shape.groups;
    let r = inverseRoot[row];
    var keptX = array<vec4f, GROUPS_PER_THREAD>();
    var keptDy = array<vec4f, GROUPS_PER_THREAD>();
    var alignment = 0.0;                                                     // sum_j g x
    for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
      let i = thread + k * THREADS;
      if (i < shape.groups) {
        keptX[k] = unpack(x[start + i]);
        keptDy[k] = dy[start + i];
      }
      alignment += dot(keptDy[k] * gain[k], keptX[k]);
    }
    for (var i = thread + GROUPS_PER_THREAD * THREADS; i < shape.groups; i += THREADS) {
      alignment += dot(dy[start + i] * gainOf(unpack(weight[i])), unpack(x[start + i]));
    }
    let pull = r * r * sumOverWorkgroup(alignment, thread) / shape.width;
    for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
      let i = thread + k * THREADS;
      if (i < shape.groups) { addToInput(start + i, r * (keptDy[k] * gain[k] - pull * keptX[k])); }
      dw[k] += keptDy[k] * keptX[k] * r;
    }
    for (var i = thread + GROUPS_PER_THREAD * THREADS; i < shape.groups; i += THREADS) {
      let at = slice * shape.groups + i;
      let value = unpack(x[start + i]);
      let gradient = dy[start + i];
      addToInput(start + i, r * (gradient * gainOf(unpack(weight[i])) - pull * value));
      dwPartial[at] = select(dwPartial[at], vec4f(), row == first) + gradient * value * r;
    }
  }
  for (var k = 0u; k < GROUPS_PER_THREAD; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { dwPartial[slice * shape.groups + i] = dw[k]; }
  }
}
