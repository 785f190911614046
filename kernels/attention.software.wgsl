// Attention for software adapters with subgroups: mathematics, plan and operands as in attention.wgsl, which explains them.
//
// Such an adapter runs a subgroup as one vector of the processor. There, workgroup memory costs as much as storage, a load as much as
// 25 to 50 multiplications, and a value of another lane only as much as two. So a workgroup is one subgroup, without workgroup memory or
// barriers. Every lane keeps four rows of one tile, and the rows of the other tile pass: each lane loads four of them, and hands each of
// these to all lanes in turn (subgroupShuffle). A row's elements are taken in groups of four.
//
// Sums over keys (forward, dq) or queries (dk, dv) stay in storage, in f32, in the place of the result; only the lane that keeps a row
// reads and writes its sum. So the head dimension D bounds only loops, and one pipeline serves every D. All sums run in a fixed order.
//
// Backward makes S and dP of a tile pair once for all three gradients, in five products. For S, dP and dq a lane keeps query rows; then
// lanes exchange P and dS, and for dv and dk a lane keeps key rows. A workgroup therefore owns all key rows of its kv head. A kv head
// has `splits` workgroups: each walks every `splits`-th batch of query rows, and makes a slice of dk and dv.

diagnostic(off, subgroup_uniformity);             // loops have bounds from other lanes, the same in every lane
enable subgroups;

const LANES: u32 = 8u;                                                       // @param  lanes of a subgroup: 4, 8 or 16
alias Word = vec4f;                                                          // @param  four elements as they are stored
// @or f16, bf16  alias Word = vec2u;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }

// The user's expressions (attention-expression.ts) are functions of the tokens q and k, and of one word of data for each of them.
fn allowed(q: i32, k: i32, queryData: u32, keyData: u32) -> bool { return true; }                                 // @param
fn score(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return score; }            // @param
fn scoreDerivative(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return 1.0; }    // @param
fn tokenData(at: u32) -> u32 { return 0u; }                                                                       // @param
fn constant(index: i32) -> f32 { return bitcast<f32>(plan[shape.constantsAt + u32(index)]); }

const TILE: u32 = 32u;                            // most rows of a tile
const BATCH: u32 = min(4u * LANES, TILE);         // the rows of all lanes; lanes beyond the eighth have none
const NO_SCORE: f32 = 1e30;                       // L of a row without keys; a score that is not allowed is -NO_SCORE

struct Shape {
  batch: u32, queryTokens: u32, keyTokens: u32, heads: u32, kvHeads: u32,
  groups: u32,                                    // D / 4
  scale: f32,
  splits: u32,                                    // workgroups that share a list (forward) or a kv head (backward)
  queryTiles: u32, keyTiles: u32,                 // of a sample
  keyTilesAt: u32, forwardAt: u32, dQueryAt: u32, dKeyValueAt: u32,          // where these begin in the plan, after the query tiles
  dataAt: u32, dataStride: u32,                   // where the tokens' words of data begin; words from one sample's to the next's
  scalesAt: u32, constantsAt: u32,
  dValueAt: u32,                                  // groups from a slice's dk to its dv, and from its dv to the next slice
  wantsQuery: u32, wantsKeyValue: u32,            // gradients to make: 1 or 0
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> plan: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<Word>;
@group(0) @binding(3) var<storage, read> key: array<Word>;
@group(0) @binding(4) var<storage, read> value: array<Word>;
@group(0) @binding(5) var<storage, read_write> output: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> logSumExp: array<f32>;        // L [batch, heads, queryTokens]
@group(0) @binding(7) var<storage, read> dOutput: array<vec4f>;
@group(0) @binding(8) var<storage, read> statistics: array<vec2f>;           // (L, delta) [batch, heads, queryTokens]
@group(0) @binding(9) var<storage, read_write> dQuery: array<vec4f>;
@group(0) @binding(10) var<storage, read_write> dKeyValue: array<vec4f>;     // each slice's dk and dv: WebGPU promises 8 buffers

// ---- the plan: neighbouring words are loaded by neighbouring lanes -------------------------------------------------------

struct List { start: u32, first: u32, end: u32 }

struct Tile {
  firstRow: u32, rows: u32,
  firstToken: u32,                                // the first row's place in the sequence
  valid: u32,                                     // the padding mask: bit r says that row r is no padding
}

struct Pair {
  tile: u32,                                      // the other tile
  causal: bool, window: u32,                      // if causal, query token q sees key token k only where 0 <= q - k < window
  expression: bool,                               // q sees k only where `allowed` says so
  stopKey: bool, stopValue: bool,
  keyScale: f32, valueScale: f32,                 // factors of the gradient that passes
}

// One of `slices` parts of a list.
fn listAt(at: u32, slice: u32, slices: u32, lane: u32) -> List {
  let word = plan[at + lane % 2u];
  let length = subgroupShuffle(word, 1u);
  return List(subgroupShuffle(word, 0u), length * slice / slices, length * (slice + 1u) / slices);
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

// Workgroups are numbered from 0 on; the grid has two axes because one holds at most 65,535 (engine/grid.ts). A slice has all samples,
// a sample has its kv heads, and a kv head has `across` parts, a workgroup each.
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }
struct Place { part: u32, kvHead: u32, sample: u32, slice: u32 }

fn placeOf(grid: Grid, across: u32) -> Place {
  let index = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  let sample = index / across / shape.kvHeads;
  return Place(index % across, index / across % shape.kvHeads, sample % shape.batch, sample / shape.batch);
}

// Each thread of such an adapter takes a long run of a dispatch's workgroups, and the plan has the tiles with most pairs first. So tiles
// are dealt in turns, the first, the last, the second, the last but one, and every run has both long and short lists.
fn dealt(index: u32, tiles: u32) -> u32 { return select(index / 2u, tiles - 1u - index / 2u, index % 2u == 1u); }

fn queryTile(sample: u32, index: u32, lane: u32) -> Tile { return tileAt(4u * (sample * shape.queryTiles + index), lane); }
fn keyTile(sample: u32, index: u32, lane: u32) -> Tile { return tileAt(shape.keyTilesAt + 4u * (sample * shape.keyTiles + index), lane); }

// A word in which the bits 0 .. count - 1 are set.
fn firstBits(count: vec4u) -> vec4u { return select((vec4u(1u) << (count % 32u)) - 1u, vec4u(0xffffffffu), count >= vec4u(32u)); }

// ---- rows ------------------------------------------------------------------------------------------------------------

fn rowsOfLane(lane: u32) -> vec4u { return 4u * lane + vec4u(0u, 1u, 2u, 3u); }

// Four flat query rows. The last row of the batch stands in for rows beyond it, which are not live.
struct QueryRows {
  row: vec4u,                                     // its place in the tile
  token: vec4u,                                   // its place in the sequence
  head: vec4u,
  data: vec4u,                                    // the token's word of data, for expressions
  at: vec4u,                                      // the index of its first group in query, output, dOutput and dQuery
  statisticsAt: vec4u,                            // its index in logSumExp and statistics
  live: vec4<bool>,
}

fn queryRows(queries: Tile, sample: u32, kvHead: u32, first: u32, lane: u32) -> QueryRows {
  let headsPerKv = shape.heads / shape.kvHeads;
  let wanted = first + rowsOfLane(lane);
  let end = min(queries.rows * headsPerKv, first + BATCH);
  let flat = min(wanted, vec4u(end - 1u));
  let row = flat / headsPerKv;
  let head = kvHead * headsPerKv + flat - row * headsPerKv;
  let token = queries.firstToken + row;
  let at = ((sample * shape.queryTokens + queries.firstRow + row) * shape.heads + head) * shape.groups;
  let statisticsAt = (sample * shape.heads + head) * shape.queryTokens + queries.firstRow + row;
  return QueryRows(row, token, head, dataOf(sample, token), at, statisticsAt, wanted < vec4u(end));
}

fn dataOf(sample: u32, token: vec4u) -> vec4u {
  let data = shape.dataAt + sample * shape.dataStride + token;
  return vec4u(tokenData(data.x), tokenData(data.y), tokenData(data.z), tokenData(data.w));
}

// Where four rows of a key tile begin in key, value and their gradients. The tile's last row stands in for rows beyond it.
fn keyRowsAt(keys: Tile, sample: u32, kvHead: u32, row: vec4u) -> vec4u {
  return ((sample * shape.keyTokens + keys.firstRow + min(row, vec4u(keys.rows - 1u))) * shape.kvHeads + kvHead) * shape.groups;
}

fn fetchQuery(at: vec4u) -> mat4x4f { return mat4x4f(unpack(query[at.x]), unpack(query[at.y]), unpack(query[at.z]), unpack(query[at.w])); }
// Every kernel makes scores from queries that have been scaled: backward then rounds them as forward did.
fn scaledQuery(at: vec4u) -> mat4x4f { return shape.scale * fetchQuery(at); }
fn fetchGradient(at: vec4u) -> mat4x4f { return mat4x4f(dOutput[at.x], dOutput[at.y], dOutput[at.z], dOutput[at.w]); }
fn fetchKey(at: vec4u) -> mat4x4f { return mat4x4f(unpack(key[at.x]), unpack(key[at.y]), unpack(key[at.z]), unpack(key[at.w])); }
fn fetchValue(at: vec4u) -> mat4x4f { return mat4x4f(unpack(value[at.x]), unpack(value[at.y]), unpack(value[at.z]), unpack(value[at.w])); }

fn fetchOutput(at: vec4u) -> mat4x4f { return mat4x4f(output[at.x], output[at.y], output[at.z], output[at.w]); }
fn storeOutput(at: vec4u, live: vec4<bool>, rows: mat4x4f) {
  if (live.x) { output[at.x] = rows[0]; }
  if (live.y) { output[at.y] = rows[1]; }
  if (live.z) { output[at.z] = rows[2]; }
  if (live.w) { output[at.w] = rows[3]; }
}

fn fetchDQuery(at: vec4u) -> mat4x4f { return mat4x4f(dQuery[at.x], dQuery[at.y], dQuery[at.z], dQuery[at.w]); }
fn storeDQuery(at: vec4u, live: vec4<bool>, rows: mat4x4f) {
  if (live.x) { dQuery[at.x] = rows[0]; }
  if (live.y) { dQuery[at.y] = rows[1]; }
  if (live.z) { dQuery[at.z] = rows[2]; }
  if (live.w) { dQuery[at.w] = rows[3]; }
}

fn fetchDKeyValue(at: vec4u) -> mat4x4f { return mat4x4f(dKeyValue[at.x], dKeyValue[at.y], dKeyValue[at.z], dKeyValue[at.w]); }
fn storeDKeyValue(at: vec4u, live: vec4<bool>, rows: mat4x4f) {
  if (live.x) { dKeyValue[at.x] = rows[0]; }
  if (live.y) { dKeyValue[at.y] = rows[1]; }
  if (live.z) { dKeyValue[at.z] = rows[2]; }
  if (live.w) { dKeyValue[at.w] = rows[3]; }
}

// ---- what a row sees, and its scores ---------------------------------------------------------------------------------

// Bit k says that a query row sees key row k. If causal, it sees the keys up to itself that the window still holds.
fn seenKeys(pair: Pair, queries: Tile, keys: Tile, rows: QueryRows, sample: u32) -> vec4u {
  let real = select(vec4u(), vec4u(keys.valid), rows.live & (((vec4u(queries.valid) >> rows.row) & vec4u(1u)) != vec4u()));
  let end = rows.token + 1u;                      // the first token after the query
  let start = end - min(end, vec4u(pair.window));
  let first = vec4u(keys.firstToken);
  var seen = select(real, real & firstBits(max(end, first) - first) & ~firstBits(max(start, first) - first), pair.causal);
  if (pair.expression) {
    for (var k = 0u; k < keys.rows; k++) {
      let data = tokenData(shape.dataAt + sample * shape.dataStride + keys.firstToken + k);
      for (var r = 0u; r < 4u; r++) {
        if (!allowed(i32(rows.token[r]), i32(keys.firstToken + k), rows.data[r], data)) { seen[r] &= ~(1u << k); }
      }
    }
  }
  return seen;
}

// The positions of four scores: those of one key token and the query rows of the lane.
struct ScorePositions { token: vec4i, head: vec4i, queryData: vec4u, k: i32, keyData: u32 }

fn positionsOf(rows: QueryRows, sample: u32, k: u32) -> ScorePositions {
  let keyData = tokenData(shape.dataAt + sample * shape.dataStride + k);
  return ScorePositions(vec4i(rows.token), vec4i(rows.head), rows.data, i32(k), keyData);
}

fn scoresAt(p: ScorePositions, products: vec4f) -> vec4f {
  return vec4f(score(products.x, p.token.x, p.k, p.head.x, p.queryData.x, p.keyData),
    score(products.y, p.token.y, p.k, p.head.y, p.queryData.y, p.keyData),
    score(products.z, p.token.z, p.k, p.head.z, p.queryData.z, p.keyData),
    score(products.w, p.token.w, p.k, p.head.w, p.queryData.w, p.keyData));
}

fn derivativesAt(p: ScorePositions, products: vec4f) -> vec4f {
  return vec4f(scoreDerivative(products.x, p.token.x, p.k, p.head.x, p.queryData.x, p.keyData),
    scoreDerivative(products.y, p.token.y, p.k, p.head.y, p.queryData.y, p.keyData),
    scoreDerivative(products.z, p.token.z, p.k, p.head.z, p.queryData.z, p.keyData),
    scoreDerivative(products.w, p.token.w, p.k, p.head.w, p.queryData.w, p.keyData));
}

// ---- products: passing row j is row j % 4 of lane j / 4. These loops are unrolled, and arrays then are registers. ---------------

// Component r of element j belongs to row r of the lane and passing row j.
alias Pairs = array<vec4f, BATCH>;

// pairs[j][r] += (passing row j) . (row r of the lane), over one group. Every dot product has this order of terms: a row that sees one key
// then has dP = delta to the last bit.
fn multiply(pairs: ptr<function, Pairs>, passing: mat4x4f, rows: mat4x4f) {
  let columns = transpose(rows);
  for (var j = 0u; j < BATCH; j++) {
    let row = subgroupShuffle(passing[j % 4u], j / 4u);
    let firstTwo = fma(columns[1], vec4f(row.y), fma(columns[0], vec4f(row.x), (*pairs)[j]));
    (*pairs)[j] = fma(columns[3], vec4f(row.w), fma(columns[2], vec4f(row.z), firstTwo));
  }
}

// Row r of the result, over one group: sums[r] + the sum over j of weights[j][r] * (passing row j).
fn combine(sums: mat4x4f, weights: ptr<function, Pairs>, passing: mat4x4f) -> mat4x4f {
  var result = sums;
  for (var j = 0u; j < BATCH; j++) {
    let row = subgroupShuffle(passing[j % 4u], j / 4u);
    let weight = (*weights)[j];
    result = mat4x4f(fma(row, vec4f(weight.x), result[0]), fma(row, vec4f(weight.y), result[1]),
      fma(row, vec4f(weight.z), result[2]), fma(row, vec4f(weight.w), result[3]));
  }
  return result;
}

// The pairs times a factor, with passing rows in the place of the lanes' rows and the reverse. 4 x 4 blocks are transposed between lanes,
// by one bit of the lane's number after another, and then each block in itself.
fn exchanged(pairs: ptr<function, Pairs>, lane: u32, factor: f32) -> Pairs {
  var blocks = *pairs;
  exchangeBit(&blocks, lane, 1u);
  exchangeBit(&blocks, lane, 2u);
  if (BATCH > 16u) { exchangeBit(&blocks, lane, 4u); }
  var result: Pairs;
  for (var j = 0u; j < BATCH; j++) {
    let first = j - j % 4u;
    result[j] = factor * vec4f(blocks[first][j % 4u], blocks[first + 1u][j % 4u], blocks[first + 2u][j % 4u], blocks[first + 3u][j % 4u]);
  }
  return result;
}

fn exchangeBit(blocks: ptr<function, Pairs>, lane: u32, bit: u32) {
  let upper = (lane & bit) != 0u;
  for (var j = 0u; j < BATCH; j++) {
    if ((j & (4u * bit)) == 0u) {
      let low = (*blocks)[j];
      let high = (*blocks)[j + 4u * bit];
      let received = subgroupShuffleXor(select(high, low, upper), bit);
      (*blocks)[j] = select(low, received, upper);
      (*blocks)[j + 4u * bit] = select(received, high, upper);
    }
  }
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
  let rows = queryRows(queries, sample, kvHead, first, lane);
  let list = listAt(shape.forwardAt + 2u * (sample * shape.queryTiles + tile), slice, shape.splits, lane);
  var largest = vec4f(-NO_SCORE);                                            // m of the lane's rows; `total` is their l
  var total = vec4f();
  let outputAt = rows.at + slice * shape.batch * shape.queryTokens * shape.heads * shape.groups;
  for (var group = 0u; group < shape.groups; group++) { storeOutput(outputAt + group, rows.live, mat4x4f()); }

  for (var entry = list.first; entry < list.end; entry++) {
    let pair = pairAt(list.start + 2u * entry, lane);
    let keys = keyTile(sample, pair.tile, lane);
    let seen = seenKeys(pair, queries, keys, rows, sample);
    for (var firstKey = 0u; firstKey < keys.rows; firstKey += BATCH) {
      let keysAt = keyRowsAt(keys, sample, kvHead, firstKey + rowsOfLane(lane));
      var scores = Pairs();                       // set to zero, because some drivers zero a variable of a loop only once
      for (var group = 0u; group < shape.groups; group++) { multiply(&scores, fetchKey(keysAt + group), scaledQuery(rows.at + group)); }

      var newLargest = largest;
      for (var j = 0u; j < BATCH; j++) {
        let own = scoresAt(positionsOf(rows, sample, keys.firstToken + firstKey + j), scores[j]);
        scores[j] = select(vec4f(-NO_SCORE), own, ((seen >> vec4u(firstKey + j)) & vec4u(1u)) != vec4u());
        newLargest = max(newLargest, scores[j]);
      }
      let shrink = exp(largest - newLargest);
      var sum = vec4f();
      for (var j = 0u; j < BATCH; j++) {
        scores[j] = select(exp(scores[j] - newLargest), vec4f(), scores[j] == vec4f(-NO_SCORE));
        sum += scores[j];
      }
      let newTotal = total * shrink + sum;

      // The output is at all times divided by the total so far.
      let share = 1.0 / max(newTotal, vec4f(1e-30));
      let kept = total * shrink * share;
      for (var j = 0u; j < BATCH; j++) { scores[j] *= share; }
      for (var group = 0u; group < shape.groups; group++) {
        let old = fetchOutput(outputAt + group);
        let scaled = mat4x4f(kept.x * old[0], kept.y * old[1], kept.z * old[2], kept.w * old[3]);
        storeOutput(outputAt + group, rows.live, combine(scaled, &scores, fetchValue(keysAt + group)));
      }
      total = newTotal;
      largest = newLargest;
    }
  }

  let result = select(vec4f(NO_SCORE), largest + log(max(total, vec4f(1e-30))), total > vec4f());
  let resultAt = rows.statisticsAt + slice * shape.batch * shape.heads * shape.queryTokens;
  for (var r = 0u; r < 4u; r++) { if (rows.live[r]) { logSumExp[resultAt[r]] = result[r]; } }
}

// ---- backward: one workgroup a kv head of a sample and every `splits`-th batch of its flat query rows ------------------------

@compute @workgroup_size(LANES)
fn backward(grid: Grid, @builtin(subgroup_invocation_id) lane: u32) {
  let headsPerKv = shape.heads / shape.kvHeads;
  let parts = headsPerKv * TILE / BATCH;
  let place = placeOf(grid, shape.splits);
  if (place.slice > 0u) { return; }
  let kvHead = place.kvHead;
  let sample = place.sample;
  let slice = dealt(place.part, shape.splits);
  let dKeysAt = slice * 2u * shape.dValueAt;
  if (shape.wantsKeyValue != 0u) {
    for (var tile = 0u; tile < shape.keyTiles; tile++) {
      let keys = keyTile(sample, tile, lane);
      for (var firstKey = 0u; firstKey < keys.rows; firstKey += BATCH) {
        let row = firstKey + rowsOfLane(lane);
        let at = dKeysAt + keyRowsAt(keys, sample, kvHead, row);
        for (var offset = 0u; offset <= shape.dValueAt; offset += shape.dValueAt) {
          for (var group = 0u; group < shape.groups; group++) { storeDKeyValue(at + offset + group, row < vec4u(keys.rows), mat4x4f()); }
        }
      }
    }
  }

  for (var part = slice; part < shape.queryTiles * parts; part += shape.splits) {
    let tile = part / parts;
    let queries = queryTile(sample, tile, lane);
    let first = BATCH * (part % parts);
    if (first >= queries.rows * headsPerKv) { continue; }
    let rows = queryRows(queries, sample, kvHead, first, lane);
    let list = listAt(shape.dQueryAt + 2u * (sample * shape.queryTiles + tile), 0u, 1u, lane);
    if (shape.wantsQuery != 0u) {
      for (var group = 0u; group < shape.groups; group++) { storeDQuery(rows.at + group, rows.live, mat4x4f()); }
    }
    let at = rows.statisticsAt;
    let lAndDelta = transpose(mat4x2f(statistics[at.x], statistics[at.y], statistics[at.z], statistics[at.w]));

    for (var entry = list.first; entry < list.end; entry++) {
      let pair = pairAt(list.start + 2u * entry, lane);
      let toQuery = shape.wantsQuery != 0u;
      let toKey = shape.wantsKeyValue != 0u && !pair.stopKey;
      let toValue = shape.wantsKeyValue != 0u && !pair.stopValue;
      if (!(toQuery || toKey || toValue)) { continue; }
      let keys = keyTile(sample, pair.tile, lane);
      let seen = seenKeys(pair, queries, keys, rows, sample);
      for (var firstKey = 0u; firstKey < keys.rows; firstKey += BATCH) {
        let keyRow = firstKey + rowsOfLane(lane);
        let keyLive = keyRow < vec4u(keys.rows);
        let keysAt = keyRowsAt(keys, sample, kvHead, keyRow);
        // Products take turns in one loop body, because each body is long and takes a second to compile.
        var pairs = Pairs();                                                 // S, then dP, then s dS
        var weights = Pairs();                                               // P for dv, then s dS for dk and dq
        var derivatives = Pairs();                                           // f'
        for (var product = 0u; product < select(1u, 2u, toQuery || toKey); product++) {
          for (var group = 0u; group < shape.groups; group++) {
            var passing: mat4x4f;
            var own: mat4x4f;
            if (product == 0u) {
              passing = fetchKey(keysAt + group);
              own = scaledQuery(rows.at + group);
            } else {
              passing = fetchValue(keysAt + group);
              own = fetchGradient(rows.at + group);
            }
            multiply(&pairs, passing, own);
          }
          if (product == 1u) { break; }
          for (var j = 0u; j < BATCH; j++) {
            let visible = ((seen >> vec4u(firstKey + j)) & vec4u(1u)) != vec4u();
            let position = positionsOf(rows, sample, keys.firstToken + firstKey + j);
            derivatives[j] = derivativesAt(position, pairs[j]);
            weights[j] = select(vec4f(), exp(min(scoresAt(position, pairs[j]) - lAndDelta[0], vec4f())), visible);
            pairs[j] = vec4f();
          }
        }
        for (var j = 0u; j < BATCH; j++) {
          let own = weights[j] * derivatives[j] * (shape.scale * (pairs[j] - lAndDelta[1]));
          pairs[j] = select(vec4f(), own, weights[j] > vec4f());
        }
        for (var product = 0u; product < 3u; product++) {                    // dv, dk, dq
          if (product > 0u) { weights = pairs; }
          if (!select(select(toQuery, toKey, product == 1u), toValue, product == 0u)) { continue; }
          if (product < 2u) { weights = exchanged(&weights, lane, select(pair.keyScale, pair.valueScale, product == 0u)); }
          for (var group = 0u; group < shape.groups; group++) {
            let at = dKeysAt + select(0u, shape.dValueAt, product == 0u) + keysAt + group;
            var passing: mat4x4f;
            var sums: mat4x4f;
            if (product == 2u) {
              passing = fetchKey(keysAt + group);
              sums = fetchDQuery(rows.at + group);
            } else {
              if (product == 1u) { passing = fetchQuery(rows.at + group); } else { passing = fetchGradient(rows.at + group); }
              sums = fetchDKeyValue(at);
            }
            sums = combine(sums, &weights, passing);
            if (product == 2u) { storeDQuery(rows.at + group, rows.live, sums); } else { storeDKeyValue(at, keyLive, sums); }
          }
        }
      }
    }
  }
}
