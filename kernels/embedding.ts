import { emptyTensor, gradientSum, gridFor, loadKernel, type Tensor } from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { type Bindings, type Costs, expectDtype, expectShape, recordOne, sharedDevice, storage } from './operand.ts';
import { pad } from './pad.ts';
import { expectStorage, wholeGroups } from './product.ts';

const kernel = await loadKernel(new URL('./embedding.wgsl', import.meta.url));

/**
 * y = scale * table[ids], one row of the table for each id.
 *
 * ids [...] u32, table [vocabulary, width] in f32, f16 or bf16 -> [..., width] in the storage of table unless `dtype` says otherwise.
 * An id that is not below `vocabulary` gives a row of zeros and no gradient. Gemma scales by sqrt(width). A table may lie in pieces of rows.
 */
export function embedding(ids: Tensor, table: Tensor, options: { scale?: number; dtype?: FloatType } = {}): Tensor {
  expectDtype('embedding', 'ids', ids, 'u32');
  const storage = expectStorage('embedding', 'table', table);
  expectShape('embedding', 'table', table, [null, null]);
  sharedDevice('embedding', ids, table);
  const width = table.shape[1];
  const { scale = 1, dtype = storage } = options;
  const [whole] = wholeGroups([table]);
  return cast(pad(lookUp(ids, whole, scale, width % 4 === 0 ? dtype : 'f32'), width), dtype);
}

/** The width of `table` is a whole number of groups. */
function lookUp(
  ids: Tensor,
  { device, shape, dtype: stored, pieces }: Tensor,
  scale: number,
  dtype: FloatType,
): Tensor {
  const width = shape[1];
  const tokens = ids.size;
  const groups = width / 4;
  // A row is no work for several subgroups of a software adapter.
  const THREADS = device.software ? 8 : 64;
  const { pack: _, ...reading } = storage(stored);
  const parameters = { THREADS, ...reading, ...(dtype !== 'f32' && { Result: dtype, pack: dtype }) };
  const y = emptyTensor(device, [...ids.shape, width], dtype, 'embedding');
  const firstRows = pieces.map((_, i) => pieces.slice(0, i).reduce((sum, piece) => sum + piece.shape[0], 0));
  const run = (entry: string, piece: number, bindings: Bindings, workgroups: [number, number], cost: Costs) => {
    const uniform = { tokens, vocabulary: pieces[piece].shape[0], groups, firstRow: firstRows[piece], scale };
    device.dispatch({ kernel, entry, parameters, bindings, uniform, workgroups, ...cost });
  };

  // Only those rows of the table move that are asked for, each from one piece.
  pieces.forEach((table, i) => {
    const cost = i > 0 ? { bytes: ids.byteLength } : { flops: y.size, bytes: ids.byteLength + 2 * y.byteLength };
    run('forward', i, { ids, table, y }, gridFor(tokens, 1), cost);
  });
  recordOne('embedding', pieces, y, (dy, wants) => {
    const next = emptyTensor(device, [tokens], 'u32', 'embedding backward');
    const leads = emptyTensor(device, [tokens], 'u32', 'embedding backward');
    run('link', 0, { ids, next, leads }, gridFor(tokens, THREADS), {});
    return pieces.map((piece, i) => {
      if (!wants[i]) return null;
      const { gradient: dTable, accumulate } = gradientSum(piece, 'embedding backward');
      if (!accumulate) device.clear(dTable);
      const bindings = { ids, next, leads, dy, dTable };
      const bytes = 3 * ids.byteLength + (i > 0 ? 0 : 3 * dy.byteLength);
      const cost = { flops: i > 0 ? 0 : 3 * y.size, bytes };
      run('backward', i, bindings, gridFor(tokens * groups, THREADS), cost);
      return dTable;
    });
  });
  return y;
}
