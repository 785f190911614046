import {
  bytesPerElement,
  type Device,
  emptyTensor,
  formatShape,
  gradientSum,
  gridFor,
  type HostData,
  hostTensor,
  loadKernel,
  roundUp,
  type Tensor,
  viewTensor,
} from '../engine/index.ts';
import { embedding as embed } from './embedding.ts';
import { type Bindings, type Costs, expectDtype, expectShape, recordOne, sharedDevice } from './operand.ts';
import { encodeProduct, expectStorage, wholeGroups } from './product.ts';
import { reshape } from './reshape.ts';

const kernel = await loadKernel(new URL('./linear-cross-entropy.wgsl', import.meta.url));
const OP = 'linearCrossEntropy';
/** Columns of a tile: on a processor so few that it stays in a cache, on a graphics adapter as many as memory takes. */
const [SOFTWARE_TILE, HARDWARE_TILE] = [4096, 65536];
/** Most bytes of a tile of embeddings: WebGPU's default limit for a binding. */
const EMBEDDING_BYTES = 128 * 1024 * 1024;
/** Most bytes of a tile of logits: many rows have narrower tiles. */
const TILE_BYTES = 64 * 1024 * 1024;

export interface LinearCrossEntropyOptions {
  /**
   * perExample (default): the mean over samples of sum(mask * nll) / max(1, sum(mask)); a sample without loss tokens counts as 0.
   * perToken: sum(mask * nll) / max(1, sum(mask)) over all samples together.
   */
  reduction?: 'perExample' | 'perToken';
}

export interface LinearCrossEntropyRows {
  /** [], with a gradient; the others are without. */
  loss: Tensor;
  /** [B, T], mask * nll. */
  rowLoss: Tensor;
  /** [B, T], of every row whatever its mask, in nats. */
  logSumExp: Tensor;
  /** [B, T] u32, the id of the largest logit, of several the lowest. */
  prediction: Tensor;
}

/**
 * Cross-entropy of the logits hidden embedding^T with `targets`, for the rows whose mask is 1; nll = logSumExp - target logit.
 *
 * hidden [B, T, width] f32, embedding [V, width] in f32, f16 or bf16, which may lie in pieces of rows; targets and mask [B, T] u32 -> []. A mask f32 is the factor of each row's nll in
 * the sum that is the loss. The logits exist one tile of the vocabulary at a time. dHidden is bitwise 0 where mask is 0. A target that is not below V, in a row with a loss, makes the loss 1e30 or so.
 *
 * `capacity`: at most so many rows have a loss, and the others cost next to nothing; targets and mask are then numbers of the host,
 * and hidden may be the rows of `rowsWithLoss` alone, [1, capacity, width]. Throws where more rows have one, in a captured step at its run.
 */
export function linearCrossEntropy(
  hidden: Tensor,
  embedding: Tensor,
  targets: Tensor,
  mask: Tensor,
  options: LinearCrossEntropyOptions & { capacity?: number } = {},
): Tensor {
  const { capacity = mask.size } = options;
  if (capacity >= mask.size) return linearCrossEntropyRows(hidden, embedding, targets, mask, options).loss;
  const { device } = hidden;
  const [samples, tokens, width] = hidden.shape;
  const isChosen = samples === 1 && tokens === capacity;
  expectOperands(hidden, embedding, targets, mask, isChosen ? mask.shape : undefined);
  const rowsPerSample = options.reduction === 'perToken' ? mask.size : mask.shape[1];
  const ofRows = (of: HostData, numbers: HostData) => {
    const own = chosen(of, capacity).map((row) => numbers[row]);
    return filled(own, capacity, 0);
  };
  const chosenTargets = hostTensor(device, [mask, targets], ofRows, [capacity], { dtype: 'u32' });
  const weights = (of: HostData) => (mask.dtype === 'f32' ? of : weightsOf(of, rowsPerSample));
  const rowWeight = hostTensor(device, [mask], (of) => ofRows(of, weights(of)), [capacity]);
  const flat = reshape(hidden, [samples * tokens, width]);
  const compact = isChosen ? flat : embed(rowsWithLoss(mask, capacity), flat);
  return overTiles(compact, embedding, chosenTargets, rowWeight).loss;
}

/**
 * The numbers [capacity] u32 of the rows of a mask of the host that are not 0, first to last, and behind them the size of the mask: a
 * number that is no row, for which `embedding` gives zeros and no gradient.
 */
export function rowsWithLoss(mask: Tensor, capacity: number): Tensor {
  const numbers = (of: HostData) => filled(chosen(of, capacity), capacity, mask.size);
  return hostTensor(mask.device, [mask], numbers, [capacity], { dtype: 'u32' });
}

function chosen(mask: HostData, capacity: number): number[] {
  if (!Number.isInteger(capacity) || capacity < 1)
    throw new Error(`${OP}: capacity ${capacity}; expected a whole number from 1`);
  const rows = [...mask.keys()].filter((row) => mask[row] !== 0);
  if (rows.length > capacity) throw new Error(`${OP}: ${rows.length} rows have a loss; the capacity is ${capacity}`);
  return rows;
}

function filled(numbers: readonly number[], length: number, rest: number): number[] {
  return Array.from({ length }, (_, i) => numbers[i] ?? rest);
}

/** As the kernel `weigh` has them. */
function weightsOf(mask: HostData, rowsPerSample: number): Float32Array {
  const samples = mask.length / rowsPerSample;
  const ones = new Uint32Array(samples);
  mask.forEach((value, row) => {
    if (value !== 0) ones[Math.floor(row / rowsPerSample)] += 1;
  });
  return Float32Array.from(mask, (_, row) => 1 / (samples * Math.max(1, ones[Math.floor(row / rowsPerSample)])));
}

/** linearCrossEntropy with what it knows of each row: for evaluation, greedy decoding and tests. */
export function linearCrossEntropyRows(
  hidden: Tensor,
  embedding: Tensor,
  targets: Tensor,
  mask: Tensor,
  options: LinearCrossEntropyOptions = {},
): LinearCrossEntropyRows {
  expectOperands(hidden, embedding, targets, mask);
  if (mask.dtype === 'f32') return overTiles(hidden, embedding, targets, mask);
  const { device } = hidden;
  const [samples, tokens] = hidden.shape;
  const rows = samples * tokens;
  const rowsPerSample = options.reduction === 'perToken' ? rows : tokens;
  const rowWeight = emptyTensor(device, mask.shape, 'f32', OP);
  device.dispatch({
    kernel,
    entry: 'weigh',
    parameters: parametersOf(device),
    bindings: { mask, rowWeight },
    uniform: { rows, rowsPerSample, groups: 0, columns: 0, firstColumn: 0 },
    workgroups: gridFor(rows / rowsPerSample, 1),
    flops: rows,
  });
  return overTiles(hidden, embedding, targets, rowWeight);
}

function expectOperands(
  hidden: Tensor,
  embedding: Tensor,
  targets: Tensor,
  mask: Tensor,
  rows: readonly number[] = hidden.shape.slice(0, 2),
): void {
  expectDtype(OP, 'hidden', hidden, 'f32');
  expectStorage(OP, 'embedding', embedding);
  expectDtype(OP, 'targets', targets, 'u32');
  if (mask.dtype !== 'f32') expectDtype(OP, 'mask', mask, 'u32');
  if (hidden.size === 0 || hidden.shape.length !== 3)
    throw new Error(`${OP}: hidden has shape ${formatShape(hidden.shape)}; expected [batch, tokens, width], not empty`);
  expectShape(OP, 'embedding', embedding, [null, hidden.shape[2]]);
  expectShape(OP, 'targets', targets, rows);
  expectShape(OP, 'mask', mask, rows);
  sharedDevice(OP, hidden, embedding, targets, mask);
}

function parametersOf({ software }: Device) {
  // A barrier costs a software adapter as much as 200 multiplications for each of the workgroup's subgroups.
  return { THREADS: software ? 8 : 64 };
}

/** Columns [first, first + columns) of the logits, and their embeddings: from row `firstOfPiece` of one piece of the matrix. */
type Tile = Readonly<Record<'first' | 'columns' | 'piece' | 'firstOfPiece', number>>;

function tilesOf(pieces: readonly Tensor[], width: number): Tile[] {
  let first = 0;
  return pieces.flatMap(({ shape: [rows] }, piece) =>
    Array.from({ length: Math.ceil(rows / width) }, (_, i) => {
      const firstOfPiece = i * width;
      const tile = { first, columns: Math.min(width, rows - firstOfPiece), piece, firstOfPiece };
      first += tile.columns;
      return tile;
    }),
  );
}

/** hidden [..., width], targets and rowWeight one for each of its rows. */
function overTiles(ofHidden: Tensor, ofEmbedding: Tensor, targets: Tensor, rowWeight: Tensor): LinearCrossEntropyRows {
  const op = OP;
  const { device } = ofHidden;
  const [hidden, embedding] = wholeGroups([ofHidden, ofEmbedding]);
  const { pieces } = embedding;
  const [, width] = embedding.shape;
  const rows = targets.size;
  const tiles = tilesOf(pieces, tileColumns(device, rows, width));
  const stored = roundUp(Math.max(...tiles.map(({ columns }) => columns)), 4);
  const parameters = parametersOf(device);
  const run = (entry: string, tile: Tile, bindings: Bindings, workgroups: [number, number], cost: Costs) => {
    const { first, columns } = tile;
    const uniform = { rows, rowsPerSample: 1, groups: Math.ceil(columns / 4), columns, firstColumn: first };
    device.dispatch({ kernel, entry, parameters, bindings, uniform, workgroups, ...cost });
  };
  const ofTile = (piece: Tensor, { firstOfPiece, columns }: Tile) =>
    viewTensor(piece, [columns, width], firstOfPiece * width * bytesPerElement[piece.dtype], op);
  const asTile = (buffer: Tensor, { columns }: Tile) => viewTensor(buffer, [rows, roundUp(columns, 4)], 0, op);
  const computeLogits = (buffer: Tensor, tile: Tile) => {
    const logits = asTile(buffer, tile);
    const b = { tensor: ofTile(pieces[tile.piece], tile), rows: tile.columns, transposed: true };
    encodeProduct({ a: { tensor: hidden, rows }, b, output: { tensor: logits, rows }, depth: width }, op);
    return logits;
  };
  const perRow = (dtype: 'f32' | 'u32') => emptyTensor(device, targets.shape, dtype, op);
  const [targetLogit, logSumExp, rowLoss] = Array.from({ length: 3 }, () => perRow('f32'));
  const prediction = perRow('u32');
  const running = emptyTensor(device, [rows, 2], 'f32', op);
  const loss = emptyTensor(device, [], 'f32', op);
  const logitsBuffer = emptyTensor(device, [rows, stored], 'f32', op);

  for (const tile of tiles) {
    const logits = computeLogits(logitsBuffer, tile);
    const bytes = logits.byteLength + targets.byteLength + 2 * (running.byteLength + 2 * targets.byteLength);
    const bindings = { targets, logits, running, prediction, targetLogit };
    run('addTile', tile, bindings, gridFor(rows, 1), { flops: 4 * logits.size, bytes });
  }
  const finished = { rowWeight, running, targetLogit, logSumExp, rowLoss };
  run('finishRows', tiles[0], finished, gridFor(rows, parameters.THREADS), { flops: 3 * rows });
  run('sumRows', tiles[0], { rowWeight, rowLoss, loss }, [1, 1], { flops: 2 * rows });

  recordOne(op, [hidden, ...pieces], loss, (dLoss, [wantsHidden, ...wantsPieces]) => {
    const gradientOf = (like: Tensor) => emptyTensor(device, like.shape, 'f32', `${op} backward`);
    const dHidden = wantsHidden ? gradientSum(hidden, `${op} backward`) : null;
    const dPieces = pieces.map((piece, i) => (wantsPieces[i] ? gradientSum(piece, `${op} backward`) : null));
    const secondLogits = tiles.length > 1 ? gradientOf(logitsBuffer) : null;
    const dLogitsBuffer = gradientOf(logitsBuffer);
    for (const tile of tiles) {
      const { first, columns, piece } = tile;
      const dPiece = dPieces[piece];
      const logits = secondLogits ? computeLogits(secondLogits, tile) : asTile(logitsBuffer, tile);
      const dLogits = asTile(dLogitsBuffer, tile);
      const bindings = { targets, rowWeight, logits, logSumExp, dLoss, dLogits };
      run('gradientOfTile', tile, bindings, gridFor(rows, 1), { flops: 5 * logits.size });
      const a = { tensor: dLogits, rows };
      if (dHidden) {
        const b = { tensor: ofTile(pieces[piece], tile), rows: columns };
        const output = { tensor: dHidden.gradient, rows };
        encodeProduct({ a, b, output, depth: columns, accumulate: dHidden.accumulate || first > 0 }, op);
      }
      if (dPiece) {
        const { gradient, accumulate } = dPiece;
        const output = { tensor: ofTile(gradient, tile), rows: columns };
        encodeProduct(
          { a: { ...a, transposed: true }, b: { tensor: hidden, rows }, output, depth: rows, accumulate },
          op,
        );
      }
    }
    return [dHidden, ...dPieces].map((sum) => sum?.gradient ?? null);
  });
  // Backward needs the logits again: those of a single tile are kept, those of several are computed again.
  if (tiles.length > 1 || !loss.recorded) device.currentStep(op).release(logitsBuffer.buffer);
  for (const done of [running, targetLogit]) device.currentStep(op).release(done.buffer);
  return { loss, rowLoss, logSumExp, prediction };
}

/** Columns of a tile, a multiple of 64: so a tile of embeddings starts at a multiple of 256 bytes, as a view must. */
function tileColumns({ software }: Device, rows: number, width: number): number {
  const most = Math.min(Math.floor(TILE_BYTES / (4 * rows)), Math.floor(EMBEDDING_BYTES / (4 * width)));
  return Math.max(64, Math.min(software ? SOFTWARE_TILE : HARDWARE_TILE, Math.floor(most / 64) * 64));
}
