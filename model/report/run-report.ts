/** Gathers the contents of a run's report from its result. */
import { lastSteps, type ModelConfiguration, windowOf } from '../architecture/configuration.ts';
import { groupsNotReached } from '../architecture/reach.ts';
import type { Dataset } from '../data/dataset.ts';
import type { KeptAnswers } from '../inspect/answers.ts';
import type { SwappedLosses } from '../inspect/swapped.ts';
import { historyWords } from '../inspect/system-tables.ts';
import { chunkOf } from '../training/batches.ts';
import { skippedLines } from '../training/history.ts';
import { OPEN_LOOP_MEASURE } from '../training/open-loop.ts';
import type { RunResult } from '../training/run.ts';
import { averagedWords } from '../training/run-settings.ts';
import { settingsBesideDefaults } from '../training/same-run.ts';
import type { FilmedEpisode } from './film-strip.ts';
import type { ReportData } from './report.ts';

const SHOWN_CHUNKS = 4;

/** Success of a policy that acted, in a simulated world or on a robot. */
interface ClosedLoopResult {
  readonly films?: readonly FilmedEpisode[];
  /** The meaning of success. */
  readonly measure: string;
  readonly episodes: Readonly<NonNullable<ReportData['closedLoop']>['episodes']>;
}

export async function reportOf(
  command: string,
  result: RunResult,
  closedLoop: ClosedLoopResult | null,
  dataset: Dataset,
  adapter: string,
  seconds: Record<string, number>,
  { swapped, kept }: { swapped?: SwappedLosses | null; kept?: KeptAnswers | null } = {},
): Promise<ReportData> {
  const { settings, history, objectives, split, missing, policy, openLoop } = result;
  const { configuration } = settings;
  const groups = new Map<string, number>();
  for (const { group, tensors } of policy.model.parameters.arenas)
    groups.set(group, (groups.get(group) ?? 0) + tensors.reduce((sum, tensor) => sum + tensor.size, 0));
  const latency: { part: string; milliseconds: number }[] = [];
  const first = openLoop?.batches[0];
  if (first) {
    const onLatency = (part: string, milliseconds: number) => latency.push({ part, milliseconds });
    // The first call with one example compiles its pipelines.
    const observations = first.observations.slice(0, windowOf(configuration));
    await policy.actNormalised(observations);
    await policy.actNormalised(observations, { onLatency });
  }
  return {
    title: `${settings.run.system} on ${dataset.name}`,
    command,
    adapter,
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    seed: settings.run.seed,
    system: settings.run.system,
    preset: settings.run.preset.name,
    settings: settingsBesideDefaults(settings.run),
    parameters: [...groups].map(([group, count]) => ({ group, count })),
    data: {
      name: dataset.name,
      episodes: dataset.episodes.length,
      heldOut: split.description,
      rate: dataset.rate,
      horizon: configuration.horizon,
      missing: [...missing],
    },
    phases: Object.entries(seconds).map(([name, duration]) => ({ name, seconds: duration })),
    objectives: [...objectives],
    curves: history,
    gradients: {
      norms: history.gradients,
      expectedZero: policy.model.objectives.flatMap(({ name: loss, blocks, reads = blocks }) =>
        groupsNotReached(configuration, reads).map((zero) => ({ loss, ...zero })),
      ),
    },
    attention: {
      blocks: configuration.blocks.map(({ name, length }) => ({ name, length })),
      edges: configuration.edges.map(({ query, key, edge }) => ({ query, key, ...edge })),
      history: historyWords(configuration.history),
    },
    chunks: openLoop
      ? {
          unit: 'normalised',
          samples: shownChunks(openLoop, configuration, dimensionsOf(dataset, configuration.actionDimension)),
        }
      : undefined,
    openLoop: openLoop
      ? {
          measure: OPEN_LOOP_MEASURE,
          observations: openLoop.error.observations,
          oneSample: openLoop.error.oneSample,
          meanOfEight: openLoop.error.meanOfSeveral,
          bestConstant: openLoop.error.bestConstant,
        }
      : undefined,
    closedLoop: closedLoop
      ? {
          episodes: closedLoop.episodes.map(({ instruction, outcome, success, rightObject, steps }) => ({
            instruction,
            outcome,
            success,
            rightObject,
            steps,
          })),
        }
      : undefined,
    films: closedLoop?.films,
    acting: history.acting,
    swapped: swapped ?? undefined,
    kept: kept ?? undefined,
    latency: latency.length > 0 ? latency : undefined,
    notes: [
      ...(settings.run.ema === null ? [] : [averagedWords(settings.run.ema)]),
      ...skippedLines(history).map((line) => `${line}.`),
      ...missing.map((line) => `${dataset.name}: ${line}.`),
      ...(closedLoop ? [`Closed loop: ${closedLoop.measure}.`] : []),
    ],
  };
}

const dimensionsOf = ({ actionNames }: Dataset, width: number) => (actionNames?.length === width ? actionNames : width);

function shownChunks(
  { error, batches }: NonNullable<RunResult['openLoop']>,
  configuration: ModelConfiguration,
  dimensions: ReturnType<typeof dimensionsOf>,
) {
  const all = batches.flatMap((batch) => lastSteps(configuration, batch.batch).map((i) => ({ batch, i })));
  const every = Math.max(1, Math.floor(all.length / SHOWN_CHUNKS));
  return all.flatMap(({ batch, i }, index) => {
    if (index % every !== 0 || index / every >= SHOWN_CHUNKS) return [];
    const { images, instruction } = batch.observations[i];
    const horizon = batch.actionValid!.length / batch.batch;
    const valid = Array.from(batch.actionValid!).slice(i * horizon, (i + 1) * horizon);
    return [
      {
        instruction: instruction ?? undefined,
        image: Object.values(images).find((image) => image !== null) ?? undefined,
        dimensions,
        demonstrated: chunkOf(batch, i),
        predicted: error.chunks[index].predicted,
        mean: error.chunks[index].mean,
        validSteps: valid.reduce((sum, value) => sum + value, 0),
      },
    ];
  });
}
