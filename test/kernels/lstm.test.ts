import { describe, expect, test } from 'vitest';
import { backward, parameter, type Tensor, tensor } from '../../engine/index.ts';
import { concatenateTokens, lstm, lstmCell } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

const weightsOf = ([inputWeight, hiddenWeight, inputBias, hiddenBias]: Tensor[]) => ({
  ...{ inputWeight, hiddenWeight, inputBias, hiddenBias },
});

describeOnDevices('lstm', (device) => {
  test.each([
    { rows: 5, width: 12 },
    { rows: 3, width: 7 },
  ])('a cell of $rows x $width agrees with float64, forward and backward', async ({ rows, width }) => {
    await checkOperation(await device(), {
      inputs: [{ shape: [rows, 4 * width], data: normals(4 * rows * width, 3, 3) }, { shape: [rows, width] }],
      run: ([gates, cell]) => {
        const next = lstmCell(gates, cell);
        return concatenateTokens([next.hidden, next.cell]);
      },
      oracle: ([gates, cell]) => {
        const next = reference.lstmCell(gates, cell, width);
        return reference.concatenateTokens([next.hidden, next.cell], rows);
      },
      tolerance: { forward: 1e-6, backward: 1e-6 },
    });
  });

  test.each([
    { batch: 2, steps: 3, inputs: 6, width: 8 },
    { batch: 3, steps: 1, inputs: 4, width: 5 },
  ])('$steps steps of $batch x $inputs to $width agree with float64', async ({ batch, steps, inputs, width }) => {
    await checkOperation(await device(), {
      inputs: [[batch, steps, inputs], [4 * width, inputs], [4 * width, width], [4 * width], [4 * width]].map(
        (shape) => ({ shape }),
      ),
      run: ([x, ...weights]) => {
        const states = lstm(x, weightsOf(weights));
        expect(states.shape).toEqual([batch, steps, width]);
        return states;
      },
      oracle: (operands) => reference.lstm(operands, [batch, steps]),
      tolerance: { forward: 2e-6, backward: 2e-6 },
    });
  });

  test('a cell and its gradients stay finite at huge sums of gates', async () => {
    const opened = await device();
    const huge = [1e30, -1e10, 100, -44].flatMap((value) => [value, -value]);
    const gates = parameter(opened, [...huge, ...huge, ...huge, ...huge], [1, 32], { name: 'gates' });
    const output = opened.step(() => {
      const { hidden } = lstmCell(gates, tensor(opened, new Float32Array(8).fill(1e30), [1, 8]));
      backward(hidden, { gradient: tensor(opened, new Float32Array(8).fill(1), [1, 8]) });
      return hidden;
    });
    const open = huge.map((value) => (value > 0 ? 1 : reference.sigmoid(value)));
    expectClose(await output.read(), open, 1e-6, 'hidden');
    expectZero((await gates.grad!.read()).subarray(0, 24), 'gradients of all gates but the output');
    output.dispose();
    gates.dispose();
  });
});

describe('lstm operands', () => {
  test('wrong operands are named', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    expect(() => device.step(() => lstmCell(zeros(2, 12), zeros(2, 4)))).toThrow(
      'lstmCell: gates has shape [2, 12]; expected [2, 16]',
    );
    const weights = [zeros(12, 3), zeros(16, 4), zeros(16), zeros(16)];
    expect(() => device.step(() => lstm(zeros(1, 2, 3), weightsOf(weights)))).toThrow(
      'lstm: inputWeight has shape [12, 3]; expected [16, *]',
    );
  });
});
