// Rotary position embedding.                                                              Su et al. 2021, arXiv 2104.09864
//
//   y[f]  = x[f] cos a[i] - x[s] sin a[i]                                                   i < h = headDimension / 2
//   y[s]  = x[s] cos a[i] + x[f] sin a[i]                          a[i] = position / base^(2i / headDimension)
//
// The elements x[f] and x[s] of pair i are rotated by the angle a[i]. The layout says which elements are pair i:
//
//   halves  f = i,  s = i + h         Gemma, and Llama's weights as Hugging Face permutes them
//   pairs   f = 2i, s = 2i + 1        Llama's own weights
//
// Backward is the rotation by -a[i]:
//
//   dx[f] = dy[f] cos a[i] + dy[s] sin a[i]
//   dx[s] = dy[s] cos a[i] - dy[f] sin a[i]
//
// A joint projection [tokens, queries + 2 keys, headDimension] holds the heads of queries, keys and values. `split` copies it into a
// tensor each, and rotates queries and keys on the way; `join` takes their gradients back.
//
// Shapes: x, y, dy, dx [tokens, heads, headDimension]; cosSin [tokens, h], pairs (cos a, sin a) that the host makes in float64, because
// WGSL promises sin and cos only to 2^-11. A group is four elements (Value), or one element where h is no multiple of four.

const THREADS: u32 = 64u;                                                    // @param
alias Value = vec4f;                                                         // @param  a group of elements
// @or single  alias Value = f32;
alias Word = vec4f;                                                          // @param  a group as it is stored
// @or f16, bf16  alias Word = vec2u;
// @or single     alias Word = f32;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
// @or single  fn unpack(word: Word) -> Value { return word; }
fn pack(value: vec4f) -> Word { return value; }                              // @param
// @or f16   fn pack(value: vec4f) -> Word { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0));
// @or f16     let nan = select(vec4u(), vec4u(0x7e00u), (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or f16     return vec2u(pack2x16float(safe.xy), pack2x16float(safe.zw)) | nan.xz | (nan.yw << vec2u(16u)); }
// @or bf16  fn pack(value: vec4f) -> Word { let bits = bitcast<vec4u>(value); let half = ((bits >> vec4u(16u)) & vec4u(1u)) + 0x7fffu;
// @or bf16    let kept = select((bits + half) >> vec4u(16u), vec4u(0x7fc0u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or bf16    return kept.xz | (kept.yw << vec2u(16u)); }
// @or single  fn pack(value: Value) -> Word { return value; }
alias CosSin = mat4x2f;                                                      // @param  (cos, sin) of each element of a group
// @or single  alias CosSin = vec2f;
fn cosine(angles: CosSin) -> Value { return transpose(angles)[0]; }          // @param
// @or single  fn cosine(angles: CosSin) -> Value { return angles.x; }
fn sine(angles: CosSin) -> Value { return transpose(angles)[1]; }            // @param
// @or single  fn sine(angles: CosSin) -> Value { return angles.y; }

struct Pairs { first: Value, second: Value }                                 // x[f] and x[s] of a group of pairs

// The layout, here halves: a group of pairs lies in the groups `place` and `place + apart` of a head.
fn place(group: u32) -> u32 { return group; }                                // @param
// @or pairs  fn place(group: u32) -> u32 { return 2u * group; }
fn apart() -> u32 { return shape.half; }                                     // @param
// @or pairs  fn apart() -> u32 { return 1u; }
fn pairsOf(a: Value, b: Value) -> Pairs { return Pairs(a, b); }              // @param
// @or pairs  fn pairsOf(a: Value, b: Value) -> Pairs { return Pairs(vec4f(a.xz, b.xz), vec4f(a.yw, b.yw)); }
fn groupsOf(pairs: Pairs) -> Pairs { return pairs; }                         // @param  the inverse of pairsOf
// @or pairs  fn groupsOf(pairs: Pairs) -> Pairs {
// @or pairs    let a = pairs.first; let b = pairs.second; return Pairs(vec4f(a.x, b.x, a.y, b.y), vec4f(a.z, b.z, a.w, b.w)); }

struct Shape { tokens: u32, heads: u32, half: u32, queries: u32, keys: u32 } // queries, keys: heads of each; half: groups in half a head
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> cosSin: array<CosSin>;
@group(0) @binding(2) var<storage, read> x: array<Word>;
@group(0) @binding(3) var<storage, read_write> y: array<Word>;
@group(0) @binding(4) var<storage, read> dy: array<Value>;
@group(0) @binding(5) var<storage, read_write> dx: array<Value>;
@group(0) @binding(6) var<storage, read_write> query: array<Word>;
@group(0) @binding(7) var<storage, read_write> key: array<Word>;
@group(0) @binding(8) var<storage, read_write> value: array<Word>;
@group(0) @binding(9) var<storage, read> dQuery: array<Value>;
@group(0) @binding(10) var<storage, read> dKey: array<Value>;
@group(0) @binding(11) var<storage, read> dValue: array<Value>;

fn position(grid: Grid, thread: u32) -> u32 { return (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread; }

// Rotates the group of pairs that lies in the groups a and b of a head, by the angles with cosines c and sines s.
fn rotated(a: Value, b: Value, c: Value, s: Value) -> Pairs {
  let p = pairsOf(a, b);
  return groupsOf(Pairs(p.first * c - p.second * s, p.second * c + p.first * s));
}

// A thread rotates one group of pairs in every head of its token, because the heads share the angles.

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i >= shape.tokens * shape.half) { return; }
  let c = cosine(cosSin[i]);
  let s = sine(cosSin[i]);
  var at = i / shape.half * shape.heads * 2u * shape.half + place(i % shape.half);
  for (var head = 0u; head < shape.heads; head++) {
    let pairs = rotated(unpack(x[at]), unpack(x[at + apart()]), c, s);
    y[at] = pack(pairs.first);
    y[at + apart()] = pack(pairs.second);
    at += 2u * shape.half;
  }
}

@compute @workgroup_size(THREADS) fn split(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i >= shape.tokens * shape.half) { return; }
  let token = i / shape.half;
  let group = place(i % shape.half);
  let size = 2u * shape.half;
  let c = cosine(cosSin[i]);
  let s = sine(cosSin[i]);
  var at = token * shape.heads * size + group;
  for (var to = token * shape.queries * size + group; to < (token + 1u) * shape.queries * size; to += size) {
    let pairs = rotated(unpack(x[at]), unpack(x[at + apart()]), c, s);
    query[to] = pack(pairs.first);
    query[to + apart()] = pack(pairs.second);
    at += size;
  }
  for (var to = token * shape.keys * size + group; to < (token + 1u) * shape.keys * size; to += size) {
    let pairs = rotated(unpack(x[at]), unpack(x[at + apart()]), c, s);
    key[to] = pack(pairs.first);
    key[to + apart()] = pack(pairs.second);
    at += size;
  }
  for (var to = token * shape.keys * size + group; to < (token + 1u) * shape.keys * size; to += size) {
    value[to] = x[at];
    value[to + apart()] = x[at + apart()];
    at += size;
  }
}

@compute @workgroup_size(THREADS) fn backward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i >= shape.tokens * shape.half) { return; }
  let c = cosine(cosSin[i]);
  let s = sine(cosSin[i]);
  var at = i / shape.half * shape.heads * 2u * shape.half + place(i % shape.half);
  for (var head = 0u; head < shape.heads; head++) {
    let pairs = rotated(dy[at], dy[at + apart()], c, -s);
    dx[at] = pairs.first;
    dx[at + apart()] = pairs.second;
    at += 2u * shape.half;
  }
}

@compute @workgroup_size(THREADS) fn join(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i >= shape.tokens * shape.half) { return; }
  let token = i / shape.half;
  let group = place(i % shape.half);
  let size = 2u * shape.half;
  let c = cosine(cosSin[i]);
  let s = -sine(cosSin[i]);
  var at = token * shape.heads * size + group;
  for (var to = token * shape.queries * size + group; to < (token + 1u) * shape.queries * size; to += size) {
    let pairs = rotated(dQuery[to], dQuery[to + apart()], c, s);
    dx[at] = pairs.first;
    dx[at + apart()] = pairs.second;
    at += size;
  }
  for (var to = token * shape.keys * size + group; to < (token + 1u) * shape.keys * size; to += size) {
    let pairs = rotated(dKey[to], dKey[to + apart()], c, s);
    dx[at] = pairs.first;
    dx[at + apart()] = pairs.second;
    at += size;
  }
  for (var to = token * shape.keys * size + group; to < (token + 1u) * shape.keys * size; to += size) {
    dx[at] = dValue[to];
    dx[at + apart()] = dValue[to + apart()];
    at += size;
  }
}
