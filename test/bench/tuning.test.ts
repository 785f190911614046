import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { attentionCandidates } from '../../bench/attention/tune.ts';
import { ProductCandidates } from '../../bench/kernels/product-candidates.ts';
import { modelShapes } from '../../bench/kernels/shapes.ts';
import { best, choose } from '../../bench/measure/choose.ts';
import { benchTune } from '../../cli/bench-tune.ts';
import { type Device, openDevice } from '../../engine/index.ts';
import {
  attentionVariant,
  attentionVariants,
  matmulVariant,
  matmulVariants,
  useAttentionVariants,
  useVariants,
} from '../../kernels/index.ts';
import {
  findTuning,
  keepTuning,
  openTunedDevice,
  shippedTuningPath,
  type Tuning,
  tuningPath,
} from '../../kernels/tuning.ts';
import { testDevice } from '../support/devices.ts';
import { runCommand } from '../support/run-command.ts';

const device = await testDevice('normal');
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-tuning-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** What `insula bench attention --tune` does with a device. */
async function tune(own: Device, path: string, places: Parameters<typeof attentionCandidates>[1]): Promise<Tuning> {
  const attention = await choose(own, attentionCandidates(own, places), { rounds: 3, seconds: 60 });
  return keepTuning(own, path, { attention, matmul: [] });
}

describe('tuning', () => {
  const by = { milliseconds: { 'base-128': 1 }, sizes: 'T=8', date: '2026-01-01', commit: 'unknown' };

  test('another variant is chosen if it is faster than the shipped one beyond doubt', () => {
    const around = (median: number) => Array.from({ length: 9 }, (_, i) => median + (i % 3) - 1);
    const of = (...medians: number[]) => best(medians.map((median, i) => ({ variant: `${i}`, times: around(median) })));
    expect(of(10, 9.9, 20)).toBe('0');
    expect(of(10, 7, 5)).toBe('2');
    expect(best([10, 5].map((time, i) => ({ variant: `${i}`, times: [time, time] })))).toBe('0'); // too few rounds
  });

  test('nothing is chosen where there was no time for every variant', async () => {
    const prepare = () => {
      const begin = performance.now();
      while (performance.now() - begin < 100);
      return () => {};
    };
    const variants = ['a', 'b', 'c', 'd', 'e', 'f'];
    const place = { key: {}, variants, sizes: '', task: () => ({ prepare }) };
    await expect(choose(device, [place], { rounds: 3, seconds: 1.2 })).rejects.toThrow(/^--seconds.* time for /);
  });

  test('measured, kept, read and taken; choices for other head dimensions stay', async () => {
    // Two of the kernels that are made for GPUs are measured.
    const graphics = Object.assign(await openDevice(), { software: false });
    onTestFinished(() => graphics.close());
    const path = join(folder, 'tuned', 'here.json');
    const storages = ['f32'] as const;
    await tune(graphics, path, { storages, directions: ['forward', 'backward'], shapes: ['T=8,H=1,D=8'] });
    const tuning = await tune(graphics, path, { storages, directions: ['forward'], shapes: ['T=8,H=1,D=16'] });
    expect(tuning.attention.map(({ entry, headDimension }) => `${entry} ${headDimension}`)).toEqual([
      'forward 8',
      'backwardQuery 8',
      'backwardKeyValue 8',
      'forward 16',
    ]);
    for (const choice of tuning.attention)
      expect(Object.keys(choice.milliseconds)).toEqual(attentionVariants(graphics, choice));
    expect((await findTuning(graphics, path)).tuning).toEqual(tuning);
    const [first] = tuning.attention;
    const other = attentionVariants(graphics, first).at(-1)!;
    useVariants(graphics, { ...tuning, attention: [{ ...first, variant: other }] });
    expect(attentionVariant(graphics, first)).toBe(other);
    useAttentionVariants(graphics, []);
    expect(attentionVariant(graphics, first)).not.toBe(other);
  });

  test('products at the places of a model, in the same file; --print shows it', async () => {
    const path = join(folder, 'products.json');
    const [model] = modelShapes;
    const small = {
      batch: 1,
      prefix: 16,
      fast: 8,
      action: 8,
      width: 16,
      hidden: 32,
      expertWidth: 16,
      expertHidden: 32,
    };
    using products = new ProductCandidates(device, { ...model, ...small, heads: 2, headDimension: 8 }, ['f32']);
    const matmul = await choose(device, products.all.slice(0, 2), { rounds: 3, seconds: 60 });
    for (const choice of matmul) {
      // On a software adapter those that were made for it.
      expect(matmulVariants(device, choice)).toEqual(expect.arrayContaining(Object.keys(choice.milliseconds)));
      expect(Object.keys(choice.milliseconds).length).toBeGreaterThan(1);
    }
    const attention = { entry: 'forward', dtype: 'f32', headDimension: 16, variant: 'base-128' } as const;
    await keepTuning(device, path, { attention: [{ ...attention, ...by }], matmul });
    const kept = await keepTuning(device, path, { attention: [], matmul: [{ ...matmul[0], sizes: 'again' }] });
    expect(kept.attention).toHaveLength(1);
    expect(kept.matmul.map(({ sizes }) => sizes)).toEqual([...matmul.slice(1).map(({ sizes }) => sizes), 'again']);
    expect((await findTuning(device, path)).tuning).toEqual(kept);

    const other = matmulVariants(device, matmul[0]).at(-1)!;
    useVariants(device, { attention: [], matmul: [{ ...matmul[0], variant: other }] });
    expect(matmulVariant(device, matmul[0])).toBe(other);
    useVariants(device, { attention: [], matmul: [] });
    expect(matmulVariant(device, matmul[0])).not.toBe(other);

    const { json, lines } = await runCommand(benchTune, { print: true, tuning: path });
    expect(json).toEqual(kept);
    expect(lines.at(-1)).toBe(`file: ${path}`);
    await expect(runCommand(benchTune, {})).rejects.toThrow('bench: --tune or --print; or');
    await expect(runCommand(benchTune, { tune: true, floor: true })).rejects.toThrow(
      '--floor: name a file with --tuning',
    );
  });

  test('a file of experimental features, if it is named, opens the device with them', async ({ skip }) => {
    const path = join(folder, 'experimental.json');
    const experimental = await openDevice({ adapter: 'null', experimental: true }).catch(() => null);
    if (!experimental) return skip('this build of Dawn has no subgroup matrices');
    const empty = { attention: [], matmul: [] };
    await keepTuning(experimental, path, empty);
    experimental.close();
    const opened = async (named: string, own = { floor: false }) => {
      const { device } = await openTunedDevice({ adapter: 'null', tuning: named, ...own }, () => {});
      device.close();
      return device.features.has('chromium-experimental-subgroup-matrix');
    };
    expect(await opened(path)).toBe(true);
    expect(await opened(path, { floor: true })).toBe(false);
    const plain = join(folder, 'plain.json');
    await writeFile(plain, JSON.stringify({ format: 'insula tuning 2', adapter: experimental.description, ...empty }));
    expect(await opened(plain)).toBe(false);
    await expect(runCommand(benchTune, { tune: true, experimental: true })).rejects.toThrow(
      '--experimental: name a file with --tuning',
    );
  });

  test('files of another adapter, with unknown variants, broken or missing are refused', async () => {
    const path = join(folder, 'wrong.json');
    const choice = { entry: 'forward', dtype: 'f32', headDimension: 16, variant: 'warp', ...by };
    const tuning = { format: 'insula tuning 2', adapter: device.description, attention: [choice], matmul: [] };
    const refusal = async (contents: unknown) => {
      await writeFile(path, JSON.stringify(contents));
      return findTuning(device, path).then(
        () => expect.fail('accepted'),
        (error: Error) => `${error.name}: ${error.message}`,
      );
    };
    expect(await refusal(tuning)).toBe(
      `InputError: ${path}: no variant "warp" of attention forward, f32, head dimension 16 runs here; run 'insula bench --tune' to write the file again, or delete it`,
    );
    expect(await refusal({ ...tuning, adapter: 'other' })).toContain('the tuning of "other", but this adapter is');
    const refused = `InputError: ${path}: this is not a tuning file of 'insula bench --tune': `;
    expect(await refusal({ ...tuning, attention: [choice, { ...choice, headDimension: 'x' }] })).toBe(
      `${refused}"attention[1].headDimension": expected number, got "x"`,
    );
    expect(await refusal({ ...tuning, attention: [{ ...choice, milliseconds: undefined }] })).toBe(
      `${refused}"attention[0].milliseconds": missing`,
    );
    expect(await refusal({ ...tuning, format: 'other 3' })).toContain('"format": expected "insula tuning 2"');
    expect(await refusal(null)).toBe(`${refused}expected object, got null`);
    await expect(findTuning(device, join(folder, 'none.json'))).rejects.toThrow('no such file');
  });

  test('commands apply the file that is kept for the adapter, and report it', async () => {
    const before = process.env.XDG_CACHE_HOME;
    process.env.XDG_CACHE_HOME = folder;
    try {
      const shipped = await readFile(shippedTuningPath(device.description), 'utf8').catch(() => 'null');
      expect((await findTuning(device)).tuning).toEqual(JSON.parse(shipped));
      const path = tuningPath(device.description);
      expect(path).toMatch(/\/insula\/tuning\/[a-z0-9-]+\.json$/);
      const shapes = ['T=8,H=1,D=8'];
      const tuning = await tune(device, path, { directions: ['forward'], storages: ['f32'], shapes });
      const notes: string[] = [];
      const opened = await openTunedDevice({}, (line) => notes.push(line));
      opened.device.close();
      expect(opened.tuning).toEqual(tuning);
      expect(notes).toEqual([`tuned by ${path}`]);
      const onFloor = await openTunedDevice({ floor: true }, (line) => notes.push(line));
      onFloor.device.close();
      expect(onFloor.tuning).toBeNull();
    } finally {
      if (before === undefined) delete process.env.XDG_CACHE_HOME;
      else process.env.XDG_CACHE_HOME = before;
    }
  });
});
