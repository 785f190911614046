import { describe, expect, test } from 'vitest';
import { backward, type Device, parameter, type Tensor, tensor, zeroGradients } from '../../engine/index.ts';
import { type LinearCrossEntropyOptions, linearCrossEntropy, linearCrossEntropyRows } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation } from '../support/check-operation.ts';
import { describeOnDevices, fewerSizes, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, expectZero, integers, normals } from '../support/numbers.ts';

type Reduction = NonNullable<LinearCrossEntropyOptions['reduction']>;

type Sizes = Omit<Case, 'targets' | 'mask'> & { reduction: Reduction; capacity?: number; pieceRows?: number };

interface Case {
  samples: number;
  tokens: number;
  vocabulary: number;
  width: number;
  targets: Uint32Array;
  mask: Uint32Array;
}

function makeCase(samples: number, tokens: number, vocabulary: number, width: number): Case {
  const rows = samples * tokens;
  const mask = integers(rows, 3, 41).map((value) => (value > 0 ? 1 : 0));
  // One sample without any loss token; one target at each end of the vocabulary.
  mask.fill(0, rows - tokens);
  const targets = integers(rows, vocabulary, 42);
  targets[0] = vocabulary - 1;
  targets[1] = 0;
  mask.fill(1, 0, 2);
  return { samples, tokens, vocabulary, width, targets, mask };
}

function ids(device: Device, { samples, tokens, targets, mask }: Case): [Tensor, Tensor] {
  const u32 = (data: Uint32Array) => tensor(device, data, [samples, tokens], { dtype: 'u32' });
  return [u32(targets), u32(mask)];
}

describeOnDevices('linearCrossEntropy', (device) => {
  test.each([
    { samples: 3, tokens: 4, vocabulary: 21, width: 8, reduction: 'perExample' },
    { samples: 3, tokens: 4, vocabulary: 21, width: 8, reduction: 'perToken' },
    { samples: 2, tokens: 70, vocabulary: 67, width: 6, reduction: 'perExample' },
    { samples: 2, tokens: 3, vocabulary: 4099, width: 4, reduction: 'perToken' },
    { samples: 3, tokens: 4, vocabulary: 21, width: 6, reduction: 'perExample', capacity: 9 },
    { samples: 2, tokens: 30, vocabulary: 67, width: 8, reduction: 'perToken', capacity: 25 },
    { samples: 3, tokens: 4, vocabulary: 150, width: 8, reduction: 'perExample', pieceRows: 64 },
    { samples: 2, tokens: 30, vocabulary: 131, width: 4, reduction: 'perToken', capacity: 25, pieceRows: 64 },
  ] as const)('agrees with float64: %o', async (sizes: Sizes) => {
    const opened = await device();
    const { samples, tokens, vocabulary, width, pieceRows, ...options } = sizes;
    const given = makeCase(samples, tokens, vocabulary, width);
    await checkOperation(opened, {
      inputs: [
        { shape: [samples, tokens, width], name: 'hidden' },
        { shape: [vocabulary, width], name: 'embedding', pieceRows },
      ],
      run: ([hidden, embedding]) => linearCrossEntropy(hidden, embedding, ...ids(opened, given), options),
      oracle: ([hidden, embedding]) =>
        reference.linearCrossEntropy(hidden, embedding, { ...given, reduction: options.reduction }),
      tolerance: { forward: 1e-6, backward: 2e-6 },
    });
  });

  test.each([
    { vocabulary: 300, width: 12 },
    { vocabulary: fewerSizes ? 12_300 : 257_152, width: 4 },
    // On a software adapter each piece is two tiles.
    { vocabulary: 11_000, width: 4, pieceRows: 5120 },
  ])('rows, in a vocabulary of $vocabulary', async ({ vocabulary, width, pieceRows }) => {
    const opened = await device();
    const given = makeCase(2, 3, vocabulary, width);
    const hidden = normals(6 * width, 51, 2);
    // Logits that grow along the vocabulary, so that the running maximum moves from tile to tile.
    const embedding = normals(vocabulary * width, 52).map((value, at) => value * (0.5 + at / (vocabulary * width)));
    const leaves = [
      parameter(opened, hidden, [2, 3, width], { name: 'hidden' }),
      parameter(opened, embedding, [vocabulary, width], {
        name: 'embedding',
        pieceBytes: pieceRows && 4 * pieceRows * width,
      }),
    ];
    const found = opened.step(() => {
      const rows = linearCrossEntropyRows(leaves[0], leaves[1], ...ids(opened, given));
      backward(rows.loss);
      return rows;
    });
    const { rows, dHidden, dEmbedding } = reference.linearCrossEntropyRows(hidden, embedding, given);
    expectClose(await found.loss.read(), reference.linearCrossEntropy(hidden, embedding, given), 1e-6, 'loss');
    expectClose(
      await found.rowLoss.read(),
      rows.map(({ loss }) => loss),
      1e-6,
      'rowLoss',
    );
    expectClose(
      await found.logSumExp.read(),
      rows.map(({ logSumExp }) => logSumExp),
      1e-6,
      'logSumExp',
    );
    expect([...(await found.prediction.read('u32'))]).toEqual(rows.map(({ prediction }) => prediction));
    const gradient = await leaves[0].grad!.read();
    expectClose(gradient, dHidden, 5e-6, 'dHidden');
    expectZero(
      gradient.filter((_, at) => given.mask[Math.floor(at / width)] === 0),
      'dHidden where mask is 0',
    );
    expectClose(await leaves[1].grad!.read(), dEmbedding, 5e-6, 'dEmbedding');
    for (const made of [...leaves, ...Object.values(found)]) made.dispose();
  });

  test('of equal logits the lowest id is the prediction, and backward twice gives twice the gradient', async () => {
    const opened = await device();
    const given = makeCase(2, 3, 70, 8);
    const hidden = parameter(opened, normals(48, 1), [2, 3, 8]);
    const embedding = parameter(opened, new Float32Array(560).fill(0.5), [70, 8]);
    const rows = opened.step(() => {
      const made = linearCrossEntropyRows(hidden, embedding, ...ids(opened, given));
      backward(made.loss);
      return made;
    });
    expectZero(await rows.prediction.read('u32'), 'prediction');
    const once = await embedding.grad!.read();
    opened.step(() => {
      embedding.device.clear(embedding.grad!);
      const loss = linearCrossEntropy(hidden, embedding, ...ids(opened, given));
      backward(loss);
      backward(loss);
    });
    expect(await embedding.grad!.read()).toEqual(once.map((value) => value * 2));
    for (const made of [hidden, embedding, ...Object.values(rows)]) made.dispose();
  });

  test('rows without a loss are left out: bitwise zero gradients, work by the capacity', async () => {
    const opened = await device();
    const given = makeCase(2, 20, 300, 8);
    const lossRows = given.mask.reduce((sum, value) => sum + value, 0);
    const hidden = parameter(opened, normals(320, 1), [2, 20, 8]);
    const embedding = tensor(opened, normals(2400, 2), [300, 8]);
    const run = (capacity: number, mask = given.mask) =>
      opened.step(() => {
        zeroGradients([hidden]);
        const before = opened.workgroups;
        const loss = linearCrossEntropy(hidden, embedding, ...ids(opened, { ...given, mask }), { capacity });
        backward(loss);
        return { loss, workgroups: opened.workgroups - before };
      });
    const { loss, workgroups } = run(lossRows);
    expectZero(
      (await hidden.grad!.read()).filter((_, at) => given.mask[Math.floor(at / 8)] === 0),
      'dHidden where mask is 0',
    );
    const other = run(lossRows);
    expect(await other.loss.read()).toEqual(await loss.read());
    expect(other.workgroups).toBe(workgroups);
    expect(() => run(lossRows - 1)).toThrow(
      `linearCrossEntropy: ${lossRows} rows have a loss; the capacity is ${lossRows - 1}`,
    );
    expect(() => run(0)).toThrow('linearCrossEntropy: capacity 0; expected a whole number from 1');
    const none = run(3, new Uint32Array(40));
    expect([...(await none.loss.read())]).toEqual([0]);
    for (const made of [hidden, embedding, loss, other.loss, none.loss]) made.dispose();
  });

  test('a target outside the vocabulary cannot be overlooked, and matters only where mask is 1', async () => {
    const opened = await device();
    const loss = async (mask: number[]) => {
      const found = opened.step(() =>
        linearCrossEntropy(
          tensor(opened, normals(16, 1), [1, 2, 8]),
          tensor(opened, normals(40, 2), [5, 8]),
          tensor(opened, [5, 4], [1, 2], { dtype: 'u32' }),
          tensor(opened, mask, [1, 2], { dtype: 'u32' }),
        ),
      );
      const [value] = await found.read();
      found.dispose();
      return value;
    };
    expect(await loss([1, 1])).toBeGreaterThan(1e29);
    expect(await loss([0, 1])).toBeLessThan(100);
  });
});

describe('linearCrossEntropy operands', () => {
  test('wrong shapes and types are named', async () => {
    const device = await testDevice('normal');
    const f32 = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const u32 = (...shape: number[]) =>
      tensor(device, new Uint32Array(shape.reduce((a, b) => a * b, 1)), shape, { dtype: 'u32' });
    const run = (...operands: [Tensor, Tensor, Tensor, Tensor]) =>
      expect(() => device.step(() => linearCrossEntropy(...operands)));
    const hidden = f32(2, 3, 8);
    const table = f32(5, 8);
    run(f32(6, 8), table, u32(6), u32(6)).toThrow(
      'linearCrossEntropy: hidden has shape [6, 8]; expected [batch, tokens, width], not empty',
    );
    run(hidden, f32(8, 5), u32(2, 3), u32(2, 3)).toThrow(
      'linearCrossEntropy: embedding has shape [8, 5]; expected [*, 8]',
    );
    run(hidden, table, u32(3, 2), u32(2, 3)).toThrow('linearCrossEntropy: targets has shape [3, 2]; expected [2, 3]');
    run(hidden, table, f32(2, 3), u32(2, 3)).toThrow('linearCrossEntropy: targets is f32 [2, 3]; expected u32');
    run(hidden, table, u32(2, 3), f32(3, 2)).toThrow('linearCrossEntropy: mask has shape [3, 2]; expected [2, 3]');
    for (const made of [hidden, table]) made.dispose();
  });
});

describe('linearCrossEntropy golden', () => {
  test.each(['cross-entropy-per-example', 'cross-entropy-per-token'])('operations-%s', async (name) => {
    const device = await testDevice('normal');
    const fixture = readFixture(`operations-${name}`);
    const leaf = (key: string) =>
      parameter(device, fixture.get(key).data as Float32Array, fixture.get(key).shape, { name: key });
    const [hidden, embedding] = [leaf('hidden'), leaf('embedding')];
    const found = device.step(() => {
      const u32 = (key: string) =>
        tensor(device, Uint32Array.from(fixture.get(key).data), fixture.get(key).shape, { dtype: 'u32' });
      const { reduction } = fixture.settings;
      const rows = linearCrossEntropyRows(hidden, embedding, u32('targets'), u32('mask'), { reduction });
      backward(rows.loss);
      return rows;
    });
    const expected = (key: string) => fixture.get(`expected/${key}`).data;
    expectClose(await found.loss.read(), expected('loss'), 1e-5, 'loss');
    for (const key of ['rowLoss', 'logSumExp'] as const)
      expectClose(await found[key].read(), expected(key), fixtureTolerance(fixture, key), key);
    const dHidden = await hidden.grad!.read();
    expectClose(dHidden, expected('dHidden'), fixtureTolerance(fixture, 'dHidden'), 'dHidden');
    const mask = fixture.get('mask').data;
    expectZero(
      dHidden.filter((_, at) => mask[Math.floor(at / hidden.shape[2])] === 0),
      'dHidden where mask is 0',
    );
    const dEmbedding = await embedding.grad!.read();
    expectClose(dEmbedding, expected('dEmbedding'), fixtureTolerance(fixture, 'dEmbedding'), 'dEmbedding');
    for (const made of [hidden, embedding, ...Object.values(found)]) made.dispose();
  });
});
