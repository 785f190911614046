// Attention for software adapters: the mathematics, the plan and the operands of attention.wgsl, which explains them. f32 only.
//
// A software adapter runs a subgroup of 8 lanes as one vector of the processor. Workgroup memory and barriers cost there as much
// as storage, and one load as much as 25 to 50 multiplications (measured on Mesa's lavapipe). So a workgroup is one subgroup,
// without workgroup memory: each lane keeps ROWS rows of a tile, and the other tile goes round eight rows at a time, one to a lane,
// each handed to all lanes by subgroupBroadcast. Rows of a lane are the columns of a matrix, so that
//
//   (row of the other tile) * (rows of the lane)        is a vec4f: the dot product with each row of the lane.
//
// Query rows of the heads that share a kv head lie together: flat row f of a query tile is row f / headsPerKv, head f % headsPerKv,
// and BATCH flat rows are worked on at a time. Sums over keys (forward, dq) or queries (dk, dv) are kept in their result in storage,
// which only the lane that owns the row reads and writes; so any D fits, and no size but the lane count is a constant.

enable subgroups;

const LANES: u32 = 8u;
const BATCH: u32 = 32u;                           // rows of all lanes, and of a tile at most
const NOTHING: f32 = 1e30;

struct Shape {
  queryTokens: u32, keyTokens: u32, heads: u32, kvHeads: u32,
  groups: u32,                                    // D / 4
  scale: f32,
  queryTiles: u32, keyTiles: u32,                 // to a sample
  keyTilesAt: u32, forwardAt: u32, dQueryAt: u32, dKeyValueAt: u32,          // where in the plan these tables lie; query tiles lie first
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> plan: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<vec4f>;
@group(0) @binding(3) var<storage, read> key: array<vec4f>;
@group(0) @binding(4) var<storage, read> value: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> output: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> logSumExp: array<f32>;        // L [batch, heads, queryTokens]
@group(0) @binding(5) var<storage, read> forwardOutput: array<vec4f>;
@group(0) @binding(6) var<storage, read> forwardLogSumExp: array<f32>;
@group(0) @binding(7) var<storage, read> dOutput: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> rowStatistics: array<vec2f>;  // (L, D) [batch, heads, queryTokens]
@group(0) @binding(8) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(9) var<storage, read_write> dQuery: array<vec4f>;
@group(0) @binding(10) var<storage, read_write> dKey: array<vec4f>;
@group(0) @binding(11) var<storage, read_write> dValue: array<vec4f>;

// ---- the plan --------------------------------------------------------------------------------------------------------

struct Tile {
  firstRow: u32, rows: u32,
  position: u32,                                  // of its first row in its block
  valid: u32,                                     // bit r: row r is a real token
}

struct Pair {
  tile: u32,                                      // the other tile
  causal: bool, window: u32,                      // allowed only where 0 <= position(i) - position(j) < window
  stopKey: bool, stopValue: bool,
}

fn tileAt(at: u32) -> Tile { return Tile(plan[at], plan[at + 1u], plan[at + 2u], plan[at + 3u]); }
fn queryTile(sample: u32, index: u32) -> Tile { return tileAt(4u * (sample * shape.queryTiles + index)); }
fn keyTile(sample: u32, index: u32) -> Tile { return tileAt(shape.keyTilesAt + 4u * (sample * shape.keyTiles + index)); }

fn pairAt(at: u32) -> Pair {
  let word = plan[at];
  return Pair(word & 0xfffffffu, (word & 0x40000000u) != 0u, plan[at + 1u], (word & 0x20000000u) != 0u, (word & 0x10000000u) != 0u);
}

// Bits 0 .. count - 1.
fn firstBits(count: u32) -> u32 { return select((1u << (count & 31u)) - 1u, 0xffffffffu, count >= 32u); }

// Bit j: query row `row` sees key row j. Causal: the keys up to its own position, less those that the window leaves behind.
fn seen(pair: Pair, queries: Tile, keys: Tile, row: u32) -> u32 {
  let real = select(0u, keys.valid, ((queries.valid >> row) & 1u) != 0u);
  let end = queries.position + row + 1u;          // behind its own position
  let start = end - min(pair.window, end);
  let inWindow = firstBits(max(end, keys.position) - keys.position) & ~firstBits(max(start, keys.position) - keys.position);
  return select(real, real & inWindow, pair.causal);
}

// ---- products --------------------------------------------------------------------------------------------------------

// sums[r] + row . (row r of the lane). Everywhere in this order, so that a row that sees one key has dP = D to the last bit.
fn addDots(sums: vec4f, row: vec4f, rows: mat4x4f) -> vec4f {
  let elements = transpose(rows);
  return fma(vec4f(row.w), elements[3], fma(vec4f(row.z), elements[2], fma(vec4f(row.y), elements[1], fma(vec4f(row.x), elements[0], sums))));
}

fn addDot(sum: f32, a: vec4f, b: vec4f) -> f32 { return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum)))); }

// sums[r] + weights[r] row
fn addRow(sums: mat4x4f, row: vec4f, weights: vec4f) -> mat4x4f {
  return mat4x4f(fma(row, vec4f(weights.x), sums[0]), fma(row, vec4f(weights.y), sums[1]), fma(row, vec4f(weights.z), sums[2]), fma(row, vec4f(weights.w), sums[3]));
}

// products[first + j][r] += (row j of the other tile) . (row r of the lane), for the eight rows that the lanes hold in `others`.
fn multiply(products: ptr<function, array<vec4f, BATCH>>, first: u32, others: vec4f, rows: mat4x4f) {
  (*products)[first] = addDots((*products)[first], subgroupBroadcast(others, 0u), rows);
  (*products)[first + 1u] = addDots((*products)[first + 1u], subgroupBroadcast(others, 1u), rows);
  (*products)[first + 2u] = addDots((*products)[first + 2u], subgroupBroadcast(others, 2u), rows);
  (*products)[first + 3u] = addDots((*products)[first + 3u], subgroupBroadcast(others, 3u), rows);
  (*products)[first + 4u] = addDots((*products)[first + 4u], subgroupBroadcast(others, 4u), rows);
  (*products)[first + 5u] = addDots((*products)[first + 5u], subgroupBroadcast(others, 5u), rows);
  (*products)[first + 6u] = addDots((*products)[first + 6u], subgroupBroadcast(others, 6u), rows);
  (*products)[first + 7u] = addDots((*products)[first + 7u], subgroupBroadcast(others, 7u), rows);
}

// sums[r] + the sum over the eight rows j of weights[first + j][r] (row j of the other tile), for each row r of the lane.
fn combine(start: mat4x4f, weights: ptr<function, array<vec4f, BATCH>>, first: u32, others: vec4f) -> mat4x4f {
  var sums = addRow(start, subgroupBroadcast(others, 0u), (*weights)[first]);
  sums = addRow(sums, subgroupBroadcast(others, 1u), (*weights)[first + 1u]);
  sums = addRow(sums, subgroupBroadcast(others, 2u), (*weights)[first + 2u]);
  sums = addRow(sums, subgroupBroadcast(others, 3u), (*weights)[first + 3u]);
  sums = addRow(sums, subgroupBroadcast(others, 4u), (*weights)[first + 4u]);
  sums = addRow(sums, subgroupBroadcast(others, 5u), (*weights)[first + 5u]);
  sums = addRow(sums, subgroupBroadcast(others, 6u), (*weights)[first + 6u]);
  sums = addRow(sums, subgroupBroadcast(others, 7u), (*weights)[first + 7u]);
  return sums;
}

// ---- rows in storage -------------------------------------------------------------------------------------------------

// Flat query rows: those of one tile and of the heads that share a kv head.
struct Rows {
  row: vec4u,                                     // in the tile
  at: vec4u,                                      // of their first group in query, output, dOutput and dQuery
  statisticsAt: vec4u,                            // in logSumExp and statistics
  live: vec4<bool>,                               // false: beyond the last row, which stands in for it and must not be written
}

fn rowsAt(queries: Tile, sample: u32, kvHead: u32, wanted: vec4u) -> Rows {
  let headsPerKv = shape.heads / shape.kvHeads;
  let count = queries.rows * headsPerKv;
  let flat = min(wanted, vec4u(count - 1u));
  let row = flat / headsPerKv;
  let head = kvHead * headsPerKv + flat - headsPerKv * row;
  let token = sample * shape.queryTokens + queries.firstRow + row;
  return Rows(row, (token * shape.heads + head) * shape.groups, (sample * shape.heads + head) * shape.queryTokens + queries.firstRow + row, wanted < vec4u(count));
}

// First groups of rows of a key tile, in key, value, dKey and dValue; beyond the tile, of its last row.
fn keysAt(keys: Tile, sample: u32, kvHead: u32, row: vec4u) -> vec4u {
  return ((sample * shape.keyTokens + keys.firstRow + min(row, vec4u(keys.rows - 1u))) * shape.kvHeads + kvHead) * shape.groups;
}

// Rows of a tile that a lane keeps, and those that it hands round.
fn ownRows(lane: u32) -> vec4u { return 4u * lane + vec4u(0u, 1u, 2u, 3u); }
fn otherRows(lane: u32) -> vec4u { return lane + LANES * vec4u(0u, 1u, 2u, 3u); }

fn queryAt(at: vec4u) -> mat4x4f { return mat4x4f(query[at.x], query[at.y], query[at.z], query[at.w]); }
fn gradientAt(at: vec4u) -> mat4x4f { return mat4x4f(dOutput[at.x], dOutput[at.y], dOutput[at.z], dOutput[at.w]); }
fn keyAt(at: vec4u) -> mat4x4f { return mat4x4f(key[at.x], key[at.y], key[at.z], key[at.w]); }
fn valueAt(at: vec4u) -> mat4x4f { return mat4x4f(value[at.x], value[at.y], value[at.z], value[at.w]); }

// ---- forward: one workgroup a batch of flat query rows --------------------------------------------------------------------

fn writeOutput(rows: Rows, group: u32, element: mat4x4f) {
  if (rows.live.x) { output[rows.at.x + group] = element[0]; }
  if (rows.live.y) { output[rows.at.y + group] = element[1]; }
  if (rows.live.z) { output[rows.at.z + group] = element[2]; }
  if (rows.live.w) { output[rows.at.w + group] = element[3]; }
}

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let headsPerKv = shape.heads / shape.kvHeads;
  let tile = workgroup.x / headsPerKv;
  let kvHead = workgroup.y;
  let sample = workgroup.z;
  let queries = queryTile(sample, tile);
  let firstFlat = BATCH * (workgroup.x - tile * headsPerKv);
  if (firstFlat >= queries.rows * headsPerKv) { return; }
  let rows = rowsAt(queries, sample, kvHead, firstFlat + ownRows(lane));
  let list = 2u * (sample * shape.queryTiles + tile) + shape.forwardAt;
  var largest = vec4f(-NOTHING);                                             // m and l of the lane's rows
  var total = vec4f();
  for (var group = 0u; group < shape.groups; group++) { writeOutput(rows, group, mat4x4f()); }

  for (var entry = 0u; entry < plan[list + 1u]; entry++) {
    let pair = pairAt(plan[list] + 2u * entry);
    let keys = keyTile(sample, pair.tile);
    let keyRow = keysAt(keys, sample, kvHead, otherRows(lane));
    var scores = array<vec4f, BATCH>();           // zero each time, in writing: some drivers zero a loop's variable only once
    for (var group = 0u; group < shape.groups; group++) {
      let left = shape.scale * queryAt(rows.at + group);
      let right = keyAt(keyRow + group);
      multiply(&scores, 0u, right[0], left);
      multiply(&scores, 8u, right[1], left);
      multiply(&scores, 16u, right[2], left);
      multiply(&scores, 24u, right[3], left);
    }

    let visible = vec4u(seen(pair, queries, keys, rows.row.x), seen(pair, queries, keys, rows.row.y), seen(pair, queries, keys, rows.row.z), seen(pair, queries, keys, rows.row.w));
    var newLargest = largest;
    for (var j = 0u; j < BATCH; j++) {
      scores[j] = select(vec4f(-NOTHING), scores[j], ((visible >> vec4u(j)) & vec4u(1u)) != vec4u());
      newLargest = max(newLargest, scores[j]);
    }
    var sum = vec4f();
    for (var j = 0u; j < BATCH; j++) {
      let weight = select(exp(scores[j] - newLargest), vec4f(), scores[j] == vec4f(-NOTHING));
      scores[j] = weight;
      sum += weight;
    }
    let kept = total * exp(largest - newLargest);
    total = kept + sum;
    largest = newLargest;

    // The output stays divided by the total so far.
    let share = 1.0 / max(total, vec4f(1e-30));
    for (var j = 0u; j < BATCH; j++) { scores[j] *= share; }
    let shrink = kept * share;
    for (var group = 0u; group < shape.groups; group++) {
      let right = valueAt(keyRow + group);
      let old = mat4x4f(shrink.x * output[rows.at.x + group], shrink.y * output[rows.at.y + group], shrink.z * output[rows.at.z + group], shrink.w * output[rows.at.w + group]);
      writeOutput(rows, group, combine(combine(combine(combine(old, &scores, 0u, right[0]), &scores, 8u, right[1]), &scores, 16u, right[2]), &scores, 24u, right[3]));
    }
  }

  let result = select(vec4f(NOTHING), largest + log(max(total, vec4f(1e-30))), total > vec4f());
  if (rows.live.x) { logSumExp[rows.statisticsAt.x] = result.x; }
  if (rows.live.y) { logSumExp[rows.statisticsAt.y] = result.y; }
  if (rows.live.z) { logSumExp[rows.statisticsAt.z] = result.z; }
  if (rows.live.w) { logSumExp[rows.statisticsAt.w] = result.w; }
}

// ---- backward: D = do . o, one lane a row, stored beside L ------------------------------------------------------------------

@compute @workgroup_size(LANES)
fn backwardDelta(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = workgroup.x * LANES + lane;
  let head = workgroup.y;
  let sample = workgroup.z;
  if (row >= shape.queryTokens) { return; }
  let start = ((sample * shape.queryTokens + row) * shape.heads + head) * shape.groups;
  var sum = 0.0;
  for (var group = 0u; group < shape.groups; group++) { sum = addDot(sum, dOutput[start + group], forwardOutput[start + group]); }
  let at = (sample * shape.heads + head) * shape.queryTokens + row;
  rowStatistics[at] = vec2f(forwardLogSumExp[at], sum);
}

// ---- backward: dq, one workgroup a batch of flat query rows ----------------------------------------------------------------

fn writeQueryGradient(rows: Rows, group: u32, element: mat4x4f) {
  if (rows.live.x) { dQuery[rows.at.x + group] = element[0]; }
  if (rows.live.y) { dQuery[rows.at.y + group] = element[1]; }
  if (rows.live.z) { dQuery[rows.at.z + group] = element[2]; }
  if (rows.live.w) { dQuery[rows.at.w + group] = element[3]; }
}

@compute @workgroup_size(LANES)
fn backwardQuery(@builtin(workgroup_id) workgroup: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let headsPerKv = shape.heads / shape.kvHeads;
  let tile = workgroup.x / headsPerKv;
  let kvHead = workgroup.y;
  let sample = workgroup.z;
  let queries = queryTile(sample, tile);
  let firstFlat = BATCH * (workgroup.x - tile * headsPerKv);
  if (firstFlat >= queries.rows * headsPerKv) { return; }
  let rows = rowsAt(queries, sample, kvHead, firstFlat + ownRows(lane));
  let list = 2u * (sample * shape.queryTiles + tile) + shape.dQueryAt;
  let lAndD = mat4x2f(statistics[rows.statisticsAt.x], statistics[rows.statisticsAt.y], statistics[rows.statisticsAt.z], statistics[rows.statisticsAt.w]);
  let logSum = vec4f(lAndD[0].x, lAndD[1].x, lAndD[2].x, lAndD[3].x);
  let delta = vec4f(lAndD[0].y, lAndD[1].y, lAndD[2].y, lAndD[3].y);
  for (var group = 0u; group < shape.groups; group++) { writeQueryGradient(rows, group, mat4x4f()); }

  for (var entry = 0u; entry < plan[list + 1u]; entry++) {
    let pair = pairAt(plan[list] + 2u * entry);
    let keys = keyTile(sample, pair.tile);
    let keyRow = keysAt(keys, sample, kvHead, otherRows(lane));
    var scores = array<vec4f, BATCH>();
    var dWeights = array<vec4f, BATCH>();
    for (var group = 0u; group < shape.groups; group++) {
      let left = shape.scale * queryAt(rows.at + group);
      let right = keyAt(keyRow + group);
      multiply(&scores, 0u, right[0], left);
      multiply(&scores, 8u, right[1], left);
      multiply(&scores, 16u, right[2], left);
      multiply(&scores, 24u, right[3], left);
    }
    for (var group = 0u; group < shape.groups; group++) {
      let left = gradientAt(rows.at + group);
      let right = valueAt(keyRow + group);
      multiply(&dWeights, 0u, right[0], left);
      multiply(&dWeights, 8u, right[1], left);
      multiply(&dWeights, 16u, right[2], left);
      multiply(&dWeights, 24u, right[3], left);
    }
    let visible = vec4u(seen(pair, queries, keys, rows.row.x), seen(pair, queries, keys, rows.row.y), seen(pair, queries, keys, rows.row.z), seen(pair, queries, keys, rows.row.w));
    for (var j = 0u; j < BATCH; j++) {
      let weight = select(vec4f(), exp(min(scores[j] - logSum, vec4f())), ((visible >> vec4u(j)) & vec4u(1u)) != vec4u());
      scores[j] = shape.scale * weight * (dWeights[j] - delta);
    }
    for (var group = 0u; group < shape.groups; group++) {
      let right = keyAt(keyRow + group);
      let old = mat4x4f(dQuery[rows.at.x + group], dQuery[rows.at.y + group], dQuery[rows.at.z + group], dQuery[rows.at.w + group]);
      writeQueryGradient(rows, group, combine(combine(combine(combine(old, &scores, 0u, right[0]), &scores, 8u, right[1]), &scores, 16u, right[2]), &scores, 24u, right[3]));
    }
  }
}

// ---- backward: dk and dv, one workgroup a key tile: the lanes keep key rows, and flat query rows go round --------------------------

fn writeKeyGradient(at: vec4u, live: vec4<bool>, element: mat4x4f) {
  if (live.x) { dKey[at.x] = element[0]; }
  if (live.y) { dKey[at.y] = element[1]; }
  if (live.z) { dKey[at.z] = element[2]; }
  if (live.w) { dKey[at.w] = element[3]; }
}

fn writeValueGradient(at: vec4u, live: vec4<bool>, element: mat4x4f) {
  if (live.x) { dValue[at.x] = element[0]; }
  if (live.y) { dValue[at.y] = element[1]; }
  if (live.z) { dValue[at.z] = element[2]; }
  if (live.w) { dValue[at.w] = element[3]; }
}

fn spread(held: vec4f) -> array<vec4f, LANES> {
  return array<vec4f, LANES>(subgroupBroadcast(held, 0u), subgroupBroadcast(held, 1u), subgroupBroadcast(held, 2u), subgroupBroadcast(held, 3u),
    subgroupBroadcast(held, 4u), subgroupBroadcast(held, 5u), subgroupBroadcast(held, 6u), subgroupBroadcast(held, 7u));
}

fn spreadBits(held: vec4u) -> array<vec4u, LANES> {
  return array<vec4u, LANES>(subgroupBroadcast(held, 0u), subgroupBroadcast(held, 1u), subgroupBroadcast(held, 2u), subgroupBroadcast(held, 3u),
    subgroupBroadcast(held, 4u), subgroupBroadcast(held, 5u), subgroupBroadcast(held, 6u), subgroupBroadcast(held, 7u));
}

@compute @workgroup_size(LANES)
fn backwardKeyValue(@builtin(workgroup_id) workgroup: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let headsPerKv = shape.heads / shape.kvHeads;
  let kvHead = workgroup.y;
  let sample = workgroup.z;
  let keys = keyTile(sample, workgroup.x);
  let keyRow = ownRows(lane);
  let keyRowAt = keysAt(keys, sample, kvHead, keyRow);
  let live = keyRow < vec4u(keys.rows);
  let list = shape.dKeyValueAt + 2u * (sample * shape.keyTiles + workgroup.x);
  for (var group = 0u; group < shape.groups; group++) {
    writeKeyGradient(keyRowAt + group, live, mat4x4f());
    writeValueGradient(keyRowAt + group, live, mat4x4f());
  }

  for (var entry = 0u; entry < plan[list + 1u]; entry++) {
    let pair = pairAt(plan[list] + 2u * entry);
    let queries = queryTile(sample, pair.tile);
    for (var firstFlat = 0u; firstFlat < queries.rows * headsPerKv; firstFlat += BATCH) {
      let rows = rowsAt(queries, sample, kvHead, firstFlat + otherRows(lane));
      let lAndD = mat4x2f(statistics[rows.statisticsAt.x], statistics[rows.statisticsAt.y], statistics[rows.statisticsAt.z], statistics[rows.statisticsAt.w]);
      let visible = select(vec4u(), vec4u(seen(pair, queries, keys, rows.row.x), seen(pair, queries, keys, rows.row.y), seen(pair, queries, keys, rows.row.z), seen(pair, queries, keys, rows.row.w)), rows.live);
      let logSums = spread(vec4f(lAndD[0].x, lAndD[1].x, lAndD[2].x, lAndD[3].x));
      let deltas = spread(vec4f(lAndD[0].y, lAndD[1].y, lAndD[2].y, lAndD[3].y));
      let visibles = spreadBits(visible);
      var weights = array<vec4f, BATCH>();
      for (var group = 0u; group < shape.groups; group++) {
        let left = shape.scale * keyAt(keyRowAt + group);
        let right = queryAt(rows.at + group);
        multiply(&weights, 0u, right[0], left);
        multiply(&weights, 8u, right[1], left);
        multiply(&weights, 16u, right[2], left);
        multiply(&weights, 24u, right[3], left);
      }
      for (var j = 0u; j < BATCH; j++) {
        let weight = exp(min(weights[j] - logSums[j % LANES][j / LANES], vec4f()));
        weights[j] = select(vec4f(), weight, ((vec4u(visibles[j % LANES][j / LANES]) >> keyRow) & vec4u(1u)) != vec4u());
      }
      if (!pair.stopValue) {
        for (var group = 0u; group < shape.groups; group++) {
          let right = gradientAt(rows.at + group);
          let at = keyRowAt + group;
          let old = mat4x4f(dValue[at.x], dValue[at.y], dValue[at.z], dValue[at.w]);
          writeValueGradient(at, live, combine(combine(combine(combine(old, &weights, 0u, right[0]), &weights, 8u, right[1]), &weights, 16u, right[2]), &weights, 24u, right[3]));
        }
      }
      if (!pair.stopKey) {
        var dWeights = array<vec4f, BATCH>();
        for (var group = 0u; group < shape.groups; group++) {
          let left = valueAt(keyRowAt + group);
          let right = gradientAt(rows.at + group);
          multiply(&dWeights, 0u, right[0], left);
          multiply(&dWeights, 8u, right[1], left);
          multiply(&dWeights, 16u, right[2], left);
          multiply(&dWeights, 24u, right[3], left);
        }
        for (var j = 0u; j < BATCH; j++) { weights[j] *= shape.scale * (dWeights[j] - deltas[j % LANES][j / LANES]); }
        for (var group = 0u; group < shape.groups; group++) {
          let right = queryAt(rows.at + group);
          let at = keyRowAt + group;
          let old = mat4x4f(dKey[at.x], dKey[at.y], dKey[at.z], dKey[at.w]);
          writeKeyGradient(at, live, combine(combine(combine(combine(old, &weights, 0u, right[0]), &weights, 8u, right[1]), &weights, 16u, right[2]), &weights, 24u, right[3]));
        }
      }
    }
  }
}
