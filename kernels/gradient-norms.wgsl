// L2 norms of gradients, and the factors that clip them.                  Pascanu, Mikolov and Bengio 2013, arXiv 1211.5063
//
//   norm = sqrt(sum_i g[i]^2),    clip = maximumNorm / norm where norm > maximumNorm, else 1
//
// over one group of parameters or over all. Gradients lie in arenas; each is summed in slices, one workgroup a slice, then the
// slices of a group in a fixed order.
//
// Shapes: gradient [4 groups], one arena, zero between its tensors; partialSums [slices of all arenas]; norms, clip [slots]. f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two

struct Shape {
  groups: u32, slices: u32,                                                  // of the arena
  first: u32, count: u32,                                                    // partial sums of the arena, or of a norm
  slot: u32, maximumNorm: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> gradient: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> partialSums: array<f32>;
@group(0) @binding(3) var<storage, read_write> norms: array<f32>;
@group(0) @binding(4) var<storage, read_write> clip: array<f32>;

var<workgroup> partial: array<f32, THREADS>;

// The sum of `value` over the workgroup, the same in every thread.
fn sumOverWorkgroup(value: f32, thread: u32) -> f32 {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  return workgroupUniformLoad(&partial[0]);
}

@compute @workgroup_size(THREADS) fn sumSquares(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let each = (shape.groups + shape.slices - 1u) / shape.slices;
  let end = min((workgroup.x + 1u) * each, shape.groups);
  var sum = vec4f();
  for (var i = workgroup.x * each + thread; i < end; i += THREADS) {
    let g = gradient[i];
    sum += g * g;
  }
  let total = sumOverWorkgroup(dot(sum, vec4f(1.0)), thread);
  if (thread == 0u) { partialSums[shape.first + workgroup.x] = total; }
}

@compute @workgroup_size(THREADS) fn norm(@builtin(local_invocation_index) thread: u32) {
  var sum = 0.0;
  for (var i = thread; i < shape.count; i += THREADS) { sum += partialSums[shape.first + i]; }
  let length = sqrt(sumOverWorkgroup(sum, thread));
  if (thread > 0u) { return; }
  norms[shape.slot] = length;
  clip[shape.slot] = 1.0;
  if (length > shape.maximumNorm) { clip[shape.slot] = shape.maximumNorm / length; }
}
