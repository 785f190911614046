/** `insula act`: a trained policy on one observation of an episode, or a question about a picture. */
import { resolve } from 'node:path';
import { InputError } from '../engine/index.ts';
import type { Dataset } from '../model/data/dataset.ts';
import { chunk, episodeNamed, instructionsAt, loadExamples, wholeEpisodes } from '../model/data/index.ts';
import type { RawObservation } from '../model/policy/encoding.ts';
import type { Policy } from '../model/policy/policy.ts';
import type { Said } from '../model/policy/subtask.ts';
import { observationsAt } from '../model/training/batches.ts';
import type { CheckpointSettings } from '../model/training/checkpoint.ts';
import { type Answered, type AskResult, askAbout, askAlone, expectAnswers } from './asking.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { decimal, number, outputFile, seedNumber, text } from './options.ts';
import {
  expectNamed,
  expectNoise,
  expectStep,
  expectTokensToDraw,
  isSeeing,
  type PolicyValues,
  policyOptions,
  withPolicy,
} from './policy.ts';
import type { Progress } from './progress.ts';
import { type ActResult, actLines, askLines } from './text.ts';

const questionExamples = [
  'caption en',
  'point to the red cube',
  'what is at<loc0512><loc0256>',
  'answer en how many objects are on the table?',
  'answer en is there a red cube?',
  'answer en what is the red object?',
  'answer en what colour is the cube?',
  'answer en which bin is on the left?',
];

export const act = command({
  options: {
    ...policyOptions,
    checkpoint: text('file that insula train wrote, or a vision-language model to ask: tiny, small or FILE; required'),
    episode: text('id or number of an episode; the first by default'),
    step: number('control step of the episode; 0 by default'),
    ask: text(
      `a question about the image, in the words of training: ${questionExamples.map((own) => `'${own}'`).join(', ')}; for policies trained with --cotrain, or on tokens with --from, and vision-language models`,
    ),
    image: text('PNG or JPEG file to ask about, instead of the image of an episode', {
      needs: 'ask',
      excludes: ['episode', 'step', 'data'],
    }),
    picture: outputFile('PNG file for the image with the places of the answer drawn in', { needs: 'ask' }),
    seed: seedNumber('chooses the noise, and the tokens with --temperature; 0 by default'),
    temperature: decimal(
      'draws the tokens of actions, subtasks and answers by the softmax of their logits divided by this; the likeliest by default',
      { above: 0 },
    ),
    ...deviceOptions,
  },
  async run({ episode, step, ask, image, picture, seed, temperature, ...values }, { progress }): Promise<ActOrAsk> {
    const checkpoint = await expectNamed(values.checkpoint);
    if (picture !== undefined && !picture.endsWith('.png'))
      throw new InputError(`--picture ${picture}: it is written as PNG; give it a name that ends in .png`);
    if (picture !== undefined && image !== undefined && resolve(picture) === resolve(image))
      throw new InputError(`--picture ${picture}: it would replace --image; give it another name`);
    const seeing = await isSeeing(checkpoint);
    const isNeedless = seed !== undefined && temperature === undefined;
    if (isNeedless && image !== undefined)
      throw new InputError('--seed: an answer takes the likeliest tokens: give --temperature, or leave it out');
    if (seeing && (ask === undefined || isNeedless))
      throw new InputError(
        `${ask === undefined ? `--checkpoint ${checkpoint}` : '--seed'}: a vision-language model answers questions and does not act: ${ask === undefined ? 'ask one with --ask' : 'leave it out'}`,
      );
    if (ask !== undefined && (seeing || image !== undefined)) {
      const asked = { ask, image, picture, episode, step, seed, temperature };
      const json = await askAlone({ ...values, checkpoint }, seeing, asked, progress);
      return { json, lines: askLines(json) };
    }
    const json = await actOn(values, { episode, step, ask, picture, seed, temperature }, progress);
    return { json, lines: actLines(json) };
  },
});

interface ActOrAsk {
  readonly json: ActResult | AskResult;
  readonly lines: string[];
}

interface Moment {
  readonly episode?: string;
  readonly step?: number;
  readonly ask?: string;
  readonly picture?: string;
  readonly seed?: number;
  readonly temperature?: number;
}

/** The predicted chunk with the demonstrated one, and the latency by part of a second, warm call. */
async function actOn(values: PolicyValues, moment: Moment, progress: Progress): Promise<ActResult> {
  const { step = 0, ask, seed, temperature } = moment;
  const checks = {
    settings(settings: CheckpointSettings) {
      if (ask !== undefined) expectAnswers(settings.encoding);
      if (temperature !== undefined) expectTokensToDraw(settings);
      else if (seed !== undefined) expectNoise(settings);
    },
    dataset: (dataset: Dataset) => expectStep(episodeNamed(dataset, moment.episode), step),
  };
  return withPolicy(values, progress, checks, async ({ policy, dataset, device, settings }) => {
    const episode = episodeNamed(dataset, moment.episode);
    const [whole] = wholeEpisodes([episode]);
    const [sample] = await loadExamples([{ part: whole, step, instruction: instructionsAt(episode, step)[0] ?? null }]);
    const { configuration } = policy.model;
    const observations = await observationsAt(sample, policy.encoding.settings.cameras, configuration);
    const observation = observations.at(-1)!;
    const { cotrain, subtask: kind } = settings.run;
    const subtask = cotrain > 0 && kind === null ? (episode.subtask?.(step) ?? null) : null;
    const answer = await answerOf(policy, observation, moment, subtask);
    const { horizon } = configuration;
    const { data, valid } = chunk(sample.part, step, horizon);
    let said: ActResult['said'] = null;
    const image = observation.images[policy.encoding.settings.cameras[0]];
    const onSaid = ([{ words, places }]: readonly Said[]) => {
      const pixels = places.map(([down, across]) => [down * image!.height, across * image!.width] as const);
      said = { words, places: pixels };
    };
    const [predicted] = await policy.actInWindows(observations, { seed, temperature, onSaid });
    const latency: ActResult['latency'] = [];
    const onLatency = (name: string, milliseconds: number) => latency.push({ part: name, milliseconds });
    await policy.actInWindows(observations, { seed, temperature, onLatency });
    const dimension = data.length / horizon;
    const row = (values: Float32Array, i: number) => Array.from(values.subarray(i * dimension, (i + 1) * dimension));
    return {
      episode: episode.id,
      step,
      instruction: sample.instruction,
      names: dataset.actionNames?.length === dimension ? dataset.actionNames : null,
      demonstrated: Array.from(valid, (real, i) => (real ? row(data, i) : null)),
      predicted: Array.from({ length: horizon }, (_, i) => row(predicted, i)),
      said,
      answer,
      latency,
      adapter: device.description,
    };
  });
}

/** The answer to a question about the image, or else the subtask that co-training put before action tokens, if the data have one. */
async function answerOf(
  policy: Policy,
  observation: RawObservation,
  { ask, picture, seed, temperature }: Moment,
  demonstrated: string | null,
): Promise<Answered | null> {
  if (ask === undefined) {
    if (demonstrated === null) return null;
    const [answer] = await policy.generateText([{ ...observation, request: 'subtask' }], { seed, temperature });
    const question = `next subtask (demonstrated: ${demonstrated})`;
    return { question, answer, places: [], size: null, picture: null };
  }
  const [camera] = policy.encoding.settings.cameras;
  const image = observation.images[camera];
  if (!image) throw new InputError(`--ask: camera ${camera} has no image at this control step`);
  return askAbout(policy, image, { ask, picture, seed, temperature });
}
