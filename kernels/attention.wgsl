// Attention over tokens that lie in blocks (image, language, action ..), forward and backward. A table says for each pair of a query
// block and a key block, an edge, which queries see which keys, and whether gradient passes back to these keys and their values.
//
// Query row i sees some of the keys j. With s the scale, and f the identity or the user's own function of a score:
//
//   S_ij = f(s q_i . k_j)       L_i = log sum_j exp(S_ij)          P_ij = exp(S_ij - L_i)          o_i = sum_j P_ij v_j
//
// Forward walks over tiles of at most 32 keys. For each query row it keeps the largest score m so far, the sum l of exp(S - m), and
// the output before its division by l. When m grows, l and that output shrink by exp(m_old - m_new): the online softmax (Milakov and
// Gimelshein 2018, arXiv 1805.02867; Dao 2023, arXiv 2307.08691). Forward saves L_i = m_i + log l_i.
//
// Backward is given do, the gradient of the loss with respect to o, and computes P again from L. With dP_ij = do_i . v_j:
//
//   delta_i = do_i . o_i        dS_ij = P_ij (dP_ij - delta_i) f'(s q_i . k_j)
//   dq_i = s sum_j dS_ij k_j    dk_j = s sum_i dS_ij q_i           dv_j = sum_i P_ij do_i
//
// In the code m is `largest`, l `total`, P `weight` and dP `dWeight`; `scoreGradient` makes dS. attention-rows.wgsl makes delta.
//
// Stop-gradients. An edge may stop the gradient to K and V (knowledge insulation, arXiv 2505.23705, equations 5 and 6). Then dk and dv
// leave out its terms, and nothing else changes: delta_i belongs to the softmax and stays the sum over all keys. An edge may also scale
// the gradient: then its terms of dk are multiplied by one factor, and its terms of dv by another.
//
// Shapes. query, output, dOutput, dQuery [batch, queryTokens, heads, D]; key, value, dKey, dValue [batch, keyTokens, kvHeads, D].
// D is the head dimension. Query head h reads kv head h / headsPerKv, with headsPerKv = heads / kvHeads.
//
// The plan (attention-plan.ts) is the table as lists of tile pairs. A tile is at most TILE rows of one block, so a pair of a query tile
// and a key tile lies in one edge. A list has pairs of one tile; a pair in no list costs nothing. In one array of u32 words lie:
//   tiles       4 words each (struct Tile): the query tiles of every sample, then from `keyTilesAt` on its key tiles
//   lists       2 words each, the place and the number of the pairs: from `forwardAt` and `dQueryAt` on one for each query tile, from
//               `dKeyValueAt` on one for each key tile
//   pairs       2 words each (struct Pair): the other tile of the pair with flags, and a window
//   the rest    factors of gradients, from `scalesAt` on; words of data for tokens and constants, for the user's expressions
//
// Flat rows. The query heads that share a kv head read the same keys, so one workgroup takes rows of all these heads: flat row f of a
// query tile is token row f / headsPerKv of the tile, in head f % headsPerKv of those that share the kv head. A workgroup takes TILE
// flat rows. One token of eight such heads then fills a quarter of a workgroup's rows, not one row in each of eight workgroups.
//
// A workgroup has room in its memory for two operands of TILE rows by a chunk, which is 32 elements of D. So any D fits in 16 KiB, the
// workgroup memory of every WebGPU device. For each pair of its list the workgroup
//
//   1. stages a chunk of both operands of a product, with zeros in place of padding;
//   2. adds the dot products of this chunk, until after the last chunk it has TILE x TILE scores (and dP, in backward);
//   3. makes weights of them, P or dS, which take the place of the left operand;
//   4. stages a chunk of the rows to be weighted (V, K, dO or Q), and adds their weighted sums to those that it keeps in registers.
//
// Split-K. Where a GPU would have too few workgroups, `splits` of them share a list, each a slice of it. Forward then makes an output
// and an L for each slice, backward a part of each sum, and attention-rows.wgsl combines the slices in order. Where many query heads
// share a kv head, key tiles are few and their lists long; dk and dv then have up to as many slices as query heads share the kv head.
//
// All sums are f32 and run in an order that only shapes and plan fix. The file is valid as it stands. The host replaces declarations
// marked @param: by numbers, by the user's expressions, or by the alternatives below them, marked @or (engine/kernel.ts).

const TILE: u32 = 32u;                            // most rows of a tile: a word has a bit for each
const GROUPS: u32 = 8u;                           // TILE / 4: the groups of four in a row of scores, and in a row of a chunk
const CHUNKS: u32 = 2u;                                                      // @param  ceil(D / 32)
const ROWS: u32 = 4u;                                                        // @param  rows of a thread: 4, 2 or 1
const ROW_THREADS: u32 = TILE / ROWS;
// Thread (x, y), x < GROUPS, has the columns 4x .. 4x + 3 of the rows ROWS y .. ROWS y + ROWS - 1 of a product.
const THREADS: u32 = GROUPS * ROW_THREADS;
alias Word = vec4f;                                                          // @param  four elements as they are stored
// @or f16, bf16  alias Word = vec2u;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
fn pack(value: vec4f) -> Word { return value; }                              // @param
// @or f16   fn pack(value: vec4f) -> Word { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0));
// @or f16     let nan = select(vec4u(), vec4u(0x7e00u), (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or f16     return vec2u(pack2x16float(safe.xy), pack2x16float(safe.zw)) | nan.xz | (nan.yw << vec2u(16u)); }
// @or bf16  fn pack(value: vec4f) -> Word { let bits = bitcast<vec4u>(value); let half = ((bits >> vec4u(16u)) & vec4u(1u)) + 0x7fffu;
// @or bf16    let kept = select((bits + half) >> vec4u(16u), vec4u(0x7fc0u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or bf16    return kept.xz | (kept.yw << vec2u(16u)); }
alias OutputWord = Word;                                                     // @param  four elements of the output as they are stored
// @or slice  alias OutputWord = vec4f;
fn packOutput(value: vec4f) -> OutputWord { return pack(value); }            // @param
// @or slice  fn packOutput(value: vec4f) -> OutputWord { return value; }
alias Operand = vec4f;                                                       // @param  four elements in workgroup memory
// @or half  alias Operand = vec4<f16>;
// Backward has to make the scores of forward again to the last bit, however large they are. So every kernel makes a score by the same
// chain of fma, which no compiler fuses with the subtraction of L that follows, and multiplies the query by s before the product. An f16
// operand is multiplied on its way into the product, in f32.
fn scaled(query: vec4f) -> vec4f { return shape.scale * query; }             // @param
// @or half  fn scaled(query: vec4f) -> vec4f { return query; }
fn addDot(sum: f32, a: Operand, b: Operand) -> f32 { return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum)))); } // @param
// @or half  fn addDot(sum: f32, query: Operand, k: Operand) -> f32 { let q = shape.scale * vec4f(query);
// @or half    return fma(q.w, f32(k.w), fma(q.z, f32(k.z), fma(q.y, f32(k.y), fma(q.x, f32(k.x), sum)))); }
// The largest value of each of a thread's rows, over the threads that share the row.
fn largestOfRows(value: vec4f, thread: u32) -> vec4f { return workgroupLargest(value, thread); }                  // @param
// @or subgroups  fn largestOfRows(value: vec4f, thread: u32) -> vec4f { let pairs = max(value, subgroupShuffleXor(value, 1u));
// @or subgroups    let fours = max(pairs, subgroupShuffleXor(pairs, 2u)); return max(fours, subgroupShuffleXor(fours, 4u)); }

// The user's expressions (attention-expression.ts) are functions of the tokens q and k, and of one word of data for each of them.
fn allowed(q: i32, k: i32, queryData: u32, keyData: u32) -> bool { return true; }                                 // @param
fn score(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return score; }            // @param
fn scoreDerivative(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return 1.0; }    // @param
fn tokenData(at: u32) -> u32 { return 0u; }                                                                       // @param
fn constant(index: i32) -> f32 { return bitcast<f32>(plan[shape.constantsAt + u32(index)]); }

struct Shape {
  batch: u32, queryTokens: u32, keyTokens: u32, heads: u32, kvHeads: u32,
  groups: u32,                                    // D / 4
  chunks: u32,                                    // CHUNKS as data: a loop with a constant bound is unrolled whole, and compiles slowly
  scale: f32,                                     // s
  splits: u32,                                    // workgroups that share a list
  queryTiles: u32, keyTiles: u32,                 // of a sample
  keyTilesAt: u32, forwardAt: u32, dQueryAt: u32, dKeyValueAt: u32,          // where these begin in the plan
  dataAt: u32, dataStride: u32,                   // where the tokens' words of data begin; words from one sample's to the next's
  scalesAt: u32, constantsAt: u32,                // where the factors of gradients and the user's constants begin
}

// Where workgroups share lists, all results are f32 and have an axis more, the slices: [splits, batch, ..].
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> plan: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<Word>;
@group(0) @binding(3) var<storage, read> key: array<Word>;
@group(0) @binding(4) var<storage, read> value: array<Word>;
@group(0) @binding(5) var<storage, read_write> output: array<OutputWord>;
@group(0) @binding(6) var<storage, read_write> logSumExp: array<f32>;        // L [batch, heads, queryTokens]
@group(0) @binding(7) var<storage, read> dOutput: array<vec4f>;
@group(0) @binding(8) var<storage, read> statistics: array<vec2f>;           // (L, delta) [batch, heads, queryTokens]
@group(0) @binding(9) var<storage, read_write> dQuery: array<vec4f>;
@group(0) @binding(10) var<storage, read_write> dKey: array<vec4f>;
@group(0) @binding(11) var<storage, read_write> dValue: array<vec4f>;

const NO_SCORE: f32 = 1e30;     // a score that is not allowed is -NO_SCORE; L of a row without keys is NO_SCORE, so that backward has P = 0
alias ThreadRows = array<vec4f, ROWS>;            // four columns, or four elements, of each of a thread's rows
alias Sums = array<vec4f, ROWS * CHUNKS>;         // four elements of each of a thread's rows in every chunk

// ---- forward: a workgroup takes TILE flat rows of a query tile, and walks over keys ------------------------------------------------

@compute @workgroup_size(THREADS)
fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let work = queryWork(grid, shape.forwardAt);
  if (work.idle) { return; }
  let queries = work.tile;
  let x = thread % GROUPS;
  let y = thread / GROUPS;
  let queryRows = queryRowStarts(queries, work.firstFlat, work.sample, work.kvHead, y);
  var sums: Sums;                                 // the output before its division by l
  var largest = vec4f(-NO_SCORE);                 // m of the thread's rows
  var total = vec4f();                            // the thread's columns' part of l

  for (var entry = work.list.first; entry < work.list.end; entry++) {
    let pair = pairAt(work.list.start + 2u * entry);
    let keys = keyTile(work.sample, pair.tile);
    let keyRows = keyRowStarts(keys, work.sample, work.kvHead, y);
    var scores = ThreadRows();                    // set to zero, because some drivers zero a variable of a loop only once
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stage(LEFT, loadQuery(queryRows, chunk * GROUPS + x), x, y);
      stage(RIGHT, loadKey(keyRows, chunk * GROUPS + x), x, y);
      addDotProducts(&scores, chunk, x, y);
    }

    var newLargest = largest;
    for (var i = 0u; i < ROWS; i++) {
      let row = flatRow(queries, work.sample, work.kvHead, min(work.firstFlat + ROWS * y + i, flatRows(queries) - 1u));
      for (var j = 0u; j < 4u; j++) {
        let position = scorePosition(work.sample, row, keys.firstToken + 4u * x + j);
        var current = scoreOf(position, scores[i][j]);
        if (pair.masked) { if (!isAllowed(pair, position, queries, keys)) { current = -NO_SCORE; } }
        scores[i][j] = current;
        newLargest[i] = max(newLargest[i], current);
      }
    }
    newLargest = largestOfRows(newLargest, thread);
    let shrink = exp(largest - newLargest);
    for (var i = 0u; i < ROWS; i++) {
      let weight = select(exp(scores[i] - newLargest[i]), vec4f(), scores[i] == vec4f(-NO_SCORE));
      total[i] = total[i] * shrink[i] + weight.x + weight.y + weight.z + weight.w;
      scores[i] = weight;
    }
    stageWeights(scores, x, y);
    largest = newLargest;

    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stage(RIGHT, loadValue(keyRows, chunk * GROUPS + x), x, y);
      addToSums(&sums, chunk, shrink, weightedRows(keys.rows, x, y));
    }
  }

  total = sumOfRows(total, thread);
  for (var i = 0u; i < ROWS; i++) {
    let f = work.firstFlat + ROWS * y + i;
    if (f >= flatRows(queries)) { continue; }
    let row = flatRow(queries, work.resultSample, work.kvHead, f);
    let seesKeys = total[i] > 0.0 && isRealToken(queries, row.token);
    if (x == 0u) { logSumExp[row.statisticsAt] = select(NO_SCORE, largest[i] + log(max(total[i], 1e-30)), seesKeys); }
    for (var c = 0u; c < CHUNKS; c++) {
      let group = c * GROUPS + x;
      if (group < shape.groups) {
        output[row.at + group] = packOutput(select(0.0, 1.0 / max(total[i], 1e-30), seesKeys) * sums[ROWS * c + i]);
      }
    }
  }
}

// ---- the work of a workgroup ---------------------------------------------------------------------------------------------------

struct Tile {
  firstRow: u32, rows: u32,                       // the rows firstRow .. firstRow + rows - 1 of the tensor
  firstToken: u32,                                // the first row's place in the sequence; a tensor may lack some blocks
  valid: u32,                                     // the padding mask: bit r says that row r is no padding
}

// A pair of tiles, as the list of one of them holds it.
struct Pair {
  tile: u32,                                      // the other tile
  masked: bool,                                   // not all scores are allowed: there is padding, or `causal` or `expression` holds
  causal: bool, window: u32,                      // if causal, query token q sees key token k only where 0 <= q - k < window
  expression: bool,                               // q sees k only where `allowed` says so
  stopKey: bool, stopValue: bool,                 // no gradient passes to K, or to V
  keyScale: f32, valueScale: f32,                 // factors of the gradient that passes
}

struct List { start: u32, first: u32, end: u32 }  // items first .. end - 1 of the list that begins at `start`

struct Work {
  idle: bool,                                     // there is nothing to do
  tile: Tile,                                     // a query tile; in backwardKeyValue a key tile
  firstFlat: u32,                                 // of a query tile: the first of TILE flat rows
  kvHead: u32, sample: u32,
  resultSample: u32,                              // slice * batch + sample: the place of the results
  list: List,
}

// Workgroups are numbered from 0 on; the grid has two axes because one holds at most 65,535 (engine/grid.ts). A slice has all samples,
// a sample has `tiles` tiles, a tile has `perTile` workgroups. A pair of a list stands for `itemsPerPair` items of work.
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }
fn workOf(grid: Grid, perTile: u32, tiles: u32, tilesAt: u32, listsAt: u32, itemsPerPair: u32) -> Work {
  let index = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  let part = index % perTile;
  let perKvHead = perTile / shape.kvHeads;
  let resultSample = index / perTile / tiles;
  let slice = resultSample / shape.batch;
  let sample = resultSample % shape.batch;
  let at = sample * tiles + index / perTile % tiles;
  let tile = tileAt(tilesAt + 4u * at);
  let firstFlat = TILE * (part % perKvHead);
  let idle = slice >= shape.splits || firstFlat >= flatRows(tile);
  let items = plan[listsAt + 2u * at + 1u] * itemsPerPair;
  let list = List(plan[listsAt + 2u * at], items * slice / shape.splits, items * (slice + 1u) / shape.splits);
  return Work(idle, tile, firstFlat, part / perKvHead, sample, resultSample, list);
}

// A query tile has headsPerKv workgroups for each kv head, each for TILE flat rows. Where the tile is not full, the last are idle.
fn queryWork(grid: Grid, listsAt: u32) -> Work { return workOf(grid, shape.heads, shape.queryTiles, 0u, listsAt, 1u); }

// A key tile has one workgroup for each kv head. A pair stands for headsPerKv items, each TILE flat rows of its query tile.
fn keyWork(grid: Grid) -> Work {
  return workOf(grid, shape.kvHeads, shape.keyTiles, shape.keyTilesAt, shape.dKeyValueAt, headsPerKv());
}

fn tileAt(at: u32) -> Tile { return Tile(plan[at], plan[at + 1u], plan[at + 2u], plan[at + 3u]); }
fn queryTile(sample: u32, index: u32) -> Tile { return tileAt(4u * (sample * shape.queryTiles + index)); }
fn keyTile(sample: u32, index: u32) -> Tile { return tileAt(shape.keyTilesAt + 4u * (sample * shape.keyTiles + index)); }

const MASKED: u32 = 0x80000000u;                  // flags of a pair, above its other tile (16 bits) and the index of its factors (11)
const CAUSAL: u32 = 0x40000000u;
const STOP_KEY: u32 = 0x20000000u;
const STOP_VALUE: u32 = 0x10000000u;
const EXPRESSION: u32 = 0x8000000u;

fn pairAt(at: u32) -> Pair {
  let word = plan[at];
  let scalesAt = shape.scalesAt + 2u * ((word >> 16u) & 0x7ffu);
  return Pair(word & 0xffffu, (word & MASKED) != 0u, (word & CAUSAL) != 0u, plan[at + 1u], (word & EXPRESSION) != 0u,
    (word & STOP_KEY) != 0u, (word & STOP_VALUE) != 0u, bitcast<f32>(plan[scalesAt]), bitcast<f32>(plan[scalesAt + 1u]));
}

// ---- rows ----------------------------------------------------------------------------------------------------------------------

struct FlatRow {
  token: u32,                                     // its place in the sequence
  head: u32,
  at: u32,                                        // the index of its first group in query, output, dOutput and dQuery
  statisticsAt: u32,                              // its index in logSumExp and statistics
}

fn headsPerKv() -> u32 { return shape.heads / shape.kvHeads; }
fn flatRows(queries: Tile) -> u32 { return queries.rows * headsPerKv(); }
fn flatRow(queries: Tile, sample: u32, kvHead: u32, f: u32) -> FlatRow {
  let row = f / headsPerKv();
  let head = kvHead * headsPerKv() + f - row * headsPerKv();
  let at = ((sample * shape.queryTokens + queries.firstRow + row) * shape.heads + head) * shape.groups;
  return FlatRow(queries.firstToken + row, head, at, (sample * shape.heads + head) * shape.queryTokens + queries.firstRow + row);
}

// The index of the first group of a key tile's row in key, value, dKey and dValue.
fn keyRowAt(keys: Tile, sample: u32, kvHead: u32, row: u32) -> u32 {
  return ((sample * shape.keyTokens + keys.firstRow + row) * shape.kvHeads + kvHead) * shape.groups;
}

// Whether a token lies in the tile and is no padding.
fn isRealToken(tile: Tile, token: u32) -> bool {
  return token - tile.firstToken < TILE && ((tile.valid >> (token - tile.firstToken)) & 1u) != 0u;
}

// ---- scores --------------------------------------------------------------------------------------------------------------------

struct ScorePosition { q: u32, k: u32, head: u32, queryData: u32, keyData: u32 }

fn scorePosition(sample: u32, row: FlatRow, k: u32) -> ScorePosition {
  let data = shape.dataAt + sample * shape.dataStride;
  return ScorePosition(row.token, k, row.head, tokenData(data + row.token), tokenData(data + k));
}

fn scoreOf(at: ScorePosition, product: f32) -> f32 {
  return score(product, i32(at.q), i32(at.k), i32(at.head), at.queryData, at.keyData);
}

// Called only for pairs with the `masked` flag. In the others, query rows that are padding are computed too; forward discards their
// output and sets L to NO_SCORE.
fn isAllowed(pair: Pair, at: ScorePosition, queries: Tile, keys: Tile) -> bool {
  let real = isRealToken(queries, at.q) && isRealToken(keys, at.k);
  let near = !pair.causal || (at.k <= at.q && at.q - at.k < pair.window);
  return real && near && (!pair.expression || allowed(i32(at.q), i32(at.k), at.queryData, at.keyData));
}

// P, computed again from the product s q . k and L.
fn weightAgain(pair: Pair, at: ScorePosition, queries: Tile, keys: Tile, product: f32, logSumExp: f32) -> f32 {
  let weight = exp(min(scoreOf(at, product) - logSumExp, 0.0));
  if (pair.masked) { if (!isAllowed(pair, at, queries, keys)) { return 0.0; } }
  return weight;
}

// dS. A score that is not allowed has weight 0, and may have any derivative, even one that is no number.
fn scoreGradient(at: ScorePosition, product: f32, weight: f32, dWeight: f32, delta: f32) -> f32 {
  let slope = scoreDerivative(product, i32(at.q), i32(at.k), i32(at.head), at.queryData, at.keyData);
  return select(0.0, weight * (dWeight - delta) * slope, weight > 0.0);
}

// ---- staging: from storage to workgroup memory ---------------------------------------------------------------------------------

// Both operands of a product, TILE rows by one chunk each. The weights of a pair, TILE x TILE, take the place of the left operand:
// the less memory a workgroup takes, the more of them run at a time.
const STRIDE: u32 = GROUPS + 1u;                  // from a row to the next; a row has GROUPS, and one is free against bank conflicts
const LEFT: u32 = 0u;
const RIGHT: u32 = TILE * STRIDE;
var<workgroup> operands: array<Operand, 2u * TILE * STRIDE>;

// A slot is the index of a row's first group in `operands`. Threads that read at the same time are to read neighbouring rows, so the
// left rows lie in the order 0, ROWS, 2 ROWS, .., 1, ROWS + 1, .., and the right rows in the order 0, 4, 8, .., 1, 5, 9, ..
fn leftSlot(row: u32) -> u32 { return LEFT + ((row % ROWS) * ROW_THREADS + row / ROWS) * STRIDE; }
fn rightSlot(row: u32) -> u32 { return RIGHT + ((row % 4u) * GROUPS + row / 4u) * STRIDE; }
fn weightSlot(y: u32, i: u32) -> u32 { return LEFT + (ROWS * y + i) * STRIDE; }

// Thread (x, y) loads group x of the rows y, y + ROW_THREADS, .. of a tile. The i-th of these rows begins at index starts[i] of its tensor.
alias RowStarts = array<u32, ROWS>;
const NO_ROW: u32 = 0xffffffffu;                  // of padding, and beyond the last row: zeros are loaded instead

fn queryRowStarts(queries: Tile, firstFlat: u32, sample: u32, kvHead: u32, y: u32) -> RowStarts {
  var starts: RowStarts;
  for (var i = 0u; i < ROWS; i++) {
    let row = flatRow(queries, sample, kvHead, firstFlat + i * ROW_THREADS + y);
    starts[i] = select(NO_ROW, row.at, isRealToken(queries, row.token));
  }
  return starts;
}

fn keyRowStarts(keys: Tile, sample: u32, kvHead: u32, y: u32) -> RowStarts {
  var starts: RowStarts;
  for (var i = 0u; i < ROWS; i++) {
    let row = i * ROW_THREADS + y;
    starts[i] = select(NO_ROW, keyRowAt(keys, sample, kvHead, row), isRealToken(keys, keys.firstToken + row));
  }
  return starts;
}

// One function for each operand, because a function of WGSL takes no pointer into storage.
fn exists(start: u32, group: u32) -> bool { return start != NO_ROW && group < shape.groups; }
fn loadQuery(starts: RowStarts, group: u32) -> ThreadRows {
  var rows = ThreadRows();
  for (var i = 0u; i < ROWS; i++) { if (exists(starts[i], group)) { rows[i] = scaled(unpack(query[starts[i] + group])); } }
  return rows;
}
fn loadOutputGradient(starts: RowStarts, group: u32) -> ThreadRows {
  var rows = ThreadRows();
  for (var i = 0u; i < ROWS; i++) { if (exists(starts[i], group)) { rows[i] = dOutput[starts[i] + group]; } }
  return rows;
}
fn loadKey(starts: RowStarts, group: u32) -> ThreadRows {
  var rows = ThreadRows();
  for (var i = 0u; i < ROWS; i++) { if (exists(starts[i], group)) { rows[i] = unpack(key[starts[i] + group]); } }
  return rows;
}
fn loadValue(starts: RowStarts, group: u32) -> ThreadRows {
  var rows = ThreadRows();
  for (var i = 0u; i < ROWS; i++) { if (exists(starts[i], group)) { rows[i] = unpack(value[starts[i] + group]); } }
  return rows;
}

fn stage(side: u32, rows: ThreadRows, x: u32, y: u32) {
  for (var i = 0u; i < ROWS; i++) {
    let row = i * ROW_THREADS + y;
    operands[select(rightSlot(row), leftSlot(row), side == LEFT) + x] = Operand(rows[i]);
  }
}

fn stageWeights(weights: ThreadRows, x: u32, y: u32) {
  for (var i = 0u; i < ROWS; i++) { operands[weightSlot(y, i) + x] = Operand(weights[i]); }
}

// ---- products of what is staged ------------------------------------------------------------------------------------------------

// products[i] += (row ROWS y + i of the left operand) . (rows 4x .. 4x + 3 of the right operand), over one chunk.
fn addDotProducts(products: ptr<function, ThreadRows>, chunk: u32, x: u32, y: u32) {
  workgroupBarrier();
  for (var group = 0u; group < min(GROUPS, shape.groups - chunk * GROUPS); group++) {
    let right0 = operands[RIGHT + x * STRIDE + group];
    let right1 = operands[RIGHT + (GROUPS + x) * STRIDE + group];
    let right2 = operands[RIGHT + (2u * GROUPS + x) * STRIDE + group];
    let right3 = operands[RIGHT + (3u * GROUPS + x) * STRIDE + group];
    for (var i = 0u; i < ROWS; i++) {
      let left = operands[LEFT + (i * ROW_THREADS + y) * STRIDE + group];
      let p = (*products)[i];
      (*products)[i] = vec4f(addDot(p.x, left, right0), addDot(p.y, left, right1), addDot(p.z, left, right2), addDot(p.w, left, right3));
    }
  }
  workgroupBarrier();                             // what was staged may be overwritten
}

// Element i: the sum over the columns j < `columns` of (weight of row ROWS y + i, column j) * (group x of row j of the right operand).
fn weightedRows(columns: u32, x: u32, y: u32) -> ThreadRows {
  workgroupBarrier();
  var rows = ThreadRows();
  for (var j = 0u; 4u * j < columns; j++) {
    let right0 = operands[RIGHT + j * STRIDE + x];
    let right1 = operands[RIGHT + (GROUPS + j) * STRIDE + x];
    let right2 = operands[RIGHT + (2u * GROUPS + j) * STRIDE + x];
    let right3 = operands[RIGHT + (3u * GROUPS + j) * STRIDE + x];
    for (var i = 0u; i < ROWS; i++) {
      let weight = operands[weightSlot(y, i) + j];
      rows[i] += vec4f(weight.x * right0 + weight.y * right1 + weight.z * right2 + weight.w * right3);
    }
  }
  workgroupBarrier();                             // what was staged may be overwritten
  return rows;
}

// For each row i of one chunk: sum = factors[i] sum + rows[i]. The loop over c makes every index a constant, so that sums are registers.
fn addToSums(sums: ptr<function, Sums>, chunk: u32, factors: vec4f, rows: ThreadRows) {
  for (var c = 0u; c < CHUNKS; c++) {
    if (c == chunk) { for (var i = 0u; i < ROWS; i++) { (*sums)[ROWS * c + i] = factors[i] * (*sums)[ROWS * c + i] + rows[i]; } }
  }
}

// ---- reductions along rows, over the GROUPS threads that share a row ----------------------------------------------------------------

var<workgroup> valueOfThread: array<f32, GROUPS * (TILE + 1u)>;

// The place of the value that thread x of a row has for row i of those of `thread`.
fn threadSlot(x: u32, thread: u32, i: u32) -> u32 { return x * (TILE + 1u) + ROWS * (thread / GROUPS) + i; }

// Component i: the largest value of row ROWS y + i.
fn workgroupLargest(value: vec4f, thread: u32) -> vec4f {
  for (var i = 0u; i < ROWS; i++) { valueOfThread[threadSlot(thread % GROUPS, thread, i)] = value[i]; }
  workgroupBarrier();
  var most = value;
  for (var x = 0u; x < GROUPS; x++) { for (var i = 0u; i < ROWS; i++) { most[i] = max(most[i], valueOfThread[threadSlot(x, thread, i)]); } }
  return most;
}

// Component i: the sum over row ROWS y + i.
fn sumOfRows(value: vec4f, thread: u32) -> vec4f {
  for (var i = 0u; i < ROWS; i++) { valueOfThread[threadSlot(thread % GROUPS, thread, i)] = value[i]; }
  workgroupBarrier();
  var sum = vec4f();
  for (var x = 0u; x < GROUPS; x++) { for (var i = 0u; i < ROWS; i++) { sum[i] += valueOfThread[threadSlot(x, thread, i)]; } }
  return sum;
}

// ---- backward, dq: a workgroup takes TILE flat rows of a query tile, and walks over keys --------------------------------------------

@compute @workgroup_size(THREADS)
fn backwardQuery(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let work = queryWork(grid, shape.dQueryAt);
  if (work.idle) { return; }
  let queries = work.tile;
  let x = thread % GROUPS;
  let y = thread / GROUPS;
  let queryRows = queryRowStarts(queries, work.firstFlat, work.sample, work.kvHead, y);
  var sums: Sums;                                 // dq / s

  for (var entry = work.list.first; entry < work.list.end; entry++) {
    let pair = pairAt(work.list.start + 2u * entry);
    let keys = keyTile(work.sample, pair.tile);
    let keyRows = keyRowStarts(keys, work.sample, work.kvHead, y);
    var products = ThreadRows();                  // s q . k
    var dWeights = ThreadRows();                  // do . v
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stage(LEFT, loadQuery(queryRows, chunk * GROUPS + x), x, y);
      stage(RIGHT, loadKey(keyRows, chunk * GROUPS + x), x, y);
      addDotProducts(&products, chunk, x, y);
      stage(LEFT, loadOutputGradient(queryRows, chunk * GROUPS + x), x, y);
      stage(RIGHT, loadValue(keyRows, chunk * GROUPS + x), x, y);
      addDotProducts(&dWeights, chunk, x, y);
    }

    for (var i = 0u; i < ROWS; i++) {
      let row = flatRow(queries, work.sample, work.kvHead, min(work.firstFlat + ROWS * y + i, flatRows(queries) - 1u));
      let saved = statistics[row.statisticsAt];   // (L, delta)
      for (var j = 0u; j < 4u; j++) {
        let position = scorePosition(work.sample, row, keys.firstToken + 4u * x + j);
        let weight = weightAgain(pair, position, queries, keys, products[i][j], saved.x);
        dWeights[i][j] = scoreGradient(position, products[i][j], weight, dWeights[i][j], saved.y);
      }
    }
    stageWeights(dWeights, x, y);                 // dS
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stage(RIGHT, loadKey(keyRows, chunk * GROUPS + x), x, y);
      addToSums(&sums, chunk, vec4f(1.0), weightedRows(keys.rows, x, y));
    }
  }

  for (var i = 0u; i < ROWS; i++) {
    let f = work.firstFlat + ROWS * y + i;
    if (f >= flatRows(queries)) { continue; }
    let row = flatRow(queries, work.resultSample, work.kvHead, f);
    for (var c = 0u; c < CHUNKS; c++) {
      let group = c * GROUPS + x;
      if (group < shape.groups) { dQuery[row.at + group] = shape.scale * sums[ROWS * c + i]; }
    }
  }
}

// ---- backward, dk and dv: a workgroup takes a key tile, and walks over flat query rows. Rows are keys, columns are queries. ------------

@compute @workgroup_size(THREADS)
fn backwardKeyValue(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let work = keyWork(grid);
  if (work.idle) { return; }
  let keys = work.tile;
  let x = thread % GROUPS;
  let y = thread / GROUPS;
  let keyRows = keyRowStarts(keys, work.sample, work.kvHead, y);
  var keySums: Sums;
  var valueSums: Sums;

  for (var item = work.list.first; item < work.list.end; item++) {
    let pair = pairAt(work.list.start + 2u * (item / headsPerKv()));
    let queries = queryTile(work.sample, pair.tile);
    let firstFlat = TILE * (item % headsPerKv());
    if (firstFlat >= flatRows(queries)) { continue; }
    let queryRows = queryRowStarts(queries, firstFlat, work.sample, work.kvHead, y);
    var weights = ThreadRows();                   // k . s q, then P
    var dWeights = ThreadRows();                  // v . do, then dS
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stage(LEFT, loadKey(keyRows, chunk * GROUPS + x), x, y);
      stage(RIGHT, loadQuery(queryRows, chunk * GROUPS + x), x, y);
      addDotProducts(&weights, chunk, x, y);
      if (!pair.stopKey) {
        stage(LEFT, loadValue(keyRows, chunk * GROUPS + x), x, y);
        stage(RIGHT, loadOutputGradient(queryRows, chunk * GROUPS + x), x, y);
        addDotProducts(&dWeights, chunk, x, y);
      }
    }

    for (var j = 0u; j < 4u; j++) {
      let f = firstFlat + 4u * x + j;
      let row = flatRow(queries, work.sample, work.kvHead, min(f, flatRows(queries) - 1u));
      let saved = select(vec2f(NO_SCORE, 0.0), statistics[row.statisticsAt], f < flatRows(queries));
      for (var i = 0u; i < ROWS; i++) {
        let position = scorePosition(work.sample, row, keys.firstToken + ROWS * y + i);
        let product = weights[i][j];
        let weight = weightAgain(pair, position, queries, keys, product, saved.x);
        dWeights[i][j] = pair.keyScale * scoreGradient(position, product, weight, dWeights[i][j], saved.y);
        weights[i][j] = pair.valueScale * weight;
      }
    }
    let columns = min(flatRows(queries) - firstFlat, TILE);
    if (!pair.stopValue) {
      stageWeights(weights, x, y);
      for (var chunk = 0u; chunk < shape.chunks; chunk++) {
        stage(RIGHT, loadOutputGradient(queryRows, chunk * GROUPS + x), x, y);
        addToSums(&valueSums, chunk, vec4f(1.0), weightedRows(columns, x, y));
      }
    }
    if (!pair.stopKey) {
      stageWeights(dWeights, x, y);
      for (var chunk = 0u; chunk < shape.chunks; chunk++) {
        stage(RIGHT, loadQuery(queryRows, chunk * GROUPS + x), x, y);
        addToSums(&keySums, chunk, vec4f(1.0), weightedRows(columns, x, y));
      }
    }
  }

  for (var i = 0u; i < ROWS; i++) {
    if (ROWS * y + i >= keys.rows) { break; }
    let at = keyRowAt(keys, work.resultSample, work.kvHead, ROWS * y + i);
    for (var c = 0u; c < CHUNKS; c++) {
      let group = c * GROUPS + x;
      if (group >= shape.groups) { break; }
      dKey[at + group] = keySums[ROWS * c + i];   // the staged queries have s already
      dValue[at + group] = valueSums[ROWS * c + i];
    }
  }
}
