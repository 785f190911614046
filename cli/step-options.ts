/** Options of a training step that is measured by itself. */
import { InputError } from '../engine/index.ts';
import { MOST_LAYERS } from '../model/architecture/limits.ts';
import { measuredSystem } from '../model/inspect/measured-step.ts';
import { PACKED_QUESTIONS } from '../model/systems/index.ts';
import { presetNamed } from '../model/training/presets.ts';
import { choice, number } from './options.ts';
import { memoryOptions, presetNames, runOptions, systemNames } from './run-options.ts';

/** The systems of training, and the packed questions of pretraining. */
export const measuredSystems = [...systemNames, PACKED_QUESTIONS];

export const stepSizeOptions = {
  preset: choice(`${presetNames.join(', ')}: widths, depth and heads; tiny by default`, presetNames),
  batch: number("examples in a batch; the preset's by default", 1),
  prompt: number(
    'a model without images, with this many prompt tokens; by default it has one camera and 32 prompt tokens',
    1,
  ),
  target: number('tokens to be predicted; 24 by default', 1),
  horizon: number("actions in a chunk; by default those of the system's recipe, or 10", 1),
  depth: number("layers; the preset's by default", 1, { to: MOST_LAYERS }),
  lora: number('rank of low-rank adaptation (LoRA) of the experts of --lora-on; none by default', 1),
  'lora-on': runOptions['lora-on'],
  ...memoryOptions,
};

/** @throws InputError if a size is given of what none of the systems has: target tokens, actions that are no tokens, or steps of a flow */
export function expectUsedSizes(
  command: string,
  systems: readonly string[],
  {
    preset = 'tiny',
    target,
    horizon,
    steps,
  }: { readonly preset?: string; readonly target?: number; readonly horizon?: number; readonly steps?: number },
): void {
  const own = systems.map((system) => measuredSystem(system, presetNamed(preset).depth));
  const [have, say] = systems.length > 1 ? ['have', 'say'] : ['has', 'says'];
  const refuse = (option: string, reason: string) =>
    new InputError(`${command}: ${option}: ${systems.join(' and ')} ${reason}; leave it out`);
  const acts = (...kinds: string[]) =>
    own.some(
      ({ name, objectives }) => name !== PACKED_QUESTIONS && objectives.some(({ kind }) => kinds.includes(kind)),
    );
  const sampled = ['flow', 'diffusion', 'denoisingHead'];
  const targets = own.some(({ blocks }) =>
    blocks.some(({ input, length }) => input === 'target' && typeof length !== 'number'),
  );
  if (target !== undefined && !targets) throw refuse(`--target ${target}`, `${have} no tokens to predict`);
  if (horizon !== undefined && !acts('regression', ...sampled))
    throw refuse(
      `--horizon ${horizon}`,
      targets ? `${say} a chunk in tokens, and their number here is that of --target` : `${have} no chunks of actions`,
    );
  if (steps !== undefined && !acts(...sampled)) throw refuse(`--steps ${steps}`, `${have} no flow and no diffusion`);
}
