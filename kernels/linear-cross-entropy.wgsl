// The loss of a language model: cross-entropy of the logits hidden embedding^T, in tiles of the vocabulary.
//
//   logit[r,v]   = sum_i hidden[r,i] embedding[v,i]             product.ts, one tile of columns v at a time
//   logSumExp[r] = log sum_v exp(logit[r,v])                    a running maximum and sum over the tiles
//   rowLoss[r]   = mask[r] (logSumExp[r] - logit[r, targets[r]])
//   loss         = sum_r rowWeight[r] rowLoss[r]
//
// where rowWeight is mask / (samples max(1, count)), count the number of ones in the sample's mask: the mean over samples of each
// sample's mean. With all rows taken as one sample it is the mean over rows. Backward, tile by tile, with dLoss of the loss:
//
//   dLogit[r,v]  = dLoss rowWeight[r] (exp(logit[r,v] - logSumExp[r]) - [v = targets[r]])
//   dHidden      = dLogit embedding,    dEmbedding = dLogit^T hidden
//
// so that no more than one tile of logits ever exists, [rows, tile]; backward computes each again, unless there is only one. Rows of
// a sample follow one another, rowsPerSample of each. Shapes: logits, dLogits [rows, groups of four columns], the last group filled
// up with what does not count; everything else [rows]. f32, ids and masks u32; all sums in a fixed order.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const LOW: f32 = -1e30;                                                      // below every logit; exp(LOW - any logit) is 0

struct Shape { rows: u32, rowsPerSample: u32, groups: u32, columns: u32, firstColumn: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read_write> rowWeight: array<f32>;
@group(0) @binding(4) var<storage, read> logits: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> running: array<vec2f>;       // so far: maximum, and sum of exp(logit - maximum)
@group(0) @binding(6) var<storage, read_write> prediction: array<u32>;      // the lowest v with the largest logit so far
@group(0) @binding(7) var<storage, read_write> targetLogit: array<f32>;
@group(0) @binding(8) var<storage, read_write> logSumExp: array<f32>;
@group(0) @binding(9) var<storage, read_write> rowLoss: array<f32>;
@group(0) @binding(10) var<storage, read_write> loss: array<f32>;
@group(0) @binding(11) var<storage, read> dLoss: array<f32>;
@group(0) @binding(12) var<storage, read_write> dLogits: array<vec4f>;

// The softmax of some logits of a row: their maximum, where it is first met, and the sum of exp(logit - maximum).
struct Partial { maximum: f32, sum: f32, at: u32 }

var<workgroup> partial: array<f32, THREADS>;
var<workgroup> partialSoftmax: array<Partial, THREADS>;

fn rowOf(grid: Grid) -> u32 { return grid.workgroup.y * grid.count.x + grid.workgroup.x; }

// The sum of `value` over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: f32, thread: u32) -> f32 {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

fn merge(a: Partial, b: Partial) -> Partial {
  let maximum = max(a.maximum, b.maximum);
  let sum = a.sum * exp(a.maximum - maximum) + b.sum * exp(b.maximum - maximum);
  let first = min(select(a.at, b.at, b.maximum > a.maximum), select(b.at, a.at, a.maximum > b.maximum));
  return Partial(maximum, sum, first);
}

// Columns of group `group` that are real.
fn isColumn(group: u32) -> vec4<bool> { return vec4u(4u * group) + vec4u(0u, 1u, 2u, 3u) < vec4u(shape.columns); }

// ---- the rows' weights: one workgroup a sample -------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn weigh(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let start = rowOf(grid) * shape.rowsPerSample;
  if (start >= shape.rows) { return; }
  let end = start + shape.rowsPerSample;
  var ones = 0.0;
  for (var row = start + thread; row < end; row += THREADS) { ones += select(0.0, 1.0, mask[row] != 0u); }
  let samples = f32(shape.rows / shape.rowsPerSample);
  let weight = 1.0 / (samples * max(1.0, sumOverWorkgroup(ones, thread)));
  for (var row = start + thread; row < end; row += THREADS) { rowWeight[row] = select(0.0, weight, mask[row] != 0u); }
}

// ---- forward: a tile joins the running log-sum-exp, one workgroup a row ------------------------------------------------

@compute @workgroup_size(THREADS) fn addTile(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(grid);
  if (row >= shape.rows) { return; }
  let start = row * shape.groups;
  var maximum = LOW;
  var sum = 0.0;
  var at = 0u;
  for (var group = thread; group < shape.groups; group += THREADS) {
    let logit = select(vec4f(LOW), logits[start + group], isColumn(group));
    let largest = max(max(logit.x, logit.y), max(logit.z, logit.w));
    if (largest > maximum) {
      sum *= exp(maximum - largest);
      maximum = largest;
      at = 4u * group + select(select(select(3u, 2u, logit.z == largest), 1u, logit.y == largest), 0u, logit.x == largest);
    }
    let share = exp(logit - maximum);
    sum += (share.x + share.y) + (share.z + share.w);
  }
  partialSoftmax[thread] = Partial(maximum, sum, shape.firstColumn + at);
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partialSoftmax[thread] = merge(partialSoftmax[thread], partialSoftmax[thread + half]); }
  }
  if (thread > 0u) { return; }
  var softmax = partialSoftmax[0];
  var chosen = LOW;                                                          // stays there for a target outside the vocabulary
  if (shape.firstColumn > 0u) {
    softmax = merge(Partial(running[row].x, running[row].y, prediction[row]), softmax);
    chosen = targetLogit[row];
  }
  let column = targets[row] - shape.firstColumn;                             // wraps around below the tile
  if (column < shape.columns) { chosen = logits[start + column / 4u][column % 4u]; }
  running[row] = vec2f(softmax.maximum, softmax.sum);
  prediction[row] = softmax.at;
  targetLogit[row] = chosen;
}

// ---- forward: the rows' losses, one thread a row; then their sum, one workgroup ----------------------------------------

@compute @workgroup_size(THREADS) fn finishRows(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(grid) * THREADS + thread;
  if (row >= shape.rows) { return; }
  let total = running[row].x + log(running[row].y);
  logSumExp[row] = total;
  rowLoss[row] = select(0.0, total - targetLogit[row], rowWeight[row] != 0.0);
}

@compute @workgroup_size(THREADS) fn sumRows(@builtin(local_invocation_index) thread: u32) {
  var sum = 0.0;
  for (var row = thread; row < shape.rows; row += THREADS) { sum += rowWeight[row] * rowLoss[row]; }
  let total = sumOverWorkgroup(sum, thread);
  if (thread == 0u) { loss[0] = total; }
}

// ---- backward: the gradient of a tile, one workgroup a row -------------------------------------------------------------

@compute @workgroup_size(THREADS) fn gradientOfTile(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(grid);
  if (row >= shape.rows) { return; }
  let start = row * shape.groups;
  let weight = rowWeight[row] * dLoss[0];
  if (weight == 0.0) {
    for (var group = thread; group < shape.groups; group += THREADS) { dLogits[start + group] = vec4f(); }
    return;
  }
  let total = logSumExp[row];
  let column = targets[row] - shape.firstColumn;
  for (var group = thread; group < shape.groups; group += THREADS) {
    let isTarget = vec4u(4u * group) + vec4u(0u, 1u, 2u, 3u) == vec4u(column);
    let share = exp(min(logits[start + group] - total, vec4f()));
    dLogits[start + group] = select(vec4f(), weight * (share - select(vec4f(), vec4f(1.0), isTarget)), isColumn(group));
  }
}
