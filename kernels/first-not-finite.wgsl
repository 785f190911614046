// The first of several tensors in which a number is not finite, and how many of its numbers are not.
//
//   x is not finite where all bits of its exponent are ones: 8 bits of f32 and of bfloat16, 5 of f16
//
// The tensors are looked at one dispatch after the other, in their order; `found` keeps the lowest index. Only bits are compared,
// because a compiler may assume that floats are finite.
//
// Shapes: numbers [words], of one f32 or two halves; found [2], which begins as (0xffffffff, 0).

const THREADS: u32 = 64u;                                                    // @param

struct Shape {
  elements: u32, words: u32,
  index: u32,                                                                // of the tensor
  firstExponent: u32, secondExponent: u32,                                   // bits of a word, by halves; of f32 in the first
}
struct Found { index: atomic<u32>, elements: atomic<u32> }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> numbers: array<u32>;
@group(0) @binding(2) var<storage, read_write> found: Found;

@compute @workgroup_size(THREADS) fn search(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;
  if (i >= shape.words) { return; }
  let word = numbers[i];
  // An odd last half has none behind it.
  let hasSecond = shape.secondExponent != 0u && 2u * i + 1u < shape.elements;
  let isFirst = (word & shape.firstExponent) == shape.firstExponent;
  let isSecond = hasSecond && (word & shape.secondExponent) == shape.secondExponent;
  let count = u32(isFirst) + u32(isSecond);
  if (count == 0u) { return; }
  // An earlier tensor keeps its place, and only its numbers are counted.
  let before = atomicMin(&found.index, shape.index);
  if (before >= shape.index) { atomicAdd(&found.elements, count); }
}
