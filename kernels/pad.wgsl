// Rows of another width: what is missing is zero, what is too much is cut. Kernels read rows in groups of four; where a
// width is no multiple of four the op widens its operands and cuts its result.
//
//   y[t,i] = x[t,i] for i < min(width, newWidth), else 0
//
// and backward the same map from newWidth to width. Shapes: x [rows, width]; y [rows, newWidth]; f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two

struct Shape { rows: u32, width: u32, newWidth: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let index = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;
  if (index >= shape.rows * shape.newWidth) { return; }
  let row = index / shape.newWidth;
  let column = index % shape.newWidth;
  if (column < shape.width) { y[index] = x[row * shape.width + column]; } else { y[index] = 0.0; }
}
