// Sums and products, element by element.
//
//   add       y[i] = a[i] + b[c]         dA[i] =      dy[i]        dB[c] =  sum dy[i]
//   subtract  y[i] = a[i] - b[c]         dA[i] =      dy[i]        dB[c] = -sum dy[i]
//   multiply  y[i] = a[i]   b[c]         dA[i] = b[c] dy[i]        dB[c] =  sum a[i] dy[i]
//   scale     y[i] = factor a[i]         dA[i] = factor dy[i]
//
// c = i mod columns: b has the shape of a, or is a trailing part of it that every row of a meets (a bias, positions), and then the
// sums run over the rows (reduce.wgsl). Shapes: a, y [groups]; b [columns]; both in groups of four (Value; of one where b has
// no multiple of four). Gradients are f32, whatever the storage.

const THREADS: u32 = 64u;                                                    // @param
alias Value = vec4f;                                                         // @param  a group of elements
// @or single  alias Value = f32;
// @as rms-norm.wgsl  Word, unpack, pack
alias Word = vec4f;                                                          // @param  its storage
// @or single     alias Word = f32;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or single  fn unpack(word: Word) -> Value { return word; }
fn pack(value: vec4f) -> Word { return value; }                              // @param
// @or single  fn pack(value: Value) -> Word { return value; }

struct Shape { groups: u32, run: u32, near: u32, far: u32, columns: u32, columnStep: u32, factor: f32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<Word>;
@group(0) @binding(2) var<storage, read> b: array<Word>;
@group(0) @binding(3) var<storage, read_write> y: array<Word>;
@group(0) @binding(4) var<storage, read> dy: array<Value>;
@group(0) @binding(5) var<storage, read_write> dA: array<Value>;
@group(0) @binding(6) var<storage, read_write> dB: array<Value>;            // before the sum over rows

// The groups of a thread, `shape.near` apart; see streaming.ts. The grid is two-dimensional because one axis holds at most 65,535.
struct Walk { first: u32, end: u32 }
fn walk(grid: Grid, thread: u32) -> Walk {
  let first = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS * shape.run + thread * shape.far;
  return Walk(first, min(first + shape.run * shape.near, shape.groups));
}

// The column of a thread's next group: columnStep = near mod columns, and a division is dear.
fn nextColumn(c: u32) -> u32 {
  let next = c + shape.columnStep;
  return next - select(0u, shape.columns, next >= shape.columns);
}

// ---- forward ---------------------------------------------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn add(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  var c = own.first % shape.columns;
  for (var i = own.first; i < own.end; i += shape.near) {
    y[i] = pack(unpack(a[i]) + unpack(b[c]));
    c = nextColumn(c);
  }
}

@compute @workgroup_size(THREADS) fn subtract(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  var c = own.first % shape.columns;
  for (var i = own.first; i < own.end; i += shape.near) {
    y[i] = pack(unpack(a[i]) - unpack(b[c]));
    c = nextColumn(c);
  }
}

@compute @workgroup_size(THREADS) fn multiply(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  var c = own.first % shape.columns;
  for (var i = own.first; i < own.end; i += shape.near) {
    y[i] = pack(unpack(a[i]) * unpack(b[c]));
    c = nextColumn(c);
  }
}

@compute @workgroup_size(THREADS) fn scale(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) { y[i] = pack(shape.factor * unpack(a[i])); }
}

// ---- backward of multiply; that of scale is scale itself, on f32 -------------------------------------------------------

@compute @workgroup_size(THREADS) fn multiplyBackwardA(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  var c = own.first % shape.columns;
  for (var i = own.first; i < own.end; i += shape.near) {
    dA[i] = dy[i] * unpack(b[c]);
    c = nextColumn(c);
  }
}

@compute @workgroup_size(THREADS) fn multiplyBackwardB(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let own = walk(grid, thread);
  for (var i = own.first; i < own.end; i += shape.near) { dB[i] = dy[i] * unpack(a[i]); }
}
