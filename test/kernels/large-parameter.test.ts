/** A weight of 600 MB on a device whose bindings hold 128 MiB. */
import { expect } from 'vitest';
import { backward, openDevice, ParameterSet, tensor } from '../../engine/index.ts';
import { embedding, linear, linearCrossEntropyRows } from '../../kernels/index.ts';
import { longTest } from '../support/long.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

const [ROWS, WIDTH] = [73_280, 2048];
const TARGETS = [5, 16_383, 16_384, 73_279];

longTest(
  'a weight of 600 MB at the limits of the floor: embedding, loss, gradients and logits as in float64',
  async () => {
    const device = await openDevice({ floor: true });
    using parameters = new ParameterSet(device, [{ name: 'table', shape: [ROWS, WIDTH], group: 'all', splits: true }]);
    const table = parameters.get('table');
    expect(table.pieces.map(({ shape }) => shape[0])).toEqual([16_384, 16_384, 16_384, 16_384, 7744]);
    // A multiplicative hash (Knuth 1998, 6.4): uniform, with the deviation of embeddings.
    const weights = new Float32Array(ROWS * WIDTH);
    for (let i = 0; i < weights.length; i++) weights[i] = (Math.imul(i, 0x9e3779b1) / 2 ** 31) * Math.sqrt(3 / WIDTH);
    table.write(weights);
    const rowOf = (row: number) => weights.subarray(row * WIDTH, (row + 1) * WIDTH);

    const rows = TARGETS.length;
    const numbers = normals(rows * WIDTH, 1);
    const found = device.step(() => {
      const ids = (data: number[]) => tensor(device, data, [1, rows], { dtype: 'u32' });
      const hidden = tensor(device, numbers, [1, rows, WIDTH]);
      const result = linearCrossEntropyRows(hidden, table, ids(TARGETS), ids([1, 1, 1, 1]));
      backward(result.loss);
      const looked = embedding(ids([73_279, 16_384, ROWS, 73_279]), table);
      backward(looked, { gradient: tensor(device, new Float32Array(rows * WIDTH).fill(0.5), looked.shape) });
      return { ...result, looked, logits: linear(hidden, table) };
    });

    const logits = new Float64Array(rows * ROWS);
    for (let row = 0; row < rows; row++)
      for (let v = 0; v < ROWS; v++) {
        let sum = 0;
        for (let i = 0; i < WIDTH; i++) sum += numbers[row * WIDTH + i] * weights[v * WIDTH + i];
        logits[row * ROWS + v] = sum;
      }
    const logSumExp = TARGETS.map((_, row) => {
      let sum = 0;
      for (let v = 0; v < ROWS; v++) sum += Math.exp(logits[row * ROWS + v]);
      return Math.log(sum);
    });
    expectClose(await found.logits.read(), logits, 1e-6, 'logits');
    expectClose(await found.logSumExp.read(), logSumExp, 1e-6, 'logSumExp');
    const losses = TARGETS.map((target, row) => logSumExp[row] - logits[row * ROWS + target]);
    expectClose(await found.loss.read(), [losses.reduce((a, b) => a + b) / rows], 1e-6, 'loss');
    expect([...(await found.prediction.read('u32'))]).toEqual(
      TARGETS.map((_, row) => {
        const own = logits.subarray(row * ROWS, (row + 1) * ROWS);
        return own.indexOf(own.reduce((most, value) => Math.max(most, value)));
      }),
    );

    const looked = await found.looked.read();
    [73_279, 16_384, null, 73_279].forEach((row, i) => {
      const own = looked.subarray(i * WIDTH, (i + 1) * WIDTH);
      if (row === null) expectZero(own, 'a row of no id');
      else expect(own).toEqual(rowOf(row));
    });

    const gradient = await table.grad!.read();
    const added = new Map([
      [73_279, 1],
      [16_384, 0.5],
    ]);
    for (const v of [...TARGETS, 0, 4095, 4096, 40_000, 65_535, 65_536]) {
      const expected = new Float64Array(WIDTH).fill(added.get(v) ?? 0);
      for (let row = 0; row < rows; row++) {
        const share = (Math.exp(logits[row * ROWS + v] - logSumExp[row]) - (TARGETS[row] === v ? 1 : 0)) / rows;
        for (let i = 0; i < WIDTH; i++) expected[i] += share * numbers[row * WIDTH + i];
      }
      expectClose(gradient.subarray(v * WIDTH, (v + 1) * WIDTH), expected, 5e-6, `gradient of row ${v}`);
    }
    for (const made of Object.values(found)) made.dispose();
    device.close();
  },
);
