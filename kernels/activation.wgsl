// Activations, element by element: y = f(x), and backward dx = f'(x) dy. With s(z) = 1 / (1 + exp(-z)):
//
//   gelu      x (1 + tanh u) / 2 = x s(2u)     u = sqrt(2/pi) (x + 0.044715 x^3)           Hendrycks and Gimpel 2016, arXiv 1606.08415
//   swish     x s(x)                           also named SiLU                             Ramachandran 2017, arXiv 1710.05941
//   tanh      2 s(2x) - 1
//   sigmoid   s(x)
//   relu      max(x, 0)
//
//   gelu'     s(2u) + x s(2u) (1 - s(2u)) 2 du/dx          swish'    s(x) + x s(x) (1 - s(x))
//   tanh'     4 s(2x) (1 - s(2x))                          sigmoid'  s(x) (1 - s(x))           relu'  1 if x > 0, else 0
//
// s is made from exp(-|z|), which is never above 1, so that nothing overflows; WGSL's own tanh may be wrong by 1e-5 and is NaN
// for large arguments on some drivers. Arrays are read in groups of four; gradients are f32, whatever the storage of x and y.

const THREADS: u32 = 64u;                                                    // @param
alias Word = vec4f;                                                          // @param  storage of four elements
// @or f16, bf16  alias Word = vec2u;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
fn pack(value: vec4f) -> Word { return value; }                              // @param
// @or f16   fn pack(value: vec4f) -> Word { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0));
// @or f16     let nan = select(vec4u(), vec4u(0x7e00u), (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or f16     return vec2u(pack2x16float(safe.xy), pack2x16float(safe.zw)) | nan.xz | (nan.yw << vec2u(16u)); }
// @or bf16  fn pack(value: vec4f) -> Word { let bits = bitcast<vec4u>(value); let half = ((bits >> vec4u(16u)) & vec4u(1u)) + 0x7fffu;
// @or bf16    let kept = select((bits + half) >> vec4u(16u), vec4u(0x7fc0u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or bf16    return kept.xz | (kept.yw << vec2u(16u)); }

// The activation, here gelu, and its gradient f'(x) dy.
fn activation(z: vec4f) -> vec4f { return z * logistic(geluArgument(z)); }    // @param
// @or swish    fn activation(z: vec4f) -> vec4f { return z * logistic(z); }
// @or tanh     fn activation(z: vec4f) -> vec4f { return tanhOf(z); }
// @or sigmoid  fn activation(z: vec4f) -> vec4f { return logistic(z); }
// @or relu     fn activation(z: vec4f) -> vec4f { return max(z, vec4f()); }
fn gradient(z: vec4f, dy: vec4f) -> vec4f { return dy * geluDerivative(z); } // @param
// @or swish    fn gradient(z: vec4f, dy: vec4f) -> vec4f { return dy * (logistic(z) + z * logisticSlope(z)); }
// @or tanh     fn gradient(z: vec4f, dy: vec4f) -> vec4f { return dy * 4.0 * logisticSlope(2.0 * z); }
// @or sigmoid  fn gradient(z: vec4f, dy: vec4f) -> vec4f { return dy * logisticSlope(z); }
// @or relu     fn gradient(z: vec4f, dy: vec4f) -> vec4f { return select(vec4f(), dy, z > vec4f()); }

struct Shape { groups: u32, run: u32, near: u32, far: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read_write> y: array<Word>;
@group(0) @binding(3) var<storage, read> dy: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> dx: array<vec4f>;

// The groups of a thread, `shape.near` apart; see streaming.ts. The grid is two-dimensional because one axis holds at most 65,535.
struct Walk { first: u32, end: u32 }
fn walk(grid: Grid, thread: u32) -> Walk {
  let first = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS * shape.run + thread * shape.far;
  return Walk(first, min(first + shape.run * shape.near, shape.groups));
}

// s(z), and its derivative s(z) (1 - s(z)) without the cancellation of 1 - s.
fn logistic(z: vec4f) -> vec4f {
  let e = exp(-abs(z));
  return select(e, vec4f(1.0), z >= vec4f()) / (1.0 + e);
}

fn logisticSlope(z: vec4f) -> vec4f {
  let e = exp(-abs(z));
  return e / ((1.0 + e) * (1.0 + e));
}

// 2u. Beyond +-10 s(2u) is 0 or 1 to the last bit, and x^3 would overflow one day.
fn geluArgument(x: vec4f) -> vec4f {
  let near = clamp(x, vec4f(-10.0), vec4f(10.0));
  return 1.5957691216057308 * (near + 0.044715 * near * near * near);
}

fn geluDerivative(x: vec4f) -> vec4f {
  let near = clamp(x, vec4f(-10.0), vec4f(10.0));
  let z = geluArgument(x);
  let slope = 1.5957691216057308 * (1.0 + 0.134145 * near * near);
  return logistic(z) + near * logisticSlope(z) * slope;
}

// For small |x| 2 s(2x) - 1 would keep few digits, so there it is the power series, to 1e-8.
fn tanhOf(x: vec4f) -> vec4f {
  let e = exp(-2.0 * abs(x));
  let far = sign(x) * (1.0 - e) / (1.0 + e);
  let near = clamp(x, vec4f(-0.25), vec4f(0.25));
  let square = near * near;
  let series = near * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 + square * (-17.0 / 315.0 + square * (62.0 / 2835.0)))));
  return select(far, series, abs(x) < vec4f(0.25));
}

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) { y[i] = pack(activation(unpack(x[i]))); }
}

@compute @workgroup_size(THREADS) fn backward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) { dx[i] = gradient(unpack(x[i]), dy[i]); }
}
