/** Measures how much the making of batches from a data set slows the training steps beside it. */
import type { Device } from '../../engine/index.ts';
import { Model } from '../../model/architecture/model.ts';
import { chooseHorizon, type Dataset } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { systemNamed } from '../../model/systems/index.ts';
import { BatchMaker, type MadeBatch } from '../../model/training/batches.ts';
import { exampleSampler } from '../../model/training/co-training.ts';
import { fitEncoding, fittedConfiguration, prepareData, statisticsOf } from '../../model/training/fitting.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { Trainer } from '../../model/training/trainer.ts';
import { spread } from '../measure/statistics.ts';

/** Steps in one turn, and the fewest turns of each kind. */
const TURN = 8;
const LEAST_TURNS = 3;

/** Makes batches, or returns one held batch again and again. */
class HeldMaker extends BatchMaker {
  held: Promise<MadeBatch> | null = null;

  override make(...given: Parameters<BatchMaker['make']>): Promise<MadeBatch> {
    return this.held ?? super.make(...given);
  }
}

export type BesideTraining = Awaited<ReturnType<typeof besideTraining>>;

/** Trains the tiny knowledge-insulation model in turns: on batches made while the previous step runs, and on one held batch. */
export async function besideTraining(
  device: Device,
  dataset: Dataset,
  { batch, seconds }: { batch: number; seconds: number },
  listener: { note(line: string): void },
) {
  const settings = runSettings({ batch });
  const [system, preset] = [systemNamed(settings.system), settings.preset];
  const { split } = prepareData(dataset, 0);
  const longest = dataset.episodes.reduce((most, { length }) => Math.max(most, length), 0);
  const horizon = chooseHorizon(dataset, Math.min(longest, Math.max(1, Math.round(dataset.rate))));
  const fitting = { dataset, system, preset, listener };
  const measured = await statisticsOf(dataset, split, horizon);
  const encoding = new Encoding(await fitEncoding(fitting, split, horizon, measured));
  const configuration = await fittedConfiguration(fitting, split, encoding, horizon);
  using model = new Model(device, configuration);
  model.initialise(0);
  const maker = new HeldMaker(encoding, configuration, settings);
  using trainer = new Trainer(model, maker, exampleSampler(split, settings), settings);
  const sampler = exampleSampler(split, settings);
  await trainer.prepareStep(0);
  let step = 0;
  const turn = async (held: boolean): Promise<number> => {
    maker.held = null;
    if (held) maker.held = maker.make(sampler.batch(0, batch), 0);
    // This step uses a batch of the turn before, and the next step's batch is made beside it.
    await (await trainer.step(step++)).losses;
    const start = performance.now();
    let pending: Promise<unknown> = Promise.resolve();
    for (let i = 0; i < TURN; i++) {
      const { losses } = await trainer.step(step++);
      await pending;
      pending = losses;
    }
    await pending;
    return (performance.now() - start) / TURN;
  };
  const [streamed, held]: number[][] = [[], []];
  const start = performance.now();
  while (held.length < LEAST_TURNS || performance.now() - start < 2000 * seconds) {
    streamed.push(await turn(false));
    held.push(await turn(true));
  }
  const [own, other] = [spread(streamed).median, spread(held).median];
  // Median milliseconds of a step on batches from the data set, and on one batch that was made before.
  return { samplesPerSecond: (1000 * batch) / own, streamed: own, held: other };
}
