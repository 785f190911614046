/** What a save leaves on the disk: whatever interrupts it, whatever state it is asked to save, whatever happens to its file later. */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { cp, mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { runFolder } from '../../cli/run-folder.ts';
import { InputError, readSafetensors } from '../../engine/index.ts';
import { type Checkpoint, openCheckpoint } from '../../model/training/checkpoint.ts';
import { openNewest, previousOf } from '../../model/training/kept-checkpoints.ts';
import type { RunListener } from '../../model/training/prepare-run.ts';
import { Trainer } from '../../model/training/trainer.ts';
import { long } from '../support/long.ts';
import { minutePreset, quietListener } from '../support/synthetic-dataset.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';
import { numberIn, savingRun } from './saving.ts';

let folder = '';
const at = (...parts: string[]) => join(folder, ...parts);
const checkpointOf = (run: string) => at(run, 'checkpoint.safetensors');
const previous = (run: string) => previousOf(checkpointOf(run));
const preset = { ...minutePreset, saveEvery: 2 };

/** Trains six steps and saves every second one; the notes of the run. */
async function train(run: string, options: TestRun = {}, heard: Partial<RunListener> = {}): Promise<string[]> {
  const notes: string[] = [];
  const listener = quietListener({ note: (line) => notes.push(line), ...heard });
  await mkdir(at(run), { recursive: true });
  const { policy } = await trainRun(checkpointOf(run), { preset, listener, ...options });
  policy.model.dispose();
  return notes;
}

/** The newest checkpoint that --resume takes, and the lines about it. */
async function newest(path: string): Promise<{ path: string; step: number; notes: string[]; checkpoint: Checkpoint }> {
  const notes: string[] = [];
  const checkpoint = await openNewest(path, { verify: true, note: (line) => notes.push(line) });
  await checkpoint.close();
  return { path: checkpoint.path, step: checkpoint.progress.step, notes, checkpoint };
}

async function stepIn(path: string): Promise<number> {
  const checkpoint = await openCheckpoint(path);
  await checkpoint.close();
  return checkpoint.progress.step;
}

/** Changes one byte of a tensor of a file. Returns the tensor's name. */
async function damage(path: string): Promise<string> {
  const file = await readSafetensors(path);
  const { name, start, end } = [...file.tensors.values()].find(({ name }) => name.includes('q_proj'))!;
  await file.close();
  const handle = await open(path, 'r+');
  const byte = new Uint8Array(1);
  const position = Math.floor((start + end) / 2);
  await handle.read(byte, 0, 1, position);
  byte[0] ^= 1;
  await handle.write(byte, 0, 1, position);
  await handle.close();
  return name;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-saves-'));
  await train('whole');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function copied(name: string): Promise<string> {
  await cp(at('whole'), at(name), { recursive: true });
  return checkpointOf(name);
}

test('a finished run that is resumed saves the same step again, and keeps the one before', async () => {
  const resume = await openCheckpoint(await copied('again'));
  await train('again', { resume });
  expect([await stepIn(checkpointOf('again')), await stepIn(previous('again'))]).toEqual([6, 4]);
});

test('the last two checkpoints are there, and no other file', async () => {
  expect((await readdir(at('whole'))).sort()).toEqual(['checkpoint.previous.safetensors', 'checkpoint.safetensors']);
  expect(await newest(checkpointOf('whole'))).toMatchObject({ path: checkpointOf('whole'), step: 6, notes: [] });
  expect(await stepIn(previous('whole'))).toBe(4);
});

describe('a save that is killed', () => {
  test('before any call of the file system leaves a whole checkpoint', async () => {
    const run = at('calls');
    await mkdir(run);
    const path = checkpointOf('calls');
    const save = await savingRun(checkpointOf('whole'), path);
    await save(1);
    await save(2);
    const calls: string[] = [];
    let busy = false;
    const stop = beforeCalls(async (name) => {
      // Calls of this function are not those of the save.
      if (busy) return;
      busy = true;
      if (name !== 'write' || calls.length % 8 === 0) await cp(run, at(`call-${calls.length}`), { recursive: true });
      calls.push(name);
      busy = false;
    });
    await save(3).finally(stop);
    expect(calls.filter((name) => name !== 'write')).toEqual([
      'open',
      'sync',
      'close',
      'rm',
      'link',
      'rename',
      'open',
      'sync',
      'close',
    ]);
    expect(calls.length).toBeGreaterThan(30);
    for (const [i, name] of calls.entries()) {
      if (name === 'write' && i % 8 !== 0) continue;
      const kept = await newest(checkpointOf(`call-${i}`));
      const isRenamed = i > calls.indexOf('rename');
      expect(kept, `before call ${i}, ${name}`).toMatchObject({ step: isRenamed ? 3 : 2, notes: [] });
      expect(await numberIn(kept.path)).toBe(kept.step);
    }
  });

  test('on a file system without links, too', async () => {
    const path = checkpointOf('unlinked');
    await mkdir(at('unlinked'));
    const save = await savingRun(checkpointOf('whole'), path);
    await save(1);
    await save(2);
    const seen: (number | null)[][] = [];
    const refuse = Object.assign(new Error('EPERM: operation not permitted'), { code: 'EPERM', syscall: 'link' });
    const stop = beforeCalls(async (name) => {
      if (name === 'link') throw refuse;
      if (name === 'rename')
        seen.push(await Promise.all([path, previousOf(path)].map((own) => stepIn(own).catch(() => null))));
    });
    await save(3).finally(stop);
    expect(seen).toEqual([
      [2, null],
      [null, 2],
    ]);
    expect(await Promise.all([path, previousOf(path)].map(stepIn))).toEqual([3, 2]);
    await rm(path);
    const note = 'cannot open it: no such file or folder; step 2 of the save before is in';
    expect(await newest(path)).toMatchObject({ step: 2, notes: [`warning: ${path}: ${note} ${previousOf(path)}`] });
  });

  const rounds = long ? 200 : 3;
  test(`${rounds} times at random moments leaves a whole checkpoint, of the last step or the one before`, async () => {
    await mkdir(at('killed'));
    const path = checkpointOf('killed');
    const saver = fileURLToPath(new URL('./saver.ts', import.meta.url));
    const options = ['--import', import.meta.resolve('tsx'), saver, checkpointOf('whole'), path];
    let [first, begun] = [1, 0];
    for (let round = 0; round < rounds; round++) {
      const child = spawn(process.execPath, [...options, String(first)], { stdio: ['ignore', 'pipe', 'inherit'] });
      let [saved, timer] = [0, 0 as unknown as NodeJS.Timeout];
      child.stdout.on('data', (data) => {
        if (saved === 0) timer = setTimeout(() => child.kill('SIGKILL'), ((round * 0.618034) % 1) * 200);
        saved = Number(String(data).trim().split('\n').at(-1));
      });
      await new Promise((done) => child.on('close', done));
      clearTimeout(timer);
      const kept = await newest(path);
      expect(kept.notes).toEqual([]);
      expect([saved, saved + 1]).toContain(kept.step);
      expect(await numberIn(kept.path)).toBe(kept.step);
      const parts = (await readdir(at('killed'))).filter((name) => name.endsWith('.part'));
      begun += parts.length;
      for (const name of parts) await rm(at('killed', name));
      first = kept.step + 1;
    }
    if (long) console.log(`${rounds} kills, ${begun} in the middle of a file, ${first - 1} saves`);
  });
});

/** Calls `before` with the name of each call that changes the file system, until the returned function is called. */
function beforeCalls(before: (name: string) => Promise<void>): () => void {
  const spies: { mockRestore(): void }[] = [];
  const wrap = (target: object, name: string) => {
    const own = target as Record<string, (...given: unknown[]) => Promise<unknown>>;
    const real = own[name];
    const spy = vi.spyOn(own, name).mockImplementation(async function (this: unknown, ...given) {
      await before(name);
      const result = await real.apply(this, given);
      if (name === 'open') for (const method of ['write', 'sync', 'close']) wrap(result as object, method);
      return result;
    });
    spies.push(spy);
  };
  for (const name of ['open', 'rm', 'link', 'rename']) wrap(fs.promises, name);
  syncBuiltinESMExports();
  return () => {
    for (const spy of spies) spy.mockRestore();
    syncBuiltinESMExports();
  };
}

describe('a state that diverged', () => {
  /** Has `spoil` change the state after training step `step`, before it is saved. */
  async function spoiled(run: string, step: number, spoil: (trainer: Trainer<unknown>) => void, options: TestRun = {}) {
    const real = Trainer.prototype.step;
    const spy = vi.spyOn(Trainer.prototype, 'step').mockImplementation(async function (this: Trainer<unknown>, own) {
      const result = await real.call(this, own);
      if (own + 1 === step) spoil(this);
      return result;
    });
    const error = await train(run, options).then(
      () => null,
      (thrown) => thrown,
    );
    spy.mockRestore();
    expect(error).toBeInstanceOf(InputError);
    return error.message;
  }
  const advice =
    'training has diverged: begin anew with a lower learning rate \\(--rates of insula train\\) or another --seed$';
  const infinite = { name: 'optimizer/secondMoment/action_in_proj.weight', value: 'Infinity' };

  test('in a weight: it is named, and both good checkpoints stay', async () => {
    const message = await spoiled('weight', 4, ({ model: { parameters } }) => {
      const { shape } = parameters.get('action_in_proj.weight');
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      values[5] = Number.NaN;
      parameters.get('action_in_proj.weight').write(values);
    });
    expect(message).toMatch(
      new RegExp(
        `^step 4 is not saved: tensor "action_in_proj.weight" holds NaN at element 5 of \\d+; .*/weight/checkpoint.safetensors keeps step 2; ${advice}`,
      ),
    );
    expect(await newest(checkpointOf('weight'))).toMatchObject({ step: 2, notes: [] });
    expect(await readdir(at('weight'))).toEqual(['checkpoint.safetensors']);
  });

  test('in a moment, at the last save, or that of an interruption', async () => {
    const abort = new AbortController();
    const spoil = ({ optimizer }: Trainer<unknown>) => {
      const moment = optimizer.state().tensors.get('secondMoment/action_in_proj.weight')!;
      moment.write(new Float32Array(moment.shape.reduce((a, b) => a * b, 1)).fill(Number.POSITIVE_INFINITY));
      abort.abort();
    };
    const message = await spoiled('moment', 3, spoil, { signal: abort.signal });
    expect(message).toMatch(
      new RegExp(
        `^step 3 is not saved: tensor "${infinite.name}" holds Infinity at element 0 of .*keeps step 2; ${advice}`,
      ),
    );
    expect(await stepIn(checkpointOf('moment'))).toBe(2);
  });

  test('in a measurement, which the file would lose', async () => {
    const message = await spoiled(
      'measured',
      2,
      (trainer) => {
        vi.spyOn(trainer, 'gradientNorms').mockResolvedValue([]);
        vi.spyOn(trainer, 'measure').mockResolvedValue({
          losses: { flow: 1 },
          baselines: { flow: Number.POSITIVE_INFINITY },
        });
      },
      { preset: { ...preset, evaluateEvery: 4 } },
    );
    expect(message).toMatch(
      new RegExp(`^step 4 is not saved: its measurement "flow" is Infinity; .*keeps step 2; ${advice}`),
    );
    expect(await stepIn(checkpointOf('measured'))).toBe(2);
  });
});

describe('a checkpoint that is damaged afterwards', () => {
  test('is refused by the name of the tensor, wherever it is read', async () => {
    const path = await copied('changed');
    const name = await damage(path);
    await rm(previous('changed'));
    const line = `${path}: damaged: tensor "${name}" was changed after it was written (its checksum differs)`;
    await expect(newest(path)).rejects.toThrow(new InputError(line));
    const file = await readSafetensors(path);
    await expect(file.readFloat32(name)).rejects.toThrow(line);
    await expect(file.readFloat32(name, { rows: [0, 1] })).rejects.toThrow(line);
    await file.close();
  });

  test('in its settings or its checksums is refused as well', async () => {
    const path = await copied('settings');
    const bytes = await readFile(path);
    const changed = async (from: string, to: string) => {
      const copy = Buffer.from(bytes);
      copy.write(to, copy.indexOf(from), 'latin1');
      await writeFile(path, copy);
      await rm(previous('settings'), { force: true });
      return newest(path);
    };
    await expect(changed('\\"seed\\":3', '\\"seed\\":4')).rejects.toThrow(
      `${path}: damaged: its metadata were changed after it was written (their checksum differs)`,
    );
    const entry = bytes.toString('latin1').match(/insula\.crc32":"\{\\"__metadata__\\":\\"[0-9a-f]{8}/)![0];
    await expect(changed(entry, `${entry.slice(0, -1)}x`)).rejects.toThrow(
      `${path}: damaged: its checksums lack that of "__metadata__"`,
    );
  });

  test('has the one before it: the run goes on from there to the same bits, and keeps it until it has a better one', async () => {
    const path = await copied('resumed');
    const name = await damage(path);
    const { notes, checkpoint: found } = await newest(path);
    expect(notes).toEqual([
      `warning: ${path}: damaged: tensor "${name}" was changed after it was written (its checksum differs); step 4 of the save before is in ${previous('resumed')}`,
    ]);
    await train('resumed', { resume: await openCheckpoint(found.path) });
    expect(await Promise.all([path, previous('resumed')].map(stepIn))).toEqual([6, 4]);
    const [own, whole] = await Promise.all([path, checkpointOf('whole')].map((file) => readSafetensors(file)));
    for (const { name, dtype } of whole.tensors.values())
      expect(await own.read(name, dtype), name).toEqual(await whole.read(name, dtype));
    await Promise.all([own.close(), whole.close()]);
    await train('resumed', { resume: await openCheckpoint(path), steps: 7 });
    expect(await Promise.all([path, previous('resumed')].map(stepIn))).toEqual([7, 6]);
  });

  test('both damaged: one line about both', async () => {
    const path = await copied('both');
    await damage(path);
    await writeFile(previous('both'), '');
    await expect(newest(path)).rejects.toThrow(
      /\(its checksum differs\); and .*checkpoint\.previous\.safetensors: cut off: 0 bytes/,
    );
  });
});

test('a file without checksums, of another program or version, opens as before', async () => {
  const path = await copied('without');
  const bytes = await readFile(path);
  const key = bytes.indexOf('insula.crc32');
  bytes.write('other_.crc32', key, 'latin1');
  await writeFile(path, bytes);
  expect(await newest(path)).toMatchObject({ step: 6, notes: [] });
});

test('one that may be whole is not given up for the one before it', async () => {
  const path = await copied('later');
  let opened = 0;
  const refuse = Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE', syscall: 'open' });
  const stop = beforeCalls(async (name) => {
    if (name === 'open' && opened++ === 0) throw refuse;
  });
  await expect(newest(path).finally(stop)).rejects.toThrow(`${path}: cannot open it: too many files are open`);
  const bytes = await readFile(path);
  bytes.write('\\"format\\":6', bytes.indexOf('\\"format\\":5'), 'latin1');
  const later = (checked: boolean) => {
    bytes.write(checked ? 'insula.crc32' : 'other_.crc32', bytes.indexOf('insula.crc32'), 'latin1');
    return writeFile(path, bytes);
  };
  await later(true);
  expect(await newest(path)).toMatchObject({ step: 4, path: previous('later') });
  await later(false);
  await expect(newest(path)).rejects.toThrow(`${path}: checkpoint format 6; this version reads format 5`);
});

describe('the folder of a run', () => {
  test('has a run where one of the two is', async () => {
    const path = await copied('alone');
    await rm(path);
    const out = at('alone');
    await expect(runFolder({ out, usual: out }, () => {})).rejects.toThrow(
      `${path} holds a run of 4 of 6 steps: resume it with --resume`,
    );
    const notes: string[] = [];
    const { resume, leave } = await runFolder({ out, usual: out, resume: true }, (line) => notes.push(line));
    expect(resume!.path).toBe(previous('alone'));
    expect(notes).toHaveLength(1);
    await resume!.close();
    await leave();
  });

  test('of another run has its checkpoints until the first save, and none of them after it', async () => {
    await copied('replaced');
    const found: string[][] = [];
    await train(
      'replaced',
      { seed: 1, steps: 2 },
      { step: (step) => step === 1 && found.push(fs.readdirSync(at('replaced'))) },
    );
    expect(found[0].sort()).toEqual(['checkpoint.previous.safetensors', 'checkpoint.safetensors']);
    expect(await readdir(at('replaced'))).toEqual(['checkpoint.safetensors']);
    expect(await stepIn(checkpointOf('replaced'))).toBe(2);
  });
});
