// Sums down the columns of a matrix: the gradient of a bias.
//
//   sums[n] = sum_m dOutput[m,n]                                   since output[m,n] = ... + bias[n]
//
// dOutput [rows, groups] in groups of four columns; row r of the matrix is stored row (r / length) * stride + offset + r % length,
// as in matmul.wgsl. Each of SLICES partial sums takes every SLICES-th row; then they are added in order.

const SLICES: u32 = 16u;                                                     // @param
const THREADS: u32 = 64u;

struct Shape { rows: u32, groups: u32, length: u32, stride: u32, offset: u32, firstPartial: u32, partials: u32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> dOutput: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4f>;       // [partials, groups], SLICES for each matrix
@group(0) @binding(3) var<storage, read_write> sums: array<vec4f>;

@compute @workgroup_size(THREADS)
fn slice(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= shape.groups) { return; }
  var sum = vec4f();
  for (var row = id.y; row < shape.rows; row += SLICES) {
    let stored = row / shape.length * shape.stride + shape.offset + row % shape.length;
    sum += dOutput[stored * shape.groups + column];
  }
  partial[(shape.firstPartial + id.y) * shape.groups + column] = sum;
}

@compute @workgroup_size(THREADS)
fn total(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= shape.groups) { return; }
  var sum = vec4f();
  for (var i = 0u; i < shape.partials; i++) { sum += partial[i * shape.groups + id.x]; }
  sums[id.x] = sum;
}
