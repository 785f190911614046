// Rotary position embedding, split halves.                           Su et al. 2021, arXiv 2104.09864; halves as in Gemma
//
//   y[i]       = x[i] cos a[i] - x[i + h] sin a[i]                                          i < h = headDimension / 2
//   y[i + h]   = x[i + h] cos a[i] + x[i] sin a[i]                 a[i] = position / base^(2i / headDimension)
//
// A rotation of the pair (x[i], x[i + h]) by the angle a[i]; backward is the rotation by -a[i]:
//
//   dx[i]      = dy[i] cos a[i] + dy[i + h] sin a[i]
//   dx[i + h]  = dy[i + h] cos a[i] - dy[i] sin a[i]
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
  var at = i / shape.half * shape.heads * 2u * shape.half + i % shape.half;
  for (var head = 0u; head < shape.heads; head++) {
    let first = unpack(x[at]);
    let second = unpack(x[at + shape.half]);
    y[at] = pack(first * c - second * s);
    y[at + shape.half] = pack(second * c + first * s);
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
  var at = i / shape.half * shape.heads * 2u * shape.half + i % shape.half;
  for (var head = 0u; head < shape.heads; head++) {
    let first = dy[at];
    let second = dy[at + shape.half];
    dx[at] = first * c + second * s;
    dx[at + shape.half] = second * c - first * s;
    at += 2u * shape.half;
  }
}
