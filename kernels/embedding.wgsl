// Rows of a table by number: the token embedding.
//
//   y[t,:] = scale table[ids[t],:]                     a zero row where ids[t] >= vocabulary
//
// and backward:
//
//   dTable[v,:] = scale sum of dy[t,:] over t with ids[t] = v, in the order of t
//
// The tokens of one id form a chain: next[t] is the next token with the id of t, or `tokens` at the chain's end. The first token
// of a chain owns the row dTable[ids[t]], walks the chain and writes the row, so nothing is added by two threads; rows that no
// id names are cleared beforehand. Cost: at most tokens^2 reads of an id to link, one read of dy, one clear of dTable. A row
// that every token names is one long walk.
//
// A table in pieces is walked piece by piece: a piece has the rows from firstRow on, `vocabulary` of them. The first piece writes y
// whole, with zeros for rows that it lacks, and each other piece the rows that it has.
//
// Shapes: ids [tokens]; table, dTable [vocabulary, width]; y, dy [tokens, width]. Rows are stored in groups of four (Word, Result),
// `groups` to a row. Gradients are f32, whatever the storage.

const THREADS: u32 = 64u;                                                    // @param  a power of two
alias Word = vec4f;                                                          // @param  storage of four elements
// @or f16, bf16  alias Word = vec2u;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
alias Result = vec4f;                                                        // @param  the same, of y
// @or f16, bf16  alias Result = vec2u;
fn pack(value: vec4f) -> Result { return value; }                            // @param
// @or f16   fn pack(value: vec4f) -> Result { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0));
// @or f16     let nan = select(vec4u(), vec4u(0x7e00u), (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or f16     return vec2u(pack2x16float(safe.xy), pack2x16float(safe.zw)) | nan.xz | (nan.yw << vec2u(16u)); }
// @or bf16  fn pack(value: vec4f) -> Result { let bits = bitcast<vec4u>(value); let half = ((bits >> vec4u(16u)) & vec4u(1u)) + 0x7fffu;
// @or bf16    let kept = select((bits + half) >> vec4u(16u), vec4u(0x7fc0u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or bf16    return kept.xz | (kept.yw << vec2u(16u)); }

struct Shape { tokens: u32, vocabulary: u32, groups: u32, firstRow: u32, scale: f32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<Word>;
@group(0) @binding(3) var<storage, read_write> y: array<Result>;
@group(0) @binding(4) var<storage, read_write> next: array<u32>;
@group(0) @binding(5) var<storage, read_write> leads: array<u32>;            // 1: the first token of its chain
@group(0) @binding(6) var<storage, read> dy: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> dTable: array<vec4f>;

fn position(grid: Grid, thread: u32) -> u32 { return (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread; }

// ---- forward: one workgroup a token ------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let token = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  if (token >= shape.tokens) { return; }
  let row = ids[token] - shape.firstRow;                                     // wraps around before the piece
  if (row >= shape.vocabulary && shape.firstRow > 0u) { return; }
  for (var group = thread; group < shape.groups; group += THREADS) {
    var value = vec4f();
    if (row < shape.vocabulary) { value = unpack(table[row * shape.groups + group]); }
    y[token * shape.groups + group] = pack(shape.scale * value);
  }
}

// ---- backward: link the tokens of one id, one thread a token -----------------------------------------------------------

@compute @workgroup_size(THREADS) fn link(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let token = position(grid, thread);
  if (token >= shape.tokens) { return; }
  let id = ids[token];
  var later = token + 1u;
  while (later < shape.tokens && ids[later] != id) { later++; }
  next[token] = later;
  var earlier = 0u;
  while (earlier < token && ids[earlier] != id) { earlier++; }
  leads[token] = select(0u, 1u, earlier == token);
}

// ---- backward: dTable, one thread a group of each chain ----------------------------------------------------------------

@compute @workgroup_size(THREADS) fn backward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let index = position(grid, thread);
  let first = index / shape.groups;
  if (first >= shape.tokens || leads[first] == 0u) { return; }
  let row = ids[first] - shape.firstRow;
  if (row >= shape.vocabulary) { return; }
  let group = index % shape.groups;
  var sum = vec4f();
  for (var token = first; token < shape.tokens; token = next[token]) { sum += dy[token * shape.groups + group]; }
  dTable[row * shape.groups + group] += shape.scale * sum;
}
