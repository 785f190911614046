/** `insula bench stories`: a small Llama language model, fine-tuned on a text. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { provenanceLine } from '../bench/measure/provenance.ts';
import { aboveRoof, roofCell, roofText } from '../bench/measure/roofline.ts';
import { courseLine } from '../bench/measure/run.ts';
import { digits, quartiles } from '../bench/measure/table.ts';
import { runStories, type StoriesRun } from '../bench/step/stories.ts';
import { InputError } from '../engine/index.ts';
import { formatPercent } from '../model/report/markup.ts';
import { benchOptions, runBench } from './bench-run.ts';
import { command } from './command.ts';
import { number, text } from './options.ts';

const EPOCHS = 20;
const { rounds: _, ...limits } = benchOptions({ seconds: 120 });

/** The files are no part of the project. */
const files = {
  weights: text(
    'a small Llama language model (safetensors, names of Meta or Hugging Face), such as stories260K; required',
  ),
  text: text('the text to fine-tune it on, in UTF-8, such as TinyStories; <|endoftext|> ends a story; required'),
  tokenizer: text(
    'tokenizer.json of the model, or a list of its scored pieces; the file beside the weights by default',
  ),
};

export const benchStories = command({
  options: {
    ...files,
    heads: number("query heads; by default those that the weights' metadata name", 1),
    epochs: number(`epochs over the text; ${EPOCHS} by default`, 2),
    batch: number('sequences of 128 tokens in a step; 1 by default', 1),
    ...limits,
  },
  notes: [
    'Trains in f32 with AdamW (learning rate 1e-4, no decay) on sequences of 128 predicted tokens in the order of the text. The time of a step is the mean of an epoch, and the median is that of the epochs after the first.',
  ],
  interruptible: true,
  async run({ epochs = EPOCHS, heads, batch = 1, ...values }, context) {
    const { weights, text } = values;
    const tokenizer = values.tokenizer ?? (weights && join(dirname(weights), 'tokenizer.json'));
    for (const [name, path] of Object.entries({ weights, text, tokenizer }))
      if (path === undefined || !existsSync(path))
        throw new InputError(
          `bench stories: ${path === undefined ? `--${name} is missing` : `--${name} ${path}: there is no such file`}; give ${files[name as keyof typeof files].help.split(';')[0]}`,
        );
    const options = { weights: weights!, text: text!, tokenizer: tokenizer!, heads, batch, context: 128 };
    return runBench({ ...values, rounds: epochs - 1 }, context, {
      ...{ command: 'bench stories', limits: { seconds: 120 }, lines: storiesLines },
      run: (device, budget) => runStories(device, options, budget),
    });
  },
});

export function storiesLines(run: StoriesRun): string[] {
  const { options, roof } = run;
  return [
    provenanceLine(run),
    courseLine(run),
    ...run.rows.flatMap((row) => {
      const { loss, steps, time, kernels, profiled } = row;
      const [epochs, seconds] = [loss.epochs.length, row.compileSeconds + row.trainSeconds];
      const shown = loss.epochs.map((own) => own.toFixed(3)).join(' ');
      const longest = kernels.slice(0, 5).map(({ kernel, share }) => `${kernel} ${formatPercent(share, 1)}`);
      return [
        `${options.weights} (${row.parameters} parameters, f32) on ${options.text}: ${epochs} epochs of ${steps} steps of ${options.batch} x ${options.context} tokens`,
        `${seconds.toFixed(2)} s, of which capture and compilation took ${row.compileSeconds.toFixed(2)} s`,
        `${digits(row.tokensPerSecond)} tokens/s: ${digits(time.median)} ms a step (${quartiles(time)}), median of epochs`,
        `loss in nats a token: ${loss.before.toFixed(4)} before, ${loss.after.toFixed(4)} after; by epoch ${shown}`,
        `limited by ${row.bound}: its least time is ${roofCell(row)} % of a step; ${row.dispatches} dispatches, ${digits(row.gigaflops)} GFLOP/s, ${digits(row.gigabytesPerSecond)} GB/s; the host takes ${digits(row.host.median)} ms a step`,
        ...aboveRoof([row]),
        ...(profiled === null ? [] : [`GPU time by kernel, ${digits(profiled)} ms in all: ${longest.join(', ')}`]),
      ];
    }),
    `roof in the same rounds: ${roofText(roof)}`,
    'Published by others, on another machine, text and schedule, so no comparison of equals: stories260K in f32, context 128, 20 epochs take 11.31 s with WebGPU, 3.45 s with CUDA (github.com/ggml-org/llama.cpp/pull/28269).',
  ];
}
