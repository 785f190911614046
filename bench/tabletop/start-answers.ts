/** Answers that a policy still has from the vision-language model that it began from. */
import type { Device } from '../../engine/index.ts';
import type { StartAnswers } from '../../model/inspect/answers.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import type { VisionLanguageFile } from '../../model/training/vision-language-file.ts';
import { knowsWorld, measureSets } from './seeing-sets.ts';

/**
 * Asks the start about held-out frames of rich scenes, those of pretraining; null if it was pretrained on other pictures. With
 * `trained`, its weights are those of a trained policy's model, so that a system without a token head is asked too; null if that model
 * lacks some of them.
 */
export async function askStart(
  device: Device,
  start: VisionLanguageFile,
  scenes: number,
  signal?: AbortSignal,
  trained?: Policy['model'],
): Promise<StartAnswers | null> {
  if (!knowsWorld(start.encoding)) return null;
  using model = await start.loadModel(device);
  for (const parameter of trained ? model.parameters : []) {
    const own = trained!.parameters.has(parameter.name) ? trained!.parameters.get(parameter.name) : null;
    // Rows of action tokens come after those of the start.
    if (!own || own.size < parameter.size) return null;
    parameter.write((await own.read()).subarray(0, parameter.size));
  }
  const policy = new Policy(model, new Encoding(start.encoding));
  const { sets } = await measureSets(policy, { variations: ['rich'], scenes, seed: 0, signal });
  const { pointing, others } = sets[0].scores;
  return { objects: pointing.free.count, near: pointing.free.near, others: others.questions, tokens: others.tokens };
}
