import { describe, expect, test } from 'vitest';
import { streams, tensor } from '../../engine/index.ts';
import { randomAddress, randomUniform } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { runOnce } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';

describeOnDevices('randomUniform', (device) => {
  test.each([
    { shape: [1], seed: 0, step: 0, stream: streams.rounding },
    { shape: [37, 5], seed: 2 ** 53 - 1, step: 2 ** 32 - 1, stream: streams.sampling },
    { shape: [20_001], seed: 5 * 2 ** 32 + 17, step: 9, stream: streams.rounding },
  ])('has the bits of the host: $shape, seed $seed, step $step', async ({ shape, ...address }) => {
    const opened = await device();
    const drawn = await runOnce(opened, () =>
      randomUniform(shape, tensor(opened, randomAddress(address), [4], { dtype: 'u32' })),
    );
    const host = reference.randomUniform(drawn.length, address);
    expect(new Uint32Array(drawn.buffer)).toEqual(new Uint32Array(host.buffer));
  });
});

describe('randomUniform arguments', () => {
  test('a bad seed or step is named, and an address of floats', async () => {
    const device = await testDevice('normal');
    const address = (seed: number, step: number) => () => randomAddress({ seed, step, stream: 0 });
    expect(address(-1, 0)).toThrow('randomAddress: seed -1');
    expect(address(0.5, 0)).toThrow('randomAddress: seed 0.5');
    expect(address(0, 2 ** 32)).toThrow('randomAddress: step 4294967296');
    const floats = () => randomUniform([4], tensor(device, [1, 2, 3, 4], [4]));
    expect(() => device.step(floats)).toThrow('randomUniform: address is f32 [4]; expected u32');
  });
});
