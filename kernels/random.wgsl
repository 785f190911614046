// Uniform random numbers by Philox4x32-10.                    Salmon, Moraes, Dror and Shaw, SC 2011; engine/random.ts
//
//   u[i] = floor(word[i] / 2^8) / 2^24,   word[4b .. 4b+3] = philox(key = seed, counter = (b, 0, step, stream))
//
// in [0, 1), with the bits of the host's Random.uniform(i): 24 bits fit a f32 and the division is by a power of two. One round
// maps the counter c and the key k, with high and low halves of 64-bit products:
//
//   c = (high(M1 c2) ^ c1 ^ k0, low(M1 c2), high(M0 c0) ^ c3 ^ k1, low(M0 c0)),   k = k + WEYL
//
// The numbers M0, M1 and WEYL stand in philox below.
//
// Shapes: u [4 groups]; address [1], (seed mod 2^32, floor(seed / 2^32), step, stream). One thread a group.

const THREADS: u32 = 64u;                                                    // @param  a power of two

struct Shape { groups: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> address: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> u: array<vec4f>;

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

@compute @workgroup_size(THREADS) fn draw(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let block = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;
  if (block >= shape.groups) { return; }
  let words = philox(vec4u(block, 0u, address[0].zw), address[0].xy);
  u[block] = vec4f(words >> vec4u(8u)) * (1.0 / 16777216.0);
}
