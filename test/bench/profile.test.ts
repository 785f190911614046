import { describe, expect, test } from 'vitest';
import { tensor } from '../../engine/index.ts';
import { gelu, rmsNorm, scale } from '../../kernels/index.ts';
import { testDevice } from '../support/devices.ts';

const device = await testDevice('normal');
const floor = await testDevice('floor');

describe.skipIf(!device.features.has('timestamp-query'))('device.profile', () => {
  test('one entry a dispatch, in order, with its grid and a positive time', async () => {
    using x = tensor(device, new Float32Array(64 * 1024).fill(1), [64, 1024]);
    using weight = tensor(device, new Float32Array(1024).fill(1), [1024]);
    const before = device.dispatches;
    const times = await device.profile(() => device.step(() => void gelu(scale(rmsNorm(x, weight), 2))));
    expect(times.map(({ label }) => label.split(' ')[0])).toEqual(['rms-norm', 'elementwise', 'activation']);
    expect(times.length).toBe(device.dispatches - before);
    for (const { nanoseconds, workgroups } of times) {
      expect(nanoseconds).toBeGreaterThan(0);
      expect(workgroups).toBeGreaterThan(1);
    }
  });

  test('more dispatches than one query set holds; asynchronous work; results as without', async () => {
    using x = tensor(device, [1, 2, 3, 4], [4]);
    const numbers: Float32Array[] = [];
    const times = await device.profile(() =>
      device.step(async () => {
        for (let i = 0; i < 2100; i++) scale(x, 2);
        await device.finish();
        numbers.push(await scale(x, 3).read());
      }),
    );
    expect(times.length).toBe(2101);
    expect(times.every(({ label, nanoseconds }) => label.startsWith('elementwise ') && nanoseconds > 0)).toBe(true);
    expect([...numbers[0]]).toEqual([3, 6, 9, 12]);
  });

  test('nothing dispatched, a function that throws, profiles in profiles', async () => {
    expect(await device.profile(() => {})).toEqual([]);
    const failing = () => {
      throw new Error('no');
    };
    await expect(device.profile(failing)).rejects.toThrow('no');
    await expect(device.profile(() => device.profile(() => {}))).rejects.toThrow('profiles do not nest');
    expect(await device.profile(() => {})).toEqual([]);
  });
});

test('a device without timestamps refuses to profile', async () => {
  await expect(floor.profile(() => {})).rejects.toThrow("was opened without timestamps ('timestamp-query')");
});
