// AdamW: Adam with decoupled weight decay.     Loshchilov and Hutter 2019, arXiv 1711.05101; Kingma and Ba 2015, arXiv 1412.6980
//
//   g = clip scale gradient                                        norms[slot], see gradient-norms.wgsl
//   m = beta1 m + (1 - beta1) g
//   v = beta2 v + (1 - beta2) g^2
//   p = p - factor rate (m correction1 / (sqrt(v correction2) + epsilon) + decay p)
//
// with correction = 1 / (1 - beta^step) and the factor that the parameters of the arena have on the learning rate. Where norms[0], of
// all gradients together, is unusable, nothing changes. Data that change from step to step come as a tensor: schedule = (rate,
// correction1, correction2) and, where something is rounded, the step's number.
//
// Packed moments are rounded stochastically, up with the probability that makes the mean right: an average that moves by less than
// its last place in a step still moves. p takes m and v before they are rounded. The random bits are those of random.wgsl, at the
// counter (group, arena, step, stream `rounding`); the low halves of the four words round m, the high halves v.
//
//   bfloat16   random bits are added below the kept ones, the sum is cut off.
//   8 bits     blocks of 64 elements share a scale, a power of two not below the largest of them. An element is a floating-point
//              number relative to it: m in [-1, 1] with a sign, 4 bits of exponent and 3 of fraction, v in [0, 1] with 5 and 3; the
//              lowest exponent counts units of 2^-17, for v of 2^-33. A v above 0 never becomes 0: it would divide an m that did not.
//              Blocks, and small numbers in finer steps than large ones: Dettmers et al. 2022, arXiv 2110.02861; floating-point
//              elements under a power of two: Rouhani et al. 2023, arXiv 2310.10537.
//
// Parameters in bfloat16 are rounded in the same way, by random bits of the stream `parameterRounding`.
//
// Shapes: value p, gradient, firstMoment m, secondMoment v [4 groups], one arena of parameters, each of which begins a block; what
// lies between them is zero and stays zero. f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const BLOCK_THREADS: u32 = 16u;                                              // @param  threads to a block: a power of two up to 16
alias Word = vec4f;                                                          // @param  storage of four elements of a moment
// @or bf16  alias Word = vec2u;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
fn pack(value: vec4f, random: vec4u) -> Word { return value; }               // @param  random: 16 bits each
// @or bf16  fn pack(value: vec4f, random: vec4u) -> Word {
// @or bf16    let bits = (bitcast<vec4u>(value) + random) >> vec4u(16u); return bits.xz | (bits.yw << vec2u(16u)); }
fn randomBits(group: u32) -> vec4u { return vec4u(); }                       // @param  for packing; f32 needs none
// @or drawn  fn randomBits(group: u32) -> vec4u { return draw(group, ROUNDING); }
alias Value = vec4f;                                                         // @param  storage of four elements of a parameter
// @or bf16  alias Value = vec2u;
fn unpackValue(word: Value) -> vec4f { return word; }                        // @param
// @or bf16  fn unpackValue(word: Value) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
fn packValue(value: vec4f, group: u32) -> Value { return value; }            // @param
// @or bf16  fn packValue(value: vec4f, group: u32) -> Value {
// @or bf16    let bits = (bitcast<vec4u>(value) + (draw(group, PARAMETER_ROUNDING) & vec4u(0xffffu))) >> vec4u(16u);
// @or bf16    return bits.xz | (bits.yw << vec2u(16u)); }
const BLOCK_GROUPS: u32 = 16u;
const ROUNDING: u32 = 6u;                                                    // streams of engine/random.ts
const PARAMETER_ROUNDING: u32 = 13u;

struct Shape {
  groups: u32, run: u32, near: u32, far: u32,
  slot: u32, arena: u32, seedLow: u32, seedHigh: u32,
  factor: f32, decay: f32, epsilon: f32, beta1: f32, beta2: f32,
}
struct Norm { length: f32, scale: f32, clip: f32, unusable: f32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> gradient: array<vec4f>;
@group(0) @binding(2) var<storage, read> norms: array<Norm>;
@group(0) @binding(3) var<storage, read> schedule: array<f32>;
@group(0) @binding(4) var<storage, read_write> value: array<Value>;
@group(0) @binding(5) var<storage, read_write> firstMoment: array<Word>;
@group(0) @binding(6) var<storage, read_write> secondMoment: array<Word>;
@group(0) @binding(7) var<storage, read_write> firstCodes: array<u32>;      // of four elements, the first in the lowest byte
@group(0) @binding(8) var<storage, read_write> secondCodes: array<u32>;
@group(0) @binding(9) var<storage, read_write> firstScales: array<f32>;     // of blocks
@group(0) @binding(10) var<storage, read_write> secondScales: array<f32>;

struct Moments { first: vec4f, second: vec4f }

// The moments of a group after its gradient.
fn next(old: Moments, group: u32) -> Moments {
  let norm = norms[shape.slot];
  let g = norm.clip * (norm.scale * gradient[group]);                        // in this order: the product clip scale may be below f32
  return Moments(shape.beta1 * old.first + (1.0 - shape.beta1) * g, shape.beta2 * old.second + (1.0 - shape.beta2) * g * g);
}

fn advance(group: u32, by: Moments) {
  let p = unpackValue(value[group]);
  let direction = by.first * schedule[1] / (sqrt(by.second * schedule[2]) + shape.epsilon) + shape.decay * p;
  value[group] = packValue(p - shape.factor * schedule[0] * direction, group);
}

// ---- moments in f32 or bfloat16 --------------------------------------------------------------------------------------

// The groups of a thread, `shape.near` apart; see streaming.ts. The grid is two-dimensional because one axis holds at most 65,535.
struct Walk { first: u32, end: u32 }
fn walk(grid: Grid, thread: u32) -> Walk {
  let first = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS * shape.run + thread * shape.far;
  return Walk(first, min(first + shape.run * shape.near, shape.groups));
}

@compute @workgroup_size(THREADS) fn update(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  if (norms[0].unusable != 0.0) { return; }
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) {
    let moments = next(Moments(unpack(firstMoment[i]), unpack(secondMoment[i])), i);
    advance(i, moments);
    let random = randomBits(i);
    firstMoment[i] = pack(moments.first, random & vec4u(0xffffu));
    secondMoment[i] = pack(moments.second, random >> vec4u(16u));
  }
}

// ---- moments in 8 bits -----------------------------------------------------------------------------------------------

var<workgroup> largest: array<vec2f, THREADS>;                               // of |m|, and of v

// Four numbers of [0, 1] in codes 8 (exponent + bias) + fraction; below 2^-(bias - 1) in units of 2^-(bias + 2).
fn encode(x: vec4f, random: vec4u, bias: u32) -> vec4u {
  let normal = ((bitcast<vec4u>(x) + (random << vec4u(4u))) >> vec4u(20u)) - vec4u((127u - bias) << 3u);
  let small = vec4u(x * bitcast<f32>((129u + bias) << 23u) + vec4f(random) / 65536.0);
  return select(normal, small, x < vec4f(bitcast<f32>((128u - bias) << 23u)));
}

fn decode(code: vec4u, bias: u32) -> vec4f {
  let normal = bitcast<vec4f>((code + vec4u((127u - bias) << 3u)) << vec4u(20u));
  return select(normal, vec4f(code) * bitcast<f32>((125u - bias) << 23u), code < vec4u(8u));
}

fn bytesOf(word: u32) -> vec4u { return (vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(0xffu); }
fn wordOf(bytes: vec4u) -> u32 { return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u); }

fn momentsOf(group: u32, scales: vec2f) -> Moments {
  let first = bytesOf(firstCodes[group]);
  let magnitude = scales.x * decode(first & vec4u(0x7fu), 15u);
  return Moments(select(magnitude, -magnitude, first >= vec4u(0x80u)), scales.y * decode(bytesOf(secondCodes[group]), 31u));
}

// The exponent of the least power of two that is not below x, as the bits of a f32 hold it; 2^-80 for what is smaller.
fn exponentAbove(x: vec2f) -> vec2u { return max((bitcast<vec2u>(x) + vec2u(0x7fffffu)) >> vec2u(23u), vec2u(47u)); }

fn largestOf(x: vec4f) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }

@compute @workgroup_size(THREADS) fn updateBlocks(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  if (norms[0].unusable != 0.0) { return; }
  let index = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;
  let block = index / BLOCK_THREADS;
  let leader = thread / BLOCK_THREADS * BLOCK_THREADS;                       // the first thread of the block
  let exists = block < shape.groups / BLOCK_GROUPS;
  let first = block * BLOCK_GROUPS + thread - leader;
  let end = select(first, (block + 1u) * BLOCK_GROUPS, exists);
  let old = vec2f(firstScales[block], secondScales[block]);
  var most = vec2f();
  for (var i = first; i < end; i += BLOCK_THREADS) {
    let moments = next(momentsOf(i, old), i);
    advance(i, moments);
    most = max(most, vec2f(largestOf(abs(moments.first)), largestOf(moments.second)));
  }
  largest[thread] = most;
  for (var half = BLOCK_THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread - leader < half) { largest[thread] = max(largest[thread], largest[thread + half]); }
  }
  workgroupBarrier();
  let exponents = exponentAbove(largest[leader]);
  let inverse = bitcast<vec2f>((vec2u(254u) - exponents) << vec2u(23u));
  for (var i = first; i < end; i += BLOCK_THREADS) {
    let moments = next(momentsOf(i, old), i);
    let random = randomBits(i);
    let codes = encode(min(abs(moments.first) * inverse.x, vec4f(1.0)), random & vec4u(0xffffu), 15u);
    firstCodes[i] = wordOf(codes | select(vec4u(), vec4u(0x80u), moments.first < vec4f()));
    let second = encode(min(moments.second * inverse.y, vec4f(1.0)), random >> vec4u(16u), 31u);
    secondCodes[i] = wordOf(max(second, select(vec4u(), vec4u(1u), moments.second > vec4f())));
  }
  if (exists && thread == leader) {
    let scales = bitcast<vec2f>(exponents << vec2u(23u));
    firstScales[block] = scales.x;
    secondScales[block] = scales.y;
  }
}

// ---- random bits, as in random.wgsl ----------------------------------------------------------------------------------

fn draw(group: u32, stream: u32) -> vec4u {
  return philox(vec4u(group, shape.arena, u32(schedule[3]), stream), vec2u(shape.seedLow, shape.seedHigh));
}

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
