// Mean error over the elements that count.
//
//   loss = sum_e w[e] error(prediction[e], target[e]) / W,        W = max(1, sum_e w[e])
//   w[e] = valid[e / perValid] dimension[e / perDimensionRow, e mod dimensions]
//
// with weights of 0 or 1: `valid` marks steps (or samples, or elements), `dimension` the real dimensions, for all samples or for
// each. Nothing that counts gives loss 0. Backward, with dLoss the gradient of the loss:
//
//   dPrediction[e] = dLoss w[e] derivative(prediction[e], target[e]) / W
//
//   squared error            (p - t)^2                                       2 (p - t)
//   absolute error           |p - t|                                         sign(p - t)
//   Huber, delta 1           (p - t)^2 / 2 where |p - t| <= 1, |p - t| - 1/2 beyond          clamp(p - t, -1, 1)
//   cross-entropy of logits  max(p, 0) - p t + log(1 + exp(-|p|))            1 / (1 + exp(-p)) - t
//
// Shapes: prediction, target, dPrediction [elements]; valid [elements / perValid]; dimension [elements / perDimensionRow,
// dimensions]; loss, scale, dLoss []. f32. Sums run in SLICES workgroups of strided elements, then over these in order.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const SLICES: u32 = 32u;                                                     // @param  workgroups of the first sum
fn error(p: f32, t: f32) -> f32 { return (p - t) * (p - t); }                // @param
// @or l1     fn error(p: f32, t: f32) -> f32 { return abs(p - t); }
// @or huber  fn error(p: f32, t: f32) -> f32 {
// @or huber    let d = abs(p - t); return select(d - 0.5, 0.5 * min(d, 1.0) * min(d, 1.0), d <= 1.0); }
// @or binaryCrossEntropyWithLogits  fn error(p: f32, t: f32) -> f32 { return max(p, 0.0) - p * t + log(1.0 + exp(-abs(p))); }
fn derivative(p: f32, t: f32) -> f32 { return 2.0 * (p - t); }               // @param
// @or l1     fn derivative(p: f32, t: f32) -> f32 { return sign(p - t); }
// @or huber  fn derivative(p: f32, t: f32) -> f32 { return clamp(p - t, -1.0, 1.0); }
// @or binaryCrossEntropyWithLogits  fn derivative(p: f32, t: f32) -> f32 {
// @or binaryCrossEntropyWithLogits    let e = exp(-abs(p)); return select(e, 1.0, p >= 0.0) / (1.0 + e) - t; }

struct Shape { elements: u32, perValid: u32, perDimensionRow: u32, dimensions: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> prediction: array<f32>;
@group(0) @binding(2) var<storage, read> target_: array<f32>;
@group(0) @binding(3) var<storage, read> valid: array<u32>;
@group(0) @binding(4) var<storage, read> dimension: array<u32>;
@group(0) @binding(5) var<storage, read_write> partialSums: array<vec2f>;    // [SLICES] of (sum of w error, sum of w)
@group(0) @binding(6) var<storage, read_write> loss: array<f32>;
@group(0) @binding(7) var<storage, read_write> scale: array<f32>;           // 1 / W, saved for backward
@group(0) @binding(8) var<storage, read> dLoss: array<f32>;
@group(0) @binding(9) var<storage, read_write> dPrediction: array<f32>;

var<workgroup> partial: array<vec2f, THREADS>;

fn counts(e: u32) -> bool {
  let row = (e / shape.perDimensionRow) * shape.dimensions;
  return valid[e / shape.perValid] != 0u && dimension[row + e % shape.dimensions] != 0u;
}

// ---- forward -----------------------------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn forwardSlices(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  var sum = vec2f();
  for (var e = workgroup.x * THREADS + thread; e < shape.elements; e += SLICES * THREADS) {
    if (counts(e)) { sum += vec2f(error(prediction[e], target_[e]), 1.0); }
  }
  partial[thread] = sum;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  if (thread == 0u) { partialSums[workgroup.x] = partial[0]; }
}

@compute @workgroup_size(1) fn forward() {
  var sum = vec2f();
  for (var slice = 0u; slice < SLICES; slice++) { sum += partialSums[slice]; }
  scale[0] = 1.0 / max(1.0, sum.y);
  loss[0] = sum.x * scale[0];
}

// ---- backward: one thread an element -----------------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn backward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let e = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;
  if (e >= shape.elements) { return; }
  var gradient = 0.0;
  if (counts(e)) { gradient = dLoss[0] * scale[0] * derivative(prediction[e], target_[e]); }
  dPrediction[e] = gradient;
}
