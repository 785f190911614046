/** Options of a training step that is measured by itself. */
import { InputError } from '../engine/index.ts';
import { systemNamed } from '../model/systems/index.ts';
import { choice, number } from './options.ts';
import { memoryOptions, presetNames } from './run-options.ts';

export const stepSizeOptions = {
  preset: choice('tiny (default) or small: widths, depth and heads', presetNames),
  batch: number("examples in a batch; the preset's by default", 1),
  prompt: number('prompt tokens, without images; by default one camera and 32 tokens', 1),
  fast: number('FAST tokens in a chunk; 24 by default', 1),
  horizon: number('actions in a chunk; 10 by default', 1),
  depth: number("layers; the preset's by default", 1),
  ...memoryOptions,
};

/** @throws InputError if FAST tokens are given for systems that have none */
export function expectTokens(command: string, systems: readonly string[], fast: number | undefined): void {
  if (fast === undefined || systems.some((system) => systemNamed(system).tokens)) return;
  throw new InputError(`${command}: --fast ${fast}: ${systems.join(' and ')} has no FAST tokens; leave it out`);
}
