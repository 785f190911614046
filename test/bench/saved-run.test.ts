import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionRunSchema } from '../../bench/attention/run.ts';
import { kernelsRunSchema } from '../../bench/kernels/run.ts';
import { readSavedRun } from '../../bench/measure/saved-run.ts';
import { stepRunSchema } from '../../bench/step/run.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-saved-'));
});
afterAll(() => rm(folder, { recursive: true }));

const results = (name: string) => fileURLToPath(new URL(`../../bench/results/${name}-lavapipe.json`, import.meta.url));

describe('saved runs', () => {
  test('the results in the repository can be compared with', async () => {
    const attention = await readSavedRun(results('attention'), attentionRunSchema, 'insula bench attention');
    const kernels = await readSavedRun(results('kernels'), kernelsRunSchema, 'insula bench kernels');
    const steps = await Promise.all(
      ['step', 'step-560-40-50-depth-18'].map((name) =>
        readSavedRun(results(name), stepRunSchema, 'insula bench step'),
      ),
    );
    for (const { rows, adapter } of [attention, kernels, ...steps]) {
      expect(rows.length).toBeGreaterThan(0);
      expect(adapter.software).toBe(true);
    }
    expect(steps[1].sizes).toEqual({ prompt: 560, target: 40, horizon: 50, depth: 18, batch: 1 });
  });

  test.each<[string, (run: { rows: Record<string, unknown>[]; [field: string]: unknown }) => void, string]>([
    ['a row without a time', ({ rows }) => delete rows[2].wall, '"rows[2].wall": missing'],
    ['a time in words', ({ rows }) => (rows[0].wall = 'long'), '"rows[0].wall": expected object, got "long"'],
    ['another command', (run) => (run.format = 'insula bench step 1'), '"format": expected "insula bench attention 1"'],
    ['times by a timer that the rows lack', (run) => (run.timer = 'gpu'), 'expected GPU times, got {'],
  ])('%s is refused in one line', async (_, spoil, complaint) => {
    const run = JSON.parse(await readFile(results('attention'), 'utf8'));
    for (const row of run.rows) row.gpu = null;
    spoil(run);
    const path = join(folder, 'run.json');
    await writeFile(path, JSON.stringify(run));
    const error = await readSavedRun(path, attentionRunSchema, 'insula bench attention').then(
      () => expect.fail('accepted'),
      (reason: Error) => reason,
    );
    expect(error.name).toBe('InputError');
    expect(error.message).toContain(
      `${path}: this is not a run that 'insula bench attention --out' saved: ${complaint}`,
    );
  });
});
