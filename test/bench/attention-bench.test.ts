import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { answerLines, settledBy } from '../../bench/attention/answer.ts';
import { caseOf, maskNames } from '../../bench/attention/cases.ts';
import { keyText } from '../../bench/attention/rows.ts';
import { type AttentionRun, runAttention } from '../../bench/attention/run.ts';
import { shapesOf, shapeText, smaller, suite, tokensOf } from '../../bench/attention/shapes.ts';
import { footnotes } from '../../bench/attention/text.ts';
import { spread } from '../../bench/measure/statistics.ts';
import { benchAttention } from '../../cli/bench-attention.ts';
import { readOptions, type ValuesOf } from '../../cli/options.ts';
import { Progress } from '../../cli/progress.ts';
import { openDevice } from '../../engine/index.ts';
import {
  attentionExpression,
  attentionVariants,
  maskMatrix,
  masks,
  sequence,
  useAttentionVariants,
} from '../../kernels/index.ts';
import { testDevice } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { runCommand } from '../support/run-command.ts';

const device = await testDevice('normal');
type Values = ValuesOf<typeof benchAttention.options>;
const run = (values: Values) => runCommand(benchAttention, { rounds: 3, ...values });
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
    expect(shapeText(smaller(shapesOf(['paligemma-b4'])[0]))).toBe('B=1,T=421+66+26,H=2/1,D=256');
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
    expect(() => caseOf('soft-insulation:0.1:0.2', blocks, {})).toThrow('soft-insulation takes one number');
    for (const name of ['joint:2', 'causal:2']) expect(() => caseOf(name, blocks, {})).toThrow('takes no number');
    expect(() => caseOf('sliding-window:0', shape, {})).toThrow('expected an integer from 1');
  });
});

describe('the answer', () => {
  const noisy = (median: number) => Array.from({ length: 12 }, (_, round) => median * (1 + 0.01 * ((round * 7) % 5)));
  const row = (mask: string, variant: string, times: number[]) => ({
    ...({ shape: 'S', mask, variant, direction: 'forward', storage: 'f32' } as const),
    ...({ name: `${mask} ${variant}`, times, time: spread(times), percentOfRoof: 40, bound: 'memory' } as const),
  });

  test('which variant, by how much, how sure, how far from the limit', () => {
    const lines = answerLines([
      row('a', 'default', noisy(1)),
      row('a', 'unfused', noisy(2)),
      row('b', 'default', noisy(1)),
      row('b', 'unfused', noisy(3)),
      row('c', 'default', noisy(4)),
      row('c', 'unfused', noisy(2)),
      row('d', 'default', noisy(1)),
      row('d', 'unfused', [...noisy(1)].reverse()),
      row('e', 'default', [1, 2]),
      row('e', 'unfused', [2, 4]),
    ]);
    expect(lines[0]).toBe(
      'use default in 3, unfused in 1 of 5 cases; in 1 no variant is faster beyond doubt; 1 were seen in too few rounds to be sure: give more --seconds:',
    );
    expect(lines.slice(1)).toEqual([
      '  S, forward: default for a, b: 2.00 to 3.00 x as fast as unfused (99 %: 2.00 - 3.00); 40.0 % of the roof, whose nearest limit is memory',
      '  S, forward: unfused for c: 2.00 x as fast as default (99 %: 2.00 - 2.00); 40.0 % of the roof, whose nearest limit is memory',
      expect.stringMatching(
        /^ {2}S, forward: default or unfused for d, equally fast: unfused takes 1.00 x as long as default/,
      ),
      '  S, forward: default for e: 2.00 x as fast as unfused in 2 rounds, not sure; 40.0 % of the roof, whose nearest limit is memory',
    ]);
  });

  test('rounds go on until every case is decided, at looks that are ever further apart', () => {
    const key = (mask: string, variant: string) =>
      ({ shape: 'S', mask, variant, direction: 'forward', storage: 'f32' }) as const;
    const settled = settledBy([key('a', 'default'), key('a', 'unfused'), key('b', 'default')]);
    const times = (rounds: number, ...medians: number[]) =>
      medians.map((median) => Array.from({ length: rounds }, (_, round) => median * (1 + 0.01 * ((round * 7) % 5))));
    expect(settled(times(10, 1, 2, 1))).toBe(true);
    expect(settled(times(11, 1, 2, 1))).toBe(false);
    expect(settled(times(20, 1, 2, 1))).toBe(true);
    expect(settled(times(20, 1, 1, 1))).toBe(true); // equally fast
    const [one, other, third] = times(20, 1, 1, 1);
    expect(settled([one, other.map((own, i) => own * (i % 2 === 0 ? 0.5 : 2)), third])).toBe(false);
    expect(settled([...times(10, 1, 2), []])).toBe(true); // there was no time for b
  });
});

test('a mask matrix hides what the expression hides, and what is no token', async () => {
  const layout = sequence({ all: 5 });
  const own = [masks.slidingWindow(2), masks.documents(Uint32Array.of(0, 0, 1, 1, 1))];
  const seen = [(q: number, k: number) => Math.abs(q - k) < 2 && q >= k, (q: number, k: number) => q < 2 === k < 2];
  for (const [i, source] of own.entries()) {
    using matrix = maskMatrix(device, await attentionExpression(device, layout, source), 8);
    const numbers = [...(await matrix.read())].map((value) => value === 0);
    expect(numbers).toEqual(
      Array.from({ length: 64 }, (_, at) => {
        const [q, k] = [at >> 3, at & 7];
        return q < 5 && k < 5 && seen[i](q, k);
      }),
    );
  }
});

describe('insula bench attention', () => {
  test('rows, figures that agree, files, comparison', async () => {
    const files = { csv: join(folder, 'rows.csv'), report: join(folder, 'page.html'), out: join(folder, 'run.json') };
    const shape = ['T=40+9+7,H=2/1,D=16'];
    const { json, lines } = await run({ shape, direction: ['forward', 'both'], timer: 'wall', ...files });
    const result = json as AttentionRun;
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
    expect(lines[0]).toMatch(/^use .* cases/);
    const product = result.anchors.find(({ name }) => name === result.rows[0].matmul)!;
    for (const row of result.rows) {
      expect(row.gigaflops).toBeCloseTo(row.flops / row.time.median / 1e6, 9);
      expect(row.percentOfMatmul).toBeCloseTo((100 * row.gigaflops * product.time.median * 1e6) / (2 * 256 ** 3), 6);
      expect(row.percentOfRoof).toBeCloseTo((100 * row.leastMilliseconds) / row.time.median, 6);
      const dense = result.rows.find((other) => keyText(other) === keyText({ ...row, mask: 'dense' }))!;
      expect(row.toDense.time).toBeCloseTo(row.time.median / dense.time.median, 9);
      expect(row.toDense.work).toBeCloseTo(row.flops / dense.flops, 9);
      expect(row.time.lowerQuartile).toBeLessThanOrEqual(row.time.upperQuartile);
      for (const figure of [row.time.median, row.memoryBytes, row.workgroups]) expect(figure).toBeGreaterThan(0);
    }
    const flops = (mask: string, direction: string) =>
      result.rows.find((row) => row.mask === mask && row.variant === 'default' && row.direction === direction)!.flops;
    // 56 tokens, 2 heads: 2 products of 2 D FLOPs a pair forward, 5 backward.
    expect(flops('dense', 'forward')).toBe(2 * 2 * 16 * 2 * 56 ** 2);
    expect(flops('dense', 'both')).toBe(7 * 2 * 16 * 2 * 56 ** 2);
    const unfused = result.rows.filter(({ variant, mask }) => variant === 'unfused' && mask === 'dense');
    expect(unfused.map((row) => row.flops)).toEqual([flops('dense', 'forward'), flops('dense', 'both')]);
    // Backward of action rows only: 3 products where the prefix is cut off, 5 where not.
    expect(flops('frozen-prefix', 'both') - flops('frozen-prefix', 'forward')).toBe(2 * 16 * 2 * 7 * (3 * 40 + 5 * 7));

    expect(JSON.parse(await readFile(files.out, 'utf8'))).toEqual(JSON.parse(JSON.stringify(result)));
    const table = (await readFile(files.csv, 'utf8')).trim().split('\n');
    expect(table.length).toBe(1 + result.rows.length);
    expect(table[0]).toMatch(/^shape,mask,variant,direction,storage,name,time.median,/);
    expect(table[1]).toMatch(/^"B=1,T=40\+9\+7,H=2\/1,D=16",dense,default,forward,f32,/);
    const page = await readFile(files.report, 'utf8');
    expect(page).toMatch(/<h1>Attention, B=1,T=40\+9\+7,H=2\/1,D=16: dense, joint, insulation/);
    expect(page.match(/<svg role/g)!.length).toBe(2);
    expect(page.match(/<tr>/g)!.length).toBe(2 + result.rows.length);
    expect(page).not.toMatch(/NaN|undefined|Infinity|https?:\/\/(?!www\.w3\.org)/);

    const text = lines.join('\n');
    for (const row of result.rows) expect(text).toContain(row.mask);
    const above = { ...result, rows: [{ ...result.rows[0], percentOfRoof: 130, bound: 'memory' as const }] };
    expect(footnotes(above)[0]).toContain('* above the roof, limited by memory: operands stay in a cache');
  });

  test('an own mask has an unfused partner; an interrupted run keeps what it has', async () => {
    const abort = new AbortController();
    const csv = join(folder, 'interrupted.csv');
    const own = { shape: ['T=40,H=1,D=16'], mask: ['q - k < 8 && q >= k'], csv };
    const values = { ...own, direction: ['forward' as const], rounds: 5, timer: 'wall' as const };
    const { json } = await runCommand(benchAttention, { ...values, rounds: 2 });
    const rows = (json as AttentionRun).rows.filter(({ mask }) => mask === own.mask[0]);
    expect(rows.map(({ variant }) => variant)).toEqual(['default', 'unfused']);
    // Each of 40 tokens sees the 8 last, itself among them: 2 products of 2 D FLOPs for each pair.
    expect(rows.map(({ flops }) => flops)).toEqual([2, 2].map(() => 2 * 2 * 16 * (8 * 40 - (8 * 7) / 2)));
    class Interrupting extends Progress {
      override count(what: string): void {
        if (what.startsWith('round 1')) abort.abort();
      }
    }
    const result = await runCommand(benchAttention, values, { progress: new Interrupting(), signal: abort.signal });
    const stopped = result.json as AttentionRun;
    expect([result.status, stopped.ended, stopped.rows[0].time.rounds]).toEqual([130, 'interrupted', 1]);
    expect((await readFile(csv, 'utf8')).trim().split('\n')).toHaveLength(1 + stopped.rows.length);
  });

  test('a row compiles what it times, and of what prepares it only the default', async () => {
    const lanes = { software: true, subgroupSizes: [8, 8] as const };
    const own = Object.assign(await openDevice({ adapter: 'null' }), lanes);
    const given = { shapes: ['T=40,H=1,D=16'], masks: [], score: {}, storages: ['f32'] as const, profile: false };
    const options = { ...given, variants: ['base-128'], directions: ['backward'] as const, timer: 'wall' as const };
    await runAttention(own, { ...options, tuned: [] }, { rounds: 1, seconds: 60 });
    const compiled = own.pipelines.names().filter((name) => /^attention(\.software)? /.test(name));
    expect(compiled.map((name) => name.split(' {')[0]).sort()).toEqual([
      'attention backwardKeyValue',
      'attention backwardQuery',
      'attention.software forward',
    ]);
    own.close();
  });

  const ownTitle = (variants: string[]) =>
    `own expressions, a score, ${variants.join(' and ')}, storage, single dispatches`;
  test(ownTitle(['default']), () => checkOwn(['default']));
  longTest(ownTitle(['default', 'base-128']), () => checkOwn(['default', 'base-128']));

  async function checkOwn(variants: string[]): Promise<void> {
    const options = {
      shapes: ['T=40,H=1,D=16'],
      masks: ['q - k < 8 && q >= k'],
      score: { score: 'score * 0.5', derivative: '0.5' },
      variants,
      directions: ['backward'] as const,
      storages: ['bf16'] as const,
      profile: device.features.has('timestamp-query'),
      tuned: [],
    };
    const { rows } = await runAttention(device, options, { rounds: 3, seconds: 60 });
    expect(new Set(rows.map(keyText)).size).toBe(2 * variants.length);
    expect(rows.filter(({ mask }) => mask === 'q - k < 8 && q >= k').length).toBe(variants.length);
    const [shipped] = attentionVariants(device, { entry: 'backwardQuery', dtype: 'bf16', headDimension: 16 });
    for (const { dispatches, variant } of rows.filter(() => device.features.has('timestamp-query'))) {
      const together = variant === 'default' && shipped === 'software';
      expect(dispatches.map(({ label }) => label.split(' ').at(-1))).toEqual(
        expect.arrayContaining(['delta', ...(together ? ['backward'] : ['backwardQuery', 'backwardKeyValue'])]),
      );
    }
    useAttentionVariants(device, []);
  }

  test.each([
    ['--timer sun', '--timer sun: there is no "sun"; there are gpu, wall'],
    ['--rounds 0', '--rounds 0: expected an integer from 1'],
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
    [
      { compare: '/nowhere/before.json' },
      '--compare /nowhere/before.json: no file, no folder and no commit of that name',
    ],
    [{ shape: ['T=8,H=1,D=4'], variant: ['quick'] }, '--variant quick: no kernel of that name'],
    [{ shape: ['T=8,H=1,D=4'], mask: ['q +'] }, 'mask, line 1'],
    [{ shape: ['T=8,H=1,D=4'], mask: ['joint'] }, '--mask joint: shape B=1,T=8,H=1/1,D=4 has one block'],
    [{ tune: true, floor: true }, '--floor: name a file with --tuning'],
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
