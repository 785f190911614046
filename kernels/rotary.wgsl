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

struct Shape { tokens: u32, heads: u32, half: u32 }                          // half: groups in half a head

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> turns: array<Turn>;
@group(0) @binding(2) var<storage, read> x: array<Word>;
@group(0) @binding(3) var<storage, read_write> y: array<Word>;
@group(0) @binding(4) var<storage, read> dy: array<Value>;
@group(0) @binding(5) var<storage, read_write> dx: array<Value>;

// The grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn position(workgroup: vec3u, workgroups: vec3u, thread: u32) -> u32 {
  return (workgroup.y * workgroups.x + workgroup.x) * THREADS + thread;
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
    let p = pairsOf(unpack(x[at]), unpack(x[at + apart()]));
    let turned = groupsOf(Pairs(p.first * c - p.second * s, p.second * c + p.first * s));
    y[at] = pack(turned.first);
    y[at + apart()] = pack(turned.second);
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
    let p = pairsOf(dy[at], dy[at + apart()]);
    let turned = groupsOf(Pairs(p.first * c + p.second * s, p.second * c - p.first * s));
    dx[at] = turned.first;
    dx[at + apart()] = turned.second;
    at += 2u * shape.half;
  }
}
