// Matrix product for software adapters with subgroups; mathematics, operands, row maps, runs and slices as in matmul.wgsl.
//
// There a load from any memory costs as much as 25 to 50 multiplications and a barrier as much as 200, but a broadcast from one
// lane of a subgroup only two. So a workgroup is one subgroup, without workgroup memory: it makes a tile of 4 LANES x 4 LANES
// outputs, 4 terms at a time. Every lane loads a block of 4 x 4 of A and one of B; the blocks of A are broadcast in turn, and
// every lane adds their products with its own block of B, four columns for all rows of the tile.

enable subgroups;

const LANES: u32 = 8u;                                                       // @param  of a subgroup: 8 or 4

fn blockOfA(rows: vec4u, m: u32, at: Term) -> mat4x4f { return loadA(rows + groupOf(at), inRun(at)); } // @param  or transpose(loadA(termsOfA(at) + m / 4u, eachInRun(at)))
fn blockOfB(rows: vec4u, n: u32, at: Term) -> mat4x4f { return loadB(termsOfB(at) + n / 4u, eachInRun(at)); } // @param  or transpose(loadB(rows + groupOf(at), inRun(at)))
fn start(at: u32, group: u32) -> vec4f { return vec4f(); }                   // @param  or bias[group], or output[at]

struct Shape {
  rows: u32, groups: u32, depth: u32,                                        // of the output: rows and columns / 4; terms of a sum
  batches: u32, slices: u32, sliceRuns: u32, runs: u32, runLength: u32,
  aGroups: u32, aBatch: u32, aLength: u32, aStride: u32, aOffset: u32,       // as stored: groups to a row, groups from one
  bGroups: u32, bBatch: u32, bLength: u32, bStride: u32, bOffset: u32,       // batch to the next, row map
  outputBatch: u32, outputLength: u32, outputStride: u32, outputOffset: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> output: array<vec4f>;

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

fn addBlock(sums: mat4x4f, blockA: mat4x4f, blockB: mat4x4f) -> mat4x4f {
  return mat4x4f(addProduct(sums[0], blockA[0], blockB), addProduct(sums[1], blockA[1], blockB),
                 addProduct(sums[2], blockA[2], blockB), addProduct(sums[3], blockA[3], blockB));
}

// The block of one lane, in all lanes. The number of the lane must be a constant.
fn fromLane0(block: mat4x4f) -> mat4x4f { return mat4x4f(subgroupBroadcast(block[0], 0u), subgroupBroadcast(block[1], 0u), subgroupBroadcast(block[2], 0u), subgroupBroadcast(block[3], 0u)); }
fn fromLane1(block: mat4x4f) -> mat4x4f { return mat4x4f(subgroupBroadcast(block[0], 1u), subgroupBroadcast(block[1], 1u), subgroupBroadcast(block[2], 1u), subgroupBroadcast(block[3], 1u)); }
fn fromLane2(block: mat4x4f) -> mat4x4f { return mat4x4f(subgroupBroadcast(block[0], 2u), subgroupBroadcast(block[1], 2u), subgroupBroadcast(block[2], 2u), subgroupBroadcast(block[3], 2u)); }
fn fromLane3(block: mat4x4f) -> mat4x4f { return mat4x4f(subgroupBroadcast(block[0], 3u), subgroupBroadcast(block[1], 3u), subgroupBroadcast(block[2], 3u), subgroupBroadcast(block[3], 3u)); }
fn fromLane4(block: mat4x4f) -> mat4x4f { return mat4x4f(subgroupBroadcast(block[0], 4u), subgroupBroadcast(block[1], 4u), subgroupBroadcast(block[2], 4u), subgroupBroadcast(block[3], 4u)); }
fn fromLane5(block: mat4x4f) -> mat4x4f { return mat4x4f(subgroupBroadcast(block[0], 5u), subgroupBroadcast(block[1], 5u), subgroupBroadcast(block[2], 5u), subgroupBroadcast(block[3], 5u)); }
fn fromLane6(block: mat4x4f) -> mat4x4f { return mat4x4f(subgroupBroadcast(block[0], 6u), subgroupBroadcast(block[1], 6u), subgroupBroadcast(block[2], 6u), subgroupBroadcast(block[3], 6u)); }
fn fromLane7(block: mat4x4f) -> mat4x4f { return mat4x4f(subgroupBroadcast(block[0], 7u), subgroupBroadcast(block[1], 7u), subgroupBroadcast(block[2], 7u), subgroupBroadcast(block[3], 7u)); }

// Rows m .. m+3 of the output, as far as it has them.
fn storeRows(batch: u32, m: u32, group: u32, sums: mat4x4f) {
  let stored = mapRows(m + ZERO_TO_THREE, shape.outputLength, shape.outputStride, shape.outputOffset);
  let at = batch * shape.outputBatch + stored * shape.groups + group;
  if (m < shape.rows) { output[at.x] = start(at.x, group) + sums[0]; }
  if (m + 1u < shape.rows) { output[at.y] = start(at.y, group) + sums[1]; }
  if (m + 2u < shape.rows) { output[at.z] = start(at.z, group) + sums[2]; }
  if (m + 3u < shape.rows) { output[at.w] = start(at.w, group) + sums[3]; }
}

// The product; or one slice of it, and `output` is then partial sums [batches * slices, rows, groups].
@compute @workgroup_size(LANES)
fn product(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let rowTiles = (shape.rows + 4u * LANES - 1u) / (4u * LANES);
  let columnTiles = (shape.groups + LANES - 1u) / LANES;
  let tile = workgroup.y * workgroups.x + workgroup.x;
  let part = tile / (rowTiles * columnTiles);                                // which slice of which batch
  if (part >= shape.batches * shape.slices) { return; }
  let batch = part / shape.slices;
  let firstRow = tile / columnTiles % rowTiles * 4u * LANES;
  let group = tile % columnTiles * LANES + lane;                             // of columns, in the output
  let m = firstRow + 4u * lane;                                              // of the block of A that this lane loads
  let n = 4u * group;
  let rowsA = rowsOfA(batch, m);
  let rowsB = rowsOfB(batch, n);

  var sums: array<mat4x4f, 8>;                                               // sums[i]: rows 4i .. 4i+3 of the tile
  let firstRun = part % shape.slices * shape.sliceRuns;
  for (var run = firstRun; run < min(firstRun + shape.sliceRuns, shape.runs); run++) {
    let length = min(shape.runLength, shape.depth - run * shape.runLength);
    for (var k = 0u; k < length; k += 4u) {
      let at = Term(batch, run, k, length);
      let blockB = blockOfB(rowsB, n, at);
      let blockA = blockOfA(rowsA, m, at);
      sums[0] = addBlock(sums[0], fromLane0(blockA), blockB);
      sums[1] = addBlock(sums[1], fromLane1(blockA), blockB);
      sums[2] = addBlock(sums[2], fromLane2(blockA), blockB);
      sums[3] = addBlock(sums[3], fromLane3(blockA), blockB);
      if (LANES == 8u) {
        sums[4] = addBlock(sums[4], fromLane4(blockA), blockB);
        sums[5] = addBlock(sums[5], fromLane5(blockA), blockB);
        sums[6] = addBlock(sums[6], fromLane6(blockA), blockB);
        sums[7] = addBlock(sums[7], fromLane7(blockA), blockB);
      }
    }
  }

  if (group >= shape.groups) { return; }
  for (var row = firstRow; row < min(firstRow + 4u * LANES, shape.rows); row += 4u) {
    storeRows(part, row, group, sums[0]);
    for (var i = 1u; i < 8u; i++) { sums[i - 1u] = sums[i]; }                // a variable index would keep sums in memory, not in registers
  }
}
