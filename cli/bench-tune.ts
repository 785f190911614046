/** `insula bench --tune` and `--print`: the tuning file of an adapter. */
import { attentionCandidates } from '../bench/attention/tune.ts';
import { ProductCandidates } from '../bench/kernels/product-candidates.ts';
import { modelShapeOf } from '../bench/kernels/shapes.ts';
import { choose } from '../bench/measure/choose.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { type Device, InputError, openDevice } from '../engine/index.ts';
import { keepTuning, placeText, readTuningFile, type Tuning, tuningPath } from '../kernels/tuning.ts';
import { shapesOption } from './bench-kernels.ts';
import { LIMITS, limitOptions } from './bench-run.ts';
import { command, type Result } from './command.ts';
import { deviceOptions, experimentalOption } from './device.ts';
import { tuningNotes } from './notes.ts';
import { flag } from './options.ts';

export const benchTune = command({
  options: {
    tune: flag(
      "measures the variants of attention and of matrix products at a model's shapes, and writes this adapter's tuning file",
    ),
    print: flag("prints this adapter's tuning file", { excludes: 'tune' }),
    shapes: { ...shapesOption, needs: 'tune' },
    ...limitOptions(LIMITS, { needs: 'tune' }),
    ...deviceOptions,
    experimental: { ...experimentalOption, needs: 'tune' },
  },
  notes: tuningNotes,
  async run(
    {
      tune,
      print,
      shapes,
      rounds = LIMITS.rounds,
      seconds = LIMITS.seconds,
      adapter,
      floor,
      tuning: named,
      experimental,
    },
    { progress, signal },
  ) {
    if (!tune && !print)
      throw new InputError(
        'bench: --tune or --print; or bench attention, data, first-day, kernels, policy, roofline or step',
      );
    if (tune) expectFileForFloor(floor, named);
    if (experimental && named === undefined)
      throw new InputError(
        "--experimental: name a file with --tuning for these choices; commands that name it too take the adapter's experimental features",
      );
    using device = await openDevice({ adapter, floor, experimental });
    const path = named ?? tuningPath(device.description);
    const kept = await readTuningFile(device, path, named !== undefined && print === true);
    if (print) {
      if (!kept)
        throw new InputError(`there is no tuning file for ${device.description} yet: insula bench --tune writes one`);
      return { json: kept, lines: tuningLines(kept, `file: ${path}`) };
    }
    const model = modelShapeOf(device, shapes);
    const measuring = (kind: string) => ({
      ...{ rounds, seconds: seconds / 2, signal, onProgress: progress.ofBench(kind) },
    });
    const { batch, prefix, fast, action, heads, kvHeads, headDimension } = model;
    const sizes = `B=${batch},T=${prefix + fast + action},H=${heads}/${kvHeads},D=${headDimension}`;
    const places = attentionCandidates(device, { shapes: [sizes], directions: ['both'], storages: ['f32'] });
    const attention = await choose(device, places, measuring('attention'));
    using products = new ProductCandidates(device, model, experimental ? ['f32', 'f16'] : ['f32']);
    const matmul = await choose(device, products.all, measuring('products'));
    return keptTuning(device, named, { attention, matmul });
  },
});

/** Tuning for the floor is not kept as the adapter's own. */
export function expectFileForFloor(floor?: boolean, named?: string): void {
  if (floor && named === undefined)
    throw new InputError(
      "--floor: name a file with --tuning for these choices, because the adapter's own is of its features and limits",
    );
}

/** Writes choices into the named tuning file, or the adapter's own, and shows it. */
export async function keptTuning(
  device: Device,
  named: string | undefined,
  chosen: Pick<Tuning, 'attention' | 'matmul'>,
): Promise<Result<Tuning>> {
  const path = named ?? tuningPath(device.description);
  const tuning = await keepTuning(device, path, chosen);
  const use = named === undefined ? 'commands on this adapter use it from now on' : 'commands use it with --tuning';
  return { json: tuning, lines: tuningLines(tuning, `written to ${path}; ${use}`) };
}

function tuningLines({ adapter, attention, matmul }: Tuning, end: string): string[] {
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
    ...aligned([['operation', 'chosen', 'ms of each variant', 'measured at', 'date'], ...rows], 5),
    'chosen: the shipped variant, which is listed first, unless another is faster beyond doubt (a 99 % interval of their ratio in the same rounds)',
    'products: short means at most 16 rows, narrow at most 16 columns, small fewer than 64 tiles of 64 x 64; two sides means the gated MLP',
    end,
  ];
}
