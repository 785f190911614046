// The work of attention.wgsl that is done row by row: delta, before its backward kernels, and combining the slices of a list that several
// workgroups shared (split-K). For query row i, and slice a of its keys,
//
//   delta_i = do_i . o_i        L_i = log sum_a exp(L_ia)          o_i = sum_a exp(L_ia - L_i) o_ia
//
// and a gradient is the sum of its slices' parts. A slice without keys has L = NO_SCORE, and does not count. Slices lie before samples.

// @as rms-norm.wgsl  Word, unpack, pack
alias Word = vec4f;                                                          // @param  storage of four elements
fn unpack(word: Word) -> vec4f { return word; }                              // @param
fn pack(value: vec4f) -> Word { return value; }                              // @param

const THREADS: u32 = 64u;
const TILE: u32 = 32u;
const NO_SCORE: f32 = 1e30;

struct Shape {
  splits: u32, batch: u32, queryTokens: u32, heads: u32,
  groups: u32,                                    // D / 4
  queryTiles: u32, dQueryAt: u32,                 // of the plan, as in attention.wgsl
}

// A number stands twice where no entry point uses both.
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> forwardOutput: array<Word>;         // [batch, queryTokens, heads, D], as dOutput and output
@group(0) @binding(2) var<storage, read> forwardLogSumExp: array<f32>;       // L [batch, heads, queryTokens], as logSumExp
@group(0) @binding(3) var<storage, read> dOutput: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> statistics: array<vec2f>;     // (L, delta) [batch, heads, queryTokens]
@group(0) @binding(5) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> sliceOutput: array<vec4f>;          // [splits, batch, queryTokens, heads, D]
@group(0) @binding(2) var<storage, read> sliceLogSumExp: array<f32>;         // [splits, batch, heads, queryTokens]
@group(0) @binding(3) var<storage, read_write> output: array<Word>;
@group(0) @binding(4) var<storage, read_write> logSumExp: array<f32>;
@group(0) @binding(1) var<storage, read> sliceGradient: array<vec4f>;        // [splits, ..]
@group(0) @binding(2) var<storage, read_write> gradient: array<vec4f>;

struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

// One thread a row of a query tile, for each of the heads. A tile without pairs in its dQuery list has no statistics: nothing reads them.
@compute @workgroup_size(THREADS)
fn delta(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let index = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;
  let tile = index / (TILE * shape.heads);                                   // sample * queryTiles + the tile of the sample
  let sample = tile / shape.queryTiles;
  if (sample >= shape.batch) { return; }
  let rowOfTile = index / shape.heads % TILE;
  if (rowOfTile >= plan[4u * tile + 1u] || plan[shape.dQueryAt + 2u * tile + 1u] == 0u) { return; }
  let token = plan[4u * tile] + rowOfTile;
  let head = index % shape.heads;
  let row = (sample * shape.queryTokens + token) * shape.heads + head;
  var sum = 0.0;
  for (var group = 0u; group < shape.groups; group++) {
    // The order of terms of attention's dP: a row that sees one key then has dP = delta to the last bit, and dq = 0.
    let a = dOutput[row * shape.groups + group];
    let b = unpack(forwardOutput[row * shape.groups + group]);
    sum = fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
  }
  let at = (sample * shape.heads + head) * shape.queryTokens + token;
  statistics[at] = vec2f(forwardLogSumExp[at], sum);
}

// One thread four elements of a row.
@compute @workgroup_size(THREADS)
fn reduceForward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let at = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;             // in output
  let elements = shape.batch * shape.queryTokens * shape.heads * shape.groups;
  if (at >= elements) { return; }
  let row = at / shape.groups;                                               // (sample * queryTokens + token) * heads + head
  let token = row / shape.heads;
  let sample = token / shape.queryTokens;
  let rows = shape.batch * shape.heads * shape.queryTokens;
  let statisticsAt = (sample * shape.heads + row % shape.heads) * shape.queryTokens + token % shape.queryTokens;
  var largest = -NO_SCORE;
  for (var slice = 0u; slice < shape.splits; slice++) {
    let own = sliceLogSumExp[slice * rows + statisticsAt];
    if (own < NO_SCORE) { largest = max(largest, own); }
  }
  var total = 0.0;
  var sum = vec4f();
  for (var slice = 0u; slice < shape.splits; slice++) {
    let own = sliceLogSumExp[slice * rows + statisticsAt];
    if (own < NO_SCORE) {
      let weight = exp(own - largest);
      total += weight;
      sum += weight * sliceOutput[slice * elements + at];
    }
  }
  output[at] = pack(sum / max(total, 1e-30));
  if (at % shape.groups == 0u) { logSumExp[statisticsAt] = select(NO_SCORE, largest + log(max(total, 1e-30)), total > 0.0); }
}

// One thread four elements.
@compute @workgroup_size(THREADS)
fn reduceGradient(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let at = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;
  let elements = arrayLength(&gradient);
  if (at >= elements) { return; }
  var sum = vec4f();
  for (var slice = 0u; slice < shape.splits; slice++) { sum += sliceGradient[slice * elements + at]; }
  gradient[at] = sum;
}
