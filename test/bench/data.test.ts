import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { benchData } from '../../bench/data.ts';
import { Progress } from '../../bench/progress.ts';
import { writeLeRobot } from '../../model/data/index.ts';
import { source } from '../data/lerobot-files.ts';

test('insula bench data: a row for numbers and one with images', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'insula-bench-data-'));
  try {
    await writeLeRobot(join(folder, 'own'), source());
    const options = { data: join(folder, 'own'), seconds: 1, batch: 4, size: 16 };
    const { json, lines } = await benchData(options, new Progress());
    expect(json.dataset).toMatch(/^LeRobot data set, version 3\.0: 3 episodes, 13 steps at 20 Hz, cameras top, wrist/);
    expect(json.rows.map(({ what }) => what)).toEqual(['actions and states', 'and 2 images of 16 x 16']);
    for (const { samplesPerSecond, longestBatch } of json.rows) {
      expect(samplesPerSecond).toBeGreaterThan(0);
      expect(longestBatch).toBeGreaterThan(0);
    }
    expect(lines.length).toBe(4);
    const without = await benchData({ ...options, cameras: 'none', training: true }, new Progress());
    expect(without.json.rows.length).toBe(1);
    expect(without.lines[1]).toMatch(/beside training +its step, ms +of one batch again$/);
    for (const value of Object.values(without.json.rows[0].beside!)) expect(value).toBeGreaterThan(0);
  } finally {
    await rm(folder, { recursive: true });
  }
});
