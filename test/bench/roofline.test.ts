import { describe, expect, test } from 'vitest';
import { bindGroups, dealings, dispatchAll, increment, move } from '../../bench/measure/probes.ts';
import { benchRoofline } from '../../cli/bench-roofline.ts';
import { tensor } from '../../engine/index.ts';
import { testDevice } from '../support/devices.ts';
import { runCommand } from '../support/run-command.ts';

const device = await testDevice('normal');

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

  test('probes, and the roof that they make', async () => {
    const { json, lines } = await runCommand(benchRoofline, { rounds: 3 });
    const { roof, probes } = json;
    for (const probe of probes) {
      expect(probe.median, probe.name).toBeGreaterThan(0);
      expect(probe.low).toBeLessThanOrEqual(probe.high);
    }
    const copies = probes.filter(({ name }) => name.startsWith('copy, '));
    expect(roof.gigabytesPerSecond).toBe(Math.max(...copies.map(({ median }) => median)));
    expect(lines.length).toBe(3 + probes.length);
    expect(json.notStarted).toEqual([]);
  });
});
