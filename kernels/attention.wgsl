// Attention over a table of blocks, tile by tile, forward and backward, with stop-gradient on any edge of the table.
//
// For query row i and the keys j that it may see, s the scale, f the identity or an expression of the user's (`score` below):
//
//   S_ij = f(s q_i . k_j)       L_i = log sum_j exp(S_ij)          P_ij = exp(S_ij - L_i)          o_i = sum_j P_ij v_j
//
// Forward streams over key tiles and keeps for each row the largest score m so far, the sum l of exp(S - m), and the
// unnormalised output, which shrinks by exp(m_old - m_new) when m grows (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao 2023,
// arXiv 2307.08691). Saved: L_i = m_i + log l_i. Backward computes P again from it; with dP_ij = do_i . v_j,
//
//   delta_i = do_i . o_i        dS_ij = P_ij (dP_ij - delta_i) f'(s q_i . k_j)
//   dq_i = s sum_j dS_ij k_j    dk_j = s sum_i dS_ij q_i           dv_j = sum_i P_ij do_i
//
// In the code m is `largest`, l `total`, P `weight`, dP `dWeight` and dS `dScore`.
//
// A stop-gradient on K and V of an edge (knowledge insulation, arXiv 2505.23705, equations 5 and 6) changes nothing but the
// last two sums: its pairs are left out of dk and dv. delta_i stays the full row sum, because it belongs to the softmax. Where an edge
// scales the gradient, its pairs' dS_ij in dk and P_ij in dv are multiplied by its factors.
//
// Queries are multiplied by s before any product: a score is the end of a chain of fma, in one order in every kernel, which no compiler
// fuses with the difference behind it. So backward has the S of forward to the last bit, however large it is.
//
// Who sees whom is the plan (attention-plan.ts): tiles of at most TILE rows, cut at block borders, and three lists of tile pairs:
// `forward` and `dQuery` for each query tile, `dKeyValue` for each key tile. A pair that is in no list costs nothing.
//
// Shapes: query, output, dOutput, dQuery [batch, queryTokens, heads, D]; key, value, dKey, dValue [batch, keyTokens, kvHeads, D];
// D the head dimension; query head h reads kv head h / (heads / kvHeads). The rows of the heads that share a kv head lie together:
// flat row f of a query tile is token row f / headsPerKv of head f % headsPerKv, and a workgroup takes TILE flat rows, so that one
// token of eight heads fills a quarter of a tile, not eight tiles. D is walked in chunks of COLUMNS groups of four elements: any
// D fits in 16 KiB of workgroup memory. A row without keys: o = 0, L = NOTHING, so that P = exp(S - L) = 0 in backward.
//
// Where few rows would leave a GPU idle, `splits` workgroups share a list, slice by slice: forward then makes for each slice the output
// and L of its keys alone, backward a part of each sum; attention-rows.wgsl joins them, and has delta. All sums run in a fixed order.

const TILE: u32 = 32u;                            // rows of a tile: one bit each in a word of validity
const COLUMNS: u32 = 8u;                          // TILE / 4: groups of four columns of a tile pair, and of elements of a chunk
const CHUNKS: u32 = 2u;                                                      // @param  ceil(D / 32)
const ROWS: u32 = 4u;                                                        // @param  rows of a thread: 4, 2 or 1
const APART: u32 = TILE / ROWS;                   // from a row that a thread brings to the next
const THREADS: u32 = COLUMNS * APART;             // thread (x, y), x < COLUMNS: rows ROWS y.. and columns 4x..4x+3 of a tile pair
alias Word = vec4f;                                                          // @param  storage of four elements
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
alias OutputWord = Word;                                                     // @param  vec4f for the output of a slice
fn packOutput(value: vec4f) -> OutputWord { return pack(value); }            // @param
alias Operand = vec4f;                            // @param  in workgroup memory; vec4<f16> where there is shader-f16
fn scaled(query: vec4f) -> vec4f { return shape.scale * query; }             // @param  f16 operands are scaled by addDot
fn addDot(sum: f32, a: Operand, b: Operand) -> f32 { return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum)))); } // @param
fn largestOfRows(value: vec4f, thread: u32) -> vec4f { return workgroupLargest(value, thread); }                  // @param

// Expressions of the user's (attention-expression.ts), of tokens q and k and one word of data for each.
fn allowed(q: i32, k: i32, queryData: u32, keyData: u32) -> bool { return true; }                                 // @param
fn score(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return score; }            // @param
fn scoreDerivative(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return 1.0; }    // @param
fn tokenData(at: u32) -> u32 { return 0u; }                                                                       // @param
fn constant(index: i32) -> f32 { return bitcast<f32>(plan[shape.constantsAt + u32(index)]); }

const STRIDE: u32 = COLUMNS + 1u;            // one more than a row holds, against bank conflicts
const LEFT: u32 = 0u;                             // where the two operands of a tile product begin in `operands`
const RIGHT: u32 = TILE * STRIDE;
const NOTHING: f32 = 1e30;                        // L of a row without keys; -NOTHING: a score that is not allowed

struct Shape {
  batch: u32, queryTokens: u32, keyTokens: u32, heads: u32, kvHeads: u32,
  groups: u32,                                    // D / 4
  chunks: u32,                                    // CHUNKS again: a loop that a constant bounds is unrolled whole, and compiles slowly
  scale: f32,
  splits: u32,                                    // workgroups that share a list
  queryTiles: u32, keyTiles: u32,                 // to a sample
  keyTilesAt: u32, forwardAt: u32, dQueryAt: u32, dKeyValueAt: u32,          // in the plan; query tiles lie first
  dataAt: u32, dataStride: u32,                   // words of data of the tokens, and from one sample's to the next
  scalesAt: u32, constantsAt: u32,
}

// Slices lie before samples: what is written with [batch, ..] has [splits * batch, ..] where lists are shared.
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> plan: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<Word>;
@group(0) @binding(3) var<storage, read> key: array<Word>;
@group(0) @binding(4) var<storage, read> value: array<Word>;
@group(0) @binding(5) var<storage, read_write> output: array<OutputWord>;
@group(0) @binding(6) var<storage, read_write> logSumExp: array<f32>;        // L [batch, heads, queryTokens]
@group(0) @binding(7) var<storage, read> dOutput: array<vec4f>;
@group(0) @binding(8) var<storage, read> statistics: array<vec2f>;             // (L, delta) [batch, heads, queryTokens]
@group(0) @binding(9) var<storage, read_write> dQuery: array<vec4f>;
@group(0) @binding(10) var<storage, read_write> dKey: array<vec4f>;
@group(0) @binding(11) var<storage, read_write> dValue: array<vec4f>;

// ---- the plan --------------------------------------------------------------------------------------------------------

struct Tile {
  firstRow: u32, rows: u32,
  firstToken: u32,                                // of the sequence
  valid: u32,                                     // bit r: row r is a real token
}

struct Pair {
  tile: u32,                                      // the other tile
  masked: bool,                                   // some of its scores are not allowed: because of padding, by `causal` or by `expression`
  causal: bool, window: u32,                      // allowed only where 0 <= token(i) - token(j) < window
  expression: bool,                               // allowed only where `allowed` says so
  stopKey: bool, stopValue: bool, keyScale: f32, valueScale: f32,            // no gradient passes; or how much of it does
}

struct List { start: u32, first: u32, end: u32 }  // the share of a workgroup in a list: pairs first .. end - 1 of those from `start`

// The work of a workgroup: one of `across` parts of a tile of a sample, and a slice of its list; results go to `slicedSample`, which is
// slice * batch + sample. Workgroups are numbered in a row, which lies on two axes where it is too long for one (grid.ts).
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }
struct Place { part: u32, tile: u32, sample: u32, slice: u32, slicedSample: u32 }
fn placeOf(grid: Grid, across: u32, tiles: u32) -> Place {
  let index = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  let sample = index / across / tiles;
  return Place(index % across, index / across % tiles, sample % shape.batch, sample / shape.batch, sample);
}

fn tileAt(at: u32) -> Tile { return Tile(plan[at], plan[at + 1u], plan[at + 2u], plan[at + 3u]); }
fn isReal(in: Tile, token: u32) -> bool { return token - in.firstToken < TILE && ((in.valid >> (token - in.firstToken)) & 1u) != 0u; }
fn queryTile(sample: u32, index: u32) -> Tile { return tileAt(4u * (sample * shape.queryTiles + index)); }
fn keyTile(sample: u32, index: u32) -> Tile { return tileAt(shape.keyTilesAt + 4u * (sample * shape.keyTiles + index)); }
// A slice of a list of `each` items to a pair.
fn listAt(at: u32, each: u32, slice: u32) -> List {
  let items = plan[at + 1u] * each;
  return List(plan[at], items * slice / shape.splits, items * (slice + 1u) / shape.splits);
}

fn pairAt(at: u32) -> Pair {
  let word = plan[at];
  let scalesAt = shape.scalesAt + 2u * ((word >> 16u) & 0x7ffu);
  return Pair(word & 0xffffu, (word & 0x80000000u) != 0u, (word & 0x40000000u) != 0u, plan[at + 1u],
    (word & 0x8000000u) != 0u, (word & 0x20000000u) != 0u, (word & 0x10000000u) != 0u,
    bitcast<f32>(plan[scalesAt]), bitcast<f32>(plan[scalesAt + 1u]));
}

// One score of a query token and a key token, and where they are.
struct Site { q: u32, k: u32, head: u32, queryData: u32, keyData: u32 }

fn siteOf(sample: u32, q: u32, k: u32, head: u32) -> Site {
  let data = shape.dataAt + sample * shape.dataStride;
  return Site(q, k, head, tokenData(data + q), tokenData(data + k));
}

fn scoreAt(at: Site, product: f32) -> f32 { return score(product, i32(at.q), i32(at.k), i32(at.head), at.queryData, at.keyData); }
fn slopeAt(at: Site, product: f32) -> f32 { return scoreDerivative(product, i32(at.q), i32(at.k), i32(at.head), at.queryData, at.keyData); }

// Asked of masked pairs only. In the others a query row that is padding gets scores too, but no output, and L = NOTHING.
fn seen(pair: Pair, at: Site, queries: Tile, keys: Tile) -> bool {
  let real = isReal(queries, at.q) && isReal(keys, at.k);
  let near = !pair.causal || (at.k <= at.q && at.q - at.k < pair.window);
  return real && near && (!pair.expression || allowed(i32(at.q), i32(at.k), at.queryData, at.keyData));
}

// ---- rows ------------------------------------------------------------------------------------------------------------

// Flat row f of the query tile `queries`: token row f / headsPerKv of head kvHead * headsPerKv + f % headsPerKv.
struct FlatRow {
  token: u32,                                     // of the sequence
  head: u32,
  at: u32,                                        // its first group in query, output, dOutput and dQuery
  statisticsAt: u32,                              // in logSumExp and statistics
}

fn headsPerKv() -> u32 { return shape.heads / shape.kvHeads; }
fn flatRow(queries: Tile, sample: u32, kvHead: u32, f: u32) -> FlatRow {
  let row = f / headsPerKv();
  let head = kvHead * headsPerKv() + f - row * headsPerKv();
  let at = ((sample * shape.queryTokens + queries.firstRow + row) * shape.heads + head) * shape.groups;
  return FlatRow(queries.firstToken + row, head, at, (sample * shape.heads + head) * shape.queryTokens + queries.firstRow + row);
}

// The first group of row `row` of a key tile in key, value, dKey and dValue.
fn keyRowAt(keys: Tile, sample: u32, kvHead: u32, row: u32) -> u32 {
  return ((sample * shape.keyTokens + keys.firstRow + row) * shape.kvHeads + kvHead) * shape.groups;
}

// ---- tiles in workgroup memory ---------------------------------------------------------------------------------------

// Two operands, TILE rows by one chunk of the head axis each. When the scores of a pair are made, the left one gives its room to the
// weights of the pair, TILE x TILE in groups of four columns: less memory, more workgroups at a time.
var<workgroup> operands: array<Operand, 2u * TILE * STRIDE>;
var<workgroup> ofThread: array<f32, COLUMNS * (TILE + 1u)>;

// Rows are stored in an order in which neighbouring threads read neighbouring slots: on the left 0, ROWS, 2 ROWS, .. 1, ROWS + 1, ..,
// because a thread owns rows ROWS y.., on the right 0, 4, 8, .. 1, 5, 9, ..
fn leftSlot(row: u32) -> u32 { return LEFT + ((row % ROWS) * APART + row / ROWS) * STRIDE; }
fn rightSlot(row: u32) -> u32 { return RIGHT + ((row % 4u) * COLUMNS + row / 4u) * STRIDE; }
fn weightSlot(y: u32, i: u32) -> u32 { return LEFT + (ROWS * y + i) * STRIDE; }
fn slotOf(side: u32, row: u32) -> u32 { return select(rightSlot(row), leftSlot(row), side == LEFT); }

// Thread (x, y) brings group x of the rows y, y + APART, .. of a chunk of TILE rows: `begins` are these rows' first groups
// in storage. In place of padding, of rows beyond the last and of groups beyond the head's, it brings zeros.
alias Begins = array<u32, ROWS>;
const NO_ROW: u32 = 0xffffffffu;

fn queryBegins(queries: Tile, firstFlat: u32, sample: u32, kvHead: u32, y: u32) -> Begins {
  var begins: Begins;
  for (var i = 0u; i < ROWS; i++) {
    let row = flatRow(queries, sample, kvHead, firstFlat + i * APART + y);
    begins[i] = select(NO_ROW, row.at, isReal(queries, row.token));
  }
  return begins;
}

fn keyBegins(keys: Tile, sample: u32, kvHead: u32, y: u32) -> Begins {
  var begins: Begins;
  for (var i = 0u; i < ROWS; i++) {
    let row = i * APART + y;
    begins[i] = select(NO_ROW, keyRowAt(keys, sample, kvHead, row), isReal(keys, keys.firstToken + row));
  }
  return begins;
}

// Written once for each operand, because a function takes no pointer into storage.
fn there(begin: u32, group: u32) -> bool { return begin != NO_ROW && group < shape.groups; }
fn fetchQuery(begin: u32, group: u32) -> vec4f { if (there(begin, group)) { return scaled(unpack(query[begin + group])); } return vec4f(); }
fn fetchGradient(begin: u32, group: u32) -> vec4f { if (there(begin, group)) { return dOutput[begin + group]; } return vec4f(); }
fn fetchKey(begin: u32, group: u32) -> vec4f { if (there(begin, group)) { return unpack(key[begin + group]); } return vec4f(); }
fn fetchValue(begin: u32, group: u32) -> vec4f { if (there(begin, group)) { return unpack(value[begin + group]); } return vec4f(); }
fn stageQuery(side: u32, begins: Begins, chunk: u32, x: u32, y: u32) {
  for (var i = 0u; i < ROWS; i++) { operands[slotOf(side, i * APART + y) + x] = Operand(fetchQuery(begins[i], chunk * COLUMNS + x)); }
}
fn stageGradient(side: u32, begins: Begins, chunk: u32, x: u32, y: u32) {
  for (var i = 0u; i < ROWS; i++) { operands[slotOf(side, i * APART + y) + x] = Operand(fetchGradient(begins[i], chunk * COLUMNS + x)); }
}
fn stageKey(side: u32, begins: Begins, chunk: u32, x: u32, y: u32) {
  for (var i = 0u; i < ROWS; i++) { operands[slotOf(side, i * APART + y) + x] = Operand(fetchKey(begins[i], chunk * COLUMNS + x)); }
}
fn stageValue(side: u32, begins: Begins, chunk: u32, x: u32, y: u32) {
  for (var i = 0u; i < ROWS; i++) { operands[slotOf(side, i * APART + y) + x] = Operand(fetchValue(begins[i], chunk * COLUMNS + x)); }
}

// product[i] += (row ROWS y + i of the left operand) . (rows 4x .. 4x + 3 of the right operand), over one chunk that has been staged.
fn multiply(product: ptr<function, array<vec4f, ROWS>>, chunk: u32, x: u32, y: u32) {
  workgroupBarrier();
  for (var group = 0u; group < min(COLUMNS, shape.groups - chunk * COLUMNS); group++) {
    let right0 = operands[RIGHT + x * STRIDE + group];
    let right1 = operands[RIGHT + (COLUMNS + x) * STRIDE + group];
    let right2 = operands[RIGHT + (2u * COLUMNS + x) * STRIDE + group];
    let right3 = operands[RIGHT + (3u * COLUMNS + x) * STRIDE + group];
    for (var i = 0u; i < ROWS; i++) {
      let left = operands[LEFT + (i * APART + y) * STRIDE + group];
      let p = (*product)[i];
      (*product)[i] = vec4f(addDot(p.x, left, right0), addDot(p.y, left, right1), addDot(p.z, left, right2), addDot(p.w, left, right3));
    }
  }
  workgroupBarrier();
}

// part[i] = sum over the first `columns` columns j of (weight of row ROWS y + i and column j) (row j of the right operand, in group x).
fn combine(columns: u32, x: u32, y: u32) -> array<vec4f, ROWS> {
  workgroupBarrier();
  var part = array<vec4f, ROWS>();
  for (var j = 0u; 4u * j < columns; j++) {
    let right0 = operands[RIGHT + j * STRIDE + x];
    let right1 = operands[RIGHT + (COLUMNS + j) * STRIDE + x];
    let right2 = operands[RIGHT + (2u * COLUMNS + j) * STRIDE + x];
    let right3 = operands[RIGHT + (3u * COLUMNS + j) * STRIDE + x];
    for (var i = 0u; i < ROWS; i++) {
      let weight = operands[weightSlot(y, i) + j];
      part[i] += vec4f(weight.x * right0 + weight.y * right1 + weight.z * right2 + weight.w * right3);
    }
  }
  return part;
}

// sums[ROWS chunk + i] = factors[i] sums[ROWS chunk + i] + part[i]. An index that is no constant would keep sums out of registers.
fn addToChunk(sums: ptr<function, array<vec4f, ROWS * CHUNKS>>, chunk: u32, factors: vec4f, part: array<vec4f, ROWS>) {
  for (var c = 0u; c < CHUNKS; c++) {
    if (c == chunk) { for (var i = 0u; i < ROWS; i++) { (*sums)[ROWS * c + i] = factors[i] * (*sums)[ROWS * c + i] + part[i]; } }
  }
  workgroupBarrier();                             // behind `combine`: what was staged may be overwritten
}

// Where thread x of the threads of a row leaves what it knows of the i-th of their rows.
fn threadSlot(x: u32, thread: u32, i: u32) -> u32 { return x * (TILE + 1u) + ROWS * (thread / COLUMNS) + i; }

// Component i: the largest that the threads of a row know of row ROWS y + i.
fn workgroupLargest(value: vec4f, thread: u32) -> vec4f {
  for (var i = 0u; i < ROWS; i++) { ofThread[threadSlot(thread % COLUMNS, thread, i)] = value[i]; }
  workgroupBarrier();
  var most = value;
  for (var x = 0u; x < COLUMNS; x++) { for (var i = 0u; i < ROWS; i++) { most[i] = max(most[i], ofThread[threadSlot(x, thread, i)]); } }
  return most;
}

// Component i: the sum of what the threads of a row have for row ROWS y + i.
fn sumOfRows(value: vec4f, thread: u32) -> vec4f {
  for (var i = 0u; i < ROWS; i++) { ofThread[threadSlot(thread % COLUMNS, thread, i)] = value[i]; }
  workgroupBarrier();
  var sum = vec4f();
  for (var x = 0u; x < COLUMNS; x++) { for (var i = 0u; i < ROWS; i++) { sum[i] += ofThread[threadSlot(x, thread, i)]; } }
  return sum;
}
// ---- forward: one workgroup TILE flat rows of a query tile, kv head, sample and slice ------------------------------------

@compute @workgroup_size(THREADS)
fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let place = placeOf(grid, shape.heads, shape.queryTiles);
  if (place.slice >= shape.splits) { return; }
  let sample = place.sample;
  let kvHead = place.part / headsPerKv();
  let firstFlat = TILE * (place.part % headsPerKv());
  let queries = queryTile(sample, place.tile);
  if (firstFlat >= queries.rows * headsPerKv()) { return; }
  let list = listAt(shape.forwardAt + 2u * (sample * shape.queryTiles + place.tile), 1u, place.slice);
  let x = thread % COLUMNS;
  let y = thread / COLUMNS;
  let queryRows = queryBegins(queries, firstFlat, sample, kvHead, y);
  var sums: array<vec4f, ROWS * CHUNKS>;                                     // unnormalised output
  var largest = vec4f(-NOTHING);                                             // m of the thread's rows
  var total = vec4f();                                                       // its columns' part of l

  for (var entry = list.first; entry < list.end; entry++) {
    let pair = pairAt(list.start + 2u * entry);
    let keys = keyTile(sample, pair.tile);
    let keyRows = keyBegins(keys, sample, kvHead, y);
    var scores = array<vec4f, ROWS>();            // zero each time, in writing: some drivers zero a loop's variable only once
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageQuery(LEFT, queryRows, chunk, x, y);
      stageKey(RIGHT, keyRows, chunk, x, y);
      multiply(&scores, chunk, x, y);
    }

    var newLargest = largest;
    for (var i = 0u; i < ROWS; i++) {
      let row = flatRow(queries, sample, kvHead, min(firstFlat + ROWS * y + i, queries.rows * headsPerKv() - 1u));
      for (var j = 0u; j < 4u; j++) {
        let at = siteOf(sample, row.token, keys.firstToken + 4u * x + j, row.head);
        var value = scoreAt(at, scores[i][j]);
        if (pair.masked) { if (!seen(pair, at, queries, keys)) { value = -NOTHING; } }
        scores[i][j] = value;
        newLargest[i] = max(newLargest[i], value);
      }
    }
    newLargest = largestOfRows(newLargest, thread);
    let shrink = exp(largest - newLargest);
    for (var i = 0u; i < ROWS; i++) {
      let weight = select(exp(scores[i] - newLargest[i]), vec4f(), scores[i] == vec4f(-NOTHING));
      operands[weightSlot(y, i) + x] = Operand(weight);
      total[i] = total[i] * shrink[i] + weight.x + weight.y + weight.z + weight.w;
    }
    largest = newLargest;

    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageValue(RIGHT, keyRows, chunk, x, y);
      addToChunk(&sums, chunk, shrink, combine(keys.rows, x, y));
    }
  }

  total = sumOfRows(total, thread);
  for (var i = 0u; i < ROWS; i++) {
    let f = firstFlat + ROWS * y + i;
    if (f >= queries.rows * headsPerKv()) { continue; }
    let row = flatRow(queries, place.slicedSample, kvHead, f);
    let real = total[i] > 0.0 && isReal(queries, row.token);
    if (x == 0u) { logSumExp[row.statisticsAt] = select(NOTHING, largest[i] + log(max(total[i], 1e-30)), real); }
    for (var c = 0u; c < CHUNKS; c++) {
      let group = c * COLUMNS + x;
      if (group < shape.groups) { output[row.at + group] = packOutput(select(0.0, 1.0 / max(total[i], 1e-30), real) * sums[ROWS * c + i]); }
    }
  }
}

// ---- backward: dq, one workgroup TILE flat rows of a query tile, kv head, sample and slice -------------------------------

@compute @workgroup_size(THREADS)
fn backwardQuery(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let place = placeOf(grid, shape.heads, shape.queryTiles);
  if (place.slice >= shape.splits) { return; }
  let sample = place.sample;
  let kvHead = place.part / headsPerKv();
  let firstFlat = TILE * (place.part % headsPerKv());
  let queries = queryTile(sample, place.tile);
  let flatRows = queries.rows * headsPerKv();
  if (firstFlat >= flatRows) { return; }
  let list = listAt(shape.dQueryAt + 2u * (sample * shape.queryTiles + place.tile), 1u, place.slice);
  let x = thread % COLUMNS;
  let y = thread / COLUMNS;
  let queryRows = queryBegins(queries, firstFlat, sample, kvHead, y);
  var sums: array<vec4f, ROWS * CHUNKS>;

  for (var entry = list.first; entry < list.end; entry++) {
    let pair = pairAt(list.start + 2u * entry);
    let keys = keyTile(sample, pair.tile);
    let keyRows = keyBegins(keys, sample, kvHead, y);
    var product = array<vec4f, ROWS>();                                         // s q . k
    var dWeight = array<vec4f, ROWS>();                                         // dP
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageQuery(LEFT, queryRows, chunk, x, y);
      stageKey(RIGHT, keyRows, chunk, x, y);
      multiply(&product, chunk, x, y);
      stageGradient(LEFT, queryRows, chunk, x, y);
      stageValue(RIGHT, keyRows, chunk, x, y);
      multiply(&dWeight, chunk, x, y);
    }
    for (var i = 0u; i < ROWS; i++) {
      let row = flatRow(queries, sample, kvHead, min(firstFlat + ROWS * y + i, flatRows - 1u));
      let lAndDelta = statistics[row.statisticsAt];
      var dScore = vec4f();
      for (var j = 0u; j < 4u; j++) {
        let at = siteOf(sample, row.token, keys.firstToken + 4u * x + j, row.head);
        var weight = exp(min(scoreAt(at, product[i][j]) - lAndDelta.x, 0.0));
        if (pair.masked) { if (!seen(pair, at, queries, keys)) { weight = 0.0; } }
        // A derivative may be anything where the weight is nothing.
        dScore[j] = select(0.0, weight * (dWeight[i][j] - lAndDelta.y) * slopeAt(at, product[i][j]), weight > 0.0);
      }
      operands[weightSlot(y, i) + x] = Operand(dScore);
    }
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageKey(RIGHT, keyRows, chunk, x, y);
      addToChunk(&sums, chunk, vec4f(1.0), combine(keys.rows, x, y));
    }
  }

  for (var i = 0u; i < ROWS; i++) {
    let f = firstFlat + ROWS * y + i;
    if (f >= flatRows) { continue; }
    let row = flatRow(queries, place.slicedSample, kvHead, f);
    for (var c = 0u; c < CHUNKS; c++) {
      let group = c * COLUMNS + x;
      if (group < shape.groups) { dQuery[row.at + group] = shape.scale * sums[ROWS * c + i]; }
    }
  }
}

// ---- backward: dk and dv, one workgroup a key tile, kv head, sample and slice; rows are keys, columns flat query rows ----------

@compute @workgroup_size(THREADS)
fn backwardKeyValue(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let place = placeOf(grid, shape.kvHeads, shape.keyTiles);
  if (place.slice >= shape.splits) { return; }
  let sample = place.sample;
  let kvHead = place.part;
  let keys = keyTile(sample, place.tile);
  let list = listAt(shape.dKeyValueAt + 2u * (sample * shape.keyTiles + place.tile), headsPerKv(), place.slice);
  let x = thread % COLUMNS;
  let y = thread / COLUMNS;
  let keyRows = keyBegins(keys, sample, kvHead, y);
  var keySums: array<vec4f, ROWS * CHUNKS>;
  var valueSums: array<vec4f, ROWS * CHUNKS>;

  for (var item = list.first; item < list.end; item++) {                     // TILE flat rows of a pair's queries
    let pair = pairAt(list.start + 2u * (item / headsPerKv()));
    let queries = queryTile(sample, pair.tile);
    let flatRows = queries.rows * headsPerKv();
    let firstFlat = TILE * (item % headsPerKv());
    if (firstFlat >= flatRows) { continue; }
    let queryRows = queryBegins(queries, firstFlat, sample, kvHead, y);
    var product = array<vec4f, ROWS>();                                         // k . s q
    var dWeight = array<vec4f, ROWS>();                                         // v . do
    for (var chunk = 0u; chunk < shape.chunks; chunk++) {
      stageKey(LEFT, keyRows, chunk, x, y);
      stageQuery(RIGHT, queryRows, chunk, x, y);
      multiply(&product, chunk, x, y);
      if (!pair.stopKey) {
        stageValue(LEFT, keyRows, chunk, x, y);
        stageGradient(RIGHT, queryRows, chunk, x, y);
        multiply(&dWeight, chunk, x, y);
      }
    }
    for (var j = 0u; j < 4u; j++) {
      let f = firstFlat + 4u * x + j;
      let row = flatRow(queries, sample, kvHead, min(f, flatRows - 1u));
      let lAndDelta = select(vec2f(NOTHING, 0.0), statistics[row.statisticsAt], f < flatRows);
      for (var i = 0u; i < ROWS; i++) {
        let at = siteOf(sample, row.token, keys.firstToken + ROWS * y + i, row.head);
        var weight = exp(min(scoreAt(at, product[i][j]) - lAndDelta.x, 0.0));
        if (pair.masked) { if (!seen(pair, at, queries, keys)) { weight = 0.0; } }
        dWeight[i][j] = select(0.0, weight * (dWeight[i][j] - lAndDelta.y) * slopeAt(at, product[i][j]), weight > 0.0);
        product[i][j] = weight;
      }
    }
    let columns = min(flatRows - firstFlat, TILE);
    if (!pair.stopValue) {
      for (var i = 0u; i < ROWS; i++) { operands[weightSlot(y, i) + x] = Operand(pair.valueScale * product[i]); }   // P, transposed
      for (var chunk = 0u; chunk < shape.chunks; chunk++) {
        stageGradient(RIGHT, queryRows, chunk, x, y);
        addToChunk(&valueSums, chunk, vec4f(1.0), combine(columns, x, y));
      }
    }
    if (!pair.stopKey) {
      for (var i = 0u; i < ROWS; i++) { operands[weightSlot(y, i) + x] = Operand(pair.keyScale * dWeight[i]); }     // dS, transposed
      for (var chunk = 0u; chunk < shape.chunks; chunk++) {
        stageQuery(RIGHT, queryRows, chunk, x, y);
        addToChunk(&keySums, chunk, vec4f(1.0), combine(columns, x, y));
      }
    }
  }

  for (var i = 0u; i < ROWS; i++) {
    if (ROWS * y + i >= keys.rows) { break; }
    let at = keyRowAt(keys, place.slicedSample, kvHead, ROWS * y + i);
    for (var c = 0u; c < CHUNKS; c++) {
      let group = c * COLUMNS + x;
      if (group >= shape.groups) { break; }
      dKey[at + group] = keySums[ROWS * c + i];                              // of scaled queries
      dValue[at + group] = valueSums[ROWS * c + i];
    }
  }
}
