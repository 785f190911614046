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
// Shapes: x, y, branch, out [samples * length, width]; modulation, dModulation [samples, 3 width]; r [samples * length]. Rows are read
// in groups of four (Value; of one where width is no multiple of four). Gradients are f32, whatever the storage; each op
// writes zeros to the thirds of dModulation that it does not read. All sums are f32 and run in a fixed order.

const THREADS: u32 = 64u;                                                    // @param  a power of two
alias Value = vec4f;                                                         // @param  a group of elements
alias Word = vec4f;                                                          // @param  its storage
fn unpack(word: Word) -> vec4f { return word; }                              // @param
fn pack(value: vec4f) -> Word { return value; }                              // @param
fn total(value: Value) -> f32 { return dot(value, vec4f(1.0)); }             // @param  the sum over a group

struct Shape { samples: u32, length: u32, groups: u32, slices: u32, width: f32, epsilon: f32 }

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

// ---- forward ---------------------------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS)                                            // one workgroup a row
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(workgroup, workgroups);
  if (row >= shape.samples * shape.length) { return; }
  let start = row * shape.groups;
  var squares = 0.0;
  for (var i = thread; i < shape.groups; i += THREADS) {
    let value = unpack(x[start + i]);
    squares += total(value * value);
  }
  let r = inverseSqrt(sumOverWorkgroup(squares, thread) / shape.width + shape.epsilon);
  for (var i = thread; i < shape.groups; i += THREADS) {
    let scale = unpack(modulation[scaleOf(row) + i]);
    y[start + i] = pack(unpack(x[start + i]) * r * (1.0 + scale) + unpack(modulation[shiftOf(row) + i]));
  }
  if (thread == 0u) { inverseRoot[row] = r; }
}

@compute @workgroup_size(THREADS)
fn residual(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.samples * shape.length * shape.groups) { return; }
  let gate = unpack(modulation[gateOf(i / shape.groups) + i % shape.groups]);
  y[i] = pack(unpack(x[i]) + gate * unpack(branch[i]));
}

// ---- backward: dx, one workgroup a row; dbranch ------------------------------------------------------------------------

@compute @workgroup_size(THREADS)
fn backwardInput(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(workgroup, workgroups);
  if (row >= shape.samples * shape.length) { return; }
  let start = row * shape.groups;
  let r = inverseRoot[row];
  var alignment = 0.0;                                                       // sum_j g x
  for (var i = thread; i < shape.groups; i += THREADS) {
    alignment += total(dy[start + i] * (1.0 + unpack(modulation[scaleOf(row) + i])) * unpack(x[start + i]));
  }
  let pull = r * r * sumOverWorkgroup(alignment, thread) / shape.width;
  for (var i = thread; i < shape.groups; i += THREADS) {
    let g = dy[start + i] * (1.0 + unpack(modulation[scaleOf(row) + i]));
    dx[start + i] = r * (g - pull * unpack(x[start + i]));
  }
}

@compute @workgroup_size(THREADS)
fn backwardBranch(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.samples * shape.length * shape.groups) { return; }
  dBranch[i] = dy[i] * unpack(modulation[gateOf(i / shape.groups) + i % shape.groups]);
}

// ---- backward: dModulation, every slices-th row of a sample into one of `slices` partial sums, then these in order -------

@compute @workgroup_size(THREADS)
fn backwardScaleSlices(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.samples * shape.slices * shape.groups) { return; }
  let sample = i / shape.groups / shape.slices;
  var dScale = Value();
  var dShift = Value();
  for (var t = i / shape.groups % shape.slices; t < shape.length; t += shape.slices) {
    let row = sample * shape.length + t;
    let at = row * shape.groups + i % shape.groups;
    dScale += dy[at] * unpack(x[at]) * inverseRoot[row];
    dShift += dy[at];
  }
  dScalePartial[i] = dScale;
  dShiftPartial[i] = dShift;
}

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
fn backwardGateSlices(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.samples * shape.slices * shape.groups) { return; }
  let sample = i / shape.groups / shape.slices;
  var dGate = Value();
  for (var t = i / shape.groups % shape.slices; t < shape.length; t += shape.slices) {
    let at = (sample * shape.length + t) * shape.groups + i % shape.groups;
    dGate += dy[at] * unpack(branch[at]);
  }
  dGatePartial[i] = dGate;
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
