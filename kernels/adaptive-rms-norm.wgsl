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
//   dx[t,i]     = r[t] (g[t,i] - x[t,i] r[t]^2 mean_j g[t,j] x[t,j])
//   dscale[b,i] = sum_t dy[t,i] x[t,i] r[t]       dshift[b,i] = sum_t dy[t,i]         t over the rows of sample b
//   dbranch     = gate dout                       dgate[b,i]  = sum_t dout[t,i] branch[t,i]       and dx = dout behind a branch
//
// Both read a row once: a workgroup holds it in registers, KEEP groups to a thread, and reads again only what is longer. Backward
// walks a slice of a sample's rows and adds up their share of dmodulation on its way; the slices' sums are then added in order.
//
// Shapes: x, y, branch, out [samples * length, width]; modulation, dModulation [samples, 3 width]; r [samples * length]. Rows are read
// in groups of four (Value; of one where width is no multiple of four). Gradients are f32, whatever the storage; each op
// writes zeros to the thirds of dModulation that it does not read. All sums are f32 and run in a fixed order.

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
fn sumOfThreads(value: f32, thread: u32) -> f32 { return sumOverWorkgroup(value, thread); } // @param
// @or subgroups  fn sumOfThreads(value: f32, thread: u32) -> f32 { return subgroupAdd(value); } // of a workgroup that is one subgroup

struct Shape { samples: u32, length: u32, groups: u32, slices: u32, width: f32, epsilon: f32, accumulate: u32 }

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

// The sum of `value` over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: f32, thread: u32) -> f32 {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

// The grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn rowOf(workgroup: vec3u, workgroups: vec3u) -> u32 { return workgroup.y * workgroups.x + workgroup.x; }
fn position(workgroup: vec3u, workgroups: vec3u, thread: u32) -> u32 { return rowOf(workgroup, workgroups) * THREADS + thread; }

// Where the thirds of a row's modulation start.
fn scaleOf(row: u32) -> u32 { return row / shape.length * 3u * shape.groups; }
fn shiftOf(row: u32) -> u32 { return scaleOf(row) + shape.groups; }
fn gateOf(row: u32) -> u32 { return scaleOf(row) + 2u * shape.groups; }

// ---- forward: one workgroup a row ------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(workgroup, workgroups);
  if (row >= shape.samples * shape.length) { return; }
  let start = row * shape.groups;
  let scale = scaleOf(row);
  let shift = shiftOf(row);
  var kept = array<Value, KEEP>();
  var squares = 0.0;
  for (var k = 0u; k < KEEP; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { kept[k] = unpack(x[start + i]); }
    squares += total(kept[k] * kept[k]);
  }
  for (var i = thread + KEEP * THREADS; i < shape.groups; i += THREADS) {
    let value = unpack(x[start + i]);
    squares += total(value * value);
  }
  let r = inverseSqrt(sumOfThreads(squares, thread) / shape.width + shape.epsilon);
  for (var k = 0u; k < KEEP; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { y[start + i] = pack(kept[k] * r * (1.0 + unpack(modulation[scale + i])) + unpack(modulation[shift + i])); }
  }
  for (var i = thread + KEEP * THREADS; i < shape.groups; i += THREADS) {
    y[start + i] = pack(unpack(x[start + i]) * r * (1.0 + unpack(modulation[scale + i])) + unpack(modulation[shift + i]));
  }
  if (thread == 0u) { inverseRoot[row] = r; }
}

@compute @workgroup_size(THREADS)
fn residual(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(workgroup, workgroups);
  if (row >= shape.samples * shape.length) { return; }
  let start = row * shape.groups;
  let gate = gateOf(row);
  for (var i = thread; i < shape.groups; i += THREADS) {
    y[start + i] = pack(unpack(x[start + i]) + unpack(modulation[gate + i]) * unpack(branch[start + i]));
  }
}

// The gradient of x, or with `accumulate` one more share of it, to which other operations have given theirs.
fn addToInput(at: u32, value: Value) {
  if (shape.accumulate == 1u) { dx[at] += value; } else { dx[at] = value; }
}

// ---- backward: dx, and dscale and dshift of every slices-th row of a sample; one workgroup a slice ----------------------

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let slice = rowOf(workgroup, workgroups);
  let sample = slice / shape.slices;
  if (sample >= shape.samples) { return; }
  let first = sample * shape.length + slice % shape.slices;
  let scale = scaleOf(first);
  var gain = array<Value, KEEP>();
  for (var k = 0u; k < KEEP; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) { gain[k] = 1.0 + unpack(modulation[scale + i]); }
  }
  var dScale = array<Value, KEEP>();
  var dShift = array<Value, KEEP>();
  for (var row = first; row < (sample + 1u) * shape.length; row += shape.slices) {
    let start = row * shape.groups;
    let r = inverseRoot[row];
    var keptX = array<Value, KEEP>();
    var keptDy = array<Value, KEEP>();
    var alignment = 0.0;                                                     // sum_j g x
    for (var k = 0u; k < KEEP; k++) {
      let i = thread + k * THREADS;
      if (i < shape.groups) {
        keptX[k] = unpack(x[start + i]);
        keptDy[k] = dy[start + i];
      }
      alignment += total(keptDy[k] * gain[k] * keptX[k]);
    }
    for (var i = thread + KEEP * THREADS; i < shape.groups; i += THREADS) {
      alignment += total(dy[start + i] * (1.0 + unpack(modulation[scale + i])) * unpack(x[start + i]));
    }
    let pull = r * r * sumOfThreads(alignment, thread) / shape.width;
    for (var k = 0u; k < KEEP; k++) {
      let i = thread + k * THREADS;
      if (i < shape.groups) { addToInput(start + i, r * (keptDy[k] * gain[k] - pull * keptX[k])); }
      dScale[k] += keptDy[k] * keptX[k] * r;
      dShift[k] += keptDy[k];
    }
    for (var i = thread + KEEP * THREADS; i < shape.groups; i += THREADS) {
      let at = slice * shape.groups + i;
      let gradient = dy[start + i];
      let value = unpack(x[start + i]);
      addToInput(start + i, r * (gradient * (1.0 + unpack(modulation[scale + i])) - pull * value));
      dScalePartial[at] = select(dScalePartial[at], Value(), row == first) + gradient * value * r;
      dShiftPartial[at] = select(dShiftPartial[at], Value(), row == first) + gradient;
    }
  }
  for (var k = 0u; k < KEEP; k++) {
    let i = thread + k * THREADS;
    if (i < shape.groups) {
      dScalePartial[slice * shape.groups + i] = dScale[k];
      dShiftPartial[slice * shape.groups + i] = dShift[k];
    }
  }
}

// ---- backward: dbranch, and dgate of every slices-th row of a sample; one workgroup a slice -----------------------------

@compute @workgroup_size(THREADS)
fn backwardResidual(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let slice = rowOf(workgroup, workgroups);
  let sample = slice / shape.slices;
  if (sample >= shape.samples) { return; }
  let first = sample * shape.length + slice % shape.slices;
  let gates = gateOf(first);
  for (var i = thread; i < shape.groups; i += THREADS) {
    let gate = unpack(modulation[gates + i]);
    var dGate = Value();
    for (var row = first; row < (sample + 1u) * shape.length; row += shape.slices) {
      let at = row * shape.groups + i;
      let gradient = dy[at];
      dBranch[at] = gate * gradient;
      dGate += gradient * unpack(branch[at]);
    }
    dGatePartial[slice * shape.groups + i] = dGate;
  }
}

// ---- backward: dModulation, the sums of the slices in order -----------------------------------------------------------

@compute @workgroup_size(THREADS)
fn backwardScale(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
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
  let third = 3u * sample * shape.groups + column;
  dModulation[third] = dScale;
  dModulation[third + shape.groups] = dShift;
  dModulation[third + 2u * shape.groups] = Value();
}

@compute @workgroup_size(THREADS)
fn backwardGate(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.samples * shape.groups) { return; }
  let sample = i / shape.groups;
  let column = i % shape.groups;
  var dGate = Value();
  for (var slice = 0u; slice < shape.slices; slice++) { dGate += dGatePartial[(sample * shape.slices + slice) * shape.groups + column]; }
  let third = 3u * sample * shape.groups + column;
  dModulation[third] = Value();
  dModulation[third + shape.groups] = Value();
  dModulation[third + 2u * shape.groups] = dGate;
}
