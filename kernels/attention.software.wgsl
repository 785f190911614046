// Attention for software adapters with subgroups: mathematics, plan and operands as in attention.wgsl, which explains them; f32 only.
//
// Such an adapter runs a subgroup as one vector of the processor. Workgroup memory costs there as much as storage, a load as much as
// 25 to 50 multiplications, a value of another lane only as much as two. So a workgroup is one subgroup, without workgroup memory or
// barriers. Every lane keeps two rows of one tile, and the rows of the other tile pass: each lane loads two of them, and each of these
// is handed to all lanes in turn (subgroupShuffle). Heads are walked by words of two elements, and two rows of a lane are the columns
// of a 2 x 2 matrix: longer loop bodies run little faster here and take seconds to compile.
//
// Query rows of the heads that share a kv head lie together: flat row f of a query tile is row f / headsPerKv of head f % headsPerKv.
// Sums over keys (forward, dq) or queries (dk, dv) are kept in their results in storage, which only the lane that keeps the row
// reads and writes. So the head dimension D bounds only loops, and one pipeline serves every D. All sums run in a fixed order.

diagnostic(off, subgroup_uniformity);             // what bounds the loops comes from other lanes, to all lanes the same
enable subgroups;

const LANES: u32 = 8u;                                                       // @param  of a subgroup: 4, 8 or 16
const TILE: u32 = 32u;                            // most rows of a tile
const BATCH: u32 = 2u * LANES;                    // rows of all lanes
const NOTHING: f32 = 1e30;

struct Shape {
  queryTokens: u32, keyTokens: u32, heads: u32, kvHeads: u32,
  words: u32,                                     // D / 2
  scale: f32,
  queryTiles: u32, keyTiles: u32,                 // to a sample
  keyTilesAt: u32, forwardAt: u32, dQueryAt: u32, dKeyValueAt: u32,          // where in the plan these tables lie; query tiles lie first
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> plan: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<vec2f>;
@group(0) @binding(3) var<storage, read> key: array<vec2f>;
@group(0) @binding(4) var<storage, read> value: array<vec2f>;
@group(0) @binding(5) var<storage, read_write> output: array<vec2f>;
@group(0) @binding(6) var<storage, read_write> logSumExp: array<f32>;        // L [batch, heads, queryTokens]
@group(0) @binding(5) var<storage, read> forwardOutput: array<vec2f>;
@group(0) @binding(6) var<storage, read> forwardLogSumExp: array<f32>;
@group(0) @binding(7) var<storage, read> dOutput: array<vec2f>;
@group(0) @binding(8) var<storage, read_write> rowStatistics: array<vec2f>;  // (L, delta) [batch, heads, queryTokens]
@group(0) @binding(8) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(9) var<storage, read_write> dQuery: array<vec2f>;
@group(0) @binding(10) var<storage, read_write> dKey: array<vec2f>;
@group(0) @binding(11) var<storage, read_write> dValue: array<vec2f>;

// ---- the plan: neighbouring words are loaded by neighbouring lanes -------------------------------------------------------

struct List { start: u32, length: u32 }

struct Tile {
  firstRow: u32, rows: u32,
  position: u32,                                  // of its first row in its block
  valid: u32,                                     // bit r: row r is a real token
}

struct Pair {
  tile: u32,                                      // the other tile
  causal: bool, window: u32,                      // seen only where 0 <= position(i) - position(j) < window
  stopKey: bool, stopValue: bool,
}

fn listAt(at: u32, lane: u32) -> List {
  let word = plan[at + lane % 2u];
  return List(subgroupShuffle(word, 0u), subgroupShuffle(word, 1u));
}

fn pairAt(at: u32, lane: u32) -> Pair {
  let word = plan[at + lane % 2u];
  let first = subgroupShuffle(word, 0u);
  return Pair(first & 0xfffffffu, (first & 0x40000000u) != 0u, subgroupShuffle(word, 1u), (first & 0x20000000u) != 0u, (first & 0x10000000u) != 0u);
}

fn tileAt(at: u32, lane: u32) -> Tile {
  let word = plan[at + lane % 4u];
  return Tile(subgroupShuffle(word, 0u), subgroupShuffle(word, 1u), subgroupShuffle(word, 2u), subgroupShuffle(word, 3u));
}

fn queryTile(sample: u32, index: u32, lane: u32) -> Tile { return tileAt(4u * (sample * shape.queryTiles + index), lane); }
fn keyTile(sample: u32, index: u32, lane: u32) -> Tile { return tileAt(shape.keyTilesAt + 4u * (sample * shape.keyTiles + index), lane); }

// Bits 0 .. count - 1.
fn firstBits(count: vec2u) -> vec2u { return select((vec2u(1u) << (count % 32u)) - 1u, vec2u(0xffffffffu), count >= vec2u(32u)); }

// Bit j: a query row sees key row j. Causal: the keys up to its own position, less those that the window leaves behind.
fn seenKeys(pair: Pair, queries: Tile, keys: Tile, row: vec2u) -> vec2u {
  let real = select(vec2u(), vec2u(keys.valid), ((vec2u(queries.valid) >> row) & vec2u(1u)) != vec2u());
  let end = queries.position + row + 1u;          // behind its own position
  let start = end - min(end, vec2u(pair.window));
  let position = vec2u(keys.position);
  return select(real, real & firstBits(max(end, position) - position) & ~firstBits(max(start, position) - position), pair.causal);
}

// ---- rows ------------------------------------------------------------------------------------------------------------

fn rowsOfLane(lane: u32) -> vec2u { return vec2u(2u * lane, 2u * lane + 1u); }

// Two flat query rows. Beyond the last one of the tile, that one stands in, and is not live.
struct QueryRows {
  row: vec2u,                                     // in the tile
  at: vec2u,                                      // of their first words in query, output, dOutput and dQuery
  statisticsAt: vec2u,                            // in logSumExp and statistics
  live: vec2<bool>,
}

fn queryRows(queries: Tile, sample: u32, kvHead: u32, wanted: vec2u) -> QueryRows {
  let headsPerKv = shape.heads / shape.kvHeads;
  let count = queries.rows * headsPerKv;
  let flat = min(wanted, vec2u(count - 1u));
  let row = flat / headsPerKv;
  let head = kvHead * headsPerKv + flat - row * headsPerKv;
  let token = queries.firstRow + row;
  let at = ((sample * shape.queryTokens + token) * shape.heads + head) * shape.words;
  return QueryRows(row, at, (sample * shape.heads + head) * shape.queryTokens + token, wanted < vec2u(count));
}

// Where two rows of a key tile begin in key, value, dKey and dValue; beyond the tile, its last row.
fn keyRowsAt(keys: Tile, sample: u32, kvHead: u32, row: vec2u) -> vec2u {
  return ((sample * shape.keyTokens + keys.firstRow + min(row, vec2u(keys.rows - 1u))) * shape.kvHeads + kvHead) * shape.words;
}

fn fetchQuery(at: vec2u) -> mat2x2f { return mat2x2f(query[at.x], query[at.y]); }
fn fetchGradient(at: vec2u) -> mat2x2f { return mat2x2f(dOutput[at.x], dOutput[at.y]); }
fn fetchKey(at: vec2u) -> mat2x2f { return mat2x2f(key[at.x], key[at.y]); }
fn fetchValue(at: vec2u) -> mat2x2f { return mat2x2f(value[at.x], value[at.y]); }

fn storeOutput(at: vec2u, live: vec2<bool>, rows: mat2x2f) {
  if (live.x) { output[at.x] = rows[0]; }
  if (live.y) { output[at.y] = rows[1]; }
}

fn storeQueryGradient(at: vec2u, live: vec2<bool>, rows: mat2x2f) {
  if (live.x) { dQuery[at.x] = rows[0]; }
  if (live.y) { dQuery[at.y] = rows[1]; }
}

fn storeKeyGradient(at: vec2u, live: vec2<bool>, rows: mat2x2f) {
  if (live.x) { dKey[at.x] = rows[0]; }
  if (live.y) { dKey[at.y] = rows[1]; }
}

fn storeValueGradient(at: vec2u, live: vec2<bool>, rows: mat2x2f) {
  if (live.x) { dValue[at.x] = rows[0]; }
  if (live.y) { dValue[at.y] = rows[1]; }
}

// ---- products: row j of those that pass is row j % 2 of lane j / 2. These loops are unrolled, and arrays then are registers. -------

// The same order of terms wherever a dot product is made: a row that sees one key then has dP = delta to the last bit.
fn addDot(sum: f32, a: vec2f, b: vec2f) -> f32 { return fma(a.y, b.y, fma(a.x, b.x, sum)); }

// products[j][r] += (row j of those that pass) . (row r of the lane), over one word.
fn multiply(products: ptr<function, array<vec2f, BATCH>>, passing: mat2x2f, rows: mat2x2f) {
  for (var j = 0u; j < BATCH; j++) {
    let row = subgroupShuffle(passing[j % 2u], j / 2u);
    let sums = (*products)[j];
    (*products)[j] = vec2f(addDot(sums.x, row, rows[0]), addDot(sums.y, row, rows[1]));
  }
}

// sums[r] + sum over j of weights[j][r] (row j of those that pass), of one word.
fn combine(sums: mat2x2f, weights: ptr<function, array<vec2f, BATCH>>, passing: mat2x2f) -> mat2x2f {
  var result = sums;
  for (var j = 0u; j < BATCH; j++) {
    let row = subgroupShuffle(passing[j % 2u], j / 2u);
    let weight = (*weights)[j];
    result = mat2x2f(fma(row, vec2f(weight.x), result[0]), fma(row, vec2f(weight.y), result[1]));
  }
  return result;
}

// ---- forward: one workgroup a batch of flat query rows; keys pass ----------------------------------------------------------

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let kvHead = workgroup.y;
  let sample = workgroup.z;
  let headsPerKv = shape.heads / shape.kvHeads;
  let tile = workgroup.x / (headsPerKv * TILE / BATCH);
  let queries = queryTile(sample, tile, lane);
  let first = BATCH * workgroup.x - tile * headsPerKv * TILE;
  if (first >= queries.rows * headsPerKv) { return; }
  let rows = queryRows(queries, sample, kvHead, first + rowsOfLane(lane));
  let list = listAt(shape.forwardAt + 2u * (sample * shape.queryTiles + tile), lane);
  var largest = vec2f(-NOTHING);                                             // m and l of the lane's rows
  var total = vec2f();
  for (var word = 0u; word < shape.words; word++) { storeOutput(rows.at + word, rows.live, mat2x2f()); }

  for (var entry = 0u; entry < list.length; entry++) {
    let pair = pairAt(list.start + 2u * entry, lane);
    let keys = keyTile(sample, pair.tile, lane);
    let seen = seenKeys(pair, queries, keys, rows.row);
    for (var firstKey = 0u; firstKey < keys.rows; firstKey += BATCH) {
      let keysAt = keyRowsAt(keys, sample, kvHead, firstKey + rowsOfLane(lane));
      var scores = array<vec2f, BATCH>();         // zero each time, in writing: some drivers zero a loop's variable only once
      for (var word = 0u; word < shape.words; word++) { multiply(&scores, fetchKey(keysAt + word), shape.scale * fetchQuery(rows.at + word)); }

      var newLargest = largest;
      for (var j = 0u; j < BATCH; j++) {
        scores[j] = select(vec2f(-NOTHING), scores[j], ((seen >> vec2u(firstKey + j)) & vec2u(1u)) != vec2u());
        newLargest = max(newLargest, scores[j]);
      }
      let shrink = exp(largest - newLargest);
      var sum = vec2f();
      for (var j = 0u; j < BATCH; j++) {
        scores[j] = select(exp(scores[j] - newLargest), vec2f(), scores[j] == vec2f(-NOTHING));
        sum += scores[j];
      }
      let newTotal = total * shrink + sum;

      // The output is at all times divided by the total so far.
      let share = 1.0 / max(newTotal, vec2f(1e-30));
      let kept = total * shrink * share;
      for (var j = 0u; j < BATCH; j++) { scores[j] *= share; }
      for (var word = 0u; word < shape.words; word++) {
        let at = rows.at + word;
        let old = mat2x2f(kept.x * output[at.x], kept.y * output[at.y]);
        storeOutput(at, rows.live, combine(old, &scores, fetchValue(keysAt + word)));
      }
      total = newTotal;
      largest = newLargest;
    }
  }

  let result = select(vec2f(NOTHING), largest + log(max(total, vec2f(1e-30))), total > vec2f());
  if (rows.live.x) { logSumExp[rows.statisticsAt.x] = result.x; }
  if (rows.live.y) { logSumExp[rows.statisticsAt.y] = result.y; }
}

// ---- backward: delta = do . o, one lane a row, stored beside L -------------------------------------------------------------

@compute @workgroup_size(LANES)
fn backwardDelta(@builtin(workgroup_id) workgroup: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let row = workgroup.x * LANES + lane;
  let head = workgroup.y;
  let sample = workgroup.z;
  if (row >= shape.queryTokens) { return; }
  let start = ((sample * shape.queryTokens + row) * shape.heads + head) * shape.words;
  var sum = 0.0;
  for (var word = 0u; word < shape.words; word++) { sum = addDot(sum, dOutput[start + word], forwardOutput[start + word]); }
  let at = (sample * shape.heads + head) * shape.queryTokens + row;
  rowStatistics[at] = vec2f(forwardLogSumExp[at], sum);
}

// ---- backward: dq, one workgroup a batch of flat query rows; keys pass -----------------------------------------------------

@compute @workgroup_size(LANES)
fn backwardQuery(@builtin(workgroup_id) workgroup: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let kvHead = workgroup.y;
  let sample = workgroup.z;
  let headsPerKv = shape.heads / shape.kvHeads;
  let tile = workgroup.x / (headsPerKv * TILE / BATCH);
  let queries = queryTile(sample, tile, lane);
  let first = BATCH * workgroup.x - tile * headsPerKv * TILE;
  if (first >= queries.rows * headsPerKv) { return; }
  let rows = queryRows(queries, sample, kvHead, first + rowsOfLane(lane));
  let list = listAt(shape.dQueryAt + 2u * (sample * shape.queryTiles + tile), lane);
  let lAndDelta = transpose(mat2x2f(statistics[rows.statisticsAt.x], statistics[rows.statisticsAt.y]));
  for (var word = 0u; word < shape.words; word++) { storeQueryGradient(rows.at + word, rows.live, mat2x2f()); }

  for (var entry = 0u; entry < list.length; entry++) {
    let pair = pairAt(list.start + 2u * entry, lane);
    let keys = keyTile(sample, pair.tile, lane);
    let seen = seenKeys(pair, queries, keys, rows.row);
    for (var firstKey = 0u; firstKey < keys.rows; firstKey += BATCH) {
      let keysAt = keyRowsAt(keys, sample, kvHead, firstKey + rowsOfLane(lane));
      var weights = array<vec2f, BATCH>();                                   // S, then P, then s dS
      for (var word = 0u; word < shape.words; word++) { multiply(&weights, fetchKey(keysAt + word), shape.scale * fetchQuery(rows.at + word)); }
      for (var j = 0u; j < BATCH; j++) {
        let visible = ((seen >> vec2u(firstKey + j)) & vec2u(1u)) != vec2u();
        weights[j] = select(vec2f(), exp(min(weights[j] - lAndDelta[0], vec2f())), visible);
      }
      var dWeights = array<vec2f, BATCH>();                                  // dP
      for (var word = 0u; word < shape.words; word++) { multiply(&dWeights, fetchValue(keysAt + word), fetchGradient(rows.at + word)); }
      for (var j = 0u; j < BATCH; j++) { weights[j] *= shape.scale * (dWeights[j] - lAndDelta[1]); }
      for (var word = 0u; word < shape.words; word++) {
        let at = rows.at + word;
        storeQueryGradient(at, rows.live, combine(mat2x2f(dQuery[at.x], dQuery[at.y]), &weights, fetchKey(keysAt + word)));
      }
    }
  }
}

// ---- backward: dk and dv, one workgroup a batch of key rows; flat query rows pass --------------------------------------------

@compute @workgroup_size(LANES)
fn backwardKeyValue(@builtin(workgroup_id) workgroup: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let kvHead = workgroup.y;
  let sample = workgroup.z;
  let headsPerKv = shape.heads / shape.kvHeads;
  let tile = workgroup.x / (TILE / BATCH);
  let keys = keyTile(sample, tile, lane);
  let first = BATCH * workgroup.x - tile * TILE;
  if (first >= keys.rows) { return; }
  let keyRow = first + rowsOfLane(lane);
  let keysAt = keyRowsAt(keys, sample, kvHead, keyRow);
  let live = keyRow < vec2u(keys.rows);
  let list = listAt(shape.dKeyValueAt + 2u * (sample * shape.keyTiles + tile), lane);
  for (var word = 0u; word < shape.words; word++) {
    storeKeyGradient(keysAt + word, live, mat2x2f());
    storeValueGradient(keysAt + word, live, mat2x2f());
  }

  for (var entry = 0u; entry < list.length; entry++) {
    let pair = pairAt(list.start + 2u * entry, lane);
    let queries = queryTile(sample, pair.tile, lane);
    for (var firstQuery = 0u; firstQuery < queries.rows * headsPerKv; firstQuery += BATCH) {
      let rows = queryRows(queries, sample, kvHead, firstQuery + rowsOfLane(lane));
      let seen = select(vec2u(), seenKeys(pair, queries, keys, rows.row), rows.live);
      let lAndDelta = transpose(mat2x2f(statistics[rows.statisticsAt.x], statistics[rows.statisticsAt.y]));
      var weights = array<vec2f, BATCH>();                                   // S, then P, then s dS, transposed
      for (var word = 0u; word < shape.words; word++) { multiply(&weights, fetchQuery(rows.at + word), shape.scale * fetchKey(keysAt + word)); }
      for (var j = 0u; j < BATCH; j++) {
        let visible = ((vec2u(subgroupShuffle(seen[j % 2u], j / 2u)) >> keyRow) & vec2u(1u)) != vec2u();
        weights[j] = select(vec2f(), exp(min(weights[j] - subgroupShuffle(lAndDelta[0][j % 2u], j / 2u), vec2f())), visible);
      }
      if (!pair.stopValue) {
        for (var word = 0u; word < shape.words; word++) {
          let at = keysAt + word;
          storeValueGradient(at, live, combine(mat2x2f(dValue[at.x], dValue[at.y]), &weights, fetchGradient(rows.at + word)));
        }
      }
      if (!pair.stopKey) {
        var dWeights = array<vec2f, BATCH>();                                // dP, transposed
        for (var word = 0u; word < shape.words; word++) { multiply(&dWeights, fetchGradient(rows.at + word), fetchValue(keysAt + word)); }
        for (var j = 0u; j < BATCH; j++) { weights[j] *= shape.scale * (dWeights[j] - subgroupShuffle(lAndDelta[1][j % 2u], j / 2u)); }
        for (var word = 0u; word < shape.words; word++) {
          let at = keysAt + word;
          storeKeyGradient(at, live, combine(mat2x2f(dKey[at.x], dKey[at.y]), &weights, fetchQuery(rows.at + word)));
        }
      }
    }
  }
}
