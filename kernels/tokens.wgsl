// Pieces of the token axis: sequences laid one after another, and a run of tokens cut out of one.
//
//   concatenate   y[b, t + start] = piece[b, t]        for each piece in turn, its start where the last one ended
//   slice         y[b, t]         = x[b, t + start]    and backward  dx[b, t + start] = dy[b, t], zero elsewhere
//
// The backward of concatenate is slice. Bits are moved as they are. Arrays are [samples, groups of a sample] (Word: four words of 32
// bits, or one where a token is no multiple of four); `outer` is the long array, `inner` the piece of it that begins `start` groups in.
// The second axis of the grid counts samples.

const THREADS: u32 = 64u;                                                    // @param
alias Word = vec4u;                                                          // @param  four words
// @or single  alias Word = u32;

struct Shape { groups: u32, run: u32, near: u32, far: u32, outerGroups: u32, innerGroups: u32, start: u32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> inner: array<Word>;
@group(0) @binding(2) var<storage, read> outer: array<Word>;
@group(0) @binding(3) var<storage, read_write> innerOut: array<Word>;
@group(0) @binding(4) var<storage, read_write> outerOut: array<Word>;

// The groups of a thread within its sample, `shape.near` apart; see streaming.ts.
struct Walk { first: u32, end: u32 }
fn walk(workgroup: vec3u, thread: u32) -> Walk {
  let first = workgroup.x * THREADS * shape.run + thread * shape.far;
  return Walk(first, min(first + shape.run * shape.near, shape.groups));
}

@compute @workgroup_size(THREADS) fn put(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let own = walk(workgroup, thread);
  let source = workgroup.y * shape.innerGroups;
  let goal = workgroup.y * shape.outerGroups + shape.start;
  for (var i = own.first; i < own.end; i += shape.near) { outerOut[goal + i] = inner[source + i]; }
}

@compute @workgroup_size(THREADS) fn take(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let own = walk(workgroup, thread);
  let source = workgroup.y * shape.outerGroups + shape.start;
  let goal = workgroup.y * shape.innerGroups;
  for (var i = own.first; i < own.end; i += shape.near) { innerOut[goal + i] = outer[source + i]; }
}

// ---- backward of slice: every element of the long array --------------------------------------------------------------

@compute @workgroup_size(THREADS) fn putAmongZeros(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let own = walk(workgroup, thread);
  let source = workgroup.y * shape.innerGroups;
  let goal = workgroup.y * shape.outerGroups;
  for (var i = own.first; i < own.end; i += shape.near) {
    let at = i - shape.start;                                                // wraps around before the piece
    var word = Word();
    if (at < shape.innerGroups) { word = inner[source + at]; }
    outerOut[goal + i] = word;
  }
}
