// Sums, always in the same order: the same numbers on the same adapter give the same bits.
//
//   sum of everything     y    = scale sum_i x[i]                   and backward  dx[i]   = scale dy
//   sum of the rows       y[c] = sum_r x[r,c]                       and backward  dx[r,c] = dy[c]
//                         or, with `accumulate`, added to y[c], a gradient that others have a share in
//
// Both run in two stages: many workgroups make partial sums, then the partial sums are added. The sum of everything is one entry
// point run twice (scale 1, then the scale asked for). A matrix of few rows needs only the second stage.
//
// Shapes: x [count], or [rows, groups] in groups of four columns (Value; of one where the width is no multiple of four); sums are
// f32. The storage behind the last element holds anything, so the last group is masked.

const THREADS: u32 = 64u;                                                    // @param  a power of two
alias Value = vec4f;                                                         // @param  a group of columns
// @or single  alias Value = f32;
alias Word = vec4f;                                                          // @param  storage of four elements
// @or f16, bf16  alias Word = vec2u;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }

struct Shape { count: u32, rows: u32, groups: u32, slices: u32, accumulate: u32, scale: f32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;               // one for each workgroup
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<vec4f>;
@group(0) @binding(5) var<storage, read> matrix: array<Value>;
@group(0) @binding(6) var<storage, read_write> sums: array<Value>;
@group(0) @binding(7) var<storage, read> dSums: array<Value>;
@group(0) @binding(8) var<storage, read_write> dMatrix: array<Value>;

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

fn position(grid: Grid, thread: u32) -> u32 { return (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread; }

// ---- everything ------------------------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn sumAll(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let groups = (shape.count + 3u) / 4u;
  let each = (groups + grid.count.x - 1u) / grid.count.x;
  let end = min((grid.workgroup.x + 1u) * each, groups);
  var sum = vec4f();
  for (var i = grid.workgroup.x * each + thread; i < end; i += THREADS) {
    let inside = 4u * i + vec4u(0u, 1u, 2u, 3u) < vec4u(shape.count);
    sum += select(vec4f(), unpack(x[i]), inside);
  }
  let total = sumOverWorkgroup(dot(sum, vec4f(1.0)), thread);
  if (thread == 0u) { y[grid.workgroup.x] = shape.scale * total; }
}

@compute @workgroup_size(THREADS) fn sumAllBackward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (4u * i < shape.count) { dx[i] = vec4f(shape.scale * dy[0]); }
}

// ---- rows: every slices-th row into one of `slices` sums. With a single slice these are the sums of all rows. -----------

@compute @workgroup_size(THREADS) fn sumRows(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i >= shape.slices * shape.groups) { return; }
  let column = i % shape.groups;
  var sum = Value();
  for (var row = i / shape.groups; row < shape.rows; row += shape.slices) { sum += matrix[row * shape.groups + column]; }
  if (shape.accumulate == 1u) { sum += sums[i]; }
  sums[i] = sum;
}

@compute @workgroup_size(THREADS) fn sumRowsBackward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let i = position(grid, thread);
  if (i < shape.rows * shape.groups) { dMatrix[i] = dSums[i % shape.groups]; }
}
