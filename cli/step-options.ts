/** Options of a training step that is measured by itself. */
import { InputError } from '../engine/index.ts';
import { systemNamed } from '../model/systems/index.ts';
import { choice, number } from './options.ts';
import { memoryOptions, presetNames } from './run-options.ts';

export const stepSizeOptions = {
  preset: choice('tiny (default) or small: widths, depth and heads', presetNames),
  batch: number("examples in a batch; the preset's by default", 1),
  prompt: number('prompt tokens, without images; by default one camera and 32 tokens', 1),
  target: number('tokens to be predicted; 24 by default', 1),
  horizon: number('actions in a chunk; 10 by default', 1),
  depth: number("layers; the preset's by default", 1),
  ...memoryOptions,
};

/** @throws InputError if a size is given of what none of the systems has: target tokens, or a chunk of actions */
export function expectUsedSizes(
  command: string,
  systems: readonly string[],
  { target, horizon }: { readonly target?: number; readonly horizon?: number },
): void {
  const own = systems.map(systemNamed);
  const refuse = (option: string, missing: string) => {
    const have = systems.length > 1 ? 'have' : 'has';
    return new InputError(`${command}: ${option}: ${systems.join(' and ')} ${have} no ${missing}; leave it out`);
  };
  const has = (...inputs: string[]) => own.some(({ blocks }) => blocks.some(({ input }) => inputs.includes(input)));
  if (target !== undefined && !has('target')) throw refuse(`--target ${target}`, 'tokens to predict');
  if (horizon !== undefined && !has('noisyActions', 'learned', 'zeros'))
    throw refuse(`--horizon ${horizon}`, 'block of actions');
}
