import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WORLD_HASH } from '../../bench/tabletop/world.ts';
import { chromiumMissing, chromiumPath, openPage, type PageError, type PageResult, type PageTask } from './chromium.ts';
import { Results } from './results.ts';
import { type TrainingFigures, trainingFigures } from './training-pass.ts';
import type { VideoReading } from './video.ts';

const root = new URL('../../', import.meta.url);

/** Test files that the page runs as they are, beside those of the operations: what needs no file system. */
const otherTestFiles = [
  ...['kernel', 'step', 'step-memory', 'step-refusals', 'tape', 'tensor'].map((name) => `test/engine/${name}.test.ts`),
  'test/half.test.ts',
  'test/random.test.ts',
  'test/model/golden.test.ts',
  'test/tabletop/world.test.ts',
  ...['image-kinds', 'mixture', 'sampling', 'slots', 'statistics'].map((name) => `test/data/${name}.test.ts`),
  ...['bins', 'dct', 'fast', 'grammar', 'location', 'prompts', 'state', 'string', 'text', 'vocabulary'].map(
    (name) => `test/tokenizers/${name}.test.ts`,
  ),
];

/** Modules of the lower floors that are for node only. */
const nodeOnly = [
  ...['engine/files/files.ts', 'kernels/tuning.ts', 'tokenizers/default-merges-node.ts'],
  ...['engine/files/lock.ts', 'model/data/store/log-node.ts'],
  ...['model/policy/serving/page-node.ts', 'model/policy/serving/server-node.ts'],
];

function filesUnder(folder: string, ending: string): string[] {
  return readdirSync(new URL(`${folder}/`, root), { recursive: true, encoding: 'utf8' })
    .map((path) => `${folder}/${path.replaceAll('\\', '/')}`)
    .filter((path) => path.endsWith(ending))
    .sort();
}

function testIds(tasks: readonly PageTask[]): string[] {
  return tasks.flatMap((task) => (task.tasks ? testIds(task.tasks) : [task.id]));
}

const opened = chromiumPath ? await openPage() : null;
const files: PageTask[] = opened
  ? await opened.call('test/browser/page.ts', 'collect', [...filesUnder('test/kernels', '.test.ts'), ...otherTestFiles])
  : [];
const results = new Results(testIds(files));

/** Fails here as it failed in the page; frames name the repository's files. */
function throwFirst(errors: readonly PageError[]): void {
  if (errors.length === 0) return;
  const { message, stack, diff } = errors[0];
  const error = new Error(diff ? `${message}\n${diff}` : message);
  error.stack = stack && opened!.locate(stack);
  throw error;
}

describe.skipIf(!opened)(`in Chromium${chromiumMissing}`, () => {
  afterAll(async () => {
    await opened?.close();
  });

  test.each(['engine', 'kernels', 'tokenizers', 'model'])('every module of %s/ loads', async (folder) => {
    const modules = filesUnder(folder, '.ts').filter((path) => !nodeOnly.includes(path));
    expect(await opened!.call('test/browser/page.ts', 'failingImports', modules)).toEqual([]);
  });

  test("the tabletop world's episodes are node's to the last bit", async () => {
    expect(await opened!.call('test/support/world-hash.ts', 'worldHash')).toBe(WORLD_HASH);
  });

  test('a training pass with backward gives the losses and gradients of node', async () => {
    const figures = await opened!.call<TrainingFigures>('test/browser/training-pass.ts', 'trainingFigures');
    const here = await trainingFigures();
    expect(figures.gradients.map(({ name }) => name)).toEqual(here.gradients.map(({ name }) => name));
    for (const loss of ['tokenLoss', 'flowLoss'] as const) {
      expect(here[loss]).toBeGreaterThan(0);
      expect(Math.abs(figures[loss] - here[loss]), loss).toBeLessThan(1e-4 * here[loss]);
    }
    // Some gradients are zero but for rounding: a bias of all keys changes no attention.
    const rounding = 1e-7 * Math.hypot(...here.gradients.map(({ norm }) => norm));
    for (const [i, { name, norm }] of here.gradients.entries())
      expect(Math.abs(figures.gradients[i].norm - norm), name).toBeLessThan(1e-4 * norm + rounding);
  });

  // AV1 is what LeRobot writes, H.264 what many converters write.
  test.each([
    ['av1', 0.25],
    ['avc', 0.25],
    ['avc', 9],
  ])('frames of a LeRobot video by WebCodecs: %s, a keyframe every %d s', async (...how) => {
    const { size, greys, complaints } = await opened!.call<VideoReading>('test/browser/video.ts', 'readVideos', ...how);
    expect(size).toEqual([24, 16]);
    expect(greys.map(({ length }) => length)).toEqual([4, 6, 3]);
    for (const [frame, grey] of greys.flat().entries()) expect(Math.abs(grey - 18 * frame)).toBeLessThan(6);
    const [cutOff, noVideo] = complaints;
    expect(cutOff).toMatch(
      /file-000\.mp4: no frame of episode 2, camera .* from second 0\.5 on: cut off, or of another data set/,
    );
    expect(noVideo).toMatch(/file-000\.mp4: cannot decode the video of episode 2, .*format/);
  });

  describe('test files, with fewer sizes and on one device', () => {
    let outside: Promise<PageError[]>;

    beforeAll(async () => {
      await opened!.page.exposeFunction('tellNode', (result: PageResult) => results.give(result));
      results.expectMore();
      outside = opened!.call('test/browser/page.ts', 'run');
      outside.then(
        () => results.end('the page ended its tests without it'),
        (error) => results.end(String(error)),
      );
    });

    const mirror = ({ id, name, skipped, errors, tasks }: PageTask): void => {
      if (!tasks)
        test.skipIf(skipped)(name, async (context) => {
          const result = await results.of(id);
          throwFirst(result.errors);
          context.skip(result.skipped);
        });
      else
        describe(name, () => {
          if (errors.length > 0) test('loads', () => throwFirst(errors));
          tasks.forEach(mirror);
        });
    };
    files.forEach(mirror);

    test('nothing fails outside of the tests', async () => {
      expect(results.silent, 'the page hangs').toBe(false);
      const messages = (await outside).map(({ message }) => message);
      expect([...messages, ...opened!.uncaught]).toEqual([]);
    });
  });
});
