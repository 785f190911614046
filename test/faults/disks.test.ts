/** Disks that are full, read-only, gone or come back in the middle of a run: each save that fails is said, and the next one tries again. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { previousOf } from '../../model/training/kept-checkpoints.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { EventFile } from '../../model/training/tensorboard.ts';
import { minutePreset, quietListener } from '../support/synthetic-dataset.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';

let folder = '';
const at = (...parts: string[]) => join(folder, ...parts);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-disks-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Trained {
  /** What went wrong, without the folder of the test. */
  readonly warnings: string[];
  readonly error: string | null;
  /** Steps of the checkpoint and of the previous one; null where there is none. */
  readonly steps: (number | null)[];
  readonly files: string[];
}

/** Trains six steps in a folder, saves every second one, and calls `meanwhile` after each step. */
async function train(run: string, meanwhile: (step: number) => Promise<void>, options: TestRun = {}): Promise<Trained> {
  const warnings: string[] = [];
  const listener = quietListener({ note: (line) => line.startsWith('warning') && warnings.push(line) });
  const events = new EventFile(run, runSettings());
  const preset = { ...minutePreset, saveEvery: 2, evaluateEvery: 1 };
  const error = await trainRun(join(run, 'checkpoint.safetensors'), {
    ...{ preset, listener, ...options },
    async onHistory(history) {
      // A step that is saved is measured before.
      await meanwhile(history.heldOut.at(-1)!.step);
      await events.write(history);
    },
  }).then(
    ({ policy }) => policy.model.dispose(),
    (thrown) => thrown.message.replaceAll(run, 'RUN'),
  );
  const path = join(run, 'checkpoint.safetensors');
  const steps = [path, previousOf(path)].map((own) =>
    openCheckpoint(own).then(
      async ({ progress, close }) => {
        await close();
        return progress.step;
      },
      () => null,
    ),
  );
  const files = await readdir(run).catch(() => []);
  return {
    warnings: warnings.map((line) => line.replaceAll(run, 'RUN')),
    error: error ?? null,
    steps: await Promise.all(steps),
    files,
  };
}

const checkpoint = 'RUN/checkpoint.safetensors';
const reason = (text: string) =>
  `step 4 is not saved: ${checkpoint}: cannot write it: ${text}; ${checkpoint} keeps step 2`;
const again = '; training goes on, and the next save tries again';
const full = 'the disk is full; free some space and try again';

let now = 0;
const follow = async (step: number) => {
  now = step;
};

/** Has writes of checkpoints fail while `isFull`. */
async function withFull(isFull: () => boolean, work: () => Promise<void>) {
  const handle = await open(at('any'), 'w');
  const prototype = Object.getPrototypeOf(handle);
  await handle.close();
  const write = prototype.write;
  const spy = vi.spyOn(prototype, 'write').mockImplementation(function (this: unknown, ...parts: unknown[]) {
    if (!isFull()) return write.apply(this, parts);
    return Promise.reject(Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC', syscall: 'write' }));
  });
  await work().finally(() => spy.mockRestore());
}

describe('a disk without space for one save', () => {
  test('in the middle of the run: a line, and the next save is there', async () => {
    await mkdir(at('middle'));
    await withFull(
      () => now === 4,
      async () => {
        const trained = await train(at('middle'), follow);
        expect(trained).toMatchObject({ error: null, steps: [6, 2] });
        expect(trained.warnings).toEqual([`warning: ${reason(full)}${again}`]);
        expect(trained.files.filter((name) => name.endsWith('.part'))).toEqual([]);
      },
    );
  });

  test('at the end: the run ends with the line, and what was saved before stays', async () => {
    await mkdir(at('end'));
    await withFull(
      () => now >= 6,
      async () => {
        const trained = await train(at('end'), follow);
        expect(trained.steps).toEqual([4, null]);
        expect(trained.error).toBe(reason(full).replaceAll('step 4', 'step 6').replaceAll('step 2', 'step 4'));
        expect(trained.warnings).toEqual([
          `warning: ${checkpoint}: cannot write it: ${full}; the older checkpoint goes, to make room`,
        ]);
      },
    );
  });
});

test('a full disk whose newest checkpoint is gone keeps the older one', async () => {
  await mkdir(at('moved'));
  await withFull(
    () => now >= 6,
    async () => {
      const trained = await train(at('moved'), async (step) => {
        await follow(step);
        if (step === 5) await rm(at('moved/checkpoint.safetensors'));
      });
      expect(trained.steps).toEqual([null, 2]);
      expect(trained.error).toBe(`step 6 is not saved: ${checkpoint}: cannot write it: ${full}`);
      expect(trained.warnings).toEqual([]);
    },
  );
});

test.each<TestRun>([{}, { lora: 2 }])('a folder that is removed and comes back: %o', async (options) => {
  const run = at(`gone-${options.lora}`);
  await mkdir(run);
  const trained = await train(
    run,
    async (step) => {
      if (step === 3) await rm(run, { recursive: true });
      if (step === 5) await mkdir(run);
    },
    options,
  );
  expect(trained).toMatchObject({ error: null, steps: [6, null] });
  const [event, saved, ...others] = trained.warnings.filter((line) => !line.includes('tfevents'));
  const gone = reason('no such file or folder').replace(`; ${checkpoint} keeps step 2`, '');
  expect(saved ?? event).toBe(`warning: ${gone}${again}`);
  expect(others).toEqual([]);
});

test('a folder that is removed for good: the run ends with the reason', async () => {
  const run = at('lost');
  await mkdir(run);
  const trained = await train(run, async (step) => {
    if (step === 3) await rm(run, { recursive: true, force: true });
  });
  expect(trained.error).toMatch(
    /^step 6 is not saved: RUN\/checkpoint\.safetensors: cannot write it: no such file or folder/,
  );
  expect(trained.warnings.filter((line) => line.includes('step 4 is not saved'))).toHaveLength(1);
});

/** A disk of its own of so many bytes; the reason why there is none for a user that may not mount one. */
function mounted(path: string, bytes: number): (() => void) | string {
  const made = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'none', path], { encoding: 'utf8' });
  if (made.status === 0) return () => void execFileSync('umount', ['--lazy', path]);
  return made.error?.message ?? made.stderr.trim();
}

describe('a disk of its own', () => {
  async function onDisk(
    name: string,
    checkpoints: number,
    skip: (note: string) => void,
    work: (run: string) => Promise<void>,
  ) {
    const run = at(name);
    await mkdir(run);
    const { size } = await stat(at('middle/checkpoint.safetensors'));
    const unmount = mounted(run, Math.ceil(checkpoints * size));
    if (typeof unmount === 'string') return skip(`a disk needs root: ${unmount}`);
    await work(run).finally(unmount);
  }

  test('with room for two checkpoints and not for three: the older one makes room for the new one', ({ skip }) =>
    onDisk('narrow', 2.5, skip, async (run) => {
      const trained = await train(run, async () => {});
      expect(trained).toMatchObject({ error: null, steps: [6, 4] });
      expect(trained.warnings).toEqual([
        `warning: ${checkpoint}: cannot write it: ${full}; the older checkpoint goes, to make room`,
      ]);
    }));

  test('that another program fills and empties', ({ skip }) =>
    onDisk('filled', 4, skip, async (run) => {
      const filler = join(run, 'filler');
      const trained = await train(run, async (step) => {
        if (step === 3) await writeFile(filler, new Uint8Array(2 ** 26)).catch(() => {});
        if (step === 5) await rm(filler);
      });
      expect(trained).toMatchObject({ error: null, steps: [6, 2] });
      expect(trained.warnings).toContain(`warning: ${reason(full)}${again}`);
    }));

  test('that becomes read-only', ({ skip }) =>
    onDisk('read-only', 4, skip, async (run) => {
      const trained = await train(run, async (step) => {
        if (step === 3) execFileSync('mount', ['-o', 'remount,ro', run]);
      });
      expect(trained.steps).toEqual([2, null]);
      expect(trained.error).toMatch(
        /^step 6 is not saved: .*: cannot write it: the file system is read-only; .* keeps step 2$/,
      );
    }));
});
