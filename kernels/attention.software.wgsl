// Attention for software adapters with subgroups: mathematics, plan and operands as in attention.wgsl, which explains them.
//
// Such an adapter runs a subgroup as one vector of the processor. Workgroup memory costs there as much as storage, a load as much as
// 25 to 50 multiplications, a value of another lane only as much as two. So a workgroup is one subgroup, without workgroup memory or
// barriers. Every lane keeps two rows of one tile, and the rows of the other tile pass: each lane loads two of them, and each of these
// is handed to all lanes in turn (subgroupShuffle). Heads are walked by words of two elements, and two rows of a lane are the columns
// of a 2 x 2 matrix: longer loop bodies run little faster here and take seconds to compile.
//
// Sums over keys (forward, dq) or queries (dk, dv) are kept in their results in storage, in f32, which only the lane that keeps the row
// reads and writes. So the head dimension D bounds only loops, and one pipeline serves every D. All sums run in a fixed order.

diagnostic(off, subgroup_uniformity);             // what bounds the loops comes from other lanes, to all lanes the same
enable subgroups;

const LANES: u32 = 8u;                                                       // @param  of a subgroup: 4, 8 or 16
alias Word = vec2f;                                                          // @param  storage of two elements
fn unpack(word: Word) -> vec2f { return word; }                              // @param

// Expressions of the user's (attention-expression.ts), of tokens q and k and one word of data for each.
fn allowed(q: i32, k: i32, queryData: u32, keyData: u32) -> bool { return true; }                                 // @param
fn score(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return score; }            // @param
fn scoreDerivative(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return 1.0; }    // @param
fn tokenData(at: u32) -> u32 { return 0u; }                                                                       // @param
fn constant(index: i32) -> f32 { return bitcast<f32>(plan[shape.constantsAt + u32(index)]); }

const TILE: u32 = 32u;                            // most rows of a tile
const BATCH: u32 = 2u * LANES;                    // rows of all lanes
const NOTHING: f32 = 1e30;

struct Shape {
  batch: u32, queryTokens: u32, keyTokens: u32, heads: u32, kvHeads: u32,
  words: u32,                                     // D / 2
  scale: f32,
  splits: u32,                                    // workgroups that share a list
  queryTiles: u32, keyTiles: u32,                 // to a sample
  keyTilesAt: u32, forwardAt: u32, dQueryAt: u32, dKeyValueAt: u32,          // in the plan; query tiles lie first
  dataAt: u32, dataStride: u32,                   // words of data of the tokens, and from one sample's to the next
  scalesAt: u32, constantsAt: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> plan: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<Word>;
@group(0) @binding(3) var<storage, read> key: array<Word>;
@group(0) @binding(4) var<storage, read> value: array<Word>;
@group(0) @binding(5) var<storage, read_write> output: array<vec2f>;
@group(0) @binding(6) var<storage, read_write> logSumExp: array<f32>;        // L [batch, heads, queryTokens]
@group(0) @binding(7) var<storage, read> dOutput: array<vec2f>;
@group(0) @binding(8) var<storage, read> statistics: array<vec2f>;     // (L, delta) [batch, heads, queryTokens]
@group(0) @binding(9) var<storage, read_write> dQuery: array<vec2f>;
@group(0) @binding(10) var<storage, read_write> dKey: array<vec2f>;
@group(0) @binding(11) var<storage, read_write> dValue: array<vec2f>;

// ---- the plan: neighbouring words are loaded by neighbouring lanes -------------------------------------------------------

struct List { start: u32, first: u32, end: u32 }

struct Tile {
  firstRow: u32, rows: u32,
  firstToken: u32,                                // of the sequence
  valid: u32,                                     // bit r: row r is a real token
}

struct Pair {
  tile: u32,                                      // the other tile
  causal: bool, window: u32,                      // seen only where 0 <= token(i) - token(j) < window
  expression: bool,                               // seen only where `allowed` says so
  stopKey: bool, stopValue: bool,
  keyScale: f32, valueScale: f32,                 // of the gradient that passes
}

fn listAt(at: u32, slice: u32, lane: u32) -> List {
  let word = plan[at + lane % 2u];
  let length = subgroupShuffle(word, 1u);
  return List(subgroupShuffle(word, 0u), length * slice / shape.splits, length * (slice + 1u) / shape.splits);
}

fn pairAt(at: u32, lane: u32) -> Pair {
  let word = plan[at + lane % 2u];
  let first = subgroupShuffle(word, 0u);
  let scale = bitcast<f32>(plan[shape.scalesAt + 2u * ((first >> 16u) & 0x7ffu) + lane % 2u]);
  return Pair(first & 0xffffu, (first & 0x40000000u) != 0u, subgroupShuffle(word, 1u), (first & 0x8000000u) != 0u,
    (first & 0x20000000u) != 0u, (first & 0x10000000u) != 0u, subgroupShuffle(scale, 0u), subgroupShuffle(scale, 1u));
}

fn tileAt(at: u32, lane: u32) -> Tile {
  let word = plan[at + lane % 4u];
  return Tile(subgroupShuffle(word, 0u), subgroupShuffle(word, 1u), subgroupShuffle(word, 2u), subgroupShuffle(word, 3u));
}

// The work of a workgroup: one of `across` parts of a kv head of a sample, and a slice of its list; workgroups are numbered in a row, which
// lies on two axes where it is too long for one (grid.ts).
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }
struct Place { part: u32, kvHead: u32, sample: u32, slice: u32 }

fn placeOf(grid: Grid, across: u32) -> Place {
  let index = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  let sample = index / across / shape.kvHeads;
  return Place(index % across, index / across % shape.kvHeads, sample % shape.batch, sample / shape.batch);
}

// The threads of such an adapter take the workgroups of a dispatch in long runs, and the plan has the tiles with most pairs first: here
// they come in turns, the first, the last, the second, the last but one, so that every run has some of both.
fn dealt(index: u32, tiles: u32) -> u32 { return select(index / 2u, tiles - 1u - index / 2u, index % 2u == 1u); }

fn queryTile(sample: u32, index: u32, lane: u32) -> Tile { return tileAt(4u * (sample * shape.queryTiles + index), lane); }
fn keyTile(sample: u32, index: u32, lane: u32) -> Tile { return tileAt(shape.keyTilesAt + 4u * (sample * shape.keyTiles + index), lane); }

// Bits 0 .. count - 1.
fn firstBits(count: vec2u) -> vec2u { return select((vec2u(1u) << (count % 32u)) - 1u, vec2u(0xffffffffu), count >= vec2u(32u)); }

// ---- rows ------------------------------------------------------------------------------------------------------------

fn rowsOfLane(lane: u32) -> vec2u { return vec2u(2u * lane, 2u * lane + 1u); }

// Two flat query rows. Beyond the last one of the tile, that one stands in, and is not live.
struct QueryRows {
  row: vec2u,                                     // in the tile
  token: vec2u,                                   // of the sequence
  head: vec2u,
  data: vec2u,                                    // the tokens' words
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
  let token = queries.firstToken + row;
  let at = ((sample * shape.queryTokens + queries.firstRow + row) * shape.heads + head) * shape.words;
  let statisticsAt = (sample * shape.heads + head) * shape.queryTokens + queries.firstRow + row;
  return QueryRows(row, token, head, dataOf(sample, token), at, statisticsAt, wanted < vec2u(count));
}

fn dataOf(sample: u32, token: vec2u) -> vec2u {
  let data = shape.dataAt + sample * shape.dataStride + token;
  return vec2u(tokenData(data.x), tokenData(data.y));
}

// Where two rows of a key tile begin in key, value, dKey and dValue; beyond the tile, its last row.
fn keyRowsAt(keys: Tile, sample: u32, kvHead: u32, row: vec2u) -> vec2u {
  return ((sample * shape.keyTokens + keys.firstRow + min(row, vec2u(keys.rows - 1u))) * shape.kvHeads + kvHead) * shape.words;
}

fn fetchQuery(at: vec2u) -> mat2x2f { return mat2x2f(unpack(query[at.x]), unpack(query[at.y])); }
// Scores are made from queries that have been scaled, in every kernel: one that backward makes again is then rounded as in forward.
fn scaledQuery(at: vec2u) -> mat2x2f { return shape.scale * fetchQuery(at); }
fn fetchGradient(at: vec2u) -> mat2x2f { return mat2x2f(dOutput[at.x], dOutput[at.y]); }
fn fetchKey(at: vec2u) -> mat2x2f { return mat2x2f(unpack(key[at.x]), unpack(key[at.y])); }
fn fetchValue(at: vec2u) -> mat2x2f { return mat2x2f(unpack(value[at.x]), unpack(value[at.y])); }

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

// ---- what a row sees, and its scores ---------------------------------------------------------------------------------

// Bit j: a query row sees key row j. Causal: the keys up to itself, less those that the window leaves behind.
fn seenKeys(pair: Pair, queries: Tile, keys: Tile, rows: QueryRows, sample: u32) -> vec2u {
  let real = select(vec2u(), vec2u(keys.valid), ((vec2u(queries.valid) >> rows.row) & vec2u(1u)) != vec2u());
  let end = rows.token + 1u;                      // behind itself
  let start = end - min(end, vec2u(pair.window));
  let first = vec2u(keys.firstToken);
  var seen = select(real, real & firstBits(max(end, first) - first) & ~firstBits(max(start, first) - first), pair.causal);
  if (pair.expression) {
    for (var j = 0u; j < keys.rows; j++) {
      let data = tokenData(shape.dataAt + sample * shape.dataStride + keys.firstToken + j);
      for (var r = 0u; r < 2u; r++) {
        if (!allowed(i32(rows.token[r]), i32(keys.firstToken + j), rows.data[r], data)) { seen[r] &= ~(1u << j); }
      }
    }
  }
  return seen;
}

// The scores of two query rows with key token k, and their derivatives.
fn scored(products: vec2f, token: vec2u, head: vec2u, data: vec2u, k: u32, keyData: u32) -> vec2f {
  return vec2f(score(products.x, i32(token.x), i32(k), i32(head.x), data.x, keyData),
    score(products.y, i32(token.y), i32(k), i32(head.y), data.y, keyData));
}

fn derived(products: vec2f, token: vec2u, head: vec2u, data: vec2u, k: u32, keyData: u32) -> vec2f {
  return vec2f(scoreDerivative(products.x, i32(token.x), i32(k), i32(head.x), data.x, keyData),
    scoreDerivative(products.y, i32(token.y), i32(k), i32(head.y), data.y, keyData));
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
fn forward(grid: Grid, @builtin(subgroup_invocation_id) lane: u32) {
  let headsPerKv = shape.heads / shape.kvHeads;
  let parts = headsPerKv * TILE / BATCH;
  let place = placeOf(grid, shape.queryTiles * parts);
  let slice = place.slice;
  if (slice >= shape.splits) { return; }
  let kvHead = place.kvHead;
  let sample = place.sample;
  let tile = dealt(place.part / parts, shape.queryTiles);
  let queries = queryTile(sample, tile, lane);
  let first = BATCH * (place.part % parts);
  if (first >= queries.rows * headsPerKv) { return; }
  let rows = queryRows(queries, sample, kvHead, first + rowsOfLane(lane));
  let list = listAt(shape.forwardAt + 2u * (sample * shape.queryTiles + tile), slice, lane);
  var largest = vec2f(-NOTHING);                                             // m and l of the lane's rows
  var total = vec2f();
  let outputAt = rows.at + slice * shape.batch * shape.queryTokens * shape.heads * shape.words;
  for (var word = 0u; word < shape.words; word++) { storeOutput(outputAt + word, rows.live, mat2x2f()); }

  for (var entry = list.first; entry < list.end; entry++) {
    let pair = pairAt(list.start + 2u * entry, lane);
    let keys = keyTile(sample, pair.tile, lane);
    let seen = seenKeys(pair, queries, keys, rows, sample);
    for (var firstKey = 0u; firstKey < keys.rows; firstKey += BATCH) {
      let keysAt = keyRowsAt(keys, sample, kvHead, firstKey + rowsOfLane(lane));
      var scores = array<vec2f, BATCH>();         // zero each time, in writing: some drivers zero a loop's variable only once
      for (var word = 0u; word < shape.words; word++) { multiply(&scores, fetchKey(keysAt + word), scaledQuery(rows.at + word)); }

      var newLargest = largest;
      for (var j = 0u; j < BATCH; j++) {
        let k = keys.firstToken + firstKey + j;
        let own = scored(scores[j], rows.token, rows.head, rows.data, k, dataOf(sample, vec2u(k)).x);
        scores[j] = select(vec2f(-NOTHING), own, ((seen >> vec2u(firstKey + j)) & vec2u(1u)) != vec2u());
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
        let at = outputAt + word;
        let old = mat2x2f(kept.x * output[at.x], kept.y * output[at.y]);
        storeOutput(at, rows.live, combine(old, &scores, fetchValue(keysAt + word)));
      }
      total = newTotal;
      largest = newLargest;
    }
  }

  let result = select(vec2f(NOTHING), largest + log(max(total, vec2f(1e-30))), total > vec2f());
  let resultAt = rows.statisticsAt + slice * shape.batch * shape.heads * shape.queryTokens;
  if (rows.live.x) { logSumExp[resultAt.x] = result.x; }
  if (rows.live.y) { logSumExp[resultAt.y] = result.y; }
}

// ---- backward: dq, one workgroup a batch of flat query rows; keys pass -----------------------------------------------------

@compute @workgroup_size(LANES)
fn backwardQuery(grid: Grid, @builtin(subgroup_invocation_id) lane: u32) {
  let headsPerKv = shape.heads / shape.kvHeads;
  let parts = headsPerKv * TILE / BATCH;
  let place = placeOf(grid, shape.queryTiles * parts);
  let slice = place.slice;
  if (slice >= shape.splits) { return; }
  let kvHead = place.kvHead;
  let sample = place.sample;
  let tile = dealt(place.part / parts, shape.queryTiles);
  let queries = queryTile(sample, tile, lane);
  let first = BATCH * (place.part % parts);
  if (first >= queries.rows * headsPerKv) { return; }
  let rows = queryRows(queries, sample, kvHead, first + rowsOfLane(lane));
  let list = listAt(shape.dQueryAt + 2u * (sample * shape.queryTiles + tile), slice, lane);
  let lAndDelta = transpose(mat2x2f(statistics[rows.statisticsAt.x], statistics[rows.statisticsAt.y]));
  let gradientAt = rows.at + slice * shape.batch * shape.queryTokens * shape.heads * shape.words;
  for (var word = 0u; word < shape.words; word++) { storeQueryGradient(gradientAt + word, rows.live, mat2x2f()); }

  for (var entry = list.first; entry < list.end; entry++) {
    let pair = pairAt(list.start + 2u * entry, lane);
    let keys = keyTile(sample, pair.tile, lane);
    let seen = seenKeys(pair, queries, keys, rows, sample);
    for (var firstKey = 0u; firstKey < keys.rows; firstKey += BATCH) {
      let keysAt = keyRowsAt(keys, sample, kvHead, firstKey + rowsOfLane(lane));
      var weights = array<vec2f, BATCH>();                                   // S, then P f', then s dS
      for (var word = 0u; word < shape.words; word++) { multiply(&weights, fetchKey(keysAt + word), scaledQuery(rows.at + word)); }
      for (var j = 0u; j < BATCH; j++) {
        let visible = ((seen >> vec2u(firstKey + j)) & vec2u(1u)) != vec2u();
        let k = keys.firstToken + firstKey + j;
        let keyData = dataOf(sample, vec2u(k)).x;
        let weight = exp(min(scored(weights[j], rows.token, rows.head, rows.data, k, keyData) - lAndDelta[0], vec2f()));
        weights[j] = select(vec2f(), weight * derived(weights[j], rows.token, rows.head, rows.data, k, keyData), visible);
      }
      var dWeights = array<vec2f, BATCH>();                                  // dP
      for (var word = 0u; word < shape.words; word++) { multiply(&dWeights, fetchValue(keysAt + word), fetchGradient(rows.at + word)); }
      for (var j = 0u; j < BATCH; j++) { weights[j] *= shape.scale * (dWeights[j] - lAndDelta[1]); }
      for (var word = 0u; word < shape.words; word++) {
        let at = gradientAt + word;
        storeQueryGradient(at, rows.live, combine(mat2x2f(dQuery[at.x], dQuery[at.y]), &weights, fetchKey(keysAt + word)));
      }
    }
  }
}

// ---- backward: dk and dv, one workgroup a batch of key rows; flat query rows pass --------------------------------------------

@compute @workgroup_size(LANES)
fn backwardKeyValue(grid: Grid, @builtin(subgroup_invocation_id) lane: u32) {
  let headsPerKv = shape.heads / shape.kvHeads;
  let parts = TILE / BATCH;
  let place = placeOf(grid, shape.keyTiles * parts);
  let slice = place.slice;
  if (slice >= shape.splits) { return; }
  let kvHead = place.kvHead;
  let sample = place.sample;
  let tile = dealt(place.part / parts, shape.keyTiles);
  let keys = keyTile(sample, tile, lane);
  let first = BATCH * (place.part % parts);
  if (first >= keys.rows) { return; }
  let keyRow = first + rowsOfLane(lane);
  let keysAt = keyRowsAt(keys, sample, kvHead, keyRow);
  let live = keyRow < vec2u(keys.rows);
  let list = listAt(shape.dKeyValueAt + 2u * (sample * shape.keyTiles + tile), slice, lane);
  let keyToken = keys.firstToken + keyRow;
  let keyData = dataOf(sample, keys.firstToken + min(keyRow, vec2u(keys.rows - 1u)));
  let gradientAt = keysAt + slice * shape.batch * shape.keyTokens * shape.kvHeads * shape.words;
  for (var word = 0u; word < shape.words; word++) {
    storeKeyGradient(gradientAt + word, live, mat2x2f());
    storeValueGradient(gradientAt + word, live, mat2x2f());
  }

  for (var entry = list.first; entry < list.end; entry++) {
    let pair = pairAt(list.start + 2u * entry, lane);
    let keyScale = shape.scale * pair.keyScale;
    let queries = queryTile(sample, pair.tile, lane);
    for (var firstQuery = 0u; firstQuery < queries.rows * headsPerKv; firstQuery += BATCH) {
      let rows = queryRows(queries, sample, kvHead, firstQuery + rowsOfLane(lane));
      let seen = select(vec2u(), seenKeys(pair, queries, keys, rows, sample), rows.live);
      let lAndDelta = transpose(mat2x2f(statistics[rows.statisticsAt.x], statistics[rows.statisticsAt.y]));
      var weights = array<vec2f, BATCH>();                                   // S, then P, then s dS, transposed
      var derivatives = array<vec2f, BATCH>();                               // f'
      for (var word = 0u; word < shape.words; word++) { multiply(&weights, scaledQuery(rows.at + word), fetchKey(keysAt + word)); }
      for (var j = 0u; j < BATCH; j++) {
        let visible = ((vec2u(subgroupShuffle(seen[j % 2u], j / 2u)) >> keyRow) & vec2u(1u)) != vec2u();
        let token = subgroupShuffle(rows.token[j % 2u], j / 2u);
        let head = subgroupShuffle(rows.head[j % 2u], j / 2u);
        let data = subgroupShuffle(rows.data[j % 2u], j / 2u);
        for (var r = 0u; r < 2u; r++) {
          derivatives[j][r] = scoreDerivative(weights[j][r], i32(token), i32(keyToken[r]), i32(head), data, keyData[r]);
          weights[j][r] = score(weights[j][r], i32(token), i32(keyToken[r]), i32(head), data, keyData[r]);
        }
        weights[j] = select(vec2f(), exp(min(weights[j] - subgroupShuffle(lAndDelta[0][j % 2u], j / 2u), vec2f())), visible);
      }
      if (!pair.stopValue) {
        var passing = weights;
        for (var j = 0u; j < BATCH; j++) { passing[j] *= pair.valueScale; }
        for (var word = 0u; word < shape.words; word++) {
          let at = gradientAt + word;
          storeValueGradient(at, live, combine(mat2x2f(dValue[at.x], dValue[at.y]), &passing, fetchGradient(rows.at + word)));
        }
      }
      if (!pair.stopKey) {
        var dWeights = array<vec2f, BATCH>();                                // dP, transposed
        for (var word = 0u; word < shape.words; word++) { multiply(&dWeights, fetchGradient(rows.at + word), fetchValue(keysAt + word)); }
        for (var j = 0u; j < BATCH; j++) {
          let own = weights[j] * derivatives[j] * keyScale * (dWeights[j] - subgroupShuffle(lAndDelta[1][j % 2u], j / 2u));
          weights[j] = select(vec2f(), own, weights[j] > vec2f());
        }
        for (var word = 0u; word < shape.words; word++) {
          let at = gradientAt + word;
          storeKeyGradient(at, live, combine(mat2x2f(dKey[at.x], dKey[at.y]), &weights, fetchQuery(rows.at + word)));
        }
      }
    }
  }
}
