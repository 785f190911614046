// One step of an LSTM (Hochreiter and Schmidhuber 1997; the gates of PyTorch's nn.LSTM), element by element. Matrix products elsewhere
// make the pre-activations z of the four gates: input i, forget f, candidate g, output o. With s(z) = 1 / (1 + exp(-z)) and c the cell:
//
//   i = s(z_i)   f = s(z_f)   g = tanh(z_g)   o = s(z_o)
//   next = f c + i g          hidden = o tanh(next)
//
// and backward, from the gradients of next and hidden, with t = tanh(next), which is computed again:
//
//   d = dNext + dHidden o (1 - t^2)           dc = d f
//   dz_i = d g s'(z_i)   dz_f = d c s'(z_f)   dz_g = d i (1 - g^2)   dz_o = dHidden t s'(z_o)
//
// Shapes: gates (the z), dGates [rows, 4, width] in the order i, f, g, o; all others [rows, width]; f32. A Value is a group of four
// elements, or one element if width is no multiple of four. s is made from exp(-|z|), which is never above 1; see activation.wgsl.

const THREADS: u32 = 64u;                                                    // @param
alias Value = vec4f;                                                         // @param  a group of elements
// @or single  alias Value = f32;

struct Shape { items: u32, groups: u32 }                                     // Values in all rows, and in one row
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> gates: array<Value>;
@group(0) @binding(2) var<storage, read> cell: array<Value>;
@group(0) @binding(3) var<storage, read_write> next: array<Value>;
@group(0) @binding(4) var<storage, read_write> hidden: array<Value>;
@group(0) @binding(5) var<storage, read> dNext: array<Value>;
@group(0) @binding(6) var<storage, read> dHidden: array<Value>;
@group(0) @binding(7) var<storage, read_write> dGates: array<Value>;
@group(0) @binding(8) var<storage, read_write> dCell: array<Value>;

fn itemOf(grid: Grid, thread: u32) -> u32 { return (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread; }

// The index of an item's first gate; its other gates follow, shape.groups apart.
fn gateOf(item: u32) -> u32 { return 3u * shape.groups * (item / shape.groups) + item; }

fn logistic(z: Value) -> Value {
  let e = exp(-abs(z));
  return select(e, Value(1.0), z >= Value()) / (1.0 + e);
}

// s'(z) = s(z) (1 - s(z)) without the cancellation of 1 - s; and 1 - tanh^2(z) is 4 s'(2z).
fn logisticSlope(z: Value) -> Value {
  let e = exp(-abs(z));
  return e / ((1.0 + e) * (1.0 + e));
}

// For small |x| the difference 1 - e has few correct digits; there the power series is used, with a relative error below 1e-8.
fn tanhOf(x: Value) -> Value {
  let e = exp(-2.0 * abs(x));
  let far = sign(x) * (1.0 - e) / (1.0 + e);
  let near = clamp(x, Value(-0.25), Value(0.25));
  let square = near * near;
  let series = near * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 + square * (-17.0 / 315.0 + square * (62.0 / 2835.0)))));
  return select(far, series, abs(x) < Value(0.25));
}

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let item = itemOf(grid, thread);
  if (item >= shape.items) { return; }
  let gate = gateOf(item);
  let kept = logistic(gates[gate + shape.groups]) * cell[item];
  let nextCell = kept + logistic(gates[gate]) * tanhOf(gates[gate + 2u * shape.groups]);
  next[item] = nextCell;
  hidden[item] = logistic(gates[gate + 3u * shape.groups]) * tanhOf(nextCell);
}

@compute @workgroup_size(THREADS) fn backward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let item = itemOf(grid, thread);
  if (item >= shape.items) { return; }
  let gate = gateOf(item);
  let zInput = gates[gate];
  let zForget = gates[gate + shape.groups];
  let zCandidate = gates[gate + 2u * shape.groups];
  let zOutput = gates[gate + 3u * shape.groups];
  let input = logistic(zInput);
  let forget = logistic(zForget);
  let candidate = tanhOf(zCandidate);
  let c = cell[item];
  let nextCell = forget * c + input * candidate;
  let dh = dHidden[item];
  let d = dNext[item] + dh * logistic(zOutput) * 4.0 * logisticSlope(2.0 * nextCell);
  dGates[gate] = d * candidate * logisticSlope(zInput);
  dGates[gate + shape.groups] = d * c * logisticSlope(zForget);
  dGates[gate + 2u * shape.groups] = d * input * 4.0 * logisticSlope(2.0 * zCandidate);
  dGates[gate + 3u * shape.groups] = dh * tanhOf(nextCell) * logisticSlope(zOutput);
  dCell[item] = d * forget;
}
