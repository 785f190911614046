import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dealings, move } from '../../bench/measure/bandwidth.ts';
import { bindGroups, dispatchAll, increment } from '../../bench/measure/launch.ts';
import { roofline } from '../../bench/measure/roofline.ts';
import { rooflineLines } from '../../cli/bench-roofline.ts';
import { tensor } from '../../engine/index.ts';
import { testDevice } from '../support/devices.ts';

const device = await testDevice('normal');
const before = process.env.XDG_CACHE_HOME;
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-roofline-'));
  process.env.XDG_CACHE_HOME = folder;
});
afterAll(async () => {
  if (before === undefined) delete process.env.XDG_CACHE_HOME;
  else process.env.XDG_CACHE_HOME = before;
  await rm(folder, { recursive: true });
});

describe('insula bench roofline', () => {
  test.each(dealings)('$name: all of a buffer is copied, all of it written', async (dealing) => {
    const count = 2 ** 20;
    const numbers = Float32Array.from({ length: count }, (_, i) => i);
    const [copied, written] = device.step(() => {
      const source = tensor(device, numbers, [count]);
      const targets = [0, 1].map(() => tensor(device, new Float32Array(count).fill(-1), [count]));
      move(device, 'copy', dealing, { source, target: targets[0], bytes: 4 * count });
      move(device, 'write', dealing, { source, target: targets[1], bytes: 4 * count });
      return targets;
    });
    // Comparing a million elements one by one takes seconds.
    expect(Buffer.compare(Buffer.from((await copied.read()).buffer), Buffer.from(numbers.buffer))).toBe(0);
    expect((await written.read()).indexOf(-1)).toBe(-1);
    for (const made of [copied, written]) made.dispose();
  });

  test('every dispatch of the launch probe runs, one after another', async () => {
    const count = tensor(device, [0], [1]);
    dispatchAll(device, 5, bindGroups(device, count, 3));
    device.step(() => increment(device, count));
    expect(await count.read()).toEqual(Float32Array.of(6));
    count.dispose();
  });

  test('is measured once and kept, and measured again if the kept file is useless', async () => {
    const options = { rounds: 3, seconds: 60 };
    const first = await roofline(device, options);
    expect(first.kept).toBe(false);
    const { roof, probes } = first.roofline;
    for (const probe of probes) {
      expect(probe.median, probe.name).toBeGreaterThan(0);
      expect(probe.low).toBeLessThanOrEqual(probe.high);
    }
    const copies = probes.filter(({ name }) => name.startsWith('copy, '));
    expect(roof.gigabytesPerSecond).toBe(Math.max(...copies.map(({ median }) => median)));
    expect(JSON.parse(await readFile(first.path, 'utf8'))).toEqual(first.roofline);

    const second = await roofline(device, options);
    expect(second).toEqual({ ...first, kept: true });
    expect(rooflineLines(second).at(-1)).toBe(`read from ${first.path}; --fresh measures again`);
    const floor = await testDevice('floor');
    const onFloor = await roofline(floor, { ...options, floor: true });
    expect(onFloor.kept).toBe(false);
    expect(await roofline(floor, { ...options, floor: true })).toEqual({ ...onFloor, kept: true });
    expect(await roofline(device, options)).toEqual(second);
    for (const useless of ['nonsense', JSON.stringify({ ...first.roofline, roof: { gigaflops: 'fast' } })]) {
      await writeFile(first.path, useless);
      expect((await roofline(device, options)).kept).toBe(false);
    }
  });
});
