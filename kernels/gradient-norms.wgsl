// L2 norms of gradients, and the factors that clip them.                  Pascanu, Mikolov and Bengio 2013, arXiv 1211.5063
//
//   norm = sqrt(sum_i g[i]^2),    clip = maximumNorm / norm where norm > maximumNorm, else 1
//
// over one group of parameters or over all. Gradients lie in arenas; each is summed in slices, one workgroup a slice, then the
// slices of a group in a fixed order.
//
// f32 cannot square every f32, so each slice sum carries a power of two of its own. The square of a number above 2^64 or below 2^-63
// has no place in f32: a slice whose largest magnitude is not within 2^-32 and 2^32 is summed a second time, of g / 2^e, where e is
// the exponent of that magnitude:                                                            after Blue 1978, ACM TOMS 4, 15 to 23
//
//   sum_i g[i]^2 = 4^e sum_i (g[i] / 2^e)^2,    e = 0 within the range
//
// A power of two rounds nothing, and the norm of any finite gradient is right to f32's precision, even where it is itself beyond f32:
// it is kept as length / scale. Numbers below 2^-126 may count as zero, because adapters may flush them.
//
// A gradient or a loss that is not finite, which its bits tell (an exponent of all ones), makes the step unusable; so does a gradient
// whose square would overflow in the second moment although it is clipped. The update of every parameter then does nothing.
//
// Shapes: gradient [4 groups], one arena, zero between its tensors; partials [slices of all arenas, and one for the losses]; norms
// [slots], the first of all together; loss [1]. f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two

struct Shape {
  groups: u32, slices: u32,                                                  // of the arena
  first: u32, count: u32,                                                    // partial sums of the arena, or of a norm
  slot: u32, maximumNorm: f32,
}
// The sum is squares 4^exponent; exponent = UNUSABLE marks a number that is not finite.
struct SliceSum { squares: f32, exponent: i32 }
// The norm is length / scale; gradients are multiplied by scale, then by clip; where unusable is 1, the update does nothing.
struct Norm { length: f32, scale: f32, clip: f32, unusable: f32 }

const LOWEST: i32 = -126;                                                    // exponents of f32
const HIGHEST: i32 = 126;                                                    // so that 2^-HIGHEST is one too
const UNUSABLE: i32 = 128;
const MAGNITUDE: u32 = 0x7fffffffu;                                          // the bits of |x|, which are ordered as numbers are
const INFINITE: u32 = 0x7f800000u;                                           // these or higher: infinity, or not a number
const SMALL: u32 = 0x2f800000u;                                              // of 2^-32
const LARGE: u32 = 0x4f800000u;                                              // of 2^32
const DIVERGED: u32 = 0x6fa18f08u;                                           // of 1e29: a loss that holds a sentinel of 1e30
const SQUARABLE: f32 = 9223372036854775808.0;                                // 2^63

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> gradient: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> partials: array<SliceSum>;
@group(0) @binding(3) var<storage, read_write> norms: array<Norm>;
@group(0) @binding(4) var<storage, read> loss: array<f32>;

var<workgroup> partial: array<f32, THREADS>;
var<workgroup> maxima: array<i32, THREADS>;

// The sum of `value` over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: f32, thread: u32) -> f32 {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

// The largest `value` of the workgroup.
fn maximumOverWorkgroup(value: i32, thread: u32) -> i32 {
  maxima[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { maxima[thread] = max(maxima[thread], maxima[thread + half]); }
  }
  return workgroupUniformLoad(&maxima[0]);
}

// 2^exponent, from LOWEST to 127.
fn power(exponent: i32) -> f32 { return bitcast<f32>(u32(exponent + 127) << 23u); }

// A thread's share of slice `slice`: the sum of the squares of scale g, and the bits of the largest |g|.
struct Share { squares: f32, largest: u32 }
fn shareOf(slice: u32, thread: u32, scale: f32) -> Share {
  let each = (shape.groups + shape.slices - 1u) / shape.slices;
  let end = min((slice + 1u) * each, shape.groups);
  var sum = vec4f();
  var most = vec4u();
  for (var i = slice * each + thread; i < end; i += THREADS) {
    let g = gradient[i];
    most = max(most, bitcast<vec4u>(g) & vec4u(MAGNITUDE));
    let scaled = scale * g;
    sum += scaled * scaled;
  }
  return Share(dot(sum, vec4f(1.0)), max(max(most.x, most.y), max(most.z, most.w)));
}

@compute @workgroup_size(THREADS) fn sumSquares(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let share = shareOf(workgroup.x, thread, 1.0);
  // The sign bit is cleared, so the bits fit into an i32, and are ordered as the numbers are.
  let largest = u32(maximumOverWorkgroup(i32(share.largest), thread));
  var squares = sumOverWorkgroup(share.squares, thread);
  var exponent = 0;
  if (largest >= INFINITE) {                                                 // not finite
    squares = 0.0;
    exponent = UNUSABLE;
  } else if (largest == 0u) {                                                // all zeros, which are below SMALL too: no second pass
    exponent = LOWEST;                                                       // never the largest beside other slices
  } else if (largest < SMALL || largest > LARGE) {                           // a second pass, scaled
    exponent = clamp(i32(largest >> 23u) - 127, LOWEST, HIGHEST);
    squares = sumOverWorkgroup(shareOf(workgroup.x, thread, power(-exponent)).squares, thread);
  }
  if (thread == 0u) { partials[shape.first + workgroup.x] = SliceSum(squares, exponent); }
}

// Notes a loss that is not finite; what is noted stays until the norms are taken, so that a step may have several parts.
@compute @workgroup_size(1) fn checkLoss() {
  if ((bitcast<u32>(loss[0]) & MAGNITUDE) >= DIVERGED) { partials[shape.first].exponent = UNUSABLE; }
}

@compute @workgroup_size(THREADS) fn norm(@builtin(local_invocation_index) thread: u32) {
  var most = LOWEST;
  for (var i = thread; i < shape.count; i += THREADS) { most = max(most, partials[shape.first + i].exponent); }
  let exponent = maximumOverWorkgroup(most, thread);
  var sum = 0.0;
  for (var i = thread; i < shape.count; i += THREADS) {
    let own = partials[shape.first + i];
    let below = 2 * (own.exponent - exponent);
    if (below >= LOWEST) { sum += power(below) * own.squares; }              // what is lower is lost beside the largest
  }
  let root = sqrt(sumOverWorkgroup(sum, thread));
  if (thread > 0u) { return; }
  if (shape.slot == 0u) { partials[shape.first + shape.count - 1u] = SliceSum(0.0, LOWEST); } // of the losses
  if (exponent == UNUSABLE) {
    norms[shape.slot] = Norm(0.0, 1.0, 0.0, 1.0);
    return;
  }
  let scale = power(-max(exponent, 0));                                      // 1 unless the norm may be beyond f32
  let length = root * power(min(exponent, 0));
  var clip = power(max(exponent, 0));                                        // undoes scale
  if (length > shape.maximumNorm * scale) { clip = shape.maximumNorm / length; }
  let squarable = min(length, shape.maximumNorm * scale) < SQUARABLE * scale;
  norms[shape.slot] = Norm(length, scale, clip, select(1.0, 0.0, squarable));
}
