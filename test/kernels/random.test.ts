import { describe, expect, test } from 'vitest';
import { randomStream, streams } from '../../engine/index.ts';
import { randomUniform } from '../../kernels/index.ts';
import { runOnce } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';

describeOnDevices('randomUniform', (device) => {
  test.each([
    { shape: [1], seed: 0, step: 0, stream: streams.rounding },
    { shape: [37, 5], seed: 2 ** 53 - 1, step: 2 ** 32 - 1, stream: streams.sampling },
    { shape: [20_001], seed: 5 * 2 ** 32 + 17, step: 9, stream: streams.rounding },
  ])('has the bits of the host: $shape, seed $seed, step $step', async ({ shape, ...address }) => {
    const opened = await device();
    const drawn = await runOnce(opened, () => randomUniform(opened, shape, address));
    const host = randomStream(address.seed, address.step, address.stream).fillUniform(new Float32Array(drawn.length));
    expect(new Uint32Array(drawn.buffer)).toEqual(new Uint32Array(host.buffer));
  });
});

describe('randomUniform arguments', () => {
  test('a bad seed or step is named', async () => {
    const device = await testDevice('normal');
    const draw = (seed: number, step: number) =>
      device.step(() => randomUniform(device, [4], { seed, step, stream: 0 }));
    expect(() => draw(-1, 0)).toThrow('randomUniform: seed -1');
    expect(() => draw(0.5, 0)).toThrow('randomUniform: seed 0.5');
    expect(() => draw(0, 2 ** 32)).toThrow('step: u32 cannot hold 4294967296');
  });
});
