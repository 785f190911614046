/** The sizes of a model for its data: those of the preset, with blocks as long as the longest prompt and the longest target. */
import { FastTokenizer } from '../../tokenizers/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { chunk, countSteps, type EpisodePart, eachLoaded, type Split, stateAt } from '../data/index.ts';
import type { Encoding } from '../policy/encoding.ts';
import { numbersDimension } from '../policy/subtask.ts';
import { configurationOf, withDraws } from '../systems/index.ts';
import { everyQuestion } from './co-training.ts';
import { type FittingOptions, fittingSamples } from './fitting.ts';
import { withGripperOf } from './gripper-fitting.ts';
import { longestSubtask, sayingSystem } from './subtask-fitting.ts';

/** Length of the longest action token sequence, in co-training with its subtask before it. */
async function longestTokens(
  { dataset, coTraining, listener }: FittingOptions,
  parts: readonly EpisodePart[],
  encoding: Encoding,
  horizon: number,
): Promise<number> {
  const introduction = encoding.subtask?.introduction.length ?? 0;
  const [samples, steps] = [fittingSamples(parts), countSteps(parts)];
  if (samples.length < steps)
    listener.note(`${dataset.name}: targets are fitted to ${samples.length} of ${steps} control steps`);
  let longest = 0;
  let [clamped, total] = [0, 0];
  for await (const { part, step } of eachLoaded(samples)) {
    const { episode } = part;
    const { robot } = episode;
    const data = encoding.normaliseActions(chunk(part, step, horizon).data, { robot, state: stateAt(episode, step) });
    const subtask = !encoding.subtask && coTraining && episode.subtask?.(step);
    const subtaskLength = subtask ? encoding.subtaskTokens(subtask).length : introduction;
    longest = Math.max(longest, subtaskLength + encoding.actionTokens(data, horizon, robot).length);
    const own = encoding.ownDimensions(data, robot);
    const clamping = encoding.actions!.clamping({ data: own, horizon, dimension: own.length / horizon });
    clamped += clamping.clamped;
    total += clamping.total;
  }
  // Bins end at the quantiles, beyond which 2 % of the numbers lie.
  const usual = encoding.actions instanceof FastTokenizer ? 0 : 0.05 * total;
  if (clamped > usual)
    listener.note(
      `${dataset.name}: ${clamped} of ${total} numbers of the action chunks (${((100 * clamped) / total).toPrecision(2)} %) lie beyond what action tokens can say, and are clamped`,
    );
  return longest;
}

/** The model's configuration: sizes from the preset, block lengths from the longest prompt and the longest target. */
export async function fittedConfiguration(
  options: FittingOptions,
  split: Split,
  encoding: Encoding,
  horizon: number,
): Promise<ModelConfiguration> {
  const { dataset, preset, coTraining, rules, lora, precision, draws = 1 } = options;
  const { actionDimension, stateDimension } = dataset;
  const parts = [...split.train, ...split.heldOut];
  let targetTokens = encoding.actions ? await longestTokens(options, parts, encoding, horizon) : 0;
  let promptTokens = 0;
  const seen = new Set<string>();
  for (const { episode } of parts) {
    const { robot, instructions, subtask } = episode;
    const { statistics, robots } = encoding.settings;
    // No bin has more tokens than the last.
    const state = (robots?.[robot!].statistics ?? statistics)?.states?.q99 ?? null;
    for (const instruction of instructions.length > 0 ? instructions : [null]) {
      const key = JSON.stringify([robot, instruction]);
      if (seen.has(key)) continue;
      seen.add(key);
      for (const request of coTraining && subtask ? (['actions', 'subtask'] as const) : [undefined])
        promptTokens = Math.max(promptTokens, encoding.promptIds({ instruction, state, robot, request }).length);
    }
  }
  for (const { prompt, answer } of coTraining ? everyQuestion(coTraining) : []) {
    const promptIds = encoding.promptIds({ instruction: prompt, state: null, request: 'answer' });
    promptTokens = Math.max(promptTokens, promptIds.length);
    targetTokens = Math.max(targetTokens, encoding.answerTokens(answer).length);
  }
  const saying = encoding.subtask
    ? sayingSystem(options.system, {
        tokens: longestSubtask(encoding, parts),
        dimension: numbersDimension(encoding.subtask.settings, stateDimension),
      })
    : options.system;
  const { system: fitting, notes } = withGripperOf(saying, dataset, encoding.settings);
  for (const line of notes) options.listener.note(line);
  const system = withDraws(fitting, draws) ?? fitting;
  const { image, ...vision } = preset.vision;
  const cameras = encoding.settings.cameras.length;
  return configurationOf(system, {
    ...preset,
    vocabulary: encoding.vocabularySize,
    vision: cameras > 0 ? { ...vision, imageHeight: image, imageWidth: image, cameras } : null,
    // An unseen instruction or state may need a few more tokens.
    promptTokens: promptTokens + 4,
    targetTokens,
    horizon,
    actionDimension,
    stateDimension,
    rules,
    lora,
    precision,
  });
}
