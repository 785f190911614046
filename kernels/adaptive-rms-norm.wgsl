// Adaptive RMSNorm: gain, shift and gate come from a condition (the time of flow matching).   pi0.5; openpi gemma.py, class RMSNorm
//
//   modulation[b] = [scale | shift | gate], a linear map of the condition of sample b
//
//   r[t]        = 1 / sqrt(mean_i x[t,i]^2 + epsilon)
//   y[t,i]      = x[t,i] r[t] (1 + scale[b,i]) + shift[b,i]                                 before a branch (attention or MLP)
//   out[t,i]    = x[t,i] + gate[b,i] branch[t,i]                                            after it
//
// and with g = dy (1 + scale), backward:
//
//   dx[t,i]     = r[t] (g[t,i] - x[t,i] p[t])                                               p[t] = r[t]^2 mean_j g[t,j] x[t,j]
//   dscale[b,i] = sum_t dy[t,i] x[t,i] r[t]       dshift[b,i] = sum_t dy[t,i]         t over the rows of sample b
//   dbranch     = gate dout                       dgate[b,i]  = sum_t dout[t,i] branch[t,i]       and dx = dout behind a branch
//
// Both take a slice of a sample's rows to a workgroup, twice: along each row for r or p, then down each column for y, or for dx and
// the slice's share of dmodulation; the slices' sums are then added in order.
//
// Shapes: x, y, branch, out [samples * length, width]; modulation, dModulation [samples, 3 width]; r [samples * length]. Rows are read
// in groups of four (Value; of one where width is no multiple of four). Gradients are f32, whatever the storage; each op
// writes zeros to the thirds of dModulation that it does not read. All sums are f32 and run in a fixed order.

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
fn sumOfThreads(value: f32, thread: u32) -> f32 { return sumOverWorkgroup(value, thread); } // @param
// @or subgroups  fn sumOfThreads(value: f32, thread: u32) -> f32 { return subgroupAdd(value); } // where a workgroup is one subgroup

struct Shape { samples: u32, length: u32, groups: u32, slices: u32, rowsOfSlice: u32, width: f32, epsilon: f32, accumulate: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> branch: array<Word>;
@group(0) @binding(3) var<storage, read> modulation: array<Word>;
@group(0) @binding(4) var<storage, read_write> y: array<Word>;              // or out
@group(0) @binding(5) var<storage, read_write> inverseRoot: array<f32>;     // r, saved for backward
@group(0) @binding(6) var<storage, read> dy: array<Value>;                  // or dout
@group(0) @binding(7) var<storage, read_write> dx: array<Value>;
@group(0) @binding(8) var<storage, read_write> dBranch: array<Value>;
@group(0) @binding(9) var<storage, read_write> dScalePartial: array<Value>; // [samples, slices, groups]
@group(0) @binding(10) var<storage, read_write> dShiftPartial: array<Value>;
@group(0) @binding(11) var<storage, read_write> dGatePartial: array<Value>;
@group(0) @binding(12) var<storage, read_write> dModulation: array<Value>;

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

fn rowOf(grid: Grid) -> u32 { return grid.workgroup.y * grid.count.x + grid.workgroup.x; }
fn position(grid: Grid, thread: u32) -> u32 { return (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread; }

// Where the modulation of a sample starts: its scale, with the shift and the gate behind it.
fn modulationOf(sample: u32) -> u32 { return sample * 3u * shape.groups; }

// ---- forward: a slice of a sample's rows; one workgroup a slice ---------------------------------------------------------

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let slice = rowOf(grid);
  let sample = slice / shape.slices;
  if (sample >= shape.samples) { return; }
  let first = sample * shape.length + slice % shape.slices * shape.rowsOfSlice;
  let end = min(first + shape.rowsOfSlice, (sample + 1u) * shape.length);
  for (var row = first; row < end; row++) {
    var squares = 0.0;
    for (var i = thread; i < shape.groups; i += THREADS) {
      let value = unpack(x[row * shape.groups + i]);
      squares += total(value * value);
    }
    let r = inverseSqrt(sumOfThreads(squares, thread) / shape.width + shape.epsilon);
    if (thread == 0u) {
      inverseRoot[row] = r;
      factors[row - first].x = r;
    }
  }
  workgroupBarrier();
  for (var i = thread; i < shape.groups; i += THREADS) {
    let gain = 1.0 + unpack(modulation[modulationOf(sample) + i]);
    let shift = unpack(modulation[modulationOf(sample) + shape.groups + i]);
    var at = first * shape.groups + i;
    for (var row = first; row < end; row++) {
      y[at] = pack(unpack(x[at]) * factors[row - first].x * gain + shift);
      at += shape.groups;
    }
  }
}

// ---- forward: one workgroup a row -------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn residual(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(grid);
  if (row >= shape.samples * shape.length) { return; }
  let start = row * shape.groups;
  let gate = modulationOf(row / shape.length) + 2u * shape.groups;
  for (var i = thread; i < shape.groups; i += THREADS) {
    y[start + i] = pack(unpack(x[start + i]) + unpack(modulation[gate + i]) * unpack(branch[start + i]));
  }
}

// The gradient of x, or with `accumulate` one more share of it, to which other operations have given theirs; so for dModulation.
fn addToInput(at: u32, value: Value) {
  if (shape.accumulate == 1u) { dx[at] += value; } else { dx[at] = value; }
}

// ---- backward: dx, and dscale and dshift of a slice of a sample's rows; one workgroup a slice ---------------------------

@compute @workgroup_size(THREADS) fn backward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let slice = rowOf(grid);
  let sample = slice / shape.slices;
  if (sample >= shape.samples) { return; }
  let first = sample * shape.length + slice % shape.slices * shape.rowsOfSlice;
  let end = min(first + shape.rowsOfSlice, (sample + 1u) * shape.length);
  let scale = modulationOf(sample);
  for (var row = first; row < end; row++) {
    let start = row * shape.groups;
    var alignment = 0.0;                                                     // sum_j g x
    for (var i = thread; i < shape.groups; i += THREADS) {
      alignment += total(dy[start + i] * (1.0 + unpack(modulation[scale + i])) * unpack(x[start + i]));
    }
    let r = inverseRoot[row];
    let p = r * r * sumOfThreads(alignment, thread) / shape.width;
    if (thread == 0u) { factors[row - first] = vec2f(r, p); }
  }
  workgroupBarrier();
  for (var i = thread; i < shape.groups; i += THREADS) {
    let gain = 1.0 + unpack(modulation[scale + i]);
    var dScale = Value();
    var dShift = Value();
    var at = first * shape.groups + i;
    for (var row = first; row < end; row++) {
      let ofRow = factors[row - first];
      let value = unpack(x[at]);
      let gradient = dy[at];
      addToInput(at, ofRow.x * (gradient * gain - ofRow.y * value));
      dScale += gradient * value * ofRow.x;
      dShift += gradient;
      at += shape.groups;
    }
    dScalePartial[slice * shape.groups + i] = dScale;
    dShiftPartial[slice * shape.groups + i] = dShift;
  }
}

// ---- backward: dbranch, and dgate of a slice of a sample's rows; one workgroup a slice ----------------------------------

@compute @workgroup_size(THREADS) fn backwardResidual(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let slice = rowOf(grid);
  let sample = slice / shape.slices;
  if (sample >= shape.samples) { return; }
  let first = sample * shape.length + slice % shape.slices * shape.rowsOfSlice;
  let end = min(first + shape.rowsOfSlice, (sample + 1u) * shape.length);
  let gates = modulationOf(sample) + 2u * shape.groups;
  for (var i = thread; i < shape.groups; i += THREADS) {
    let gate = unpack(modulation[gates + i]);
    var dGate = Value();
    var at = first * shape.groups + i;
    for (var row = first; row < end; row++) {
      let gradient = dy[at];
      dBranch[at] = gate * gradient;
      dGate += gradient * unpack(branch[at]);
      at += shape.groups;
    }
    dGatePartial[slice * shape.groups + i] = dGate;
  }
}

// ---- backward: dModulation, the sums of the slices in order -----------------------------------------------------------

@compute @workgroup_size(THREADS) fn backwardScale(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i >= shape.samples * shape.groups) { return; }
  let sample = i / shape.groups;
  let column = i % shape.groups;
  var dScale = Value();
  var dShift = Value();
  for (var slice = 0u; slice < shape.slices; slice++) {
    let at = (sample * shape.slices + slice) * shape.groups + column;
    dScale += dScalePartial[at];
    dShift += dShiftPartial[at];
  }
  let third = modulationOf(sample) + column;
  if (shape.accumulate == 1u) {
    dModulation[third] += dScale;
    dModulation[third + shape.groups] += dShift;
    return;
  }
  dModulation[third] = dScale;
  dModulation[third + shape.groups] = dShift;
  dModulation[third + 2u * shape.groups] = Value();
}

@compute @workgroup_size(THREADS) fn backwardGate(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i >= shape.samples * shape.groups) { return; }
  let sample = i / shape.groups;
  let column = i % shape.groups;
  var dGate = Value();
  for (var slice = 0u; slice < shape.slices; slice++) { dGate += dGatePartial[(sample * shape.slices + slice) * shape.groups + column]; }
  let third = modulationOf(sample) + column;
  dModulation[third] = Value();
  dModulation[third + shape.groups] = Value();
  dModulation[third + 2u * shape.groups] = dGate;
}
