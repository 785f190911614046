/** `insula bench first-day`: everything that is to be known of a new adapter, in one folder. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { firstDay, type Outcome } from '../bench/first-day/first-day.ts';
import { aligned } from '../bench/measure/table.ts';
import { InputError } from '../engine/index.ts';
import { command } from './command.ts';
import { decimal, outputFolder } from './options.ts';
import { expectNoFiles } from './outputs.ts';

export const benchFirstDay = command({
  options: {
    out: outputFolder('empty or new folder for the results; required'),
    minutes: decimal('time for everything; 12 by default', { from: 0.5 }),
  },
  notes: [
    'In order: insula devices, insula verify, bench roofline, kernels, attention and step, bench --tune, a short training, and in a clone the tests of engine and kernels, each in a process of its own with a part of the time. What a part prints is in NAME.txt and NAME.log, its results in NAME.json, and parts.json says how each ended. A part that fails does not stop the others; the status is 1 then.',
    'In a clone, the folder is fit for bench/results/: name it after the adapter.',
  ],
  async run({ out, minutes = 12 }, { progress }) {
    if (out === undefined) throw new InputError('bench first-day: name a folder for the results with --out FOLDER');
    await expectNoFiles('out', out);
    const scratch = await mkdtemp(join(tmpdir(), 'insula-first-day-'));
    try {
      const outcomes = await firstDay({ folder: resolve(out), scratch, minutes }, (name, done, total) =>
        progress.note(`part ${done + 1} of ${total}: ${name}`),
      );
      const passed = outcomes.every(({ outcome }) => outcome === 'passed');
      return { json: outcomes, lines: outcomeLines(outcomes, out), status: passed ? 0 : 1 };
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  },
});

export function outcomeLines(outcomes: readonly Outcome[], folder: string): string[] {
  const rows = outcomes.map(({ name, seconds, outcome }) => [name, seconds.toFixed(0), outcome]);
  const all = outcomes.reduce((sum, { seconds }) => sum + seconds, 0);
  return [
    ...aligned([['part', 'seconds', 'outcome'], ...rows], 1),
    `${(all / 60).toFixed(1)} minutes in all; output and results: ${folder}`,
  ];
}
