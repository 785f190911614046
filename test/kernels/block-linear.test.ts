import { describe, expect, test } from 'vitest';
import { backward, ParameterSet, parameter, type Tensor, tensor, zeroGradients } from '../../engine/index.ts';
import { type BlockLayout, blockLinear, blockSplitLinear, cast, linear, pad } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { eighths, expectClose, normals } from '../support/numbers.ts';

const BATCH = 3;

/** Two owners in turn; owner 0 has two adjacent blocks, which are one segment, and comes back at the end. */
const layout: BlockLayout = [
  { input: 0, length: 3 },
  { input: 0, length: 2 },
  { input: 1, length: 7 },
  { input: 0, length: 1 },
  { input: 1, length: 0 },
  { input: 1, length: 2 },
];

/** Three owners, interleaved: each comes back, and owner 2 begins. */
const interleaved: BlockLayout = [
  { input: 2, length: 2 },
  { input: 0, length: 3 },
  { input: 1, length: 4 },
  { input: 2, length: 1 },
  { input: 0, length: 5 },
  { input: 1, length: 1 },
  { input: 2, length: 6 },
];

/** Three owners; rows of the first are left out at its end and between others, and the third is left out as a whole. */
const leftOut: BlockLayout = [
  { input: 0, length: 3 },
  { input: 0, length: 2, joined: false },
  { input: 0, length: 4 },
  { input: 1, length: 7 },
  { input: 2, length: 5, joined: false },
  { input: 0, length: 1 },
  { input: 0, length: 2, joined: false },
];

const { ownersOf, rowsOwned } = reference;

describeOnDevices('blockLinear', (device) => {
  test.each([
    { widths: [8, 4], outputs: 12, biased: true },
    { widths: [6, 19], outputs: 5, biased: false },
    { widths: [5, 8], outputs: 70, biased: true },
  ])('agrees with float64: widths $widths -> $outputs, biases $biased', async ({ widths, outputs, biased }) => {
    await checkOperation(await device(), {
      inputs: [
        ...widths.map((width, i) => ({ shape: [BATCH, rowsOwned(layout, i), width] })),
        ...widths.map((width) => ({ shape: [outputs, width] })),
        ...(biased ? widths.map(() => ({ shape: [outputs] })) : []),
      ],
      run: (all) => blockLinear(all.slice(0, 2), all.slice(2, 4), layout, all.slice(4)),
      oracle: (data) => reference.blockLinear(data.slice(0, 2), data.slice(2, 4), layout, BATCH, data.slice(4)),
      tolerance: { forward: 5e-7, backward: 5e-7 },
    });
  });

  test.each([
    { widths: [8, 4, 12], outputs: 12 },
    { widths: [6, 19, 5], outputs: 7 },
  ])('three owners that interleave agree with float64: widths $widths -> $outputs', async ({ widths, outputs }) => {
    await checkOperation(await device(), {
      inputs: [
        ...widths.map((width, i) => ({ shape: [BATCH, rowsOwned(interleaved, i), width] })),
        ...widths.map((width) => ({ shape: [outputs, width] })),
        ...widths.map(() => ({ shape: [outputs] })),
      ],
      run: (all) => blockLinear(all.slice(0, 3), all.slice(3, 6), interleaved, all.slice(6)),
      oracle: (data) => reference.blockLinear(data.slice(0, 3), data.slice(3, 6), interleaved, BATCH, data.slice(6)),
      tolerance: { forward: 5e-7, backward: 5e-7 },
    });
  });

  test.each([
    { widths: [8, 4], rows: [12, 4, 4] },
    { widths: [6, 5], rows: [3, 5, 1] },
  ])('matrices one below the other agree with float64: widths $widths, rows $rows', async ({ widths, rows }) => {
    const matrices = widths.flatMap((width) => rows.map((count) => ({ shape: [count, width] })));
    const count = rows.length;
    await checkOperation(await device(), {
      inputs: [...widths.map((width, i) => ({ shape: [BATCH, rowsOwned(layout, i), width] })), ...matrices],
      run: ([first, second, ...all]) => blockLinear([first, second], [all.slice(0, count), all.slice(count)], layout),
      oracle: ([first, second, ...all]) => {
        const whole = [all.slice(0, count), all.slice(count)].map((own) => own.flatMap((matrix) => [...matrix]));
        return reference.blockLinear(
          [first, second],
          whole.map((own) => Float64Array.from(own)),
          layout,
          BATCH,
        );
      },
      tolerance: { forward: 5e-7, backward: 5e-7 },
    });
  });

  test('matrices that lie together are read and get their gradients in place, with the bits of copies', async () => {
    const opened = await device();
    const shapes = { query: [32, 8], key: [8, 8], value: [16, 8] };
    const blocks = [{ input: 0, length: 4 }];
    const specification = (name: string, shape: number[]) => ({ name, shape, group: 'all' });
    const own = Object.entries(shapes).map(([name, shape]) => specification(name, shape));
    using together = new ParameterSet(opened, own);
    using apart = new ParameterSet(
      opened,
      own.flatMap((each) => [each, specification(`behind ${each.name}`, [4])]),
    );
    const run = async (set: ParameterSet, wanted: readonly string[]) => {
      const matrices = Object.keys(shapes).map((name) => set.get(name));
      for (const [i, matrix] of matrices.entries()) matrix.write(normals(matrix.size, i));
      const { dispatches } = opened;
      const output = opened.step(() => {
        set.zeroGradients();
        const y = blockLinear([tensor(opened, normals(BATCH * 32, 5), [BATCH, 4, 8])], [matrices], blocks);
        for (const seed of [6, 7])
          backward(y, {
            gradient: tensor(opened, normals(y.size, seed), y.shape),
            parameters: wanted.map((name) => set.get(name)),
          });
        return y;
      });
      const read = await Promise.all([output, ...matrices.map(({ grad }) => grad!)].map((made) => made.read()));
      output.dispose();
      return { read, dispatches: opened.dispatches - dispatches };
    };
    const [inPlace, copied] = [await run(together, Object.keys(shapes)), await run(apart, Object.keys(shapes))];
    expect(inPlace.read).toEqual(copied.read);
    expect(inPlace.dispatches).toBeLessThan(copied.dispatches);
    const one = (await run(together, ['key'])).read;
    expect(one[2]).toEqual(inPlace.read[2]);
    for (const other of [one[1], one[3]]) expect(other.every((value) => value === 0)).toBe(true);
  });

  test.each([
    { widths: [8, 4], outputs: 12 },
    { widths: [6, 19], outputs: 7 },
  ])('rows that are not joined have no output and a gradient of zero: widths $widths', async ({ widths, outputs }) => {
    const opened = await device();
    const third = tensor(opened, normals(BATCH * 5 * 4, 1), [BATCH, 5, 4]);
    await checkOperation(opened, {
      inputs: [
        ...widths.map((width, i) => ({ shape: [BATCH, rowsOwned(leftOut, i), width] })),
        ...widths.map((width) => ({ shape: [outputs, width] })),
      ],
      run: (all) => blockLinear([...all.slice(0, 2), third], all.slice(2), leftOut),
      // All rows joined, less those that are left out.
      oracle: (data) => {
        const all = leftOut.map(({ input, length }) => ({ input, length }));
        const third = [new Float64Array(BATCH * 5 * 4), new Float64Array(outputs * 4)];
        const joined = reference.blockLinear([...data.slice(0, 2), third[0]], [...data.slice(2), third[1]], all, BATCH);
        const kept = leftOut.flatMap(({ length, joined: own = true }) => Array<boolean>(length).fill(own));
        return joined.filter((_, i) => kept[Math.floor(i / outputs) % kept.length]);
      },
      tolerance: { forward: 5e-7, backward: 5e-7 },
    });
    third.dispose();
  });

  test('inputs in f16 through weights in bf16: the result in f16, or in f32 with gradients to the last digits', async () => {
    const [widths, outputs] = [[8, 4], 12];
    await checkOperation(await device(), {
      inputs: [
        ...widths.map((width, i) => [BATCH, rowsOwned(layout, i), width]),
        ...widths.map((width) => [outputs, width]),
        ...widths.map(() => [outputs]),
      ].map((shape, i) => ({
        shape,
        data: eighths(
          shape.reduce((a, b) => a * b),
          i,
        ),
      })),
      run: (all) => {
        const inputs = all.slice(0, 2).map((input) => cast(input, 'f16'));
        const [weights, biases] = [all.slice(2, 4), all.slice(4)].map((list) => list.map((each) => cast(each, 'bf16')));
        expect(blockLinear(inputs, weights, layout, biases).dtype).toBe('f16');
        return blockLinear(inputs, weights, layout, biases, { dtype: 'f32' });
      },
      oracle: (data) => reference.blockLinear(data.slice(0, 2), data.slice(2, 4), layout, BATCH, data.slice(4)),
      tolerance: { forward: 5e-7, backward: 5e-7 },
    });
  });

  test('with one input present it is linear, to the last bit', async () => {
    const opened = await device();
    const x = parameter(opened, normals(BATCH * 9 * 8, 1), [BATCH, 9, 8], { name: 'x' });
    const weight = parameter(opened, normals(12 * 8, 2), [12, 8], { name: 'weight' });
    const gradient = normals(BATCH * 9 * 12, 3);
    const results = async (run: () => Tensor) => {
      const output = opened.step(() => {
        const y = run();
        backward(y, { gradient: tensor(opened, gradient, y.shape) });
        return y;
      });
      const read = await Promise.all([output, x.grad!, weight.grad!].map((made) => made.read()));
      opened.step(() => {
        for (const leaf of [x, weight]) opened.clear(leaf.grad!);
      });
      output.dispose();
      return read;
    };
    const blocks = [
      { input: 1, length: 4 },
      { input: 1, length: 5 },
    ];
    const joined = await results(() => blockLinear([null, x], [null, weight], blocks));
    expect(joined).toEqual(await results(() => linear(x, weight)));
    x.dispose();
    weight.dispose();
  });
});

describeOnDevices('blockLinear over many rows', (device) => {
  const [batch, width, outputs] = [8, 16, 20];
  const blocks: BlockLayout = [
    { input: 0, length: 37 },
    { input: 1, length: 9 },
    { input: 0, length: 5 },
  ];

  /** Gradients of one input and its weight, in float64. */
  function gradients(owner: number, dOutput: Float32Array, x: Float32Array, weight: Float32Array) {
    const [rows, own] = [ownersOf(blocks), rowsOwned(blocks, owner)];
    const dx = new Float64Array(x.length);
    const dWeight = new Float64Array(weight.length);
    for (let sample = 0; sample < batch; sample++)
      rows.forEach(({ owner: rowOwner, row }, t) => {
        if (rowOwner !== owner) return;
        for (let n = 0; n < outputs; n++)
          for (let k = 0; k < width; k++) {
            const g = dOutput[(sample * rows.length + t) * outputs + n];
            const at = (sample * own + row) * width + k;
            dx[at] += g * weight[n * width + k];
            dWeight[n * width + k] += g * x[at];
          }
      });
    return { dx, dWeight };
  }

  test('gradients agree with float64, and rows of another owner do not reach them', async () => {
    const opened = await device();
    const xs = [0, 1].map((i) => normals(batch * rowsOwned(blocks, i) * width, i));
    const ws = [2, 3].map((i) => normals(outputs * width, i));
    const inputs = xs.map((x, i) => parameter(opened, x, [batch, rowsOwned(blocks, i), width], { name: `x ${i}` }));
    const weights = ws.map((w, i) => parameter(opened, w, [outputs, width], { name: `weight ${i}` }));
    const dOutput = normals(batch * 51 * outputs, 4);
    const poisoned = dOutput.map((value, i) =>
      ownersOf(blocks)[Math.floor(i / outputs) % 51].owner === 1 ? NaN : value,
    );
    for (const gradient of [dOutput, poisoned]) {
      opened.step(() => {
        const y = blockLinear(inputs, weights, blocks);
        backward(y, { gradient: tensor(opened, gradient, y.shape) });
      });
      for (const owner of gradient === poisoned ? [0] : [0, 1]) {
        const exact = gradients(owner, dOutput, xs[owner], ws[owner]);
        expectClose(await inputs[owner].grad!.read(), exact.dx, 5e-7, `dInput ${owner}`);
        expectClose(await weights[owner].grad!.read(), exact.dWeight, 1e-6, `dWeight ${owner}`);
      }
      opened.step(() => {
        for (const leaf of [...inputs, ...weights]) opened.clear(leaf.grad!);
      });
    }
    for (const leaf of [...inputs, ...weights]) leaf.dispose();
  });
});

describeOnDevices('blockSplitLinear', (device) => {
  test.each([
    { width: 8, outputs: [12, 4] },
    { width: 7, outputs: [5, 18] },
  ])('agrees with float64: width $width -> $outputs', async ({ width, outputs }) => {
    const length = ownersOf(layout).length;
    for (const owner of [0, 1])
      await checkOperation(await device(), {
        inputs: [{ shape: [BATCH, length, width] }, { shape: [outputs[owner], width] }],
        run: ([joint, weight]) => {
          const other = tensor(joint.device, normals(outputs[1 - owner] * width, 5), [outputs[1 - owner], width]);
          const weights = owner === 0 ? [weight, other] : [other, weight];
          return blockSplitLinear(joint, weights, layout)[owner]!;
        },
        oracle: ([joint, weight]) =>
          reference.blockSplitLinear(joint, owner === 0 ? [weight] : [[], weight], layout, BATCH)[owner],
        tolerance: { forward: 5e-7, backward: 5e-7 },
      });
  });

  test.each([8, 7])(
    'three owners that interleave agree with float64, the outputs joined again: width %i',
    async (width) => {
      const outputs = [12, 4, 5];
      const length = ownersOf(interleaved).length;
      await checkOperation(await device(), {
        inputs: [
          { shape: [BATCH, length, width] },
          ...outputs.map((rows) => ({ shape: [rows, width] })),
          ...outputs.map((rows, i) => ({ shape: [BATCH, rowsOwned(interleaved, i), rows] })),
          ...outputs.map((rows) => ({ shape: [3, rows] })),
        ],
        run: ([joint, ...others]) => {
          const residuals = others.slice(3, 6);
          const made = blockSplitLinear(joint, others.slice(0, 3), interleaved, { residuals });
          return blockLinear(made, others.slice(6), interleaved);
        },
        oracle: ([joint, ...others]) => {
          const residuals = others.slice(3, 6);
          const parts = reference.blockSplitLinear(joint, others.slice(0, 3), interleaved, BATCH, residuals);
          return reference.blockLinear(parts, others.slice(6), interleaved, BATCH);
        },
        tolerance: { forward: 5e-7, backward: 1e-6 },
      });
    },
  );

  test('with one owner alone it is linear, to the last bit', async () => {
    const opened = await device();
    const blocks = [
      { input: 0, length: 4 },
      { input: 0, length: 5 },
    ];
    const joint = parameter(opened, normals(BATCH * 9 * 8, 1), [BATCH, 9, 8]);
    const weight = parameter(opened, normals(12 * 8, 2), [12, 8]);
    const results = async (run: () => Tensor) => {
      const output = opened.step(() => {
        zeroGradients([joint, weight]);
        const y = run();
        backward(y, { gradient: tensor(opened, normals(y.size, 3), y.shape) });
        return y;
      });
      const read = await Promise.all([output, joint.grad!, weight.grad!].map((made) => made.read()));
      output.dispose();
      return read;
    };
    expect(await results(() => blockSplitLinear(joint, [weight], blocks)[0]!)).toEqual(
      await results(() => linear(joint, weight)),
    );
    joint.dispose();
    weight.dispose();
  });

  test('a layout that leaves rows out is refused', async () => {
    const opened = await device();
    const [joint, weight] = [
      [1, 15, 4],
      [4, 4],
    ].map((shape) =>
      tensor(
        opened,
        normals(
          shape.reduce((a, b) => a * b),
          1,
        ),
        shape,
      ),
    );
    expect(() => blockSplitLinear(joint, [weight, weight, weight], leftOut)).toThrow(
      'blockSplitLinear: layout[1] is not joined',
    );
    for (const made of [joint, weight]) made.dispose();
  });

  test.each([
    { width: 8, outputs: 12, dtype: 'f32' },
    { width: 6, outputs: 5, dtype: 'f32' },
    { width: 8, outputs: 12, dtype: 'bf16' },
  ] as const)('with residuals: width $width -> $outputs, weights in $dtype', async ({ width, outputs, dtype }) => {
    const length = ownersOf(layout).length;
    const own = rowsOwned(layout, 0);
    await checkOperation(await device(), {
      inputs: [
        { shape: [BATCH, length, width] },
        { shape: [outputs, width], data: eighths(outputs * width, 3) },
        { shape: [BATCH, own, outputs] },
      ],
      run: ([joint, weight, residual]) =>
        blockSplitLinear(joint, [cast(weight, dtype), null], layout, { residuals: [residual] })[0]!,
      oracle: ([joint, weight, residual]) => reference.blockSplitLinear(joint, [weight], layout, BATCH, [residual])[0],
      tolerance: { forward: 5e-7, backward: 5e-7 },
    });
  });

  test('gradients of both outputs meet; one without a gradient leaves zeros, and no gradient of its weight', async () => {
    const opened = await device();
    const [width, outputs, length] = [8, 12, ownersOf(layout).length];
    const joint = parameter(opened, normals(BATCH * length * width, 1), [BATCH, length, width], { name: 'joint' });
    const weights = [2, 3].map((seed) =>
      parameter(opened, normals(outputs * width, seed), [outputs, width], { name: `weight ${seed}` }),
    );
    const gradientFor = async (used: number[]) => {
      const losses = opened.step(() => {
        const made = blockSplitLinear(joint, weights, layout);
        for (const i of used)
          backward(made[i]!, { gradient: tensor(opened, normals(made[i]!.size, 7 + i), made[i]!.shape) });
      });
      expect(losses).toBeUndefined();
      const gradient = await joint.grad!.read();
      opened.step(() => opened.clear(joint.grad!));
      return gradient;
    };
    const first = await gradientFor([0]);
    expect(weights[1].grad).toBeNull();
    const both = await gradientFor([0, 1]);
    for (let sample = 0; sample < BATCH; sample++)
      ownersOf(layout).forEach(({ owner }, t) => {
        const [start, end] = [(sample * length + t) * width, (sample * length + t + 1) * width];
        if (owner === 1) expect(first.slice(start, end).every((value) => Object.is(value, 0))).toBe(true);
        else expect(first.slice(start, end)).toEqual(both.slice(start, end));
        expect(both.slice(start, end).some((value) => value !== 0)).toBe(true);
      });
    for (const leaf of [joint, ...weights]) leaf.dispose();
  });

  test('a weight that is absent gives null', async () => {
    const opened = await device();
    const made = opened.step(() => {
      const joint = tensor(opened, normals(2 * 5 * 4, 1), [2, 5, 4]);
      const weight = tensor(opened, normals(12 * 4, 2), [12, 4]);
      const blocks = [
        { input: 0, length: 2 },
        { input: 1, length: 3 },
      ];
      return blockSplitLinear(joint, [null, weight], blocks);
    });
    expect(made[0]).toBeNull();
    expect(made[1]!.shape).toEqual([2, 3, 12]);
    made[1]!.dispose();
  });
});

describe('blockLinear operands', () => {
  test('what does not fit the layout is named', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b)), shape);
    const blocks = [
      { input: 0, length: 2 },
      { input: 1, length: 3 },
    ];
    const run = (fn: () => unknown) => () => device.step(fn);
    const [x, y] = [zeros(2, 2, 4), zeros(2, 3, 8)];
    const [wx, wy] = [zeros(12, 4), zeros(12, 8)];
    expect(run(() => blockLinear([x, x], [wx, wx], blocks))).toThrow(
      'blockLinear: inputs[1] has shape [2, 2, 4]; expected [2, 3, *]',
    );
    expect(run(() => blockLinear([x, y], [wx, wx], blocks))).toThrow(
      'blockLinear: weights[1] has shape [12, 4]; expected [12, 8]',
    );
    expect(run(() => blockLinear([x, y], [[wx, wx], [wy]], blocks))).toThrow(
      'blockLinear: weights[1] has 1 matrices; expected 2, as the first has',
    );
    expect(run(() => blockLinear([x, null], [wx, wy], blocks))).toThrow(
      'blockLinear: inputs[1] is missing, and the layout has rows of it',
    );
    expect(run(() => blockLinear([x, y], [wx, wy], blocks.slice(0, 1)))).toThrow(
      'blockLinear: inputs[1] has no rows in the layout; pass null',
    );
    expect(run(() => blockLinear([x], [wx], blocks))).toThrow(
      'blockLinear: layout[1] is { input: 1, length: 3 }; input is an index below 1',
    );
    expect(run(() => blockSplitLinear(x, [wx, wx], blocks))).toThrow(
      'blockSplitLinear: joint has shape [2, 2, 4]; expected [*, 5, *]',
    );
    expect(run(() => blockLinear([pad(x, 4)], [wx], [{ input: 0, length: 2 }], [zeros(4)]))).toThrow(
      'blockLinear: biases[0] has shape [4]; expected [12]',
    );
  });
});
