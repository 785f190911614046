// Matrix product.
//
//   output[m,n] = start[m,n] + sum_k A[m,k] B[k,n]                 start: 0, the bias[n], or what output holds already
//
// Backward is the same kernel again:  dA = dOutput B^T,  dB = A^T dOutput  (the gradient of a bias: column-sums.wgsl).
//
// A [rows, depth] and B [depth, columns] are stored as they are or transposed; blockOfA and blockOfB say which. Where the stored
// rows do not simply follow one another (an expert's rows of a joint sequence), a row map finds them: row r of the matrix is
// stored row (r / length) * stride + offset + r % length. Stored rows are whole groups of four elements, and outside of a matrix
// there are zeros. Sums are f32 and run in the order of k; a long depth may be cut into slices, which sumSlices adds in order.
//
// A workgroup makes a tile of 64 x 64 outputs, walking through the depth in steps of 16: half of the threads bring the next
// 64 x 16 of A into workgroup memory, the others the next 16 x 64 of B, a block of 4 x 4 each. Then every thread adds to its
// own 8 x 4 outputs.

const TILE: u32 = 64u;                                                       // rows, and columns, of a tile of the output
const STEP: u32 = 16u;                                                       // of the depth
const THREAD_ROWS: u32 = 8u;                                                 // outputs of a thread: so many rows x 4 columns
const TILE_GROUPS: u32 = TILE / 4u;
const STEP_GROUPS: u32 = STEP / 4u;
const TILE_BLOCKS: u32 = TILE_GROUPS * STEP_GROUPS;                          // blocks of 4 x 4 in a tile of A, and of B
const THREADS: u32 = TILE / THREAD_ROWS * TILE_GROUPS;                       // = 2 TILE_BLOCKS

fn blockOfA(batch: u32, m: u32, k: u32) -> mat4x4f { return storedA(batch, m, k / 4u); } // @param  or transpose(storedA(batch, k, m / 4u))
fn blockOfB(batch: u32, k: u32, n: u32) -> mat4x4f { return storedB(batch, k, n / 4u); } // @param  or transpose(storedB(batch, n, k / 4u))
fn start(at: u32, group: u32) -> vec4f { return vec4f(); }                   // @param  or bias[group], or output[at]

struct Shape {
  rows: u32, groups: u32, depth: u32,                                        // of the output: rows and columns / 4; terms of a sum
  batches: u32, slices: u32, sliceDepth: u32,                                // sliceDepth: a multiple of STEP
  aRows: u32, aGroups: u32, aBatch: u32, aLength: u32, aStride: u32, aOffset: u32,            // as stored; aBatch: groups
  bRows: u32, bGroups: u32, bBatch: u32, bLength: u32, bStride: u32, bOffset: u32,            // from one batch to the next
  outputBatch: u32, outputLength: u32, outputStride: u32, outputOffset: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> output: array<vec4f>;
@group(0) @binding(5) var<storage, read> partial: array<vec4f>;              // [batches, slices, rows, groups]

var<workgroup> tileA: array<vec4f, TILE * STEP_GROUPS>;                      // row by row, groups along k
var<workgroup> tileB: array<vec4f, STEP * TILE_GROUPS>;                      // k by k, groups along n

fn mapRow(row: u32, length: u32, stride: u32, offset: u32) -> u32 { return row / length * stride + offset + row % length; }

fn elementsOfA(batch: u32, row: u32, group: u32) -> vec4f {
  if (row >= shape.aRows || group >= shape.aGroups) { return vec4f(); }
  return a[batch * shape.aBatch + mapRow(row, shape.aLength, shape.aStride, shape.aOffset) * shape.aGroups + group];
}

fn elementsOfB(batch: u32, row: u32, group: u32) -> vec4f {
  if (row >= shape.bRows || group >= shape.bGroups) { return vec4f(); }
  return b[batch * shape.bBatch + mapRow(row, shape.bLength, shape.bStride, shape.bOffset) * shape.bGroups + group];
}

// Four stored rows, as the columns of a WGSL matrix: block[i] is a group of row i.
fn storedA(batch: u32, row: u32, group: u32) -> mat4x4f {
  return mat4x4f(elementsOfA(batch, row, group), elementsOfA(batch, row + 1u, group),
                 elementsOfA(batch, row + 2u, group), elementsOfA(batch, row + 3u, group));
}

fn storedB(batch: u32, row: u32, group: u32) -> mat4x4f {
  return mat4x4f(elementsOfB(batch, row, group), elementsOfB(batch, row + 1u, group),
                 elementsOfB(batch, row + 2u, group), elementsOfB(batch, row + 3u, group));
}

fn outputAt(batch: u32, row: u32, group: u32) -> u32 {
  return batch * shape.outputBatch + mapRow(row, shape.outputLength, shape.outputStride, shape.outputOffset) * shape.groups + group;
}

// sum + A[m, k .. k+3] B[k .. k+3, n .. n+3], for one m.
fn addProduct(sum: vec4f, rowOfA: vec4f, blockB: mat4x4f) -> vec4f {
  return fma(blockB[3], vec4f(rowOfA.w), fma(blockB[2], vec4f(rowOfA.z), fma(blockB[1], vec4f(rowOfA.y), fma(blockB[0], vec4f(rowOfA.x), sum))));
}

// The product, or one slice of it; `output` is then the partial sums [batches * slices, rows, groups].
@compute @workgroup_size(THREADS)
fn product(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let rowTiles = (shape.rows + TILE - 1u) / TILE;
  let columnTiles = (shape.groups + TILE_GROUPS - 1u) / TILE_GROUPS;
  let tile = workgroup.y * workgroups.x + workgroup.x;
  let part = tile / (rowTiles * columnTiles);                                // which slice of which batch
  if (part >= shape.batches * shape.slices) { return; }
  let batch = part / shape.slices;
  let firstRow = tile / columnTiles % rowTiles * TILE;
  let firstColumn = tile % columnTiles * TILE;
  let firstTerm = part % shape.slices * shape.sliceDepth;
  let lastTerm = min(firstTerm + shape.sliceDepth, shape.depth);

  let row = thread / TILE_GROUPS * THREAD_ROWS;                              // this thread's outputs, within the tile
  let group = thread % TILE_GROUPS;
  var sums: array<vec4f, THREAD_ROWS>;
  for (var k = firstTerm; k < lastTerm; k += STEP) {
    workgroupBarrier();
    if (thread < TILE_BLOCKS) {
      let m = thread / STEP_GROUPS * 4u;
      let groupOfK = thread % STEP_GROUPS;
      let block = blockOfA(batch, firstRow + m, k + groupOfK * 4u);
      for (var i = 0u; i < 4u; i++) { tileA[(m + i) * STEP_GROUPS + groupOfK] = block[i]; }
    } else {
      let stepK = (thread - TILE_BLOCKS) / TILE_GROUPS * 4u;
      let block = blockOfB(batch, k + stepK, firstColumn + group * 4u);
      for (var i = 0u; i < 4u; i++) { tileB[(stepK + i) * TILE_GROUPS + group] = block[i]; }
    }
    workgroupBarrier();
    for (var groupOfK = 0u; groupOfK < STEP_GROUPS; groupOfK++) {
      let at = groupOfK * TILE + group;                                      // 4 rows of tileB hold TILE groups
      let blockB = mat4x4f(tileB[at], tileB[at + TILE_GROUPS], tileB[at + 2u * TILE_GROUPS], tileB[at + 3u * TILE_GROUPS]);
      for (var i = 0u; i < THREAD_ROWS; i++) { sums[i] = addProduct(sums[i], tileA[(row + i) * STEP_GROUPS + groupOfK], blockB); }
    }
  }

  let outputGroup = firstColumn / 4u + group;
  if (outputGroup >= shape.groups) { return; }
  for (var i = 0u; i < THREAD_ROWS && firstRow + row + i < shape.rows; i++) {
    let at = outputAt(part, firstRow + row + i, outputGroup);
    output[at] = start(at, outputGroup) + sums[i];
  }
}

// The sum of the slices, in order: one thread a group of the output.
@compute @workgroup_size(64)
fn sumSlices(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let index = (workgroup.y * workgroups.x + workgroup.x) * 64u + thread;
  let size = shape.rows * shape.groups;
  if (index >= shape.batches * size) { return; }
  let batch = index / size;
  var sum = vec4f();
  for (var slice = 0u; slice < shape.slices; slice++) { sum += partial[(batch * shape.slices + slice) * size + index % size]; }
  let at = outputAt(batch, index % size / shape.groups, index % shape.groups);
  output[at] = start(at, index % shape.groups) + sum;
}
