import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { benchData } from '../../cli/bench-data.ts';
import { writeLeRobot } from '../../model/data/index.ts';
import { source } from '../data/lerobot-files.ts';
import { runCommand } from '../support/run-command.ts';

test('insula bench data: a row for numbers and one with images', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'insula-bench-data-'));
  try {
    await writeLeRobot(join(folder, 'own'), source());
    const values = { data: [join(folder, 'own')], seconds: 1, batch: 4, size: 16 };
    const { json, lines } = await runCommand(benchData, values);
    expect(json.dataset).toMatch(/^LeRobot data set, version 3\.0: 3 episodes, 13 steps at 20 Hz, cameras top, wrist/);
    expect(json.rows.map(({ what }) => what)).toEqual(['actions and states', 'and 2 images of 16 x 16']);
    for (const { samplesPerSecond, batch } of json.rows) {
      expect(samplesPerSecond).toBeGreaterThan(0);
      expect(batch.max).toBeGreaterThanOrEqual(batch.p50);
    }
    expect(lines.length).toBe(4);
    await expect(runCommand(benchData, { ...values, cameras: [] })).rejects.toThrow(
      'bench data: --size 16: no images are read of "own"; leave it out',
    );
    await expect(runCommand(benchData, {})).rejects.toThrow('bench data: name a data set with --data FOLDER');
  } finally {
    await rm(folder, { recursive: true });
  }
});
