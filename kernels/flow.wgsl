// Flow matching on straight paths, t = 1 is noise.             Lipman et al. 2022, arXiv 2210.02747; convention of openpi
//
//   noisy[b,i]  = t[b] noise[b,i] + (1 - t[b]) actions[b,i]
//   target[b,i] = noise[b,i] - actions[b,i]                the velocity d noisy / dt, which the model learns
//
// and one step of Euler's method along a velocity, dt < 0 from noise to actions:
//
//   next[i]     = x[i] + dt velocity[i]
//
// backward dx = dNext and dVelocity = dt dNext, which elementwise.wgsl makes. Shapes: actions, noise, noisy, target [samples, perSample];
// t [samples]; x, velocity, next [elements]. f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two

struct Shape { elements: u32, perSample: u32, dt: f32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> actions: array<f32>;
@group(0) @binding(2) var<storage, read> noise: array<f32>;
@group(0) @binding(3) var<storage, read> time: array<f32>;
@group(0) @binding(4) var<storage, read_write> noisy: array<f32>;
@group(0) @binding(5) var<storage, read_write> target_: array<f32>;
@group(0) @binding(6) var<storage, read> x: array<f32>;
@group(0) @binding(7) var<storage, read> velocity: array<f32>;
@group(0) @binding(8) var<storage, read_write> next: array<f32>;

fn position(grid: Grid, thread: u32) -> u32 { return (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread; }

@compute @workgroup_size(THREADS) fn interpolate(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i >= shape.elements) { return; }
  let t = time[i / shape.perSample];
  noisy[i] = t * noise[i] + (1.0 - t) * actions[i];
  target_[i] = noise[i] - actions[i];
}

@compute @workgroup_size(THREADS) fn euler(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i < shape.elements) { next[i] = x[i] + shape.dt * velocity[i]; }
}
