// Matrix product for software adapters with subgroups; mathematics, operands, row maps, runs and splits as in matmul.wgsl.
//
// There a load from any memory costs as much as 25 to 50 multiplications and a barrier as much as 200, but a broadcast from one
// lane of a subgroup only two. So a workgroup is one subgroup, without workgroup memory: it makes a tile of ROWS x 4 LANES
// outputs, 4 terms at a time. Every lane loads a block of 4 x 4 of A and one of B; the blocks of A are broadcast in turn, and
// every lane adds their products with its own block of B, four columns for all rows of the tile. In a dual product it
// does so twice, for B and for `up`, and has both sums.

enable subgroups;

const LANES: u32 = 8u;                                                       // @param  of a subgroup: 8 or 4
const ROWS: u32 = 32u;                                                       // @param  of a tile: a multiple of 4, at most 4 LANES
const PRODUCTS: u32 = 1u;                                                    // @param  2: dual

alias WordA = vec4f;                                                         // @param  storage of four elements
// @or f16, bf16  alias WordA = vec2u;
fn unpackA(word: WordA) -> vec4f { return word; }                            // @param
// @or f16   fn unpackA(word: WordA) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpackA(word: WordA) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
alias WordB = vec4f;                                                         // @param
// @or f16, bf16  alias WordB = vec2u;
fn unpackB(word: WordB) -> vec4f { return word; }                            // @param
// @or f16   fn unpackB(word: WordB) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpackB(word: WordB) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
alias Word = vec4f;                                                          // @param  of the output and the residual
// @or f16, bf16  alias Word = vec2u;
fn unpack(word: Word) -> vec4f { return word; }                              // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
fn pack(value: vec4f) -> Word { return value; }                              // @param
// @or f16   fn pack(value: vec4f) -> Word { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0));
// @or f16     let nan = select(vec4u(), vec4u(0x7e00u), (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or f16     return vec2u(pack2x16float(safe.xy), pack2x16float(safe.zw)) | nan.xz | (nan.yw << vec2u(16u)); }
// @or bf16  fn pack(value: vec4f) -> Word { let bits = bitcast<vec4u>(value); let half = ((bits >> vec4u(16u)) & vec4u(1u)) + 0x7fffu;
// @or bf16    let kept = select((bits + half) >> vec4u(16u), vec4u(0x7fc0u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or bf16    return kept.xz | (kept.yw << vec2u(16u)); }
alias Kept = vec4f;                                                          // @param  of what is kept for backward
// @or f16, bf16  alias Kept = vec2u;
fn unpackKept(word: Kept) -> vec4f { return word; }                          // @param
// @or f16   fn unpackKept(word: Kept) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpackKept(word: Kept) -> vec4f { return bitcast<vec4f>(vec4u(word << vec2u(16u), word & vec2u(0xffff0000u)).xzyw); }
fn packKept(value: vec4f) -> Kept { return value; }                          // @param
// @or f16   fn packKept(value: vec4f) -> Kept { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0));
// @or f16     let nan = select(vec4u(), vec4u(0x7e00u), (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or f16     return vec2u(pack2x16float(safe.xy), pack2x16float(safe.zw)) | nan.xz | (nan.yw << vec2u(16u)); }
// @or bf16  fn packKept(value: vec4f) -> Kept { let bits = bitcast<vec4u>(value); let half = ((bits >> vec4u(16u)) & vec4u(1u)) + 0x7fffu;
// @or bf16    let kept = select((bits + half) >> vec4u(16u), vec4u(0x7fc0u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or bf16    return kept.xz | (kept.yw << vec2u(16u)); }

fn blockOfA(rows: vec4u, m: u32, at: Term) -> mat4x4f { return loadA(rows + groupOf(at), inRun(at)); } // @param
// @or transposed  fn blockOfA(rows: vec4u, m: u32, at: Term) -> mat4x4f {
// @or transposed    return transpose(loadA(termsOfA(at) + m / 4u, eachInRun(at))); }
fn blockOfB(rows: vec4u, n: u32, dual: u32, at: Term) -> mat4x4f { return loadB(termsOfB(at) + n / 4u, dual, inRun(at)); } // @param
// @or transposed  fn blockOfB(rows: vec4u, n: u32, dual: u32, at: Term) -> mat4x4f {
// @or transposed    return transpose(loadB(rows + groupOf(at), dual, inRun(at))); }
fn readB(at: u32, dual: u32) -> vec4f { return unpackB(b[at]); }             // @param
// @or dual  fn readB(at: u32, dual: u32) -> vec4f { if (dual == 0u) { return unpackB(b[at]); } return unpackB(up[at]); }

// The epilogue of a sum, by alternatives of these functions (epilogue.ts): withResidual(activated(withBias(sum))), or that of a
// gated MLP (gated-mlp.ts), from the sums of both its products.
fn withBias(group: u32, sum: vec4f) -> vec4f { return sum; }                 // @param
// @or bias  fn withBias(group: u32, sum: vec4f) -> vec4f { return bias[group] + sum; }
fn activated(z: vec4f) -> vec4f { return z; }                                // @param
// @or gelu   fn activated(z: vec4f) -> vec4f { return gelu(z); }
// @or swish  fn activated(z: vec4f) -> vec4f { return swish(z); }
fn activationSlope(z: vec4f) -> vec4f { return vec4f(1.0); }                 // @param
// @or gelu   fn activationSlope(z: vec4f) -> vec4f { return geluSlope(z); }
// @or swish  fn activationSlope(z: vec4f) -> vec4f { return swishSlope(z); }
fn withResidual(at: u32, value: vec4f) -> vec4f { return value; }            // @param
// @or residual     fn withResidual(at: u32, value: vec4f) -> vec4f { return unpack(residual[at]) + value; }
// @or accumulated  fn withResidual(at: u32, value: vec4f) -> vec4f { return output[at] + value; }
fn keep(at: u32, z: vec4f, up: vec4f) {}                                     // @param  for backward
// @or preActivation  fn keep(at: u32, z: vec4f, up: vec4f) { preActivation[at] = packKept(z); }
// @or both           fn keep(at: u32, z: vec4f, up: vec4f) { preActivation[at] = packKept(z); upOutput[at] = packKept(up); }
fn epilogue(at: u32, group: u32, sum: vec4f, up: vec4f) -> vec4f { return projected(at, withBias(group, sum)); } // @param
// @or gated  fn epilogue(at: u32, group: u32, sum: vec4f, up: vec4f) -> vec4f { keep(at, sum, up); return activated(sum) * up; }
// @or gatedBackward  fn epilogue(at: u32, group: u32, sum: vec4f, up: vec4f) -> vec4f {
// @or gatedBackward    let z = unpackKept(forwardPreActivation[at]); let u = unpackKept(forwardUpOutput[at]); let value = activated(z);
// @or gatedBackward    dUpOutput[at] = sum * value; keep(at, value * u, vec4f()); return sum * u * activationSlope(z); }

struct Shape {
  rows: u32, groups: u32, depth: u32,                                        // of the output: rows and columns / 4; terms of a sum
  batches: u32, splits: u32, splitRuns: u32, runs: u32, runLength: u32,      // splits and runs of a batch, runs of a split, terms of a run
  aGroups: u32, aBatch: u32, aLength: u32, aStride: u32, aOffset: u32,       // as stored: groups to a row, groups from one
  bGroups: u32, bBatch: u32, bLength: u32, bStride: u32, bOffset: u32,       // batch to the next, row map
  outputBatch: u32, outputLength: u32, outputStride: u32, outputOffset: u32,
}
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<WordA>;
@group(0) @binding(2) var<storage, read> b: array<WordB>;
@group(0) @binding(3) var<storage, read> up: array<WordB>;
@group(0) @binding(4) var<storage, read_write> output: array<Word>;
// The operands of the epilogue, in the places of the output. An activation f(z) keeps z; a gated MLP h = f(z) u keeps z and u, and
// its backward reads them to make du = dh f(z).
@group(0) @binding(6) var<storage, read> bias: array<vec4f>;                 // [groups]
@group(0) @binding(7) var<storage, read> residual: array<Word>;
@group(0) @binding(8) var<storage, read_write> preActivation: array<Kept>;        // z
@group(0) @binding(9) var<storage, read_write> upOutput: array<Kept>;             // u
@group(0) @binding(10) var<storage, read> forwardPreActivation: array<Kept>;      // z
@group(0) @binding(11) var<storage, read> forwardUpOutput: array<Kept>;           // u
@group(0) @binding(12) var<storage, read_write> dUpOutput: array<vec4f>;          // du

const ZERO_TO_THREE = vec4u(0u, 1u, 2u, 3u);

fn mapRows(rows: vec4u, length: u32, stride: u32, offset: u32) -> vec4u { return rows / length * stride + offset + rows % length; }

// Where rows m .. m+3 of A begin in memory, and columns n .. n+3 of a transposed B.
fn rowsOfA(batch: u32, m: u32) -> vec4u {
  return batch * shape.aBatch + mapRows(m + ZERO_TO_THREE, shape.aLength, shape.aStride, shape.aOffset) * shape.aGroups;
}
fn rowsOfB(batch: u32, n: u32) -> vec4u {
  return batch * shape.bBatch + mapRows(n + ZERO_TO_THREE, shape.bLength, shape.bStride, shape.bOffset) * shape.bGroups;
}

// A place on the way along the depth: term k of a run that has `length` terms.
struct Term { batch: u32, run: u32, k: u32, length: u32 }

// Where terms k .. k+3 begin: as rows of a transposed A, as rows of B, and as a group within a row. Of B, a term beyond the run is read
// as term k, because a mask would cost time: it counts as zero by A.
fn termsOfA(at: Term) -> vec4u {
  return at.batch * shape.aBatch + (at.run * shape.aStride + shape.aOffset + at.k) * shape.aGroups + ZERO_TO_THREE * shape.aGroups;
}
fn termsOfB(at: Term) -> vec4u {
  let next = select(vec4u(), ZERO_TO_THREE * shape.bGroups, eachInRun(at));
  return at.batch * shape.bBatch + (at.run * shape.bStride + shape.bOffset + at.k) * shape.bGroups + next;
}
fn groupOf(at: Term) -> u32 { return (at.run * shape.runLength + at.k) / 4u; }

// Whether these terms are in the run: their group, which always begins there, and each of them.
fn inRun(at: Term) -> vec4<bool> { return vec4<bool>(true); }
fn eachInRun(at: Term) -> vec4<bool> { return at.k + ZERO_TO_THREE < vec4u(at.length); }

// Four stored rows of a group, as the columns of a WGSL matrix; zeros in place of terms that are not in the run.
fn loadA(at: vec4u, present: vec4<bool>) -> mat4x4f {
  return mat4x4f(select(vec4f(), unpackA(a[at.x]), present.x), select(vec4f(), unpackA(a[at.y]), present.y),
                 select(vec4f(), unpackA(a[at.z]), present.z), select(vec4f(), unpackA(a[at.w]), present.w));
}

fn loadB(at: vec4u, dual: u32, present: vec4<bool>) -> mat4x4f {
  return mat4x4f(select(vec4f(), readB(at.x, dual), present.x), select(vec4f(), readB(at.y, dual), present.y),
                 select(vec4f(), readB(at.z, dual), present.z), select(vec4f(), readB(at.w, dual), present.w));
}

// sum + A[m, k .. k+3] B[k .. k+3, n .. n+3], for one m.
fn addProduct(sum: vec4f, rowOfA: vec4f, blockB: mat4x4f) -> vec4f {
  let two = fma(blockB[1], vec4f(rowOfA.y), fma(blockB[0], vec4f(rowOfA.x), sum));
  return fma(blockB[3], vec4f(rowOfA.w), fma(blockB[2], vec4f(rowOfA.z), two));
}

fn addBlock(sums: mat4x4f, blockA: mat4x4f, blockB: mat4x4f) -> mat4x4f {
  return mat4x4f(addProduct(sums[0], blockA[0], blockB), addProduct(sums[1], blockA[1], blockB),
                 addProduct(sums[2], blockA[2], blockB), addProduct(sums[3], blockA[3], blockB));
}

// Activations and their slopes, as in activation.wgsl. s(z) = 1 / (1 + exp(-z)), made from exp(-|z|), which never overflows.
fn logistic(z: vec4f) -> vec4f {
  let e = exp(-abs(z));
  return select(e, vec4f(1.0), z >= vec4f()) / (1.0 + e);
}

fn logisticSlope(z: vec4f) -> vec4f {
  let e = exp(-abs(z));
  return e / ((1.0 + e) * (1.0 + e));
}

fn swish(x: vec4f) -> vec4f { return x * logistic(x); }
fn swishSlope(x: vec4f) -> vec4f { return logistic(x) + x * logisticSlope(x); }

// The tanh form of GELU is x s(2u) with u = sqrt(2/pi) (x + 0.044715 x^3); this is 2u. Beyond +-10 s(2u) is 1 to the last bit or below
// 1.3e-38, and x^3 would overflow for very large x: so x is clamped.
fn geluArgument(x: vec4f) -> vec4f {
  let near = clamp(x, vec4f(-10.0), vec4f(10.0));
  return 1.5957691216057308 * (near + 0.044715 * near * near * near);
}

fn gelu(x: vec4f) -> vec4f { return x * logistic(geluArgument(x)); }
fn geluSlope(x: vec4f) -> vec4f {
  let near = clamp(x, vec4f(-10.0), vec4f(10.0));
  let z = geluArgument(x);
  return logistic(z) + near * logisticSlope(z) * 1.5957691216057308 * (1.0 + 0.134145 * near * near);
}

// The epilogue of a linear map.
fn projected(at: u32, z: vec4f) -> vec4f {
  keep(at, z, vec4f());
  return withResidual(at, activated(z));
}

// A column of one lane, and its whole block, in all lanes. The number of the lane must be a constant.
fn lane0(a: vec4f) -> vec4f { return subgroupBroadcast(a, 0u); }
fn lane1(a: vec4f) -> vec4f { return subgroupBroadcast(a, 1u); }
fn lane2(a: vec4f) -> vec4f { return subgroupBroadcast(a, 2u); }
fn lane3(a: vec4f) -> vec4f { return subgroupBroadcast(a, 3u); }
fn lane4(a: vec4f) -> vec4f { return subgroupBroadcast(a, 4u); }
fn lane5(a: vec4f) -> vec4f { return subgroupBroadcast(a, 5u); }
fn lane6(a: vec4f) -> vec4f { return subgroupBroadcast(a, 6u); }
fn lane7(a: vec4f) -> vec4f { return subgroupBroadcast(a, 7u); }
fn fromLane0(a: mat4x4f) -> mat4x4f { return mat4x4f(lane0(a[0]), lane0(a[1]), lane0(a[2]), lane0(a[3])); }
fn fromLane1(a: mat4x4f) -> mat4x4f { return mat4x4f(lane1(a[0]), lane1(a[1]), lane1(a[2]), lane1(a[3])); }
fn fromLane2(a: mat4x4f) -> mat4x4f { return mat4x4f(lane2(a[0]), lane2(a[1]), lane2(a[2]), lane2(a[3])); }
fn fromLane3(a: mat4x4f) -> mat4x4f { return mat4x4f(lane3(a[0]), lane3(a[1]), lane3(a[2]), lane3(a[3])); }
fn fromLane4(a: mat4x4f) -> mat4x4f { return mat4x4f(lane4(a[0]), lane4(a[1]), lane4(a[2]), lane4(a[3])); }
fn fromLane5(a: mat4x4f) -> mat4x4f { return mat4x4f(lane5(a[0]), lane5(a[1]), lane5(a[2]), lane5(a[3])); }
fn fromLane6(a: mat4x4f) -> mat4x4f { return mat4x4f(lane6(a[0]), lane6(a[1]), lane6(a[2]), lane6(a[3])); }
fn fromLane7(a: mat4x4f) -> mat4x4f { return mat4x4f(lane7(a[0]), lane7(a[1]), lane7(a[2]), lane7(a[3])); }

// The sums of one split of a batch, with B or (dual 1) with `up`: sums[i] are rows 4i .. 4i+3 of the tile. The lane loads the blocks
// of rows m .. m+3 of A and of columns n .. n+3 of B. One product after the other: the sums of both would not leave each other room.
fn sumsOf(dual: u32, batch: u32, split: u32, m: u32, n: u32) -> array<mat4x4f, 8> {
  let rowsA = rowsOfA(batch, m);
  let rowsB = rowsOfB(batch, n);
  var sums = array<mat4x4f, 8>();
  let firstRun = split * shape.splitRuns;
  for (var run = firstRun; run < min(firstRun + shape.splitRuns, shape.runs); run++) {
    let length = min(shape.runLength, shape.depth - run * shape.runLength);
    for (var k = 0u; k < length; k += 4u) {
      let at = Term(batch, run, k, length);
      let blockB = blockOfB(rowsB, n, dual, at);
      let blockA = blockOfA(rowsA, m, at);
      sums[0] = addBlock(sums[0], fromLane0(blockA), blockB);
      if (ROWS > 4u) { sums[1] = addBlock(sums[1], fromLane1(blockA), blockB); }
      if (ROWS > 8u) { sums[2] = addBlock(sums[2], fromLane2(blockA), blockB); }
      if (ROWS > 12u) { sums[3] = addBlock(sums[3], fromLane3(blockA), blockB); }
      if (ROWS > 16u) { sums[4] = addBlock(sums[4], fromLane4(blockA), blockB); }
      if (ROWS > 20u) { sums[5] = addBlock(sums[5], fromLane5(blockA), blockB); }
      if (ROWS > 24u) { sums[6] = addBlock(sums[6], fromLane6(blockA), blockB); }
      if (ROWS > 28u) { sums[7] = addBlock(sums[7], fromLane7(blockA), blockB); }
    }
  }
  return sums;
}

// Rows m .. m+3 of the output, as far as it has them.
fn storeRows(batch: u32, m: u32, group: u32, sums: mat4x4f, ups: mat4x4f) {
  let stored = mapRows(m + ZERO_TO_THREE, shape.outputLength, shape.outputStride, shape.outputOffset);
  let at = batch * shape.outputBatch + stored * shape.groups + group;
  for (var i = 0u; i < min(4u, shape.rows - m); i++) { output[at[i]] = pack(epilogue(at[i], group, sums[i], ups[i])); }
}

// The product; or one split of its depth, and `output` is then partial sums [batches * splits, rows, groups].
@compute @workgroup_size(LANES) fn product(grid: Grid, @builtin(subgroup_invocation_id) lane: u32) {
  let rowTiles = (shape.rows + ROWS - 1u) / ROWS;
  let columnTiles = (shape.groups + LANES - 1u) / LANES;
  let tile = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  let part = tile / (rowTiles * columnTiles);                                // which split of which batch
  if (part >= shape.batches * shape.splits) { return; }
  let batch = part / shape.splits;
  let split = part % shape.splits;
  let firstRow = tile / columnTiles % rowTiles * ROWS;
  let group = tile % columnTiles * LANES + lane;                             // of columns, in the output
  let m = firstRow + 4u * lane;

  var sums = sumsOf(0u, batch, split, m, 4u * group);
  var ups = array<mat4x4f, 8>();
  if (PRODUCTS == 2u) { ups = sumsOf(1u, batch, split, m, 4u * group); }

  if (group >= shape.groups) { return; }
  for (var row = firstRow; row < min(firstRow + ROWS, shape.rows); row += 4u) {
    storeRows(part, row, group, sums[0], ups[0]);
    for (var i = 1u; i < 8u; i++) {                                          // a variable index would keep sums in memory
      sums[i - 1u] = sums[i];
      ups[i - 1u] = ups[i];
    }
  }
}
