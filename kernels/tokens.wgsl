// Pieces of the token axis: sequences laid one after another, and a run of tokens cut out of one.
//
//   concatenate   y[b, t + start] = piece[b, t]        for each piece in turn, its start where the last one ended
//   slice         y[b, t]         = x[b, t + start]    and backward  dx[b, t + start] = dy[b, t], zero elsewhere
//
// The backward of concatenate is slice. Bits are moved as they are. Arrays are [samples, groups of a sample] (Word: four words of 32
// bits, or one where a token is no multiple of four); `outer` is the long array, `inner` the piece of it that begins `start` groups in.

const THREADS: u32 = 64u;                                                    // @param
alias Word = vec4u;                                                          // @param  four words, or one

struct Shape { samples: u32, outerGroups: u32, innerGroups: u32, start: u32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> inner: array<Word>;
@group(0) @binding(2) var<storage, read> outer: array<Word>;
@group(0) @binding(3) var<storage, read_write> innerOut: array<Word>;
@group(0) @binding(4) var<storage, read_write> outerOut: array<Word>;

// The grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn position(workgroup: vec3u, workgroups: vec3u, thread: u32) -> u32 {
  return (workgroup.y * workgroups.x + workgroup.x) * THREADS + thread;
}

// Where element i of the piece lies in the long array.
fn place(i: u32) -> u32 { return i / shape.innerGroups * shape.outerGroups + shape.start + i % shape.innerGroups; }

@compute @workgroup_size(THREADS)
fn put(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i < shape.samples * shape.innerGroups) { outerOut[place(i)] = inner[i]; }
}

@compute @workgroup_size(THREADS)
fn take(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i < shape.samples * shape.innerGroups) { innerOut[i] = outer[place(i)]; }
}

// ---- backward of slice: every element of the long array --------------------------------------------------------------

@compute @workgroup_size(THREADS)
fn putAmongZeros(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.samples * shape.outerGroups) { return; }
  let at = i % shape.outerGroups;
  if (at >= shape.start && at - shape.start < shape.innerGroups) {
    outerOut[i] = inner[i / shape.outerGroups * shape.innerGroups + at - shape.start];
  } else {
    outerOut[i] = Word();
  }
}
