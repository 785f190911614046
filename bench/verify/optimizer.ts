/** AdamW with packed moments: the same update as with f32, and moments that are rounded as their storage says. */
import { backward, type Device, ParameterSet, philox, streams, tensor } from '../../engine/index.ts';
import { AdamW, type MomentStorage } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { normals } from './check.ts';
import { type Comparison, compareTensors } from './compare.ts';

const SIZE = 700;
const SEED = 7;
const DECAY = 0.75;
/** An 8-bit moment has four bits, relative to the largest of its 64 neighbours. */
const EIGHT_BITS = 2 ** -4;

async function updated(device: Device, moments: MomentStorage) {
  using parameters = new ParameterSet(device, [{ name: 'p', shape: [SIZE], group: 'all' }]);
  const [parameter] = parameters;
  parameter.write(normals(SIZE, 1));
  using optimizer = new AdamW(parameters, { weightDecay: 0.125, moments, seed: SEED, average: DECAY });
  device.step(() => {
    parameters.zeroGradients();
    backward(parameter, { gradient: tensor(device, normals(SIZE, 2), [SIZE]) });
    optimizer.step(0.1);
  });
  const { tensors } = optimizer.state();
  const [first, second] = await Promise.all(
    ['first', 'second'].map((which) => tensors.get(`${which}Moment/p`)!.read()),
  );
  const average = await optimizer.averaged(() => parameter.read());
  return { value: await parameter.read(), average, first, second };
}

export async function verifyOptimizer(device: Device): Promise<Comparison[]> {
  const exact = await updated(device, 'f32');
  const random = (i: number) => philox([SEED, 0], [Math.floor(i / 4), 0, 1, streams.rounding])[i % 4];
  const compared: Comparison[] = [];
  for (const moments of ['bf16', '8bit'] as const) {
    const found = await updated(device, moments);
    const subject = (tensor: string) => ({
      ...{ op: 'AdamW', name: `AdamW, moments in ${moments}, ${SIZE} parameters`, tensor },
      ...{ variant: 'shipped', storage: moments },
    });
    const expected = (which: 'first' | 'second') =>
      moments === 'bf16' ? reference.roundedMoment(exact[which], random, which === 'first' ? 0 : 16) : exact[which];
    compared.push(
      compareTensors(subject('parameters, beside those with moments in f32'), found.value, exact.value, 0),
      compareTensors(
        subject('average of the parameters'),
        found.average,
        reference.movingAverage(normals(SIZE, 1), exact.value, DECAY),
        1e-6,
      ),
      ...(['first', 'second'] as const).map((which) =>
        compareTensors(subject(`${which} moment`), found[which], expected(which), moments === 'bf16' ? 0 : EIGHT_BITS),
      ),
    );
  }
  return compared;
}
