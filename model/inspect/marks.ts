/** Where marks fall in pretraining: whether the row of the picture that is most like the first thing that a question names lies on it. */
import { InputError, withoutTape } from '../../engine/index.ts';
import { linear } from '../../kernels/index.ts';
import { tensorsOf } from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';
import { trainingBlocks } from '../architecture/sequence.ts';
import { rowsReader } from '../architecture/stages.ts';
import { trainingInputs, trainingPass } from '../architecture/training-pass.ts';
import type { Pack } from '../training/packs.ts';
import type { Maker } from '../training/trainer.ts';

const OBJECTIVE = 'mark';
/** The class of rows of the first thing that the first question names. */
const FIRST_NAMED = 1;

/**
 * By pack: whether the row of the largest probability of the first named thing is a row of that thing; null where no row is, or no thing
 * is named.
 */
export async function marksOf(
  model: Model,
  maker: Maker<Pack>,
  packs: readonly Pack[],
  { batch: size = 16, signal }: { batch?: number; signal?: AbortSignal } = {},
): Promise<(boolean | null)[]> {
  const { configuration, architecture, parameters, device } = model;
  const own = configuration.objectives.find(({ name }) => name === OBJECTIVE);
  if (own?.kind !== 'classification' || !('block' in own.rows))
    throw new InputError(`this model has no loss '${OBJECTIVE}' on the rows of a block`);
  const { block, layer } = own.rows;
  const all: (boolean | null)[] = [];
  for (let start = 0; start < packs.length; start += size) {
    signal?.throwIfAborted();
    const batch = await maker.make(packs.slice(start, start + size), 0);
    const inputs = trainingInputs(architecture, batch);
    const logits = await withoutTape(device, () =>
      device.step(() => {
        const pass = trainingPass(model, tensorsOf(device, inputs), { allRows: true });
        const rows = rowsReader(trainingBlocks(configuration), pass)(block, { layer });
        return linear(rows, parameters.get(`${OBJECTIVE}_head.weight`));
      }),
    ).read();
    const { data, valid } = batch.rowTargets![OBJECTIVE];
    const rows = data.length / batch.batch;
    const classes = logits.length / data.length;
    for (let first = 0; first < data.length; first += rows) {
      const numbers = Array.from({ length: rows }, (_, row) => first + row);
      const isNamed = (row: number) => valid[row] === 1 && data[row] === FIRST_NAMED;
      const shares = numbers.map((row) => shareOf(logits.subarray(row * classes, (row + 1) * classes)));
      const top = shares.indexOf(Math.max(...shares));
      all.push(numbers.some(isNamed) ? isNamed(first + top) : null);
    }
  }
  return all;
}

/** The probability of the first named thing. */
function shareOf(logits: Float32Array): number {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (own) => Math.exp(own - largest));
  return powers[FIRST_NAMED] / powers.reduce((sum, own) => sum + own, 0);
}
