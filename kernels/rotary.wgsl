// Rotary position embedding.                                                              Su et al. 2021, arXiv 2104.09864
//
//   y[f]  = x[f] cos a[i] - x[s] sin a[i]                                                   i < h = headDimension / 2
//   y[s]  = x[s] cos a[i] + x[f] sin a[i]                          a[i] = position / base^(2i / headDimension)
//
// Pair i of elements (x[f], x[s]) is rotated by the angle a[i]. The layout says which elements are pair i:
//
//   halves  f = i,  s = i + h         Gemma, and Llama's weights as Hugging Face permutes them
//   pairs   f = 2i, s = 2i + 1        Llama's own weights
//
// Backward is the rotation by -a[i]:
//
//   dx[f] = dy[f] cos a[i] + dy[s] sin a[i]
//   dx[s] = dy[s] cos a[i] - dy[f] sin a[i]
//
// A joint projection [tokens, queries + 2 keys, headDimension] holds the heads of queries, keys and values: `split` turns the first two
// on their way into tensors of their own, and `join` turns their gradients back.
//
// Shapes: x, y, dy, dx [tokens, heads, headDimension]; turns [tokens, h], each a (cos a, sin a) made on the host in float64, because
// WGSL only promises sin and cos to 2^-11. Half a head is read in groups of four (Value; of one where h is no multiple of four).

const THREADS: u32 = 64u;                                                    // @param
alias Value = vec4f;                                                         // @param  a group of elements
alias Word = vec4f;                                                          // @param  its storage
fn unpack(word: Word) -> vec4f { return word; }                              // @param
fn pack(value: vec4f) -> Word { return value; }                              // @param
alias Turn = mat4x2f;                                                        // @param  (cos, sin) of each element of a group
fn cosine(turn: Turn) -> Value { return transpose(turn)[0]; }                // @param
fn sine(turn: Turn) -> Value { return transpose(turn)[1]; }                  // @param

struct Pairs { first: Value, second: Value }                                 // x[f] and x[s] of a group of pairs

// The layout: a group of pairs lies in two groups of a head, `place` and `place + apart`. Here halves.
fn place(group: u32) -> u32 { return group; }                                // @param  or 2u * group
fn apart() -> u32 { return shape.half; }                                     // @param  or 1u
fn pairsOf(a: Value, b: Value) -> Pairs { return Pairs(a, b); }              // @param  or the even elements of both, and the odd ones
fn groupsOf(pairs: Pairs) -> Pairs { return pairs; }                         // @param  or the inverse of that

struct Shape { tokens: u32, heads: u32, half: u32, queries: u32, keys: u32 } // heads of each; half: groups in half a head

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> turns: array<Turn>;
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

// The grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn position(workgroup: vec3u, workgroups: vec3u, thread: u32) -> u32 {
  return (workgroup.y * workgroups.x + workgroup.x) * THREADS + thread;
}

// The two groups of a group of pairs, turned by the angles of these cosines and sines.
fn turned(a: Value, b: Value, c: Value, s: Value) -> Pairs {
  let p = pairsOf(a, b);
  return groupsOf(Pairs(p.first * c - p.second * s, p.second * c + p.first * s));
}

// A thread turns one group of pairs in every head of its token: they share the angles.

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.tokens * shape.half) { return; }
  let turn = turns[i];
  let c = cosine(turn);
  let s = sine(turn);
  var at = i / shape.half * shape.heads * 2u * shape.half + place(i % shape.half);
  for (var head = 0u; head < shape.heads; head++) {
    let pair = turned(unpack(x[at]), unpack(x[at + apart()]), c, s);
    y[at] = pack(pair.first);
    y[at + apart()] = pack(pair.second);
    at += 2u * shape.half;
  }
}

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.tokens * shape.half) { return; }
  let turn = turns[i];
  let c = cosine(turn);
  let s = sine(turn);
  var at = i / shape.half * shape.heads * 2u * shape.half + place(i % shape.half);
  for (var head = 0u; head < shape.heads; head++) {
    let pair = turned(dy[at], dy[at + apart()], c, -s);
    dx[at] = pair.first;
    dx[at + apart()] = pair.second;
    at += 2u * shape.half;
  }
}

@compute @workgroup_size(THREADS)
fn split(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.tokens * shape.half) { return; }
  let token = i / shape.half;
  let group = place(i % shape.half);
  let size = 2u * shape.half;
  let c = cosine(turns[i]);
  let s = sine(turns[i]);
  var at = token * shape.heads * size + group;
  for (var to = token * shape.queries * size + group; to < (token + 1u) * shape.queries * size; to += size) {
    let pair = turned(unpack(x[at]), unpack(x[at + apart()]), c, s);
    query[to] = pack(pair.first);
    query[to + apart()] = pack(pair.second);
    at += size;
  }
  for (var to = token * shape.keys * size + group; to < (token + 1u) * shape.keys * size; to += size) {
    let pair = turned(unpack(x[at]), unpack(x[at + apart()]), c, s);
    key[to] = pack(pair.first);
    key[to + apart()] = pack(pair.second);
    at += size;
  }
  for (var to = token * shape.keys * size + group; to < (token + 1u) * shape.keys * size; to += size) {
    value[to] = x[at];
    value[to + apart()] = x[at + apart()];
    at += size;
  }
}

@compute @workgroup_size(THREADS)
fn join(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.tokens * shape.half) { return; }
  let token = i / shape.half;
  let group = place(i % shape.half);
  let size = 2u * shape.half;
  let c = cosine(turns[i]);
  let s = -sine(turns[i]);
  var at = token * shape.heads * size + group;
  for (var to = token * shape.queries * size + group; to < (token + 1u) * shape.queries * size; to += size) {
    let pair = turned(dQuery[to], dQuery[to + apart()], c, s);
    dx[at] = pair.first;
    dx[at + apart()] = pair.second;
    at += size;
  }
  for (var to = token * shape.keys * size + group; to < (token + 1u) * shape.keys * size; to += size) {
    let pair = turned(dKey[to], dKey[to + apart()], c, s);
    dx[at] = pair.first;
    dx[at + apart()] = pair.second;
    at += size;
  }
  for (var to = token * shape.keys * size + group; to < (token + 1u) * shape.keys * size; to += size) {
    dx[at] = dValue[to];
    dx[at + apart()] = dValue[to + apart()];
    at += size;
  }
}
