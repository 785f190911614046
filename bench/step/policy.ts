/** Measures the latency by part of policies that act, of several systems beside each other, with random weights. */
import { type Device, randomStream, streams } from '../../engine/index.ts';
import { Model } from '../../model/architecture/model.ts';
import { actingObjective, type OnLatency } from '../../model/architecture/objectives/index.ts';
import { measuredConfiguration, type StepSizes } from '../../model/inspect/measured-step.ts';
import { act } from '../../model/policy/acting.ts';
import { type PartLatency, timesByPart } from '../../model/policy/latency.ts';
import { SUBTASK, systemNamed } from '../../model/systems/index.ts';
import { fixedTokenizers } from '../../model/training/fitting.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { type ActionTokenizer, type ActionTokenKind, type ChunkShape, FastTokenizer } from '../../tokenizers/index.ts';
import { arithmeticProbe } from '../measure/roofline.ts';
import type { Entrant } from '../measure/rounds.ts';
import { measureRun, type RunBudget, type Timed } from '../measure/run.ts';
import { spread } from '../measure/statistics.ts';
import { sizesText } from './run.ts';

export interface PolicySizes extends Pick<StepSizes, 'preset' | 'prompt' | 'horizon' | 'depth'> {
  /** Observations that are acted on at once. */
  readonly batch: number;
  /** Steps of a flow or a diffusion. */
  readonly steps: number;
}

interface PolicyBenchOptions extends PolicySizes {
  readonly systems: readonly string[];
}

const SEED = 1;
/** Chunks that FAST is fitted to, and that say how many tokens a chunk has. */
const CHUNKS = 64;

export type PolicyRun = Awaited<ReturnType<typeof runPolicyBench>>;

/** @throws InputError if a system or preset is unknown */
export async function runPolicyBench(device: Device, { systems, ...given }: PolicyBenchOptions, budget: RunBudget) {
  const sizes = { ...given, preset: given.preset ?? 'tiny' };
  const policies: { readonly work: TimedPolicy }[] = [];
  try {
    for (const system of systems) policies.push({ work: new TimedPolicy(device, system, sizes) });
    const anchors = [arithmeticProbe(device)];
    const run = await measureRun(device, budget, { command: 'bench policy', options: sizes, rows: policies, anchors });
    return { ...run, rows: run.rows.map(({ work, timed }) => work.row(timed)) };
  } finally {
    for (const { work } of policies) work.dispose();
  }
}

/** A policy as an entrant: milliseconds from an encoded observation to the normalised chunk on the host. */
class TimedPolicy implements Entrant {
  readonly name: string;
  private readonly model: Model;
  private readonly batch: ReturnType<typeof randomBatch>;
  private readonly noise: Float32Array;
  /** The tokens of a chunk, the same in every call; null for systems that act by other means. */
  private readonly tokens: ArrayLike<number> | null;
  /** The milliseconds of the parts, for each call. */
  private readonly calls: ReturnType<typeof timesByPart>[] = [];

  constructor(
    device: Device,
    private readonly system: string,
    private readonly sizes: PolicySizes,
  ) {
    this.name = `${system} | ${sizesText(sizes)}`;
    const { actionTokens } = systemNamed(system);
    const first = measuredConfiguration(system, sizes);
    const shape = { horizon: first.horizon, dimension: first.actionDimension };
    const chunks = Array.from({ length: CHUNKS }, (_, i) => smoothChunk(shape, i));
    const tokenizer = actionTokens && tokenizers[actionTokens](chunks);
    const encoded = tokenizer ? chunks.map((own) => tokenizer.encode(own)).sort((a, b) => a.length - b.length) : [];
    this.tokens = encoded[encoded.length >> 1] ?? null;
    const target = this.tokens?.length;
    const configuration = target === undefined ? first : measuredConfiguration(system, { ...sizes, target });
    this.model = new Model(device, configuration);
    this.model.initialise(SEED);
    this.batch = randomBatch(configuration, sizes.batch, SEED);
    this.noise = new Float32Array(this.batch.batch * shape.horizon * shape.dimension);
    randomStream(SEED, 0, streams.sampling).fillNormal(this.noise);
  }

  start(): Promise<void> {
    return this.call(() => {});
  }

  /** One call with the times of its parts, each of which waits for the adapter, and one without. */
  async sample(): Promise<number> {
    const latency: PartLatency[] = [];
    await this.call((part, milliseconds) => latency.push({ part, milliseconds }));
    this.calls.push(timesByPart(latency));
    const start = performance.now();
    await this.call();
    return performance.now() - start;
  }

  private async call(onLatency?: OnLatency): Promise<void> {
    const { model, batch, noise, tokens, sizes } = this;
    const written = new Map<number, number>();
    await act(model, batch, {
      ...{ noise, steps: sizes.steps, onLatency },
      writer: {
        allowed(sample, target) {
          if (!tokens || target === SUBTASK) return 'all';
          const place = written.get(sample) ?? 0;
          written.set(sample, place + 1);
          return place < tokens.length ? [tokens[place]] : null;
        },
        write: () => true,
      },
    });
  }

  row(timed: Timed) {
    const { system, model, tokens, calls } = this;
    const sum = (times: readonly number[] = []) => times.reduce((total, milliseconds) => total + milliseconds, 0);
    return {
      ...timed,
      system,
      parameters: [...model.parameters].reduce((sum, { size }) => sum + size, 0),
      // How often a part runs in a call, and its milliseconds together.
      parts: [...calls[0]].map(([name, { length: times }]) => {
        return { name, times, ...spread(calls.map((own) => sum(own.get(name)))) };
      }),
      /** The number of tokens of a chunk; null for systems that act by other means. */
      tokens: actingObjective(model.objectives)?.acts === 'tokens' ? tokens!.length : null,
    };
  }

  dispose(): void {
    this.model.dispose();
  }
}

/** The tokenizers of `insula train`, and FAST fitted to these chunks. */
const tokenizers: Record<ActionTokenKind, (chunks: readonly ReturnType<typeof smoothChunk>[]) => ActionTokenizer> = {
  fast: (chunks) => FastTokenizer.fit(chunks, { vocabularySize: 256 }),
  ...fixedTokenizers,
};

/** A slow wave in every dimension. */
function smoothChunk({ horizon, dimension }: ChunkShape, seed: number) {
  const random = randomStream(SEED, seed, streams.noise);
  const data = Float32Array.from({ length: horizon * dimension }, (_, i) => {
    const [step, d] = [Math.floor(i / dimension), i % dimension];
    return random.uniform(2 * d) * Math.sin(6 * random.uniform(2 * d + 1) + (3 * step) / horizon);
  });
  return { data, horizon, dimension };
}
