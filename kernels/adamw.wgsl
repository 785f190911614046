// AdamW: Adam with decoupled weight decay.     Loshchilov and Hutter 2019, arXiv 1711.05101; Kingma and Ba 2015, arXiv 1412.6980
//
//   g = clip gradient                                              clip[slot], see gradient-norms.wgsl
//   m = beta1 m + (1 - beta1) g
//   v = beta2 v + (1 - beta2) g^2
//   p = p - rate (m correction1 / (sqrt(v correction2) + epsilon) + decay p)
//
// with correction = 1 / (1 - beta^step). What changes from step to step comes as data: schedule = (rate, correction1, correction2). Shapes: value p, gradient, firstMoment m, secondMoment v [4 groups], one
// arena of parameters; what lies between its parameters is zero and stays zero. f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two

struct Shape {
  groups: u32, run: u32, near: u32, far: u32, slot: u32,
  decay: f32, epsilon: f32, beta1: f32, beta2: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> gradient: array<vec4f>;
@group(0) @binding(2) var<storage, read> clip: array<f32>;
@group(0) @binding(3) var<storage, read_write> value: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> firstMoment: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> secondMoment: array<vec4f>;
@group(0) @binding(6) var<storage, read> schedule: array<f32>;

// The groups of a thread, `shape.near` apart; see streaming.ts. The grid is two-dimensional because one axis holds at most 65,535.
struct Walk { first: u32, end: u32 }
fn walk(workgroup: vec3u, workgroups: vec3u, thread: u32) -> Walk {
  let first = (workgroup.y * workgroups.x + workgroup.x) * THREADS * shape.run + thread * shape.far;
  return Walk(first, min(first + shape.run * shape.near, shape.groups));
}

@compute @workgroup_size(THREADS)
fn update(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let own = walk(workgroup, workgroups, thread);
  let factor = clip[shape.slot];
  let rate = schedule[0];
  let correction1 = schedule[1];
  let correction2 = schedule[2];
  for (var i = own.first; i < own.end; i += shape.near) {
    let g = factor * gradient[i];
    let m = shape.beta1 * firstMoment[i] + (1.0 - shape.beta1) * g;
    let v = shape.beta2 * secondMoment[i] + (1.0 - shape.beta2) * g * g;
    let p = value[i];
    firstMoment[i] = m;
    secondMoment[i] = v;
    value[i] = p - rate * (m * correction1 / (sqrt(v * correction2) + shape.epsilon) + shape.decay * p);
  }
}
