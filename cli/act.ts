/** `insula act`: a trained policy on one observation of an episode. */
import { InputError, quote } from '../engine/index.ts';
import { chunk, episodeNamed, instructionsAt, loadExamples, wholeEpisodes } from '../model/data/index.ts';
import type { RawObservation } from '../model/policy/encoding.ts';
import type { Policy } from '../model/policy/policy.ts';
import { observationAt, questionObservation } from '../model/training/batches.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { number, text } from './options.ts';
import { expectNoise, type Loaded, type PolicyValues, policyOptions, withPolicy } from './policy.ts';
import type { Progress } from './progress.ts';
import { type ActResult, actLines } from './text.ts';

export const act = command({
  options: {
    ...policyOptions,
    episode: text('id or number of an episode; the first by default'),
    step: number('control step of the episode; 0 by default'),
    ask: text("a question about the image, such as 'caption en', for policies trained with --cotrain"),
    seed: number('chooses the noise; 0 by default'),
    ...deviceOptions,
  },
  async run({ episode, step, ask, seed, ...values }, { progress }) {
    const result = await actOn(values, { episode, step, ask, seed }, progress);
    return { json: result, lines: actLines(result) };
  },
});

interface Moment {
  readonly episode?: string;
  readonly step?: number;
  readonly ask?: string;
  readonly seed?: number;
}

/** The predicted chunk with the demonstrated one, and the latency by part of a second, warm call. */
async function actOn(values: PolicyValues, { ask, seed, ...moment }: Moment, progress: Progress): Promise<ActResult> {
  const { step = 0 } = moment;
  const check = ({ dataset, settings }: Pick<Loaded, 'dataset' | 'settings'>) => {
    const episode = episodeNamed(dataset, moment.episode);
    if (step >= episode.length)
      throw new InputError(`--step ${step}: episode ${quote(episode.id)} has steps 0 to ${episode.length - 1}`);
    if (ask !== undefined && !settings.encoding.locations)
      throw new InputError('--ask: this policy was trained without questions, so it cannot answer any');
    if (seed !== undefined) expectNoise(settings);
  };
  return withPolicy(values, progress, check, async ({ policy, dataset, device }) => {
    const episode = episodeNamed(dataset, moment.episode);
    const [whole] = wholeEpisodes([episode]);
    const [sample] = await loadExamples([{ part: whole, step, instruction: instructionsAt(episode, step)[0] ?? null }]);
    const observation = await observationAt(sample, policy.encoding.settings.cameras);
    const answer = await answerOf(policy, observation, ask, episode.subtask?.(step) ?? null);
    const { horizon } = policy.model.configuration;
    const { data, valid } = chunk(sample.part, step, horizon);
    const [predicted] = await policy.act([observation], { seed });
    const latency: ActResult['latency'] = [];
    const onLatency = (name: string, milliseconds: number) => latency.push({ part: name, milliseconds });
    await policy.act([observation], { seed, onLatency });
    const dimension = data.length / horizon;
    const row = (values: Float32Array, i: number) => Array.from(values.subarray(i * dimension, (i + 1) * dimension));
    return {
      episode: episode.id,
      step,
      instruction: sample.instruction,
      names: dataset.actionNames?.length === dimension ? dataset.actionNames : null,
      demonstrated: Array.from(valid, (real, i) => (real ? row(data, i) : null)),
      predicted: Array.from({ length: horizon }, (_, i) => row(predicted, i)),
      answer,
      latency,
      adapter: device.description,
    };
  });
}

/** The answer to a question about the image, or else the predicted subtask if policy and data have subtasks. */
async function answerOf(
  policy: Policy,
  observation: RawObservation,
  question: string | undefined,
  demonstrated: string | null,
): Promise<ActResult['answer']> {
  const { cameras, locations } = policy.encoding.settings;
  if (question === undefined) {
    if (!locations || demonstrated === null) return null;
    const [answer] = await policy.generateText([{ ...observation, request: 'subtask' }]);
    return { question: `next subtask (demonstrated: ${demonstrated})`, answer };
  }
  const image = observation.images[cameras[0]];
  if (!image) throw new InputError(`--ask: camera ${cameras[0]} has no image at this control step`);
  const prompted = await questionObservation({ prompt: question, image: async () => image }, cameras);
  const [answer] = await policy.generateText([prompted]);
  return { question, answer };
}
