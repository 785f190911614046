import { expect, test } from 'vitest';
import {
  backward,
  captureStep,
  type Device,
  ParameterSet,
  type StepInput,
  type Tensor,
  tensor,
} from '../../engine/index.ts';
import {
  AdamW,
  adaptiveRmsNorm,
  add,
  concatenateTokens,
  embedding,
  eulerStep,
  flowInterpolate,
  gatedResidual,
  gelu,
  huber,
  layerNorm,
  linearCrossEntropy,
  linearCrossEntropyRows,
  lstm,
  type Moment,
  type MomentStorage,
  multiply,
  randomAddress,
  randomUniform,
  reshape,
  rmsNorm,
  rotary,
  rotaryTable,
  scale,
  sliceTokens,
  softmax,
  sum,
} from '../../kernels/index.ts';
import { describeOnAllDevices } from '../support/devices.ts';
import { normals } from '../support/numbers.ts';

const [BATCH, TOKENS, WIDTH, VOCABULARY] = [2, 3, 8, 10];
const rows = BATCH * TOKENS;
const x = { shape: [BATCH, TOKENS, WIDTH] };
const declared = {
  ids: { shape: [BATCH, TOKENS], dtype: 'u32' },
  targets: { shape: [BATCH, TOKENS], dtype: 'u32' },
  mask: { shape: [BATCH, TOKENS], dtype: 'u32' },
  valid: { shape: [BATCH, TOKENS], dtype: 'u32' },
  dimensions: { shape: [WIDTH], dtype: 'u32' },
  actions: x,
  noise: x,
  time: { shape: [BATCH] },
  turns: { shape: [BATCH, TOKENS, WIDTH / 2, 2] },
  address: { shape: [4], dtype: 'u32' },
  schedule: { shape: [3] },
} as const satisfies Record<string, StepInput>;
type Inputs = Readonly<Record<keyof typeof declared, Tensor>>;

/** Other ids, masks (in the first batch no row has a loss, in the second five), positions and times for each batch. */
const dataOf = (batch: number, schedule: Float32Array) => ({
  ids: Uint32Array.from({ length: rows }, (_, i) => (batch * i * i) % VOCABULARY),
  targets: Uint32Array.from({ length: rows }, (_, i) => (3 * batch + i) % VOCABULARY),
  mask: Uint32Array.from({ length: rows }, (_, i) =>
    batch === 1 ? Number(i > 0) : (batch + i) % 3 === 0 && batch > 0 ? 1 : 0,
  ),
  valid: Uint32Array.from({ length: rows }, (_, i) => (batch + i) % 2),
  dimensions: Uint32Array.from({ length: WIDTH }, (_, i) => (i <= 2 * batch ? 1 : 0)),
  actions: normals(rows * WIDTH, 10 + batch),
  noise: normals(rows * WIDTH, 20 + batch),
  time: Float32Array.from({ length: BATCH }, (_, i) => (1 + i + batch) / 8),
  turns: rotaryTable(
    Array.from({ length: rows }, (_, i) => i * (1 + batch)),
    WIDTH,
  ),
  address: randomAddress({ seed: 5, step: batch, stream: 6 }),
  schedule,
});

const shapes = {
  table: [VOCABULARY, WIDTH],
  gain: [WIDTH],
  layerGain: [WIDTH],
  layerBias: [WIDTH],
  modulation: [BATCH, 3 * WIDTH],
  inputWeight: [4 * WIDTH, WIDTH],
  hiddenWeight: [4 * WIDTH, WIDTH],
  inputBias: [4 * WIDTH],
  hiddenBias: [4 * WIDTH],
};

/** Every op of data-dependent work in one step, with its optimizer. */
class Training implements Disposable {
  readonly parameters: ParameterSet;
  readonly optimizer: AdamW;

  constructor(
    readonly device: Device,
    moments: MomentStorage,
  ) {
    const all = Object.entries(shapes).map(([name, shape]) => ({ name, shape, group: name }));
    this.parameters = new ParameterSet(device, all);
    let seed = 0;
    for (const parameter of this.parameters) parameter.write(normals(parameter.size, ++seed, 0.5));
    this.optimizer = new AdamW(this.parameters, { maximumNorm: 0.5, weightDecay: 0.1, moments });
  }

  step = (inputs: Inputs): Record<string, Tensor> => {
    const parameters = Object.keys(shapes).map((name) => this.parameters.get(name));
    const [table, gain, layerGain, layerBias, modulation, inputWeight, hiddenWeight, inputBias, hiddenBias] =
      parameters;
    this.parameters.zeroGradients();
    const { noisy, target } = flowInterpolate(inputs.actions, inputs.noise, inputs.time);
    const tokens = embedding(inputs.ids, table, { scale: 2 });
    const joint = concatenateTokens([rmsNorm(tokens, gain), layerNorm(noisy, layerGain, layerBias)]);
    const turned = rotary(reshape(sliceTokens(joint, 0, TOKENS), [BATCH, TOKENS, 1, WIDTH]), inputs.turns);
    const states = lstm(add(tokens, noisy), { inputWeight, hiddenWeight, inputBias, hiddenBias });
    const branch = gelu(adaptiveRmsNorm(states, modulation));
    const dropped = multiply(branch, randomUniform(branch.shape, inputs.address));
    const hidden = gatedResidual(softmax(sliceTokens(joint, TOKENS, TOKENS)), dropped, modulation);
    const tokenLoss = linearCrossEntropyRows(hidden, table, inputs.targets, inputs.mask);
    const masks = { valid: inputs.valid, dimensions: inputs.dimensions };
    const flowLoss = huber(eulerStep(hidden, scale(noisy, 0.5), -0.1), target, masks);
    const compact = linearCrossEntropy(hidden, table, inputs.targets, inputs.mask, { capacity: 5 });
    const loss = add(add(add(tokenLoss.loss, compact), flowLoss), sum(multiply(turned, turned)));
    backward(loss);
    this.optimizer.step(inputs.schedule);
    const { rowLoss, logSumExp, prediction } = tokenLoss;
    return { loss, rowLoss, logSumExp, prediction, hidden };
  };

  /** Bits of the outputs, the parameters and the optimizer's state. */
  async bits(outputs: Readonly<Record<string, Tensor>>) {
    const parameters = [...this.parameters].map((parameter) => [parameter.name, parameter] as const);
    const moments = Object.fromEntries(this.optimizer.state().tensors);
    const tensors: Record<string, Tensor | Moment> = { ...outputs, ...moments, ...Object.fromEntries(parameters) };
    const bits: Record<string, readonly number[]> = {};
    for (const [name, each] of Object.entries(tensors))
      bits[name] = [
        ...('dtype' in each && each.dtype === 'u32'
          ? await each.read('u32')
          : new Uint32Array((await each.read()).buffer)),
      ];
    return bits;
  }

  [Symbol.dispose](): void {
    this.optimizer.dispose();
    this.parameters.dispose();
  }
}

describeOnAllDevices('the ops of a captured step', (open) => {
  test.each(['f32', 'bf16', '8bit'] as const)(
    'give on every batch the bits of an eager step: masks, ids, lengths, seeds and rates are data; moments in %s',
    async (moments) => {
      const device = await open();
      using eager = new Training(device, moments);
      using replayed = new Training(device, moments);
      const inputs = { ...declared, schedule: { shape: [moments === 'f32' ? 3 : 4] } };
      using step = captureStep(device, inputs, replayed.step);
      for (let batch = 0; batch < 4; batch++) {
        const data = dataOf(batch, eager.optimizer.nextSchedule(0.1 / (1 + batch)));
        const expected = device.step(() => {
          const made = Object.entries(inputs).map(([name, { shape, ...options }]) => [
            name,
            tensor(device, data[name as keyof Inputs], shape, options),
          ]);
          return eager.step(Object.fromEntries(made) as Inputs);
        });
        const outputs = await step.run(data);
        expect(await replayed.bits(outputs), `batch ${batch}`).toEqual(await eager.bits(expected));
        for (const each of Object.values(expected)) each.dispose();
      }
    },
  );
});
