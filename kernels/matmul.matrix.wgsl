// Matrix product with subgroup matrices, an experimental feature of Dawn; mathematics, row maps, runs and splits as in matmul.wgsl.
//
// Both operands are stored in f16 and multiplied as they are: the product of two f16 numbers is exact in f32. Sums are f32; the
// hardware adds the terms of a matrix in an order of its own. Gradients are f32, so no product of backward comes here, and the
// epilogues of backward are not in this file.
//
// A workgroup is 2 x 2 subgroups of 32 lanes, which make a tile of TILE_ROWS x TILE_COLUMNS outputs, STEP terms at a time. The threads
// bring blocks of 4 x 4 of A and of B into workgroup memory: rows of A, then columns of B, each with its terms side by side, as the
// hardware reads them. Each subgroup multiplies a quarter of the tile in matrices of 16 x 16, while the blocks of the next step are
// on their way into registers. The sums then pass through the same memory to the epilogue, one matrix of every subgroup at a time.
//
// In a dual product (two PRODUCTS) the left subgroups make columns of B, the right ones the same columns of `up`.

enable f16, subgroups, subgroup_size_control, chromium_experimental_subgroup_matrix;

const TILE_ROWS: u32 = 64u;                                                  // @param
const TILE_COLUMNS: u32 = 64u;                                               // @param
const STEP: u32 = 32u;                                                       // @param  terms at a time: a multiple of 16
const PRODUCTS: u32 = 1u;                                                    // @param  2: dual
const SIZE: u32 = 16u;                                                       // of a matrix: rows, columns and terms
const THREADS: u32 = 128u;
const TILE_GROUPS: u32 = TILE_COLUMNS / 4u;
const PRODUCT_GROUPS: u32 = TILE_GROUPS / PRODUCTS;
const STEP_GROUPS: u32 = STEP / 4u;
const STRIDE: u32 = STEP_GROUPS + 2u;                                        // of a row in workgroup memory: whole 16 bytes, new banks
const BLOCKS_OF_A: u32 = TILE_ROWS / 4u * STEP_GROUPS;                       // of 4 x 4, in a tile
const BLOCKS_OF_B: u32 = TILE_GROUPS * STEP_GROUPS;
const LOADS_OF_A: u32 = BLOCKS_OF_A / THREADS;                               // blocks that a thread brings at a time
const LOADS_OF_B: u32 = BLOCKS_OF_B / THREADS;
const MATRIX_ROWS: u32 = TILE_ROWS / (2u * SIZE);                            // matrices of a subgroup
const MATRIX_COLUMNS: u32 = TILE_COLUMNS / (2u * SIZE);
const MATRICES: u32 = MATRIX_ROWS * MATRIX_COLUMNS;

alias Left = subgroup_matrix_left<f16, SIZE, SIZE>;
alias Right = subgroup_matrix_right<f16, SIZE, SIZE>;
alias Sum = subgroup_matrix_result<f32, SIZE, SIZE>;
// Four rows of A or columns of B, four terms of each.
alias Block = array<vec2u, 4>;

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
fn packKept(value: vec4f) -> Kept { return value; }                          // @param
// @or f16   fn packKept(value: vec4f) -> Kept { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0));
// @or f16     let nan = select(vec4u(), vec4u(0x7e00u), (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or f16     return vec2u(pack2x16float(safe.xy), pack2x16float(safe.zw)) | nan.xz | (nan.yw << vec2u(16u)); }
// @or bf16  fn packKept(value: vec4f) -> Kept { let bits = bitcast<vec4u>(value); let half = ((bits >> vec4u(16u)) & vec4u(1u)) + 0x7fffu;
// @or bf16    let kept = select((bits + half) >> vec4u(16u), vec4u(0x7fc0u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
// @or bf16    return kept.xz | (kept.yw << vec2u(16u)); }

fn blockOfA(rows: vec4u, m: u32, at: Term) -> Block { return loadA(rows + groupOf(at), inRun(at)); } // @param
// @or transposed  fn blockOfA(rows: vec4u, m: u32, at: Term) -> Block { return transposedA(m, at); }
fn blockOfB(rows: vec4u, n: u32, dual: u32, at: Term) -> Block { return transposedB(n, dual, at); } // @param
// @or transposed  fn blockOfB(rows: vec4u, n: u32, dual: u32, at: Term) -> Block { return loadB(rows + groupOf(at), dual, inRun(at)); }
fn readB(at: u32, dual: u32) -> vec2u { return b[at]; }                      // @param
// @or dual  fn readB(at: u32, dual: u32) -> vec2u { if (dual == 0u) { return b[at]; } return up[at]; }

// The epilogue of a sum, by alternatives of these functions (epilogue.ts): withResidual(activated(withBias(sum))), or that of a
// gated MLP (gated-mlp.ts), from the sums of both its products.
fn withBias(group: u32, sum: vec4f) -> vec4f { return sum; }                 // @param
// @or bias  fn withBias(group: u32, sum: vec4f) -> vec4f { return bias[group] + sum; }
fn activated(z: vec4f) -> vec4f { return z; }                                // @param
// @or gelu   fn activated(z: vec4f) -> vec4f { return gelu(z); }
// @or swish  fn activated(z: vec4f) -> vec4f { return swish(z); }
fn withResidual(at: u32, value: vec4f) -> vec4f { return value; }            // @param
// @or residual  fn withResidual(at: u32, value: vec4f) -> vec4f { return unpack(residual[at]) + value; }
fn keep(at: u32, z: vec4f, up: vec4f) {}                                     // @param  for backward
// @or preActivation  fn keep(at: u32, z: vec4f, up: vec4f) { preActivation[at] = packKept(z); }
// @or both           fn keep(at: u32, z: vec4f, up: vec4f) { preActivation[at] = packKept(z); upOutput[at] = packKept(up); }
fn epilogue(at: u32, group: u32, sum: vec4f, up: vec4f) -> vec4f { return projected(at, withBias(group, sum)); } // @param
// @or gated  fn epilogue(at: u32, group: u32, sum: vec4f, up: vec4f) -> vec4f { keep(at, sum, up); return activated(sum) * up; }

// Neighbouring threads bring blocks that are neighbours in memory: (group of rows, group of terms) of a block of A, and of columns of B.
fn placeInA(block: u32) -> vec2u { return vec2u(block / STEP_GROUPS, block % STEP_GROUPS); } // @param
// @or transposed  fn placeInA(block: u32) -> vec2u { return vec2u(block % (TILE_ROWS / 4u), block / (TILE_ROWS / 4u)); }
fn placeInB(block: u32) -> vec2u { return vec2u(block % TILE_GROUPS, block / TILE_GROUPS); } // @param
// @or transposed  fn placeInB(block: u32) -> vec2u { return vec2u(block / STEP_GROUPS, block % STEP_GROUPS); }

struct Shape {
  rows: u32, groups: u32, depth: u32,                                        // of the output: rows and columns / 4; terms of a sum
  batches: u32, splits: u32, splitRuns: u32, runs: u32, runLength: u32,      // splits and runs of a batch, runs of a split, terms of a run
  aGroups: u32, aBatch: u32, aLength: u32, aStride: u32, aOffset: u32,       // as stored: groups to a row, groups from one
  bGroups: u32, bBatch: u32, bLength: u32, bStride: u32, bOffset: u32,       // batch to the next, row map
  outputBatch: u32, outputLength: u32, outputStride: u32, outputOffset: u32,
}
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<vec2u>;
@group(0) @binding(2) var<storage, read> b: array<vec2u>;
@group(0) @binding(3) var<storage, read> up: array<vec2u>;
@group(0) @binding(4) var<storage, read_write> output: array<Word>;
// The operands of the epilogue, in the places of the output. An activation f(z) keeps z; a gated MLP h = f(z) u keeps z and u.
@group(0) @binding(6) var<storage, read> bias: array<vec4f>;                 // [groups]
@group(0) @binding(7) var<storage, read> residual: array<Word>;
@group(0) @binding(8) var<storage, read_write> preActivation: array<Kept>;        // z
@group(0) @binding(9) var<storage, read_write> upOutput: array<Kept>;             // u

const TILE_WORDS: u32 = (TILE_ROWS + TILE_COLUMNS) * STRIDE;
const RESULT_WORDS: u32 = SIZE * SIZE / 2u;                                  // of a matrix of sums
const RESULT_GROUPS: u32 = SIZE * SIZE / 4u;

// Rows of A, then columns of B; in the end a matrix of sums from each subgroup, two f32 in a word.
var<workgroup> tile: array<vec2u, TILE_WORDS>;

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

// Where terms k .. k+3 begin: as rows of a transposed A, as rows of B, and as a group within a row.
fn termsOfA(at: Term) -> vec4u {
  return at.batch * shape.aBatch + (at.run * shape.aStride + shape.aOffset + at.k) * shape.aGroups + ZERO_TO_THREE * shape.aGroups;
}
fn termsOfB(at: Term) -> vec4u {
  return at.batch * shape.bBatch + (at.run * shape.bStride + shape.bOffset + at.k) * shape.bGroups + ZERO_TO_THREE * shape.bGroups;
}
fn groupOf(at: Term) -> u32 { return (at.run * shape.runLength + at.k) / 4u; }

// Whether these terms are in the run: their group, and each of them.
fn inRun(at: Term) -> vec4<bool> { return vec4<bool>(at.k < at.length); }
fn eachInRun(at: Term) -> vec4<bool> { return at.k + ZERO_TO_THREE < vec4u(at.length); }

// Four stored words; zeros in place of terms that are not in the run.
fn loadA(at: vec4u, present: vec4<bool>) -> Block {
  return Block(select(vec2u(), a[at.x], present.x), select(vec2u(), a[at.y], present.y),
               select(vec2u(), a[at.z], present.z), select(vec2u(), a[at.w], present.w));
}

fn loadB(at: vec4u, dual: u32, present: vec4<bool>) -> Block {
  return Block(select(vec2u(), readB(at.x, dual), present.x), select(vec2u(), readB(at.y, dual), present.y),
               select(vec2u(), readB(at.z, dual), present.z), select(vec2u(), readB(at.w, dual), present.w));
}

// The lower halves of two words, and the upper ones.
fn lower(x: vec2u, y: vec2u) -> vec2u { return (x & vec2u(0xffffu)) | (y << vec2u(16u)); }
fn upper(x: vec2u, y: vec2u) -> vec2u { return (x >> vec2u(16u)) | (y & vec2u(0xffff0000u)); }

fn transposed(block: Block) -> Block {
  let even = array<vec2u, 2>(lower(block[0], block[1]), lower(block[2], block[3]));
  let odd = array<vec2u, 2>(upper(block[0], block[1]), upper(block[2], block[3]));
  return Block(vec2u(even[0].x, even[1].x), vec2u(odd[0].x, odd[1].x), vec2u(even[0].y, even[1].y), vec2u(odd[0].y, odd[1].y));
}

// Blocks of matrices that are stored term by term.
fn transposedA(m: u32, at: Term) -> Block { return transposed(loadA(termsOfA(at) + m / 4u, eachInRun(at))); }
fn transposedB(n: u32, dual: u32, at: Term) -> Block { return transposed(loadB(termsOfB(at) + n / 4u, dual, eachInRun(at))); }

// Activations, as in activation.wgsl. s(z) = 1 / (1 + exp(-z)), made from exp(-|z|), which never overflows.
fn logistic(z: vec4f) -> vec4f {
  let e = exp(-abs(z));
  return select(e, vec4f(1.0), z >= vec4f()) / (1.0 + e);
}

fn swish(x: vec4f) -> vec4f { return x * logistic(x); }

// The tanh form of GELU is x s(2u) with u = sqrt(2/pi) (x + 0.044715 x^3); this is 2u. Beyond +-10 s(2u) is 1 to the last bit or below
// 1.3e-38, and x^3 would overflow for very large x: so x is clamped.
fn geluArgument(x: vec4f) -> vec4f {
  let near = clamp(x, vec4f(-10.0), vec4f(10.0));
  return 1.5957691216057308 * (near + 0.044715 * near * near * near);
}

fn gelu(x: vec4f) -> vec4f { return x * logistic(geluArgument(x)); }

// The epilogue of a linear map.
fn projected(at: u32, z: vec4f) -> vec4f {
  keep(at, z, vec4f());
  return withResidual(at, activated(z));
}

fn store(batch: u32, row: u32, group: u32, sum: vec4f, up: vec4f) {
  let stored = row / shape.outputLength * shape.outputStride + shape.outputOffset + row % shape.outputLength;
  let at = batch * shape.outputBatch + stored * shape.groups + group;
  output[at] = pack(epilogue(at, group, sum, up));
}

fn sumAt(word: u32) -> vec4f { return vec4f(bitcast<vec2f>(tile[word]), bitcast<vec2f>(tile[word + 1u])); }

// The tile of a workgroup, and where the rows and columns begin that a thread brings.
struct Staging {
  batch: u32, firstRow: u32, firstGroup: u32, firstRun: u32,
  rowsA: array<vec4u, LOADS_OF_A>, rowsB: array<vec4u, LOADS_OF_B>,
}

// The blocks of one step that a thread brings.
struct Blocks { a: array<Block, LOADS_OF_A>, b: array<Block, LOADS_OF_B> }

fn stepsOfRun() -> u32 { return (shape.runLength + STEP - 1u) / STEP; }

// Group `group` of a step, counted from the beginning of the split.
fn termAt(own: Staging, step: u32, group: u32) -> Term {
  let run = own.firstRun + step / stepsOfRun();
  let length = min(shape.runLength, shape.depth - run * shape.runLength);
  return Term(own.batch, run, step % stepsOfRun() * STEP + 4u * group, length);
}

fn loadStep(own: Staging, thread: u32, step: u32) -> Blocks {
  var blocks: Blocks;
  for (var i = 0u; i < LOADS_OF_A; i++) {
    let place = placeInA(thread + i * THREADS);
    blocks.a[i] = blockOfA(own.rowsA[i], own.firstRow + 4u * place.x, termAt(own, step, place.y));
  }
  for (var i = 0u; i < LOADS_OF_B; i++) {
    let place = placeInB(thread + i * THREADS);
    let n = 4u * (own.firstGroup + place.x % PRODUCT_GROUPS);
    blocks.b[i] = blockOfB(own.rowsB[i], n, place.x / PRODUCT_GROUPS, termAt(own, step, place.y));
  }
  return blocks;
}

fn storeStep(blocks: Blocks, thread: u32) {
  for (var i = 0u; i < LOADS_OF_A; i++) {
    let place = placeInA(thread + i * THREADS);
    for (var j = 0u; j < 4u; j++) { tile[(4u * place.x + j) * STRIDE + place.y] = blocks.a[i][j]; }
  }
  for (var i = 0u; i < LOADS_OF_B; i++) {
    let place = placeInB(thread + i * THREADS);
    for (var j = 0u; j < 4u; j++) { tile[(TILE_ROWS + 4u * place.x + j) * STRIDE + place.y] = blocks.b[i][j]; }
  }
}

// The product; or one split of its depth, and `output` is then partial sums [batches * splits, rows, groups].
@compute @workgroup_size(THREADS) @subgroup_size(32)
fn product(grid: Grid, @builtin(local_invocation_index) thread: u32, @builtin(subgroup_id) subgroup: u32) {
  let rowTiles = (shape.rows + TILE_ROWS - 1u) / TILE_ROWS;
  let columnTiles = (shape.groups + PRODUCT_GROUPS - 1u) / PRODUCT_GROUPS;
  let index = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  let part = index / (rowTiles * columnTiles);                               // which split of which batch
  if (part >= shape.batches * shape.splits) { return; }
  let batch = part / shape.splits;
  let firstRow = index / columnTiles % rowTiles * TILE_ROWS;
  let firstGroup = index % columnTiles * PRODUCT_GROUPS;
  let firstRun = part % shape.splits * shape.splitRuns;
  let steps = min(shape.splitRuns, shape.runs - firstRun) * stepsOfRun();
  var rowsA: array<vec4u, LOADS_OF_A>;
  for (var i = 0u; i < LOADS_OF_A; i++) { rowsA[i] = rowsOfA(batch, firstRow + 4u * placeInA(thread + i * THREADS).x); }
  var rowsB: array<vec4u, LOADS_OF_B>;
  for (var i = 0u; i < LOADS_OF_B; i++) {
    rowsB[i] = rowsOfB(batch, 4u * (firstGroup + placeInB(thread + i * THREADS).x % PRODUCT_GROUPS));
  }
  let own = Staging(batch, firstRow, firstGroup, firstRun, rowsA, rowsB);
  let ownRows = subgroup / 2u * (TILE_ROWS / 2u);                            // of this subgroup, in workgroup memory
  let ownColumns = TILE_ROWS + subgroup % 2u * (TILE_COLUMNS / 2u);

  var sums: array<Sum, MATRICES>;
  var next = loadStep(own, thread, 0u);
  for (var step = 0u; step < steps; step++) {
    workgroupBarrier();
    storeStep(next, thread);
    workgroupBarrier();
    if (step + 1u < steps) { next = loadStep(own, thread, step + 1u); }
    for (var terms = 0u; terms < STEP_GROUPS; terms += SIZE / 4u) {
      var right: array<Right, MATRIX_COLUMNS>;
      for (var j = 0u; j < MATRIX_COLUMNS; j++) {
        right[j] = subgroupMatrixLoad<Right, col_major>(&tile, (ownColumns + j * SIZE) * STRIDE + terms, STRIDE);
      }
      for (var i = 0u; i < MATRIX_ROWS; i++) {
        let left = subgroupMatrixLoad<Left, row_major>(&tile, (ownRows + i * SIZE) * STRIDE + terms, STRIDE);
        for (var j = 0u; j < MATRIX_COLUMNS; j++) {
          let at = i * MATRIX_COLUMNS + j;
          sums[at] = subgroupMatrixMultiplyAccumulate(left, right[j], sums[at]);
        }
      }
    }
  }

  for (var made = 0u; made < MATRICES; made++) {
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&tile, subgroup * RESULT_WORDS, sums[0], SIZE / 2u);
    workgroupBarrier();
    for (var place = thread; place < 4u / PRODUCTS * RESULT_GROUPS; place += THREADS) {
      let maker = place / RESULT_GROUPS * PRODUCTS;                          // the subgroup of the sums; `up` is its neighbour's
      let row = firstRow + maker / 2u * (TILE_ROWS / 2u) + made / MATRIX_COLUMNS * SIZE + place % RESULT_GROUPS / (SIZE / 4u);
      let group = firstGroup + maker % 2u * (TILE_GROUPS / 2u) + (made % MATRIX_COLUMNS * SIZE + place * 4u % SIZE) / 4u;
      if (row < shape.rows && group < shape.groups) {
        let at = maker * RESULT_WORDS + 2u * (place % RESULT_GROUPS);
        store(part, row, group, sumAt(at), sumAt(at + (PRODUCTS - 1u) * RESULT_WORDS));
      }
    }
    // A variable index would keep the sums in memory, not in registers.
    for (var m = 1u; m < MATRICES; m++) { sums[m - 1u] = sums[m]; }
  }
}
