// Matrix product.
//
//   output[m,n] = start[m,n] + sum_k A[m,k] B[k,n]                 start: 0, the bias[n], or what output holds already
//
// Backward is the same kernel again:  dA = dOutput B^T,  dB = A^T dOutput  (the gradient of a bias: column-sums.wgsl).
//
// A [rows, depth] and B [depth, columns] are stored as they are or transposed; blockOfA and blockOfB say which. Stored rows are
// whole groups of four elements, zeros beyond the last. Rows that do not simply follow one another (an expert's rows of a joint
// sequence) have a row map: row r is stored row (r / length) * stride + offset + r % length.
//
// The depth is walked in runs of `runLength` terms: a run is a stretch of consecutive stored rows where the depth has a row map
// (run s begins at stored row s * stride + offset), else a piece of a long depth, a multiple of STEP terms. A slice is a few runs
// with a workgroup of its own, for products with few outputs and many terms; sumSlices adds the slices. Sums are f32, in a fixed order.
//
// A workgroup makes a tile of 64 x 64 outputs, 16 terms at a time: half of the threads bring the next 64 x 16 of A into
// workgroup memory, the others the next 16 x 64 of B, a block of 4 x 4 each. Then every thread adds to its own 8 x 4 outputs. Terms
// beyond a run count as zero. Rows of A and columns of B beyond the last are read as whatever lies there, or as WebGPU bounds the
// access: they reach only outputs that are not stored.

const TILE: u32 = 64u;                                                       // rows, and columns, of a tile of the output
const STEP: u32 = 16u;                                                       // terms at a time
const THREAD_ROWS: u32 = 8u;                                                 // outputs of a thread: so many rows x 4 columns
const TILE_GROUPS: u32 = TILE / 4u;
const STEP_GROUPS: u32 = STEP / 4u;
const TILE_BLOCKS: u32 = TILE_GROUPS * STEP_GROUPS;                          // blocks of 4 x 4 in a tile of A, and of B
const THREADS: u32 = TILE / THREAD_ROWS * TILE_GROUPS;                       // = 2 TILE_BLOCKS

fn blockOfA(rows: vec4u, m: u32, at: Term) -> mat4x4f { return loadA(rows + groupOf(at), inRun(at)); } // @param  or transpose(loadA(termsOfA(at) + m / 4u, eachInRun(at)))
fn blockOfB(rows: vec4u, n: u32, at: Term) -> mat4x4f { return loadB(termsOfB(at) + n / 4u, eachInRun(at)); } // @param  or transpose(loadB(rows + groupOf(at), inRun(at)))
fn start(at: u32, group: u32) -> vec4f { return vec4f(); }                   // @param  or bias[group], or output[at]

struct Shape {
  rows: u32, groups: u32, depth: u32,                                        // of the output: rows and columns / 4; terms of a sum
  batches: u32, slices: u32, sliceRuns: u32, runs: u32, runLength: u32,      // slices and runs of a batch, runs of a slice, terms of a run
  aGroups: u32, aBatch: u32, aLength: u32, aStride: u32, aOffset: u32,       // as stored: groups to a row, groups from one
  bGroups: u32, bBatch: u32, bLength: u32, bStride: u32, bOffset: u32,       // batch to the next, row map
  outputBatch: u32, outputLength: u32, outputStride: u32, outputOffset: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> output: array<vec4f>;
@group(0) @binding(5) var<storage, read> partial: array<vec4f>;              // [batches, slices, rows, groups]

var<workgroup> tileA: array<vec4f, TILE * STEP_GROUPS>;                      // row by row, groups along k
var<workgroup> tileB: array<vec4f, STEP * TILE_GROUPS>;                      // term by term, groups along n

const ZERO_TO_THREE = vec4u(0u, 1u, 2u, 3u);

fn mapRows(rows: vec4u, length: u32, stride: u32, offset: u32) -> vec4u { return rows / length * stride + offset + rows % length; }

// Where rows m .. m+3 of A begin in memory, and columns n .. n+3 of a transposed B.
fn rowsOfA(batch: u32, m: u32) -> vec4u { return batch * shape.aBatch + mapRows(m + ZERO_TO_THREE, shape.aLength, shape.aStride, shape.aOffset) * shape.aGroups; }
fn rowsOfB(batch: u32, n: u32) -> vec4u { return batch * shape.bBatch + mapRows(n + ZERO_TO_THREE, shape.bLength, shape.bStride, shape.bOffset) * shape.bGroups; }

// A place on the way along the depth: term k of a run that has `length` terms.
struct Term { batch: u32, run: u32, k: u32, length: u32 }

// Where terms k .. k+3 begin: as rows of a transposed A, as rows of B, and as a group within a row.
fn termsOfA(at: Term) -> vec4u { return at.batch * shape.aBatch + (at.run * shape.aStride + shape.aOffset + at.k + ZERO_TO_THREE) * shape.aGroups; }
fn termsOfB(at: Term) -> vec4u { return at.batch * shape.bBatch + (at.run * shape.bStride + shape.bOffset + at.k + ZERO_TO_THREE) * shape.bGroups; }
fn groupOf(at: Term) -> u32 { return (at.run * shape.runLength + at.k) / 4u; }

// Whether these terms are in the run: their group, and each of them.
fn inRun(at: Term) -> vec4<bool> { return vec4<bool>(at.k < at.length); }
fn eachInRun(at: Term) -> vec4<bool> { return at.k + ZERO_TO_THREE < vec4u(at.length); }

// Four stored rows of a group, as the columns of a WGSL matrix; zeros in place of terms that are not in the run.
fn loadA(at: vec4u, present: vec4<bool>) -> mat4x4f {
  return mat4x4f(select(vec4f(), a[at.x], present.x), select(vec4f(), a[at.y], present.y),
                 select(vec4f(), a[at.z], present.z), select(vec4f(), a[at.w], present.w));
}

fn loadB(at: vec4u, present: vec4<bool>) -> mat4x4f {
  return mat4x4f(select(vec4f(), b[at.x], present.x), select(vec4f(), b[at.y], present.y),
                 select(vec4f(), b[at.z], present.z), select(vec4f(), b[at.w], present.w));
}

// sum + A[m, k .. k+3] B[k .. k+3, n .. n+3], for one m.
fn addProduct(sum: vec4f, rowOfA: vec4f, blockB: mat4x4f) -> vec4f {
  return fma(blockB[3], vec4f(rowOfA.w), fma(blockB[2], vec4f(rowOfA.z), fma(blockB[1], vec4f(rowOfA.y), fma(blockB[0], vec4f(rowOfA.x), sum))));
}

fn store(batch: u32, row: u32, group: u32, sum: vec4f) {
  let stored = row / shape.outputLength * shape.outputStride + shape.outputOffset + row % shape.outputLength;
  let at = batch * shape.outputBatch + stored * shape.groups + group;
  output[at] = start(at, group) + sum;
}

// The product; or one slice of it, and `output` is then partial sums [batches * slices, rows, groups].
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
  let row = thread / TILE_GROUPS * THREAD_ROWS;                              // of this thread's outputs, within the tile
  let group = thread % TILE_GROUPS;

  let bringsA = thread < TILE_BLOCKS;                                        // the block that this thread brings each time
  let m = thread / STEP_GROUPS * 4u;
  let n = thread % TILE_GROUPS * 4u;
  let k = select((thread - TILE_BLOCKS) / TILE_GROUPS, thread % STEP_GROUPS, bringsA) * 4u;
  let rowsA = rowsOfA(batch, firstRow + m);
  let rowsB = rowsOfB(batch, firstColumn + n);

  var sums: array<vec4f, THREAD_ROWS>;
  let firstRun = part % shape.slices * shape.sliceRuns;
  for (var run = firstRun; run < min(firstRun + shape.sliceRuns, shape.runs); run++) {
    let length = min(shape.runLength, shape.depth - run * shape.runLength);
    for (var step = 0u; step < length; step += STEP) {
      let at = Term(batch, run, step + k, length);
      workgroupBarrier();
      if (bringsA) {
        let block = blockOfA(rowsA, firstRow + m, at);
        for (var i = 0u; i < 4u; i++) { tileA[(m + i) * STEP_GROUPS + k / 4u] = block[i]; }
      } else {
        let block = blockOfB(rowsB, firstColumn + n, at);
        for (var i = 0u; i < 4u; i++) { tileB[(k + i) * TILE_GROUPS + n / 4u] = block[i]; }
      }
      workgroupBarrier();
      for (var terms = 0u; terms < STEP_GROUPS; terms++) {
        let first = terms * TILE + group;                                    // four rows of tileB are TILE groups
        let blockB = mat4x4f(tileB[first], tileB[first + TILE_GROUPS], tileB[first + 2u * TILE_GROUPS], tileB[first + 3u * TILE_GROUPS]);
        for (var i = 0u; i < THREAD_ROWS; i++) { sums[i] = addProduct(sums[i], tileA[(row + i) * STEP_GROUPS + terms], blockB); }
      }
    }
  }

  let outputGroup = firstColumn / 4u + group;
  if (outputGroup >= shape.groups) { return; }
  for (var i = 0u; i < THREAD_ROWS && firstRow + row + i < shape.rows; i++) { store(part, firstRow + row + i, outputGroup, sums[i]); }
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
  store(batch, index % size / shape.groups, index % shape.groups, sum);
}
