// Uniform random numbers by Philox4x32-10.                    Salmon, Moraes, Dror and Shaw, SC 2011; engine/random.ts
//
//   u[i] = (floor(word[i] / 2^8) - centre) * unit,   word[4b .. 4b+3] = philox(key = seed, counter = (b, 0, step, stream))
//
// With centre 0 and unit 2^-24, u lies in [0, 1) and has the bits of the host's Random.uniform(i). With centre 2^23 and unit
// bound / 2^23 it lies in [-bound, bound). The difference of integers fits a f32, so that one product is all that is rounded before
// u is stored. One round maps the counter c and the key k, with high and low halves of 64-bit products:
//
//   c = (high(M1 c2) ^ c1 ^ k0, low(M1 c2), high(M0 c0) ^ c3 ^ k1, low(M0 c0)),   k = k + WEYL
//
// The numbers M0, M1 and WEYL stand in philox below.
//
// Shapes: u [size], in groups of four with b from `first`, and zeros after it in the last group; address [1], (seed mod 2^32,
// floor(seed / 2^32), step, stream). One thread a group.

const THREADS: u32 = 64u;                                                    // @param  a power of two
alias Target = vec4f;                                                        // @param  storage of four elements of u
// @or f16, bf16  alias Target = vec2u;
fn pack(value: vec4f) -> Target { return value; }                            // @param
// @or f16   fn pack(value: vec4f) -> Target { return pairs(nearestFloat16(value)); }
// @or bf16  fn pack(value: vec4f) -> Target { return pairs(nearestBfloat16(value)); }

struct Shape { size: u32, first: u32, centre: i32, unit: f32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> address: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> u: array<Target>;

// The upper 32 bits of a 64-bit product, by halves of 16 bits.
fn multiplyHigh(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let carry = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (carry >> 16u);
}

fn philox(start: vec4u, seed: vec2u) -> vec4u {
  var c = start;
  var k = seed;
  for (var round = 0u; round < 10u; round++) {
    let high0 = multiplyHigh(0xd2511f53u, c.x);
    let high1 = multiplyHigh(0xcd9e8d57u, c.z);
    c = vec4u(high1 ^ c.y ^ k.x, 0xcd9e8d57u * c.z, high0 ^ c.w ^ k.y, 0xd2511f53u * c.x);
    k += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

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

@compute @workgroup_size(THREADS) fn draw(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let block = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;
  let places = vec4u(4u * block) + vec4u(0u, 1u, 2u, 3u);
  if (places.x >= shape.size) { return; }
  let words = philox(vec4u(shape.first + block, 0u, address[0].zw), address[0].xy);
  let numbers = vec4f(vec4i(words >> vec4u(8u)) - vec4i(shape.centre)) * shape.unit;
  u[block] = pack(select(vec4f(), numbers, places < vec4u(shape.size)));
}
