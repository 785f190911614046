import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { caseOf, maskNames } from '../../bench/attention/cases.ts';
import { type BenchResult, keyText, runAttention } from '../../bench/attention/run.ts';
import { shapesOf, shapeText, smaller, suite, tokensOf } from '../../bench/attention/shapes.ts';
import { comparisonLines, csv } from '../../bench/attention/text.ts';
import { multiplyAdd } from '../../bench/measure/fused-multiply-add.ts';
import { measure, spread } from '../../bench/measure/measure.ts';
import { benchAttention } from '../../cli/bench-attention.ts';
import { readOptions, type ValuesOf } from '../../cli/options.ts';
import { tensor } from '../../engine/index.ts';
import { attentionVariants, scale, useAttentionVariants } from '../../kernels/index.ts';
import { testDevice } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { runCommand } from '../support/run-command.ts';

const device = await testDevice('normal');
type Values = ValuesOf<typeof benchAttention.options>;
const run = (values: Values) => runCommand(benchAttention, { rounds: 3, seconds: 1, ...values });
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-bench-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('shapes and masks by name', () => {
  test('the suite has the sizes of the papers', () => {
    const all = shapesOf(['suite']);
    expect(all.map(({ name }) => name)).toEqual([...new Set(all.map(({ name }) => name))]);
    for (const shape of suite.grid) {
      expect(shape.batch * tokensOf(shape)).toBe(4096);
      expect(shape.heads * shape.headDimension).toBe(2048);
    }
    expect(shapesOf(['smolvla,paligemma']).map(shapeText)).toEqual([
      'B=8,T=113+50,H=15/5,D=64',
      'B=1,T=816+128+50,H=8/1,D=256',
      'B=4,T=816+128+50,H=8/1,D=256',
    ]);
    expect(shapeText(smaller(shapesOf(['smolvla'])[0]))).toBe('B=1,T=113+50,H=2/1,D=64');
  });

  test('a written shape reads as it is written', () => {
    for (const text of ['B=2,T=1000,H=8/1,D=64', 'B=1,T=816+128+50,H=8/8,D=256'])
      expect(shapesOf([text]).map(shapeText)).toEqual([text]);
    expect(shapeText(shapesOf(['t=5, h=3, d=4'])[0])).toBe('B=1,T=5,H=3/3,D=4');
  });

  test.each([
    ['nothing', 'no shape of that name'],
    ['B=1,T=10,H=8,X=3', 'no size is called "X"'],
    ['B=1,H=8,D=64', 'T is missing'],
    ['T=0,H=8,D=64', 'T=0 is no size'],
    ['T=1+2+3+4,H=8,D=64', 'T has one block, prefix+action or prefix+fast+action'],
    ['T=10,H=8/3,D=64', 'the second number of H divides the first'],
    ['T=10,H=8,D=66', 'D is a multiple of 4 up to 256'],
    ['B=1+2,T=10,H=8,D=64', 'B and D are single numbers'],
  ])('shape %s is refused', (text, message) => {
    expect(() => shapesOf([text])).toThrow(message);
  });

  test('names, names with numbers, combinations and expressions', () => {
    expect(maskNames(['causal, sliding-window:8', 'max(q, k) < 5', 'q == k'])).toEqual([
      'causal',
      'sliding-window:8',
      'max(q, k) < 5',
      'q == k',
    ]);
    const [shape] = shapesOf(['T=16,H=2,D=4']);
    expect(caseOf('causal', shape, {}).table.cells[0][0].mask).toBe('causal');
    expect(caseOf('sliding-window:8', shape, {}).source?.mask).toContain('8');
    expect(caseOf('global-tokens:3|sliding-window:8+alibi', shape, {}).source).toMatchObject({
      mask: expect.stringContaining('||'),
      score: expect.stringContaining('constant(head)'),
    });
    expect(new Set(Array.from(caseOf('documents:3', shape, {}).source!.tokenData!)).size).toBe(3);
    expect(() => caseOf('insulation', shape, {})).toThrow('this mask is a table over prefix+action');
    const [blocks] = shapesOf(['T=8+8,H=2,D=4']);
    expect(caseOf('soft-insulation:0.3', blocks, {}).table.cells[1][0]).toMatchObject({
      ...{ keyGradient: 0.3, valueGradient: 0.3 },
    });
    expect(() => caseOf('soft-insulation:3', blocks, {})).toThrow(
      '--mask "soft-insulation:3": edge: keyGradient is 3; expected a number from 0 to 1',
    );
    expect(() => caseOf('nothing', shape, {})).toThrow('no mask is called nothing; there are dense');
    expect(() => caseOf('sliding-window:0', shape, {})).toThrow('expected an integer from 1');
  });
});

describe('measuring', () => {
  test('median and quartiles', () => {
    expect(spread([4, 1, 3, 2, 5])).toEqual({ median: 3, lowerQuartile: 2, upperQuartile: 4, rounds: 5 });
    expect(spread([1, 2]).median).toBe(1.5);
  });

  test('every task runs in every round; what a repeat takes is given back', async () => {
    using x = tensor(device, [1, 2, 3, 4], [4]);
    const calls = [0, 0];
    const tasks = calls.map((_, i) => ({
      prepare: () => () => {
        calls[i] += 1;
        for (let n = 0; n <= i; n++) scale(x, 2);
      },
    }));
    const before = device.memory.stepBytes;
    const rounds: string[] = [];
    const onProgress = (what: string, done: number, total: number) => rounds.push(`${what} ${done}/${total}`);
    const results = await measure(device, tasks, { rounds: 4, seconds: 60, timestamps: false, onProgress });
    expect(rounds.slice(-4)).toEqual(['round 1/4', 'round 2/4', 'round 3/4', 'round 4/4']);
    results.forEach(({ wall, gpu, workgroups, stepBytes, repeats }, i) => {
      expect(wall.rounds).toBe(4);
      expect(wall.median).toBeGreaterThan(0);
      expect(gpu).toBeNull();
      expect(workgroups).toBe(i + 1);
      expect(stepBytes).toBe(256 * (i + 1));
      expect(calls[i]).toBeGreaterThan(4 * repeats);
    });
    expect(device.memory.stepBytes).toBe(before);
  });

  test('the arithmetic probe computes the number that its comment states', async () => {
    const numbers = await device.step(() => multiplyAdd(device, 64, 10)).read();
    for (const number of numbers) expect(number).toBeCloseTo(8 * 0.5, 5); // x = x / 2 + 1/4 tends to 1/2 in each of 8 chains
  });
});

describe('insula bench attention', () => {
  test('rows, figures that agree, files, comparison', async () => {
    const files = { csv: join(folder, 'rows.csv'), report: join(folder, 'page.html'), out: join(folder, 'run.json') };
    const shape = ['T=40+9+7,H=2/1,D=16'];
    const { json, lines } = await run({ shape, direction: ['forward', 'both'], timer: 'wall', ...files });
    const result = json as BenchResult;
    const keys = result.rows.map(({ mask, variant, direction }) => `${mask} ${variant} ${direction}`);
    const masks = ['dense', 'joint', 'insulation', 'soft-insulation:0.1', 'frozen-prefix', 'cached-prefix'];
    for (const direction of ['forward', 'both']) {
      for (const mask of masks) expect(keys).toContain(`${mask} default ${direction}`);
      for (const mask of masks.slice(0, 2)) expect(keys).toContain(`${mask} unfused ${direction}`);
    }
    expect(result.leftOut.join('\n')).toContain(
      'unfused: it cannot cut or scale the gradient of an edge (insulation, soft-insulation:0.1, frozen-prefix)',
    );
    expect(result.defaults).toEqual([
      expect.stringMatching(/^default, f32, head dimension 16: fused, forward \S+, backwardQuery/),
    ]);
    expect(lines.join('\n')).toContain(result.defaults[0]);
    const [product] = result.matmuls;
    for (const row of result.rows) {
      expect(row.gigaflops).toBeCloseTo(row.flops / row.wall.median / 1e6, 9);
      expect(row.percentOfMatmul).toBeCloseTo((100 * row.gigaflops) / product.gigaflops, 6);
      expect(row.percentOfRoof).toBeCloseTo((100 * row.gigaflops) / result.roof.gigaflops, 6);
      const dense = result.rows.find((other) => keyText(other) === keyText({ ...row, mask: 'dense' }))!;
      expect(row.toDense.time).toBeCloseTo(row.wall.median / dense.wall.median, 9);
      expect(row.toDense.work).toBeCloseTo(row.flops / dense.flops, 9);
      expect(row.wall.lowerQuartile).toBeLessThanOrEqual(row.wall.upperQuartile);
      for (const figure of [row.wall.median, row.memoryBytes, row.workgroups]) expect(figure).toBeGreaterThan(0);
    }
    const flops = (mask: string, direction: string) =>
      result.rows.find((row) => row.mask === mask && row.variant === 'default' && row.direction === direction)!.flops;
    // 56 tokens, 2 heads: 2 products of 2 D FLOPs a pair forward, 5 backward.
    expect(flops('dense', 'forward')).toBe(2 * 2 * 16 * 2 * 56 ** 2);
    expect(flops('dense', 'both')).toBe(7 * 2 * 16 * 2 * 56 ** 2);
    // Backward of action rows only: 3 products where the prefix is cut off, 5 where not.
    expect(flops('frozen-prefix', 'both') - flops('frozen-prefix', 'forward')).toBe(2 * 16 * 2 * 7 * (3 * 40 + 5 * 7));

    expect(JSON.parse(await readFile(files.out, 'utf8'))).toEqual(JSON.parse(JSON.stringify(result)));
    const table = (await readFile(files.csv, 'utf8')).trim().split('\n');
    expect(table.length).toBe(1 + result.rows.length);
    expect(table[0]).toMatch(/^shape,mask,variant,direction,storage,sizes,wall.median,/);
    expect(table[1]).toMatch(/^"B=1,T=40\+9\+7,H=2\/1,D=16",dense,default,forward,f32,/);
    expect(csv(result)).toBe(`${table.join('\n')}\n`);
    const page = await readFile(files.report, 'utf8');
    expect(page.match(/<svg/g)!.length).toBe(2);
    expect(page.match(/<tr>/g)!.length).toBe(2 + result.rows.length);
    expect(page).not.toMatch(/NaN|undefined|Infinity|https?:\/\/(?!www\.w3\.org)/);

    const text = lines.join('\n');
    for (const row of result.rows) expect(text).toContain(row.mask);
    const twice = structuredClone(result) as unknown as { rows: { wall: { median: number } }[] };
    for (const { wall } of twice.rows) wall.median *= 2;
    const compared = comparisonLines(twice as never, result);
    expect(compared.filter((line) => / 0\.500 +1\.00 +0\.500 /.test(line)).length).toBe(result.rows.length);
    await writeFile(files.out, JSON.stringify({ ...result, rows: result.rows.slice(1) }));
    const again = await run({
      shape,
      mask: ['joint'],
      variant: ['default'],
      direction: ['forward'],
      timer: 'wall',
      compare: files.out,
    });
    expect(again.lines.join('\n')).toContain('rows of this run that the earlier one lacks: 1');
  });

  const ownTitle = (variants: string[]) =>
    `own expressions, a score, ${variants.join(' and ')}, storage, single dispatches`;
  test(ownTitle(['default']), () => checkOwn(['default']));
  longTest(ownTitle(['default', 'base-128']), () => checkOwn(['default', 'base-128']));

  async function checkOwn(variants: string[]): Promise<void> {
    const { rows } = await runAttention(device, {
      shapes: ['T=40,H=1,D=16'],
      masks: ['q - k < 8 && q >= k'],
      score: { score: 'score * 0.5', derivative: '0.5' },
      variants,
      directions: ['backward'],
      storages: ['bf16'],
      rounds: 3,
      seconds: 1,
      profile: device.features.has('timestamp-query'),
      tuned: [],
    });
    expect(new Set(rows.map(keyText)).size).toBe(2 * variants.length);
    expect(rows.filter(({ mask }) => mask === 'q - k < 8 && q >= k').length).toBe(variants.length);
    const [shipped] = attentionVariants(device, { entry: 'backwardQuery', dtype: 'bf16', headDimension: 16 });
    for (const { dispatches, gpu, variant } of rows.filter(() => device.features.has('timestamp-query'))) {
      const together = variant === 'default' && shipped === 'software';
      expect(dispatches.map(({ label }) => label.split(' ').at(-1))).toEqual(
        expect.arrayContaining(['delta', ...(together ? ['backward'] : ['backwardQuery', 'backwardKeyValue'])]),
      );
      expect(gpu!.median).toBeGreaterThan(0);
    }
    useAttentionVariants(device, []);
  }

  test.each([
    ['--timer sun', '--timer sun: there is no "sun"; there are gpu, wall'],
    ['--rounds 2', '--rounds 2: expected an integer from 3'],
    ['--score score', '--score changes nothing without --derivative'],
    ['--derivative 1', '--derivative changes nothing without --score'],
    ['--direction up', '--direction up: there is no "up"; there are forward, backward, both'],
    ['--storage int', '--storage int: there is no "int"; there are f32, f16, bf16'],
    ['--tune --out x', '--out changes nothing together with --tune'],
  ])('%s is refused before an adapter is opened', (words, message) => {
    const read = () => readOptions('bench attention', benchAttention, words.split(' '));
    expect(read).toThrow(`bench attention: ${message}`);
  });

  test.each<[Values, string]>([
    [{ compare: '/nowhere/before.json' }, '/nowhere/before.json: cannot open it: no such file or folder'],
    [{ shape: ['T=8,H=1,D=4'], variant: ['quick'] }, '--variant quick: no kernel of that name'],
    [{ shape: ['T=8,H=1,D=4'], mask: ['q +'] }, 'mask, line 1'],
    [{ shape: ['T=8,H=1,D=4'], mask: ['joint'] }, '--mask joint: shape B=1,T=8,H=1/1,D=4 has one block'],
    [{ shape: ['T=8,H=1,D=4'], floor: true, profile: true }, 'has no timestamps; leave it out'],
  ])('%o is one clear line', async (options, message) => {
    const error: Error = await run(options).then(
      () => expect.fail('accepted'),
      (reason) => reason,
    );
    expect(error.name).toBe('InputError');
    expect(error.message).toContain(message);
    expect(error.message).not.toContain('\n');
  });
});
