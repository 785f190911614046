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
// In the code m is `largest` and l `total`. `weight` is exp(S - m) in forward and P in backward; `slope` is P f'. attention-rows.wgsl
// makes delta.
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
// A workgroup is two or four teams of 64 threads. Each team has 8 KiB of workgroup memory, two operands of TILE rows by a chunk, which is
// 32 elements of D. So any D fits: two teams take 16 KiB, which every WebGPU device has, and four take 32 KiB, where there is that much.
// The more teams there are, the fewer sums a thread has to keep in registers. In forward each team takes another pair of the list; in
// backward each two teams, of which one makes S and P, the other dP and dS. For these pairs
//
//   1. each team stages a chunk of both operands of its product, with zeros in place of padding;
//   2. and adds the dot products of this chunk, until after the last chunk it has TILE x TILE scores (or dP, in backward);
//   3. the teams make weights of them, exp(S - m) in forward, P or dS in backward, which take the place of the left operands;
//   4. each team takes chunks of its own (team, team + TEAMS, ..) of the rows to be weighted, V, K, dO or Q, stages one after the other,
//      and adds their sums, weighted by all pairs, to those that it keeps in registers. In backwardKeyValue the first of two teams does
//      so for dv, the second for dk, so that each keeps twice as many chunks.
//
// Split-K. Where a GPU would have too few workgroups, `splits` of them share a list, each a slice of it. Forward then makes an output
// and an L for each slice, backward a part of each sum, and attention-rows.wgsl combines the slices in order. Where many query heads
// share a kv head, dk and dv have fewer workgroups and longer lists than dq; slices then take the place of those heads.
//
// All sums are f32 and run in an order that only shapes and plan fix. The file is valid as it stands. The host replaces declarations
// marked @param: by numbers, by the user's expressions, or by the alternatives below them, marked @or (engine/kernel.ts).

const TILE: u32 = 32u;                            // most rows of a tile: a word has a bit for each
const GROUPS: u32 = 8u;                           // TILE / 4: the groups of four in a row of scores, and in a row of a chunk
const TEAMS: u32 = 2u;                                                       // @param  teams of 64 threads: 2 or 4
const SUM_CHUNKS: u32 = 1u;                                                  // @param  chunks of a row in which a thread keeps sums
const PAIRS: u32 = TEAMS / 2u;
const THREADS: u32 = 64u * TEAMS;
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
// Backward has to make the scores of forward again to the last bit, however large they are. So every kernel makes a score by the same
// chain of fma, which no compiler fuses with the subtraction of L that follows, and multiplies the query by s before the product.
fn addDot(sum: f32, a: vec4f, b: vec4f) -> f32 { return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum)))); }

// The user's expressions (attention-expression.ts) are functions of the tokens q and k, and of one word of data for each of them.
fn allowed(q: i32, k: i32, queryData: u32, keyData: u32) -> bool { return true; }                                 // @param
fn score(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return score; }            // @param
fn scoreDerivative(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return 1.0; }    // @param
fn tokenData(at: u32) -> u32 { return 0u; }                                                                       // @param
fn constant(index: i32) -> f32 { return bitcast<f32>(plan[shape.constantsAt + u32(index)]); }

struct Shape {
  batch: u32, queryTokens: u32, keyTokens: u32, heads: u32, kvHeads: u32,
  groups: u32,                                    // D / 4
  chunks: u32,                                    // ceil(D / 32)
  rowThreads: u32,                                // the threads of a team that share a row: always 8. It is data because compilers unroll
                                                  // a loop with a constant bound, which takes many registers and compiles slowly
  scale: f32,                                     // s
  splits: u32,                                    // workgroups that share a list
  queryTiles: u32, keyTiles: u32,                 // numbers of tiles in a sample
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
alias ThreadRows = array<vec4f, 4>;               // four columns, or four elements, of each of a thread's four rows
alias Sums = array<vec4f, 4u * SUM_CHUNKS>;       // four elements of each of a thread's rows, in each of its chunks

// ---- forward: a workgroup takes TILE flat rows of a query tile, and walks over keys, as many tiles at a time as it has teams ------------

@compute @workgroup_size(THREADS)
fn forward(grid: Grid, @builtin(local_invocation_index) index: u32) {
  let work = queryWork(grid, shape.forwardAt);
  if (work.idle) { return; }
  let queries = work.tile;
  let thread = threadOf(index);
  let queryRows = queryRowStarts(work, queries, work.firstFlat, thread.x);
  var sums: Sums;                                 // the output before its division by l
  var largest = vec4f(-NO_SCORE);                 // m of the thread's rows
  var total = vec4f();                            // the thread's columns' part of l

  for (var first = work.list.first; first < work.list.end; first += TEAMS) {
    let item = keyItem(work, first + thread.team);
    let keys = item.tile;
    let keyRows = keyRowStarts(work, keys, thread.x);
    var scores = ThreadRows();                    // set to zero, because some drivers zero a variable of a loop only once
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageLeft(thread.team, loadQuery(queryRows, chunk * GROUPS + thread.y), thread);
      stageRight(loadKey(keyRows, chunk * GROUPS + thread.y), thread);
      addDotProducts(&scores, select(groupsOf(chunk), 0u, item.rows == 0u), thread);
    }

    var newLargest = largest;
    for (var i = 0u; i < 4u; i++) {
      let row = flatRow(queries, work.sample, work.kvHead, min(work.firstFlat + 4u * thread.y + i, flatRows(queries) - 1u));
      for (var j = 0u; j < 4u; j++) {
        let position = scorePosition(work.sample, row, keys.firstToken + 4u * thread.x + j);
        var current = scoreOf(position, scores[i][j]);
        if (item.pair.masked) { if (!isAllowed(item.pair, position, queries, keys)) { current = -NO_SCORE; } }
        scores[i][j] = current;
        newLargest[i] = max(newLargest[i], current);
      }
    }
    newLargest = largestOfRows(newLargest, thread);
    var shrink = exp(largest - newLargest);
    for (var i = 0u; i < 4u; i++) {
      let weight = select(exp(scores[i] - newLargest[i]), vec4f(), scores[i] == vec4f(-NO_SCORE));
      total[i] = total[i] * shrink[i] + weight.x + weight.y + weight.z + weight.w;
      scores[i] = weight;
    }
    stageLeft(thread.team, scores, thread);
    largest = newLargest;

    for (var tile = 0u; tile < min(TEAMS, work.list.end - first); tile++) {
      let values = keyItem(work, first + tile).tile;
      let valueRows = keyRowStarts(work, values, thread.y);
      for (var c = 0u; c * TEAMS < shape.chunks; c++) {
        let chunk = c * TEAMS + thread.team;
        stageRight(loadValue(valueRows, chunk * GROUPS + thread.x), thread);
        addToSums(&sums, c, shrink, weightedRows(tile, select(0u, values.rows, chunk < shape.chunks), thread));
      }
      shrink = vec4f(1.0);                        // all tiles of this round belong to the same m: the sums shrink once
    }
  }

  total = sumOfRows(total, thread);
  for (var i = 0u; i < 4u; i++) {
    let f = work.firstFlat + 4u * thread.y + i;
    if (f >= flatRows(queries)) { continue; }
    let row = flatRow(queries, work.resultSample, work.kvHead, f);
    let seesKeys = total[i] > 0.0 && isRealToken(queries, row.token);
    if (thread.x + thread.team == 0u) { logSumExp[row.statisticsAt] = select(NO_SCORE, largest[i] + log(max(total[i], 1e-30)), seesKeys); }
    for (var c = 0u; c < SUM_CHUNKS; c++) {
      let group = (c * TEAMS + thread.team) * GROUPS + thread.x;
      if (group < shape.groups) {
        let mean = 1.0 / max(total[i], 1e-30) * sums[4u * c + i];            // `total` is 0 only for rows that see no key
        output[row.at + group] = packOutput(select(vec4f(), mean, seesKeys)); // even where a user's score of padding is no number
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
  masked: bool,                                   // some scores are not allowed: a key is padding, or `causal` or `expression` holds
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

// An item of a list, for one of the tiles that a workgroup takes at once: a pair, the pair's other tile, and how many of its rows count.
// An item beyond the end of the list, and one of a query tile's flat rows where it has none, has no rows.
struct Item { pair: Pair, tile: Tile, firstFlat: u32, rows: u32 }
fn keyItem(work: Work, index: u32) -> Item {
  let pair = pairAt(work.list.start + 2u * min(index, work.list.end - 1u));
  let keys = keyTile(work.sample, pair.tile);
  return itemOf(pair, keys, 0u, select(keys.rows, 0u, index >= work.list.end));
}
fn queryItem(work: Work, index: u32) -> Item {
  let pair = pairAt(work.list.start + 2u * (min(index, work.list.end - 1u) / headsPerKv()));
  let queries = queryTile(work.sample, pair.tile);
  let firstFlat = TILE * (index % headsPerKv());
  let rows = min(max(flatRows(queries), firstFlat) - firstFlat, TILE);
  return itemOf(pair, queries, firstFlat, select(rows, 0u, index >= work.list.end));
}
fn itemOf(pair: Pair, tile: Tile, firstFlat: u32, rows: u32) -> Item {
  var item = Item(pair, tile, firstFlat, rows);
  if (rows == 0u) { item.pair.masked = true; item.tile.valid = 0u; }
  return item;
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
  return (sample * shape.keyTokens + keys.firstRow + row) * keyStride() + kvHead * shape.groups;
}
fn keyStride() -> u32 { return shape.kvHeads * shape.groups; }

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
  if (logSumExp == NO_SCORE) { return 0.0; }      // a row that saw no key, or padding
  let weight = exp(min(scoreOf(at, product) - logSumExp, 0.0));
  if (pair.masked) { if (!isAllowed(pair, at, queries, keys)) { return 0.0; } }
  return weight;
}

// P f', the factor of dP - delta in dS. A score that is not allowed has weight 0, and may have any derivative, even one that is no number.
fn slopeOf(at: ScorePosition, product: f32, weight: f32) -> f32 {
  let slope = scoreDerivative(product, i32(at.q), i32(at.k), i32(at.head), at.queryData, at.keyData);
  return select(0.0, weight * slope, weight > 0.0);
}

// ---- staging: from storage to workgroup memory ---------------------------------------------------------------------------------

// Thread (x, y) of a team, x < 8, y < 8, has the columns 4x .. 4x + 3 of the rows 4y .. 4y + 3 of a product.
struct Thread { team: u32, x: u32, y: u32 }
fn threadOf(index: u32) -> Thread { return Thread(index / 64u, index % 8u, index / 8u % 8u); }

// An operand in workgroup memory. Always thread (x, y) writes [y][i][x], so that neighbours write to different banks:
//   of a dot product           [group][row % 4][row / 4]    the thread loads group y of the rows 4x + i
//   weights                    [row / 4][row % 4][group]    group x of the rows 4y + i
//   rows to be weighted        [row / 4][row % 4][group]    the thread loads group x of the rows 4y + i
// In a product eight neighbouring threads read eight neighbours, or all the same element, and in its loop only one index changes.
alias Operand = array<array<array<vec4f, 8>, 4>, 8>;
var<workgroup> left: array<Operand, TEAMS>;
var<workgroup> right: array<Operand, TEAMS>;

// Each thread loads a group of the rows 4k .. 4k + 3 of a tile. The i-th of these begins at index starts[i] of its tensor.
alias RowStarts = array<u32, 4>;
const NO_ROW: u32 = 0xffffffffu;                  // a row of padding, or beyond the last: zeros take its place
fn queryRowStarts(work: Work, queries: Tile, firstFlat: u32, k: u32) -> RowStarts {
  var starts: RowStarts;
  for (var i = 0u; i < 4u; i++) {
    let row = flatRow(queries, work.sample, work.kvHead, firstFlat + 4u * k + i);
    starts[i] = select(NO_ROW, row.at, isRealToken(queries, row.token));
  }
  return starts;
}
fn keyRowStarts(work: Work, keys: Tile, k: u32) -> RowStarts {
  var starts: RowStarts;
  for (var i = 0u; i < 4u; i++) {
    let row = 4u * k + i;
    starts[i] = select(NO_ROW, keyRowAt(keys, work.sample, work.kvHead, row), isRealToken(keys, keys.firstToken + row));
  }
  return starts;
}

// One function for each operand, because a function of WGSL takes no pointer into storage. A thread loads some other group, and throws it
// away, in place of one that does not exist: without branches it waits once for all its rows.
fn exists(start: u32, group: u32) -> bool { return start != NO_ROW && group < shape.groups; }
fn placeOf(start: u32, group: u32) -> u32 { return select(0u, start + group, exists(start, group)); }
fn orZero(loaded: vec4f, start: u32, group: u32) -> vec4f { return select(vec4f(), loaded, exists(start, group)); }
fn loadQuery(starts: RowStarts, group: u32) -> ThreadRows {
  var rows: ThreadRows;
  for (var i = 0u; i < 4u; i++) { rows[i] = orZero(shape.scale * unpack(query[placeOf(starts[i], group)]), starts[i], group); }
  return rows;
}
fn loadOutputGradient(starts: RowStarts, group: u32) -> ThreadRows {
  var rows: ThreadRows;
  for (var i = 0u; i < 4u; i++) { rows[i] = orZero(dOutput[placeOf(starts[i], group)], starts[i], group); }
  return rows;
}
fn loadKey(starts: RowStarts, group: u32) -> ThreadRows {
  var rows: ThreadRows;
  for (var i = 0u; i < 4u; i++) { rows[i] = orZero(unpack(key[placeOf(starts[i], group)]), starts[i], group); }
  return rows;
}
fn loadValue(starts: RowStarts, group: u32) -> ThreadRows {
  var rows: ThreadRows;
  for (var i = 0u; i < 4u; i++) { rows[i] = orZero(unpack(value[placeOf(starts[i], group)]), starts[i], group); }
  return rows;
}

fn stageLeft(team: u32, rows: ThreadRows, thread: Thread) {
  for (var i = 0u; i < 4u; i++) { left[team][thread.y][i][thread.x] = rows[i]; }
}
fn stageRight(rows: ThreadRows, thread: Thread) {
  for (var i = 0u; i < 4u; i++) { right[thread.team][thread.y][i][thread.x] = rows[i]; }
}

// ---- products of what is staged ------------------------------------------------------------------------------------------------

fn groupsOf(chunk: u32) -> u32 { return min(GROUPS, shape.groups - chunk * GROUPS); }

// products[i] += (the thread's i-th row of its team's left operand) . (rows 4x .. 4x + 3 of the right one), over the first groups.
fn addDotProducts(products: ptr<function, ThreadRows>, groups: u32, thread: Thread) {
  workgroupBarrier();
  for (var group = 0u; group < groups; group++) {
    let right0 = right[thread.team][group][0][thread.x];
    let right1 = right[thread.team][group][1][thread.x];
    let right2 = right[thread.team][group][2][thread.x];
    let right3 = right[thread.team][group][3][thread.x];
    for (var i = 0u; i < 4u; i++) {
      let row = left[thread.team][group][i][thread.y];
      let p = (*products)[i];
      (*products)[i] = vec4f(addDot(p.x, row, right0), addDot(p.y, row, right1), addDot(p.z, row, right2), addDot(p.w, row, right3));
    }
  }
  workgroupBarrier();                             // the next product may overwrite what was staged
}

// Element i: the sum over the columns j < `columns` of (weight of the thread's i-th row in left[side]) * (group x of row j, right).
fn weightedRows(side: u32, columns: u32, thread: Thread) -> ThreadRows {
  workgroupBarrier();
  var rows = ThreadRows();
  for (var j = 0u; 4u * j < columns; j++) {
    let right0 = right[thread.team][j][0][thread.x];
    let right1 = right[thread.team][j][1][thread.x];
    let right2 = right[thread.team][j][2][thread.x];
    let right3 = right[thread.team][j][3][thread.x];
    for (var i = 0u; i < 4u; i++) {
      let weight = left[side][thread.y][i][j];
      let sum = fma(vec4f(weight.y), right1, fma(vec4f(weight.x), right0, rows[i]));
      rows[i] = fma(vec4f(weight.w), right3, fma(vec4f(weight.z), right2, sum));
    }
  }
  workgroupBarrier();                             // the next product may overwrite what was staged
  return rows;
}

// For each row i of one chunk: sum = factors[i] sum + rows[i]. The loop over c makes every index a constant, so that sums are registers.
fn addToSums(sums: ptr<function, Sums>, chunk: u32, factors: vec4f, rows: ThreadRows) {
  for (var c = 0u; c < SUM_CHUNKS; c++) {
    if (c == chunk) { for (var i = 0u; i < 4u; i++) { (*sums)[4u * c + i] = factors[i] * (*sums)[4u * c + i] + rows[i]; } }
  }
}

// ---- reductions along rows, over the threads of all teams that share a row, in place of the left operands ------------------------------

fn shareOfRows(value: vec4f, thread: Thread) {
  left[thread.team][thread.y][0][thread.x] = value;
  workgroupBarrier();
}

// Component i: the largest value of the thread's i-th row.
fn largestOfRows(value: vec4f, thread: Thread) -> vec4f {
  shareOfRows(value, thread);
  var most = value;
  for (var x = 0u; x < shape.rowThreads; x++) {
    for (var team = 0u; team < TEAMS; team++) { most = max(most, left[team][thread.y][0][x]); }
  }
  workgroupBarrier();                             // the teams may overwrite what was shared
  return most;
}

// Component i: the sum over the thread's i-th row.
fn sumOfRows(value: vec4f, thread: Thread) -> vec4f {
  shareOfRows(value, thread);
  var sum = vec4f();
  for (var x = 0u; x < shape.rowThreads; x++) {
    for (var team = 0u; team < TEAMS; team++) { sum += left[team][thread.y][0][x]; }
  }
  return sum;
}

// ---- backward: teams go in twos, one tile for each two. The first makes S and P, the second dP and dS ----------------------------------

fn isSecond(thread: Thread) -> bool { return thread.team % 2u == 1u; }
fn tileOf(thread: Thread) -> u32 { return thread.team / 2u; }

// dS of the thread's rows from dP - delta, in the left operand of the second team, where the first has left P f'.
fn stageScoreGradient(differences: ThreadRows, thread: Thread) {
  var rows = differences;
  for (var i = 0u; i < 4u; i++) {
    let slope = left[thread.team][thread.y][i][thread.x];
    rows[i] = select(slope * rows[i], vec4f(), slope == vec4f());
  }
  stageLeft(thread.team, rows, thread);
}

// dq: a workgroup takes TILE flat rows of a query tile, and walks over keys.
@compute @workgroup_size(THREADS)
fn backwardQuery(grid: Grid, @builtin(local_invocation_index) index: u32) {
  let work = queryWork(grid, shape.dQueryAt);
  if (work.idle) { return; }
  let queries = work.tile;
  let thread = threadOf(index);
  let queryRows = queryRowStarts(work, queries, work.firstFlat, thread.x);
  var sums: Sums;                                 // dq / s

  for (var first = work.list.first; first < work.list.end; first += PAIRS) {
    let item = keyItem(work, first + tileOf(thread));
    let keys = item.tile;
    let keyRows = keyRowStarts(work, keys, thread.x);
    var products = ThreadRows();                  // s q . k, then P f'; or do . v, then dP - delta
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      let group = chunk * GROUPS + thread.y;
      if (isSecond(thread)) {
        stageLeft(thread.team, loadOutputGradient(queryRows, group), thread);
        stageRight(loadValue(keyRows, group), thread);
      } else {
        stageLeft(thread.team, loadQuery(queryRows, group), thread);
        stageRight(loadKey(keyRows, group), thread);
      }
      addDotProducts(&products, select(groupsOf(chunk), 0u, item.rows == 0u), thread);
    }

    for (var i = 0u; i < 4u; i++) {
      let row = flatRow(queries, work.sample, work.kvHead, min(work.firstFlat + 4u * thread.y + i, flatRows(queries) - 1u));
      let saved = statistics[row.statisticsAt];   // (L, delta)
      if (isSecond(thread)) { products[i] -= saved.y; continue; }
      for (var j = 0u; j < 4u; j++) {
        let position = scorePosition(work.sample, row, keys.firstToken + 4u * thread.x + j);
        let weight = weightAgain(item.pair, position, queries, keys, products[i][j], saved.x);
        products[i][j] = slopeOf(position, products[i][j], weight);
      }
    }
    if (!isSecond(thread)) { stageLeft(thread.team + 1u, products, thread); }
    workgroupBarrier();                           // P f' lies where the second team reads it
    if (isSecond(thread)) { stageScoreGradient(products, thread); }

    for (var tile = 0u; tile < min(PAIRS, work.list.end - first); tile++) {
      let weighted = keyItem(work, first + tile).tile;
      let weightedStarts = keyRowStarts(work, weighted, thread.y);
      for (var c = 0u; c * TEAMS < shape.chunks; c++) {
        let chunk = c * TEAMS + thread.team;
        stageRight(loadKey(weightedStarts, chunk * GROUPS + thread.x), thread);
        addToSums(&sums, c, vec4f(1.0), weightedRows(2u * tile + 1u, select(0u, weighted.rows, chunk < shape.chunks), thread));
      }
    }
  }

  for (var i = 0u; i < 4u; i++) {
    let f = work.firstFlat + 4u * thread.y + i;
    if (f >= flatRows(queries)) { continue; }
    let row = flatRow(queries, work.resultSample, work.kvHead, f);
    for (var c = 0u; c < SUM_CHUNKS; c++) {
      let group = (c * TEAMS + thread.team) * GROUPS + thread.x;
      if (group < shape.groups) { dQuery[row.at + group] = shape.scale * sums[4u * c + i]; }
    }
  }
}

// dk and dv: a workgroup takes a key tile, and walks over flat query rows. Rows are keys, columns are queries. The first teams keep dv.
@compute @workgroup_size(THREADS)
fn backwardKeyValue(grid: Grid, @builtin(local_invocation_index) index: u32) {
  let work = keyWork(grid);
  if (work.idle) { return; }
  let keys = work.tile;
  let thread = threadOf(index);
  let keyRows = keyRowStarts(work, keys, thread.x);
  var sums: Sums;                                 // dv, or dk

  for (var first = work.list.first; first < work.list.end; first += PAIRS) {
    var rows = 0u;
    for (var tile = 0u; tile < PAIRS; tile++) { rows += queryItem(work, first + tile).rows; }
    if (rows == 0u) { continue; }                 // where a query tile is not full, its last items have no rows; the same in all threads

    let item = queryItem(work, first + tileOf(thread));
    let pair = item.pair;
    let queries = item.tile;
    let queryRows = queryRowStarts(work, queries, item.firstFlat, thread.x);
    let unwanted = item.rows == 0u || (isSecond(thread) && pair.stopKey);    // what is staged in place of dS is not read then
    var products = ThreadRows();                  // k . s q, then P; or v . do, then dP - delta
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      let group = chunk * GROUPS + thread.y;
      if (isSecond(thread)) {
        stageLeft(thread.team, loadValue(keyRows, group), thread);
        stageRight(loadOutputGradient(queryRows, group), thread);
      } else {
        stageLeft(thread.team, loadKey(keyRows, group), thread);
        stageRight(loadQuery(queryRows, group), thread);
      }
      addDotProducts(&products, select(groupsOf(chunk), 0u, unwanted), thread);
    }

    var slopes = ThreadRows();                    // P f'
    for (var j = 0u; j < 4u; j++) {
      let f = item.firstFlat + 4u * thread.x + j;
      let row = flatRow(queries, work.sample, work.kvHead, min(f, flatRows(queries) - 1u));
      let saved = select(vec2f(NO_SCORE, 0.0), statistics[row.statisticsAt], f < flatRows(queries));
      for (var i = 0u; i < 4u; i++) {
        if (isSecond(thread)) { products[i][j] = pair.keyScale * (products[i][j] - saved.y); continue; }
        let position = scorePosition(work.sample, row, keys.firstToken + 4u * thread.y + i);
        let weight = weightAgain(pair, position, queries, keys, products[i][j], saved.x);
        slopes[i][j] = slopeOf(position, products[i][j], weight);
        products[i][j] = pair.valueScale * weight;
      }
    }
    if (!isSecond(thread)) {
      stageLeft(thread.team, products, thread);
      stageLeft(thread.team + 1u, slopes, thread);
    }
    workgroupBarrier();                           // P and P f' have arrived
    if (isSecond(thread)) { stageScoreGradient(products, thread); }

    for (var tile = 0u; tile < PAIRS; tile++) {
      let weighted = queryItem(work, first + tile);
      let weightedStarts = queryRowStarts(work, weighted.tile, weighted.firstFlat, thread.y);
      let columns = select(weighted.rows, 0u, select(weighted.pair.stopValue, weighted.pair.stopKey, isSecond(thread)));
      for (var c = 0u; c * PAIRS < shape.chunks; c++) {
        let chunk = c * PAIRS + tileOf(thread);
        if (isSecond(thread)) { stageRight(loadQuery(weightedStarts, chunk * GROUPS + thread.x), thread); }
        else { stageRight(loadOutputGradient(weightedStarts, chunk * GROUPS + thread.x), thread); }
        let added = weightedRows(2u * tile + thread.team % 2u, select(0u, columns, chunk < shape.chunks), thread);
        if (columns > 0u) { addToSums(&sums, c, vec4f(1.0), added); }
      }
    }
  }

  for (var i = 0u; i < 4u; i++) {
    if (4u * thread.y + i >= keys.rows) { break; }
    let at = keyRowAt(keys, work.resultSample, work.kvHead, 4u * thread.y + i);
    for (var c = 0u; c < SUM_CHUNKS; c++) {
      let group = (c * PAIRS + tileOf(thread)) * GROUPS + thread.x;
      if (group >= shape.groups) { break; }
      // The staged queries have s already.
      if (isSecond(thread)) { dKey[at + group] = sums[4u * c + i]; } else { dValue[at + group] = sums[4u * c + i]; }
    }
  }
}
