// Matrix product.
//
//   output[m,n] = epilogue(sum_k A[m,k] B[k,n])                    epilogue: as it is, or with a bias, an activation, a residual ...
//
// Backward is the same kernel again:  dA = dOutput B^T,  dB = A^T dOutput  (the gradient of a bias: reduce.wgsl).
//
// A [rows, depth] and B [depth, columns] are stored as they are or transposed; blockOfA and blockOfB say which. Stored rows are
// whole groups of four elements, zeros beyond the last, in f32, f16 or bf16. Rows that do not simply follow one another (an expert's
// rows of a joint sequence) have a row map: row r is stored row (r / length) * stride + offset + r % length.
//
// The depth is walked in runs of `runLength` terms: a run is a stretch of consecutive stored rows where the depth has a row map
// (run s begins at stored row s * stride + offset), else a piece of a long depth, a multiple of STEP terms. For products
// with few outputs and many terms the depth is split (split K): a workgroup takes a few runs, and reduceSplits adds the partial sums.
// Sums are f32, in a fixed order.
//
// A workgroup makes a tile of TILE_ROWS x TILE_COLUMNS outputs, STEP terms at a time: the threads bring the next TILE_ROWS x STEP of
// A and STEP x TILE_COLUMNS of B into workgroup memory, in blocks of 4 x 4. Then every thread adds to its own THREAD_ROWS rows x
// THREAD_GROUPS groups of four columns, term by term: it reads a column of its rows of A and a row of its columns of B, and multiplies
// each with each. Terms beyond a run count as zero. Rows of A and columns of B beyond the last are read as whatever lies there, or as
// WebGPU bounds the access: they reach only outputs that are not stored, or that pad the width to a whole number of groups.
//
// A dual product (two PRODUCTS) is that of a gated MLP, activation(A B) * (A up): B is its gate. The left half of a tile holds columns
// of B, the right half the same columns of a second matrix `up`, stored like B. A thread has both sums of an output for its epilogue.

const TILE_ROWS: u32 = 64u;                                                  // @param
const TILE_COLUMNS: u32 = 64u;                                               // @param
const STEP: u32 = 16u;                                                       // terms at a time
const THREAD_ROWS: u32 = 8u;                                                 // @param
const THREAD_GROUPS: u32 = 1u;                                               // @param
const PRODUCTS: u32 = 1u;                                                    // @param  2: dual; divides THREAD_GROUPS
const TILE_GROUPS: u32 = TILE_COLUMNS / 4u;
const PRODUCT_GROUPS: u32 = TILE_GROUPS / PRODUCTS;
const OWN_ROW_GROUPS: u32 = THREAD_ROWS / 4u;
const STEP_GROUPS: u32 = STEP / 4u;
const BLOCKS_OF_A: u32 = TILE_ROWS / 4u * STEP_GROUPS;                       // blocks of 4 x 4 in a tile
const BLOCKS_OF_B: u32 = TILE_GROUPS * STEP_GROUPS;
const COLUMN_THREADS: u32 = TILE_GROUPS / THREAD_GROUPS;
const ROW_THREADS: u32 = TILE_ROWS / THREAD_ROWS;
const THREADS: u32 = ROW_THREADS * COLUMN_THREADS;
// Threads take blocks in turns: those of A, then those of B. B begins in A's last turn if all its blocks find threads there, else in
// the next.
const TURNS_OF_A: u32 = (BLOCKS_OF_A + THREADS - 1u) / THREADS;
const FIRST_OF_B: u32 = select(TURNS_OF_A * THREADS, BLOCKS_OF_A, BLOCKS_OF_A + BLOCKS_OF_B <= TURNS_OF_A * THREADS);
const TURNS: u32 = (FIRST_OF_B + BLOCKS_OF_B + THREADS - 1u) / THREADS;

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

// Blocks of 4 x 4. blockOfA has rows m .. m+3 as its columns, blockOfB has terms k .. k+3, so that a block of A is transposed once more
// when it is staged; m and n count rows of A and columns of B.
fn blockOfA(rows: vec4u, m: u32, at: Term) -> mat4x4f { return loadA(rows + groupOf(at), inRun(at)); } // @param
// @or transposed  fn blockOfA(rows: vec4u, m: u32, at: Term) -> mat4x4f {
// @or transposed    return transpose(loadA(termsOfA(at) + m / 4u, eachInRun(at))); }
fn blockOfB(rows: vec4u, n: u32, dual: u32, at: Term) -> mat4x4f { return loadB(termsOfB(at) + n / 4u, dual, eachInRun(at)); } // @param
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
// @or hidden         fn keep(at: u32, z: vec4f, up: vec4f) { hidden[at] = packKept(z); }
fn epilogue(at: u32, group: u32, sum: vec4f, up: vec4f) -> vec4f { return projected(at, withBias(group, sum)); } // @param
// @or gated  fn epilogue(at: u32, group: u32, sum: vec4f, up: vec4f) -> vec4f { keep(at, sum, up); return activated(sum) * up; }
// @or activationBackward  fn epilogue(at: u32, group: u32, sum: vec4f, up: vec4f) -> vec4f {
// @or activationBackward    return sum * activationSlope(unpackKept(forwardPreActivation[at])); }
// @or gatedBackward  fn epilogue(at: u32, group: u32, sum: vec4f, up: vec4f) -> vec4f {
// @or gatedBackward    let z = unpackKept(forwardPreActivation[at]); let u = unpackKept(forwardUpOutput[at]); let value = activated(z);
// @or gatedBackward    dUpOutput[at] = sum * value; keep(at, value * u, vec4f()); return sum * u * activationSlope(z); }

// Neighbouring threads bring blocks that are neighbours in memory: (group of rows, group of terms) of a block of A, and of columns of B.
fn placeInA(block: u32) -> vec2u { return vec2u(block / STEP_GROUPS, block % STEP_GROUPS); } // @param
// @or transposed  fn placeInA(block: u32) -> vec2u { return vec2u(block % (TILE_ROWS / 4u), block / (TILE_ROWS / 4u)); }
fn placeInB(block: u32) -> vec2u { return vec2u(block % TILE_GROUPS, block / TILE_GROUPS); } // @param
// @or transposed  fn placeInB(block: u32) -> vec2u { return vec2u(block / STEP_GROUPS, block % STEP_GROUPS); }

// Whether a thread's block in a turn is one of A, and of B. The first comparison is constant in an unrolled loop: compilers leave out
// turns without such blocks.
fn isOfA(turn: u32, block: u32) -> bool { return turn < TURNS_OF_A && block < BLOCKS_OF_A; }
fn isOfB(turn: u32, block: u32) -> bool { return turn >= FIRST_OF_B / THREADS && block - FIRST_OF_B < BLOCKS_OF_B; }

struct Shape {
  rows: u32, groups: u32, depth: u32,                                        // rows and groups of columns of the output; terms of a sum
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
@group(0) @binding(5) var<storage, read> partial: array<vec4f>;              // [batches, splits, rows, groups]
// The operands of the epilogue, in the places of the output. An activation f(z) keeps z; a gated MLP h = f(z) u keeps z and u, and
// its backward reads them to make du = dh f(z) and h again.
@group(0) @binding(6) var<storage, read> bias: array<vec4f>;                 // [groups]
@group(0) @binding(7) var<storage, read> residual: array<Word>;
@group(0) @binding(8) var<storage, read_write> preActivation: array<Kept>;        // z
@group(0) @binding(9) var<storage, read_write> upOutput: array<Kept>;             // u
@group(0) @binding(10) var<storage, read> forwardPreActivation: array<Kept>;      // z
@group(0) @binding(11) var<storage, read> forwardUpOutput: array<Kept>;           // u
@group(0) @binding(12) var<storage, read_write> dUpOutput: array<vec4f>;          // du
@group(0) @binding(13) var<storage, read_write> hidden: array<Kept>;              // h

// The tiles, four terms at a time, by the threads that use them. WGSL bounds an index that varies, constant ones become part of
// the instruction: in the innermost loop only a thread's own place and the terms vary. Threads that bring neighbouring terms store
// at the same time, and `apart` moves them to different banks of workgroup memory, of which there are 32, each 4 bytes wide.
struct TermsOfA { rows: array<array<array<vec4f, OWN_ROW_GROUPS>, ROW_THREADS>, 4>, apart: array<vec4f, 2> }
struct TermsOfB { columns: array<array<array<vec4f, COLUMN_THREADS>, THREAD_GROUPS>, 4>, apart: array<vec4f, 2> }
var<workgroup> tileA: array<TermsOfA, STEP_GROUPS>;
var<workgroup> tileB: array<TermsOfB, STEP_GROUPS>;

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

// Four stored rows of a group, as the columns of a WGSL matrix; zeros in place of terms that are not in the run.
fn loadA(at: vec4u, present: vec4<bool>) -> mat4x4f {
  return mat4x4f(select(vec4f(), unpackA(a[at.x]), present.x), select(vec4f(), unpackA(a[at.y]), present.y),
                 select(vec4f(), unpackA(a[at.z]), present.z), select(vec4f(), unpackA(a[at.w]), present.w));
}

fn loadB(at: vec4u, dual: u32, present: vec4<bool>) -> mat4x4f {
  return mat4x4f(select(vec4f(), readB(at.x, dual), present.x), select(vec4f(), readB(at.y, dual), present.y),
                 select(vec4f(), readB(at.z, dual), present.z), select(vec4f(), readB(at.w, dual), present.w));
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

fn store(batch: u32, row: u32, group: u32, sum: vec4f, up: vec4f) {
  let stored = row / shape.outputLength * shape.outputStride + shape.outputOffset + row % shape.outputLength;
  let at = batch * shape.outputBatch + stored * shape.groups + group;
  output[at] = pack(epilogue(at, group, sum, up));
}

// The product; or one split of its depth, and `output` is then partial sums [batches * splits, rows, groups].
@compute @workgroup_size(THREADS) fn product(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let rowTiles = (shape.rows + TILE_ROWS - 1u) / TILE_ROWS;
  let columnTiles = (shape.groups + PRODUCT_GROUPS - 1u) / PRODUCT_GROUPS;
  let tile = grid.workgroup.y * grid.count.x + grid.workgroup.x;
  let part = tile / (rowTiles * columnTiles);                                // which split of which batch
  if (part >= shape.batches * shape.splits) { return; }
  let batch = part / shape.splits;
  let firstRow = tile / columnTiles % rowTiles * TILE_ROWS;
  let firstGroup = tile % columnTiles * PRODUCT_GROUPS;
  let rowThread = thread / COLUMN_THREADS;                                   // where this thread's outputs are in the tile
  let columnThread = thread - rowThread * COLUMN_THREADS;                    // as a remainder (%) Mesa folds no constants into the loads

  var rows: array<vec4u, TURNS>;                                             // where the rows of this thread's blocks begin
  for (var turn = 0u; turn < TURNS; turn++) {
    let block = turn * THREADS + thread;
    if (isOfA(turn, block)) { rows[turn] = rowsOfA(batch, firstRow + 4u * placeInA(block).x); }
    if (isOfB(turn, block)) {
      rows[turn] = rowsOfB(batch, 4u * (firstGroup + placeInB(block - FIRST_OF_B).x % PRODUCT_GROUPS));
    }
  }

  var sums: array<vec4f, THREAD_ROWS * THREAD_GROUPS>;
  let firstRun = part % shape.splits * shape.splitRuns;
  for (var run = firstRun; run < min(firstRun + shape.splitRuns, shape.runs); run++) {
    let length = min(shape.runLength, shape.depth - run * shape.runLength);
    for (var step = 0u; step < length; step += STEP) {
      workgroupBarrier();                                                    // the last step's tiles have been read
      for (var turn = 0u; turn < TURNS; turn++) {
        let block = turn * THREADS + thread;
        if (isOfA(turn, block)) {
          let place = placeInA(block);
          let ofRows = blockOfA(rows[turn], firstRow + 4u * place.x, Term(batch, run, step + 4u * place.y, length));
          let terms = transpose(ofRows);
          for (var t = 0u; t < 4u; t++) { tileA[place.y].rows[t][place.x / OWN_ROW_GROUPS][place.x % OWN_ROW_GROUPS] = terms[t]; }
        }
        if (isOfB(turn, block)) {
          let place = placeInB(block - FIRST_OF_B);
          let n = 4u * (firstGroup + place.x % PRODUCT_GROUPS);
          let terms = blockOfB(rows[turn], n, place.x / PRODUCT_GROUPS, Term(batch, run, step + 4u * place.y, length));
          for (var t = 0u; t < 4u; t++) { tileB[place.y].columns[t][place.x / COLUMN_THREADS][place.x % COLUMN_THREADS] = terms[t]; }
        }
      }
      workgroupBarrier();                                                    // the tiles are whole
      let groups = (min(STEP, length - step) + 3u) / 4u;
      for (var terms = 0u; terms < groups; terms++) {
        for (var t = 0u; t < 4u; t++) {
          var columns: array<vec4f, THREAD_GROUPS>;
          for (var j = 0u; j < THREAD_GROUPS; j++) { columns[j] = tileB[terms].columns[t][j][columnThread]; }
          for (var i = 0u; i < THREAD_ROWS; i += 4u) {
            let fourRows = tileA[terms].rows[t][rowThread][i / 4u];
            for (var row = 0u; row < 4u; row++) {
              for (var j = 0u; j < THREAD_GROUPS; j++) {
                let at = (i + row) * THREAD_GROUPS + j;
                sums[at] = fma(columns[j], vec4f(fourRows[row]), sums[at]);
              }
            }
          }
        }
      }
    }
  }

  let first = firstRow + rowThread * THREAD_ROWS;
  for (var m = first; m < min(first + THREAD_ROWS, shape.rows); m++) {
    for (var j = 0u; j < THREAD_GROUPS / PRODUCTS; j++) {
      let group = firstGroup + columnThread + j * COLUMN_THREADS;
      if (group < shape.groups) { store(part, m, group, sums[j], sums[j + THREAD_GROUPS - THREAD_GROUPS / PRODUCTS]); }
    }
    // Sums move up by one row, because a variable index would keep them in memory, not in registers.
    for (var i = THREAD_GROUPS; i < THREAD_ROWS * THREAD_GROUPS; i++) { sums[i - THREAD_GROUPS] = sums[i]; }
  }
}

// The sum of the splits, in order: one thread a group of the output.
@compute @workgroup_size(64) fn reduceSplits(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let index = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * 64u + thread;
  let size = shape.rows * shape.groups;
  if (index >= shape.batches * size) { return; }
  let batch = index / size;
  var sum = vec4f();
  for (var split = 0u; split < shape.splits; split++) { sum += partial[(batch * shape.splits + split) * size + index % size]; }
  store(batch, index % size / shape.groups, index % shape.groups, sum, vec4f());
}
