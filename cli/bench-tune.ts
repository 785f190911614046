/** `insula bench --tune` and `--print`: the tuning file of an adapter. */

import { attentionCandidates } from '../bench/attention/tune.ts';
import { ProductCandidates } from '../bench/kernels/product-candidates.ts';
import { modelShapes, modelShapesOf } from '../bench/kernels/shapes.ts';
import { choose } from '../bench/measure/choose.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { keepTuning, placeText, readTuningFile, type Tuning, tuningPath } from '../bench/measure/tuning.ts';
import { InputError, openDevice } from '../engine/index.ts';
import { flag, number } from './options.ts';
import type { Progress } from './progress.ts';

export const benchTuneOptions = {
  tune: flag(
    'measures the variants of attention and of products at the shapes of a model, into a file of this adapter',
  ),
  print: flag('prints that file'),
  shapes: {
    type: 'string',
    help: `sizes of a model: ${modelShapes.map(({ name }) => name).join(', ')}; pi, on a processor pi-eighth`,
  },
  rounds: number('rounds that interleave all variants; 10 by default, at least 3', 3),
  seconds: number('for the rounds of attention, and again of products; 15 by default', 1),
} as const;

export interface BenchTuneOptions {
  tune?: boolean;
  print?: boolean;
  shapes?: string;
  rounds?: number;
  seconds?: number;
  adapter?: string;
  floor?: boolean;
  /** The file, in place of the one that is kept for the adapter. */
  tuning?: string;
}

/** @throws InputError where neither or both of --tune and --print are given, or the file is of no use */
export async function benchTune(
  options: BenchTuneOptions,
  progress: Progress,
): Promise<{ json: Tuning; lines: string[] }> {
  if (options.tune && options.print)
    throw new InputError('bench: --tune or --print, not both; --tune prints what it writes');
  if (!options.tune && !options.print)
    throw new InputError(
      'bench: --tune or --print; or bench attention, bench data, bench kernels, bench roofline or bench step',
    );
  const device = await openDevice({ adapter: options.adapter, floor: options.floor });
  try {
    const path = options.tuning ?? tuningPath(device.description);
    const kept = await readTuningFile(device, path, options.tuning !== undefined && options.print === true);
    if (options.print) {
      if (!kept) throw new InputError(`nothing is tuned yet on ${device.description}: insula bench --tune does it`);
      return { json: kept, lines: tuningLines(kept, `kept in ${path}`) };
    }
    const models = modelShapesOf([options.shapes ?? (device.software ? 'pi-eighth' : 'pi')]);
    const { rounds = 10, seconds = 15 } = options;
    const measuring = (kind: string) => ({
      ...{ rounds, seconds },
      onProgress: (what: string, done: number, total: number) => progress.count(`${kind}: ${what}`, done, total),
    });
    const shapes = models.map(({ batch, prefix, fast, action, heads, kvHeads, headDimension }) => {
      return `B=${batch},T=${prefix + fast + action},H=${heads}/${kvHeads},D=${headDimension}`;
    });
    const places = attentionCandidates(device, { shapes, directions: ['both'], storages: ['f32'] });
    const attention = await choose(device, places, measuring('attention'));
    using products = new ProductCandidates(device, models, ['f32']);
    const matmul = await choose(device, products.all, measuring('products'));
    const tuning = await keepTuning(device, path, { attention, matmul });
    return {
      json: tuning,
      lines: tuningLines(
        tuning,
        `written to ${path}; commands on this adapter use it from now on, unless --tuning names another file`,
      ),
    };
  } finally {
    device.close();
  }
}

export function tuningLines({ adapter, attention, matmul }: Tuning, end: string): string[] {
  const rows = [...attention, ...matmul].map((choice) => [
    placeText(choice),
    choice.variant,
    Object.entries(choice.milliseconds)
      .map(([name, median]) => `${name} ${digits(median)}`)
      .join(', '),
    choice.sizes,
    choice.date.slice(0, 10),
  ]);
  return [
    adapter,
    ...aligned([['place', 'chosen', 'ms of each variant', 'measured at', 'date'], ...rows], 5),
    'chosen: the first, which is the shipped one, unless another is faster and their quartiles are apart',
    'products: short ones have at most 16 rows, narrow ones 16 columns, small ones fewer than 64 tiles of 64 x 64; of two sides those of a gated MLP',
    end,
  ];
}
