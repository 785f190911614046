// The same numbers in another storage: y = x, rounded to nearest, ties to even; backward passes the f32 gradient on as it is.
//
// f16 and bf16 lie packed, two to a word, the first in the low half. A bfloat16 is the upper half of an f32. An f16 keeps 10 bits of
// the fraction and an exponent that starts 112 later; below 2^-14 it counts units of 2^-24. WGSL leaves the rounding of
// pack2x16float open, so both are rounded here in integers; f16 ends at 65504, to which larger numbers are clamped.
//
// x, y [groups] in groups of four.

const THREADS: u32 = 64u;                                                    // @param
// @as rms-norm.wgsl  Source = Word, unpack
alias Source = vec4f;                                                        // @param  storage of four elements of x
alias Target = vec4f;                                                        // @param  and of y
// @or f16, bf16  alias Target = vec2u;
fn unpack(word: Source) -> vec4f { return word; }                            // @param
fn pack(value: vec4f) -> Target { return value; }                            // @param
// @or f16   fn pack(value: vec4f) -> Target { return pairs(nearestFloat16(value)); }
// @or bf16  fn pack(value: vec4f) -> Target { return pairs(nearestBfloat16(value)); }

struct Shape { groups: u32, run: u32, near: u32, far: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Source>;
@group(0) @binding(2) var<storage, read_write> y: array<Target>;

// Four 16-bit patterns in two words.
fn pairs(patterns: vec4u) -> vec2u { return vec2u(patterns.x | (patterns.y << 16u), patterns.z | (patterns.w << 16u)); }

// NaN stays NaN, so that a run that diverges is noticed. The bits tell it: WGSL may assume that no number is one.
fn isNotANumber(value: vec4f) -> vec4<bool> { return (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u); }

// Adding half of the last kept place, or a hair less when that place is even, carries into it exactly when rounding goes up.
fn nearestBfloat16(value: vec4f) -> vec4u {
  let bits = bitcast<vec4u>(value);
  let nearest = (bits + 0x7fffu + ((bits >> vec4u(16u)) & vec4u(1u))) >> vec4u(16u);
  return select(nearest, vec4u(0x7fc0u), isNotANumber(value));
}

fn nearestFloat16(value: vec4f) -> vec4u {
  let magnitude = min(abs(value), vec4f(65504.0));
  let bits = bitcast<vec4u>(magnitude);
  let normal = (bits - 0x38000000u + 0xfffu + ((bits >> vec4u(13u)) & vec4u(1u))) >> vec4u(13u);
  let small = vec4u(round(magnitude * 16777216.0));                          // units of 2^-24; round takes ties to even
  let negative = (bitcast<vec4u>(value) >> vec4u(16u)) & vec4u(0x8000u);
  let nearest = negative | select(normal, small, bits < vec4u(0x38800000u));
  return select(nearest, vec4u(0x7e00u), isNotANumber(value));
}

// The groups of a thread, `shape.near` apart; see streaming.ts. The grid is two-dimensional because one axis holds at most 65,535.
struct Walk { first: u32, end: u32 }
fn walk(grid: Grid, thread: u32) -> Walk {
  let first = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS * shape.run + thread * shape.far;
  return Walk(first, min(first + shape.run * shape.near, shape.groups));
}

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) { y[i] = pack(unpack(x[i])); }
}
