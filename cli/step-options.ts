/** Options of a training step that is measured by itself. */
import { choice, number } from './options.ts';
import { memoryOptions, presetNames } from './run-options.ts';

export const stepSizeOptions = {
  preset: choice('tiny (default) or small: widths, depth and heads', presetNames),
  batch: number("examples to a step; the preset's by default", 1),
  prompt: number('prompt tokens without images, in place of one camera and 32 tokens', 1),
  fast: number('FAST tokens of a chunk; 24 by default', 1),
  horizon: number('actions of a chunk; 10 by default', 1),
  depth: number("layers; the preset's by default", 1),
  ...memoryOptions,
};
