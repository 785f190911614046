/** Options of a training step that is measured by itself. */
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
