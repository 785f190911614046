/** One call of a model that acts: by the objective that acts, over a cache of keys and values. */
import { InputError } from '../../engine/files/errors.ts';
import { randomStream, streams } from '../../engine/index.ts';
import { sourceOf } from '../architecture/configuration.ts';
import { expectInputs, floats, type ObservationBatch } from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';
import {
  type Acting,
  actingObjective,
  type Objective,
  type OnLatency,
  type OnLogits,
  type PreviousChunks,
  type TokenSampling,
  type TokenWriter,
  targetsBefore,
} from '../architecture/objectives/index.ts';
import { openSession } from '../architecture/session.ts';
import { SUBTASK } from '../systems/index.ts';
import type { Said } from './subtask.ts';

export interface SamplingOptions {
  /** Euler steps of a flow, DDIM steps of a diffusion; 10 by default. */
  steps?: number;
  onLatency?: OnLatency;
  /** Called with the partly denoised chunks after each step. */
  onState?: (state: Float32Array) => void;
  /** The chunks that new ones continue: real-time chunking. */
  previous?: PreviousChunks;
}

/** How a policy acts; `previous` chunks are in the units of each robot. */
export interface ActOptions extends SamplingOptions {
  /** Chooses noise and tokens that are drawn; the same seed and observation give the same chunk. */
  seed?: number;
  /** Index of the sample: the same seed draws differently for different indices. */
  sample?: number;
  /** Above 0: tokens are drawn by the softmax of their logits divided by it. Default: the likeliest are taken. */
  temperature?: number;
  /** Called with the subtask that the policy says about each observation before it acts; its places are in the original picture. */
  onSaid?: (said: readonly Said[]) => void;
  /** Called, if the policy decodes action tokens, with whether they completed the chunk of each observation. */
  onDecoded?: (complete: readonly boolean[]) => void;
}

interface ActingOptions extends SamplingOptions {
  /** The objective to act by; by default the model's. */
  readonly objective?: Objective | null;
  /** Standard normal, [batch, horizon, actionDimension]; determines the chunks of a flow. */
  readonly noise?: Float32Array;
  /** Writes the targets; default: any ids, without an end. */
  readonly writer?: TokenWriter;
  readonly sampling?: TokenSampling;
  readonly onLogits?: OnLogits;
  /** The numbers, by their source, that the decoded targets give to other blocks. */
  readonly numbersOf?: () => ObservationBatch['numbers'];
}

/** More than an observation's tokens in a call. */
const MOST_TOKENS = 2 ** 16;

/** How the tokens of `batch` observations are drawn; undefined without a temperature. */
export function tokenSampling(
  { seed = 0, sample = 0, temperature }: Pick<ActOptions, 'seed' | 'sample' | 'temperature'>,
  batch: number,
): TokenSampling | undefined {
  if (temperature === undefined) return undefined;
  const random = randomStream(seed, sample, streams.tokens);
  let token = 0;
  const draws = () => {
    const numbers = Float32Array.from({ length: batch }, (_, row) => random.uniform(row * MOST_TOKENS + token));
    token += 1;
    return numbers;
  };
  return { temperature, draws };
}

const anyIds: TokenWriter = { allowed: () => 'all', write: () => true };

/**
 * Normalised chunks [batch, horizon, actionDimension]; null where `writer` gets the tokens of an objective that decodes. The targets
 * that the actions read are decoded first, by the same `writer`.
 *
 * @throws InputError if the objective cannot act
 */
export async function act(
  model: Model,
  given: ObservationBatch,
  options: ActingOptions = {},
): Promise<Float32Array | null> {
  const { objective = actingObjective(model.objectives), noise, numbersOf } = options;
  const { steps = 10, onLatency, onState, previous, writer = anyIds, sampling, onLogits } = options;
  const { device, architecture, parameters, configuration } = model;
  if (!objective?.acts) throw new InputError(refusal(objective ? [objective] : model.objectives));
  if (previous && !objective.continues)
    throw new InputError(
      `real-time chunking is for systems that act by a flow, and the ${objective.name} loss is none`,
    );
  const acting = (observation: ObservationBatch, before = ''): Acting => ({
    ...{ device, observation, steps, onState, previous, writer, sampling, onLogits },
    open: (blocks) =>
      openSession(model, observation, {
        ...blocks,
        onLatency: onLatency && ((part, milliseconds) => onLatency(before + part, milliseconds)),
      }),
    noise() {
      if (!noise) throw new InputError('acting by a flow needs noise');
      const shape = [observation.batch, configuration.horizon, configuration.actionDimension];
      expectInputs({ noise: floats(noise, shape) });
      return noise;
    },
    tokenHead: architecture.tokenHead(parameters),
    embedIds: (ids) => architecture.blockInputs.embedIds(parameters, ids),
  });
  let observation = withoutTargets(model, given);
  for (const target of targetsBefore(configuration, objective.makes ?? [])) {
    const source = sourceOf(target);
    if (observation.ids[source]) continue;
    const decoder = model.objectives.find(({ decode }) => decode)!;
    const ids = await decoder.decode!(acting(observation, target.name === SUBTASK ? `${SUBTASK}: ` : ''), target);
    const numbers = { ...observation.numbers, ...numbersOf?.() };
    observation = { ...observation, ids: { ...observation.ids, [source]: ids }, numbers };
  }
  return objective.act?.(acting(observation)) ?? null;
}

function refusal(objectives: readonly Objective[]): string {
  const reasons = objectives.flatMap(({ name, obstacle }) =>
    obstacle ? [`the ${name} loss cannot: ${obstacle}`] : [],
  );
  return ['no objective of this model acts', ...reasons].join('; ');
}

/** A target is what acting predicts: ids that a training batch has for it are none of its business. */
function withoutTargets(
  { configuration, objectives }: Model,
  { ids, ...observation }: ObservationBatch,
): ObservationBatch {
  if (!objectives.some(({ decode }) => decode)) return { ids, ...observation };
  const targets = configuration.blocks.filter(({ input }) => input === 'target').map(sourceOf);
  return {
    ...observation,
    ids: Object.fromEntries(Object.entries(ids).filter(([source]) => !targets.includes(source))),
  };
}
