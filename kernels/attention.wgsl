// Attention over a table of blocks, tile by tile, forward and backward, with stop-gradient on any edge of the table.
//
// For query row i and the keys j that it may see, s the scale:
//
//   S_ij = s q_i . k_j          L_i = log sum_j exp(S_ij)          P_ij = exp(S_ij - L_i)          o_i = sum_j P_ij v_j
//
// Forward streams over key tiles and keeps for each row the largest score m so far, the sum l of exp(S - m), and the
// unnormalised output, which shrinks by exp(m_old - m_new) when m grows (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao 2023,
// arXiv 2307.08691). Saved: L_i = m_i + log l_i. Backward recomputes P from it; with dP_ij = do_i . v_j,
//
//   delta_i = do_i . o_i        dS_ij = P_ij (dP_ij - delta_i)
//   dq_i = s sum_j dS_ij k_j    dk_j = s sum_i dS_ij q_i           dv_j = sum_i P_ij do_i
//
// A stop-gradient on K and V of an edge (knowledge insulation, arXiv 2505.23705, equations 5 and 6) changes nothing but the
// last two sums: its pairs are left out of dk and dv. delta_i stays the full row sum, because it belongs to the softmax.
//
// Who sees whom is the plan (attention-plan.ts): tiles of at most TILE rows, cut at block borders, and three lists of tile pairs:
// `forward` and `dQuery` for each query tile, `dKeyValue` for each key tile. A pair that is in no list costs nothing.
//
// Shapes: query, output, dOutput, dQuery [batch, queryTokens, heads, D]; key, value, dKey, dValue [batch, keyTokens, kvHeads, D];
// D the head dimension; query head h reads kv head h / (heads / kvHeads). D is walked in chunks of CHUNK_GROUPS groups of four
// elements, so that any D fits in 16 KiB of workgroup memory. A row without keys: o = 0, L = NOTHING, so that P = exp(S - L) = 0 in
// backward. All sums run in a fixed order.

const TILE: u32 = 32u;                            // rows of a tile: one bit each in a word of validity
const CHUNK_GROUPS: u32 = 8u;                     // groups of four elements in a chunk of the head axis
const CHUNKS: u32 = 2u;                                                      // @param  ceil(D / 32)
const THREADS: u32 = 64u;                         // 8 x 8, each with 4 rows x 4 columns of a tile pair
alias Word = vec4f;                                                          // @param  storage of four elements
fn unpack(word: Word) -> vec4f { return word; }                              // @param
fn pack(value: vec4f) -> Word { return value; }                              // @param

const STRIDE: u32 = CHUNK_GROUPS + 1u;            // one more than a row holds, against bank conflicts
const LEFT: u32 = 0u;                             // where the two operands of a tile product begin in `operands`
const RIGHT: u32 = TILE * STRIDE;
const NOTHING: f32 = 1e30;                        // L of a row without keys; -NOTHING: a score that is not allowed

struct Shape {
  queryTokens: u32, keyTokens: u32, heads: u32, kvHeads: u32,
  groups: u32,                                    // D / 4
  chunkGroups: u32,                               // min(groups, CHUNK_GROUPS)
  chunks: u32,                                    // CHUNKS again: a loop that a constant bounds is unrolled whole, and compiles slowly
  scale: f32,
  queryTiles: u32, keyTiles: u32,                 // to a sample
  keyTilesAt: u32, forwardAt: u32, dQueryAt: u32, dKeyValueAt: u32,          // where in the plan these tables lie; query tiles lie first
}

// A number stands twice where no entry point uses both: what one writes, a later one reads.
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> plan: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<Word>;
@group(0) @binding(3) var<storage, read> key: array<Word>;
@group(0) @binding(4) var<storage, read> value: array<Word>;
@group(0) @binding(5) var<storage, read_write> output: array<Word>;
@group(0) @binding(6) var<storage, read_write> logSumExp: array<f32>;        // L [batch, heads, queryTokens]
@group(0) @binding(5) var<storage, read> forwardOutput: array<Word>;
@group(0) @binding(6) var<storage, read> forwardLogSumExp: array<f32>;
@group(0) @binding(7) var<storage, read> dOutput: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> rowStatistics: array<vec2f>;  // (L, delta) [batch, heads, queryTokens]
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
  masked: bool,                                   // some of its scores are not allowed, because of the keys or by `causal`
  causal: bool, window: u32,                      // allowed only where 0 <= position(i) - position(j) < window
  stopKey: bool, stopValue: bool,
}

fn tileAt(at: u32) -> Tile { return Tile(plan[at], plan[at + 1u], plan[at + 2u], plan[at + 3u]); }
fn queryTile(sample: u32, index: u32) -> Tile { return tileAt(4u * (sample * shape.queryTiles + index)); }
fn keyTile(sample: u32, index: u32) -> Tile { return tileAt(shape.keyTilesAt + 4u * (sample * shape.keyTiles + index)); }

fn pairAt(at: u32) -> Pair {
  let word = plan[at];
  return Pair(word & 0xfffffffu, (word & 0x80000000u) != 0u, (word & 0x40000000u) != 0u, plan[at + 1u], (word & 0x20000000u) != 0u, (word & 0x10000000u) != 0u);
}

// Asked of masked pairs only. In the others a query row that is padding gets scores too, but no output, and L = NOTHING.
fn allowed(pair: Pair, queries: Tile, keys: Tile, queryRow: u32, keyRow: u32) -> bool {
  let real = ((keys.valid >> keyRow) & (queries.valid >> queryRow) & 1u) != 0u;
  let i = queries.position + queryRow;
  let j = keys.position + keyRow;
  return real && (!pair.causal || (j <= i && i - j < pair.window));
}

// ---- tiles in workgroup memory ---------------------------------------------------------------------------------------

// Two operands, TILE rows by one chunk of the head axis each, and one TILE x TILE result in groups of four columns.
var<workgroup> operands: array<vec4f, 2u * TILE * STRIDE>;
var<workgroup> scores: array<vec4f, TILE * STRIDE>;
var<workgroup> rowFactor: array<f32, TILE>;

// Thread (x, y) owns rows 4y..4y+3 and columns 4x..4x+3. Rows are stored in the order 0, 4, 8, .. 1, 5, 9, ..: neighbouring threads
// then read neighbouring slots.
fn slot(row: u32) -> u32 { return (row % 4u) * 8u + row / 4u; }

fn fetchQuery(sample: u32, row: u32, head: u32, group: u32) -> vec4f { return unpack(query[((sample * shape.queryTokens + row) * shape.heads + head) * shape.groups + group]); }
fn fetchGradient(sample: u32, row: u32, head: u32, group: u32) -> vec4f { return dOutput[((sample * shape.queryTokens + row) * shape.heads + head) * shape.groups + group]; }
fn fetchKey(sample: u32, row: u32, head: u32, group: u32) -> vec4f { return unpack(key[((sample * shape.keyTokens + row) * shape.kvHeads + head) * shape.groups + group]); }
fn fetchValue(sample: u32, row: u32, head: u32, group: u32) -> vec4f { return unpack(value[((sample * shape.keyTokens + row) * shape.kvHeads + head) * shape.groups + group]); }

// One chunk of a tile, from storage to workgroup memory; beyond the tile's rows and the head's groups, zeros. Written once for each
// operand, because a function takes no pointer into storage.
fn stageQuery(side: u32, thread: u32, tile: Tile, sample: u32, head: u32, chunk: u32) {
  for (var item = thread; item < TILE * shape.chunkGroups; item += THREADS) {
    let row = item / shape.chunkGroups;
    let group = chunk * CHUNK_GROUPS + item % shape.chunkGroups;
    var element = vec4f();
    if (row < tile.rows && group < shape.groups) { element = fetchQuery(sample, tile.firstRow + row, head, group); }
    operands[side + slot(row) * STRIDE + item % shape.chunkGroups] = element;
  }
}

fn stageGradient(side: u32, thread: u32, tile: Tile, sample: u32, head: u32, chunk: u32) {
  for (var item = thread; item < TILE * shape.chunkGroups; item += THREADS) {
    let row = item / shape.chunkGroups;
    let group = chunk * CHUNK_GROUPS + item % shape.chunkGroups;
    var element = vec4f();
    if (row < tile.rows && group < shape.groups) { element = fetchGradient(sample, tile.firstRow + row, head, group); }
    operands[side + slot(row) * STRIDE + item % shape.chunkGroups] = element;
  }
}

fn stageKey(side: u32, thread: u32, tile: Tile, sample: u32, head: u32, chunk: u32) {
  for (var item = thread; item < TILE * shape.chunkGroups; item += THREADS) {
    let row = item / shape.chunkGroups;
    let group = chunk * CHUNK_GROUPS + item % shape.chunkGroups;
    var element = vec4f();
    if (row < tile.rows && group < shape.groups) { element = fetchKey(sample, tile.firstRow + row, head, group); }
    operands[side + slot(row) * STRIDE + item % shape.chunkGroups] = element;
  }
}

fn stageValue(side: u32, thread: u32, tile: Tile, sample: u32, head: u32, chunk: u32) {
  for (var item = thread; item < TILE * shape.chunkGroups; item += THREADS) {
    let row = item / shape.chunkGroups;
    let group = chunk * CHUNK_GROUPS + item % shape.chunkGroups;
    var element = vec4f();
    if (row < tile.rows && group < shape.groups) { element = fetchValue(sample, tile.firstRow + row, head, group); }
    operands[side + slot(row) * STRIDE + item % shape.chunkGroups] = element;
  }
}

// product[i] += (row 4y + i of the left operand) . (rows 4x .. 4x + 3 of the right operand), over one chunk.
fn multiply(product: ptr<function, array<vec4f, 4>>, x: u32, y: u32) {
  for (var group = 0u; group < shape.chunkGroups; group++) {
    let right0 = operands[RIGHT + x * STRIDE + group];
    let right1 = operands[RIGHT + (8u + x) * STRIDE + group];
    let right2 = operands[RIGHT + (16u + x) * STRIDE + group];
    let right3 = operands[RIGHT + (24u + x) * STRIDE + group];
    for (var i = 0u; i < 4u; i++) {
      let left = operands[LEFT + (8u * i + y) * STRIDE + group];
      (*product)[i] += vec4f(dot(left, right0), dot(left, right1), dot(left, right2), dot(left, right3));
    }
  }
}

// part[i] = sum over the first `columns` columns j of scores[4y + i, j] (row j of the right operand), for group x of a chunk.
fn combine(columns: u32, x: u32, y: u32) -> array<vec4f, 4> {
  var part = array<vec4f, 4>();
  if (x >= shape.chunkGroups) { return part; }
  for (var j = 0u; 4u * j < columns; j++) {
    let right0 = operands[RIGHT + j * STRIDE + x];
    let right1 = operands[RIGHT + (8u + j) * STRIDE + x];
    let right2 = operands[RIGHT + (16u + j) * STRIDE + x];
    let right3 = operands[RIGHT + (24u + j) * STRIDE + x];
    for (var i = 0u; i < 4u; i++) {
      let weight = scores[(4u * y + i) * STRIDE + j];
      part[i] += weight.x * right0 + weight.y * right1 + weight.z * right2 + weight.w * right3;
    }
  }
  return part;
}

// One chunk of the sums of a thread. An index that is no constant would keep them in memory, not in registers.
fn chunkOf(sums: ptr<function, array<vec4f, 4u * CHUNKS>>, chunk: u32) -> array<vec4f, 4> {
  var part = array<vec4f, 4>();
  for (var c = 0u; c < CHUNKS; c++) {
    if (c == chunk) { for (var i = 0u; i < 4u; i++) { part[i] = (*sums)[4u * c + i]; } }
  }
  return part;
}

// sums[4 chunk + i] = factors[i] sums[4 chunk + i] + part[i]
fn addToChunk(sums: ptr<function, array<vec4f, 4u * CHUNKS>>, chunk: u32, factors: vec4f, part: array<vec4f, 4>) {
  for (var c = 0u; c < CHUNKS; c++) {
    if (c == chunk) { for (var i = 0u; i < 4u; i++) { (*sums)[4u * c + i] = factors[i] * (*sums)[4u * c + i] + part[i]; } }
  }
}

// ---- forward: one workgroup a query tile, head and sample ---------------------------------------------------------------

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = workgroup.y;
  let sample = workgroup.z;
  let kvHead = head / (shape.heads / shape.kvHeads);
  let queries = queryTile(sample, workgroup.x);
  let x = thread % 8u;
  let y = thread / 8u;
  let list = shape.forwardAt + 2u * (sample * shape.queryTiles + workgroup.x);
  var sums: array<vec4f, 4u * CHUNKS>;                                       // unnormalised output
  var largest = -NOTHING;                                                    // m and l of row `thread`
  var total = 0.0;

  for (var entry = 0u; entry < plan[list + 1u]; entry++) {
    let pair = pairAt(plan[list] + 2u * entry);
    let keys = keyTile(sample, pair.tile);
    var product = array<vec4f, 4>();              // zero each time, in writing: some drivers zero a loop's variable only once
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageQuery(LEFT, thread, queries, sample, head, chunk);
      stageKey(RIGHT, thread, keys, sample, kvHead, chunk);
      workgroupBarrier();
      multiply(&product, x, y);
      workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) { scores[(4u * y + i) * STRIDE + x] = shape.scale * product[i]; }
    workgroupBarrier();

    if (thread < TILE) {                                                     // one thread a row: the streaming softmax
      let columnGroups = (keys.rows + 3u) / 4u;
      if (pair.masked) {
        for (var j = 0u; j < 4u * columnGroups; j++) {
          if (!allowed(pair, queries, keys, thread, j)) { scores[thread * STRIDE + j / 4u][j % 4u] = -NOTHING; }
        }
      }
      var best = vec4f(largest);
      for (var j = 0u; j < columnGroups; j++) { best = max(best, scores[thread * STRIDE + j]); }
      let newLargest = max(max(best.x, best.y), max(best.z, best.w));
      var sum = vec4f();
      for (var j = 0u; j < columnGroups; j++) {
        let score = scores[thread * STRIDE + j];
        let weight = select(exp(score - newLargest), vec4f(), score == vec4f(-NOTHING));
        scores[thread * STRIDE + j] = weight;
        sum += weight;
      }
      let shrink = exp(largest - newLargest);
      total = total * shrink + sum.x + sum.y + sum.z + sum.w;
      largest = newLargest;
      rowFactor[thread] = shrink;
    }
    workgroupBarrier();

    let factors = vec4f(rowFactor[4u * y], rowFactor[4u * y + 1u], rowFactor[4u * y + 2u], rowFactor[4u * y + 3u]);
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageValue(RIGHT, thread, keys, sample, kvHead, chunk);
      workgroupBarrier();
      addToChunk(&sums, chunk, factors, combine(keys.rows, x, y));
      workgroupBarrier();
    }
  }

  if (thread < queries.rows) {
    let seen = total > 0.0 && ((queries.valid >> thread) & 1u) != 0u;
    rowFactor[thread] = select(0.0, 1.0 / max(total, 1e-30), seen);
    logSumExp[(sample * shape.heads + head) * shape.queryTokens + queries.firstRow + thread] = select(NOTHING, largest + log(max(total, 1e-30)), seen);
  }
  workgroupBarrier();
  for (var chunk = 0u; chunk < shape.chunks; chunk++) {
    let group = chunk * CHUNK_GROUPS + x;
    let part = chunkOf(&sums, chunk);
    for (var i = 0u; i < 4u; i++) {
      let row = 4u * y + i;
      if (row < queries.rows && group < shape.groups && x < shape.chunkGroups) {
        output[((sample * shape.queryTokens + queries.firstRow + row) * shape.heads + head) * shape.groups + group] = pack(rowFactor[row] * part[i]);
      }
    }
  }
}

// ---- backward: delta = do . o, one thread a row, stored beside L --------------------------------------------------------

@compute @workgroup_size(THREADS)
fn backwardDelta(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = workgroup.x * THREADS + thread;
  let head = workgroup.y;
  let sample = workgroup.z;
  if (row >= shape.queryTokens) { return; }
  let start = ((sample * shape.queryTokens + row) * shape.heads + head) * shape.groups;
  var sum = 0.0;
  for (var group = 0u; group < shape.groups; group++) { sum += dot(dOutput[start + group], unpack(forwardOutput[start + group])); }
  let at = (sample * shape.heads + head) * shape.queryTokens + row;
  rowStatistics[at] = vec2f(forwardLogSumExp[at], sum);
}

// ---- backward: dq, one workgroup a query tile, head and sample ----------------------------------------------------------

@compute @workgroup_size(THREADS)
fn backwardQuery(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = workgroup.y;
  let sample = workgroup.z;
  let kvHead = head / (shape.heads / shape.kvHeads);
  let queries = queryTile(sample, workgroup.x);
  let x = thread % 8u;
  let y = thread / 8u;
  let list = shape.dQueryAt + 2u * (sample * shape.queryTiles + workgroup.x);
  let statisticsStart = (sample * shape.heads + head) * shape.queryTokens + queries.firstRow;
  var sums: array<vec4f, 4u * CHUNKS>;

  for (var entry = 0u; entry < plan[list + 1u]; entry++) {
    let pair = pairAt(plan[list] + 2u * entry);
    let keys = keyTile(sample, pair.tile);
    var product = array<vec4f, 4>();                                            // q . k
    var dWeight = array<vec4f, 4>();                                            // dP
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageQuery(LEFT, thread, queries, sample, head, chunk);
      stageKey(RIGHT, thread, keys, sample, kvHead, chunk);
      workgroupBarrier();
      multiply(&product, x, y);
      workgroupBarrier();
      stageGradient(LEFT, thread, queries, sample, head, chunk);
      stageValue(RIGHT, thread, keys, sample, kvHead, chunk);
      workgroupBarrier();
      multiply(&dWeight, x, y);
      workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
      let row = 4u * y + i;
      var dScore = vec4f();
      if (row < queries.rows) {
        let lAndDelta = statistics[statisticsStart + row];
        var weight = exp(min(shape.scale * product[i] - lAndDelta.x, vec4f()));
        if (pair.masked) {
          for (var j = 0u; j < 4u; j++) { if (!allowed(pair, queries, keys, row, 4u * x + j)) { weight[j] = 0.0; } }
        }
        dScore = weight * (dWeight[i] - lAndDelta.y);
      }
      scores[row * STRIDE + x] = dScore;
    }
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageKey(RIGHT, thread, keys, sample, kvHead, chunk);
      workgroupBarrier();
      addToChunk(&sums, chunk, vec4f(1.0), combine(keys.rows, x, y));
      workgroupBarrier();
    }
  }

  for (var chunk = 0u; chunk < shape.chunks; chunk++) {
    let group = chunk * CHUNK_GROUPS + x;
    let part = chunkOf(&sums, chunk);
    for (var i = 0u; i < 4u; i++) {
      let row = 4u * y + i;
      if (row < queries.rows && group < shape.groups && x < shape.chunkGroups) {
        dQuery[((sample * shape.queryTokens + queries.firstRow + row) * shape.heads + head) * shape.groups + group] = shape.scale * part[i];
      }
    }
  }
}

// ---- backward: dk and dv, one workgroup a key tile, kv head and sample; rows are keys, columns queries ---------------------

@compute @workgroup_size(THREADS)
fn backwardKeyValue(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let kvHead = workgroup.y;
  let sample = workgroup.z;
  let headsPerKv = shape.heads / shape.kvHeads;
  let keys = keyTile(sample, workgroup.x);
  let x = thread % 8u;
  let y = thread / 8u;
  let list = shape.dKeyValueAt + 2u * (sample * shape.keyTiles + workgroup.x);
  var keySums: array<vec4f, 4u * CHUNKS>;
  var valueSums: array<vec4f, 4u * CHUNKS>;

  for (var head = kvHead * headsPerKv; head < (kvHead + 1u) * headsPerKv; head++) {
    for (var entry = 0u; entry < plan[list + 1u]; entry++) {
      let pair = pairAt(plan[list] + 2u * entry);
      let queries = queryTile(sample, pair.tile);
      let statisticsStart = (sample * shape.heads + head) * shape.queryTokens + queries.firstRow;
      var product = array<vec4f, 4>();                                          // k . q
      var dWeight = array<vec4f, 4>();                                          // v . do
      for (var chunk = 0u; chunk < shape.chunks; chunk++) {
        stageKey(LEFT, thread, keys, sample, kvHead, chunk);
        stageQuery(RIGHT, thread, queries, sample, head, chunk);
        workgroupBarrier();
        multiply(&product, x, y);
        workgroupBarrier();
        if (!pair.stopKey) {
          stageValue(LEFT, thread, keys, sample, kvHead, chunk);
          stageGradient(RIGHT, thread, queries, sample, head, chunk);
          workgroupBarrier();
          multiply(&dWeight, x, y);
          workgroupBarrier();
        }
      }
      var logSum = vec4f(NOTHING);                                           // L and delta of the four columns
      var delta = vec4f();
      for (var j = 0u; j < 4u; j++) {
        if (4u * x + j < queries.rows) {
          let lAndDelta = statistics[statisticsStart + 4u * x + j];
          logSum[j] = lAndDelta.x;
          delta[j] = lAndDelta.y;
        }
      }
      for (var i = 0u; i < 4u; i++) {
        var weight = exp(min(shape.scale * product[i] - logSum, vec4f()));
        if (pair.masked) {
          for (var j = 0u; j < 4u; j++) { if (!allowed(pair, queries, keys, 4u * x + j, 4u * y + i)) { weight[j] = 0.0; } }
        }
        product[i] = weight;                                                 // P, transposed
      }
      if (!pair.stopValue) {
        for (var i = 0u; i < 4u; i++) { scores[(4u * y + i) * STRIDE + x] = product[i]; }
        for (var chunk = 0u; chunk < shape.chunks; chunk++) {
          stageGradient(RIGHT, thread, queries, sample, head, chunk);
          workgroupBarrier();
          addToChunk(&valueSums, chunk, vec4f(1.0), combine(queries.rows, x, y));
          workgroupBarrier();
        }
      }
      if (!pair.stopKey) {
        for (var i = 0u; i < 4u; i++) { scores[(4u * y + i) * STRIDE + x] = product[i] * (dWeight[i] - delta); }
        for (var chunk = 0u; chunk < shape.chunks; chunk++) {
          stageQuery(RIGHT, thread, queries, sample, head, chunk);
          workgroupBarrier();
          addToChunk(&keySums, chunk, vec4f(1.0), combine(queries.rows, x, y));
          workgroupBarrier();
        }
      }
    }
  }

  for (var chunk = 0u; chunk < shape.chunks; chunk++) {
    let group = chunk * CHUNK_GROUPS + x;
    let keyPart = chunkOf(&keySums, chunk);
    let valuePart = chunkOf(&valueSums, chunk);
    for (var i = 0u; i < 4u; i++) {
      let row = 4u * y + i;
      if (row < keys.rows && group < shape.groups && x < shape.chunkGroups) {
        let at = ((sample * shape.keyTokens + keys.firstRow + row) * shape.kvHeads + kvHead) * shape.groups + group;
        dKey[at] = shape.scale * keyPart[i];
        dValue[at] = valuePart[i];
      }
    }
  }
}
