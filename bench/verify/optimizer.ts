/** AdamW beside float64; and with packed moments or parameters the same update as with f32, rounded as their storage says. */
import { decodeBfloat16, encodeBfloat16 } from '../../engine/files/half.ts';
import { backward, type Device, ParameterSet, philox, streams, tensor } from '../../engine/index.ts';
import { AdamW, type MomentStorage } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { normals } from './check.ts';
import { type Comparison, compareTensors, roundingOf } from './compare.ts';

const SIZE = 700;
const SEED = 7;
const DECAY = 0.75;
const RATE = 0.1;
const settings = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.125 };
const UPDATE = 16 * roundingOf('f32');
/** An 8-bit moment has four bits, relative to the largest of its 64 neighbours. */
const EIGHT_BITS = 2 ** -4;

/** What bfloat16 holds, so that parameters in it begin as those in f32 do. */
const VALUES = decodeBfloat16(encodeBfloat16(normals(SIZE, 1)));

async function updated(device: Device, moments: MomentStorage, dtype: 'f32' | 'bf16' = 'f32') {
  using parameters = new ParameterSet(device, [{ name: 'p', shape: [SIZE], group: 'all', dtype }]);
  const [parameter] = parameters;
  parameter.write(VALUES);
  using optimizer = new AdamW(parameters, { ...settings, moments, seed: SEED, average: DECAY });
  device.step(() => {
    parameters.zeroGradients();
    backward(parameter, { gradient: tensor(device, normals(SIZE, 2), [SIZE]) });
    optimizer.step(RATE);
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
  const average = reference.movingAverage(VALUES, exact.value, DECAY);
  const wordsOf = (stream: number) => (i: number) => philox([SEED, 0], [Math.floor(i / 4), 0, 1, stream])[i % 4];
  const random = wordsOf(streams.rounding);
  const compared = compareWithExact(exact);
  for (const moments of ['bf16', '8bit'] as const) {
    const { value, average: averaged, first, second } = await updated(device, moments);
    const name = `AdamW, moments in ${moments}, ${SIZE} parameters`;
    const compare = (tensor: string, actual: Float32Array, expected: reference.Numbers, tolerance: number) => {
      const subject = { op: 'AdamW', name, tensor, variant: 'shipped', storage: moments };
      compared.push(compareTensors(subject, actual, expected, tolerance));
    };
    const rounded = (moment: Float32Array, shift: 0 | 16) =>
      moments === 'bf16' ? reference.roundedMoment(moment, random, shift) : moment;
    const tolerance = moments === 'bf16' ? 0 : EIGHT_BITS;
    compare('parameters, beside those with moments in f32', value, exact.value, 0);
    compare('average of the parameters', averaged, average, 1e-6);
    compare('first moment', first, rounded(exact.first, 0), tolerance);
    compare('second moment', second, rounded(exact.second, 16), tolerance);
  }
  const half = await updated(device, 'f32', 'bf16');
  const rounded = reference.roundedMoment(exact.value, wordsOf(streams.parameterRounding), 0);
  const subject = { op: 'AdamW', name: `AdamW, ${SIZE} parameters in bf16`, variant: 'shipped', storage: 'bf16' };
  const expected = reference.movingAverage(VALUES, rounded, DECAY);
  compared.push(
    compareTensors({ ...subject, tensor: 'parameters, rounded as those in f32' }, half.value, rounded, 0),
    compareTensors({ ...subject, tensor: 'average of the parameters' }, half.average, expected, 2 ** -8),
  );
  return compared;
}

/** The first update from moments of zero. */
function compareWithExact(actual: Awaited<ReturnType<typeof updated>>): Comparison[] {
  const [first, second] = [new Float64Array(SIZE), new Float64Array(SIZE)];
  const expected = { value: Float64Array.from(VALUES), first, second };
  reference.adamw(expected, normals(SIZE, 2), settings, 1, RATE);
  const name = `AdamW, ${SIZE} parameters`;
  const titles = { value: 'parameters', first: 'first moment', second: 'second moment' };
  return (['value', 'first', 'second'] as const).map((what) => {
    const subject = { op: 'AdamW', name, tensor: titles[what], variant: 'shipped', storage: 'f32' };
    return compareTensors(subject, actual[what], expected[what], UPDATE);
  });
}
