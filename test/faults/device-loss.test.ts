/**
 * Devices that are lost while a run trains on them, and memory that runs out. INSULA_LONG=1: many more moments, with every kind of run.
 */
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import {
  captureStep,
  type Device,
  DeviceLostError,
  InputError,
  OutOfMemoryError,
  openDevice,
  persistentTensor,
  Random,
  readSafetensors,
  tensor,
} from '../../engine/index.ts';
import { meanSquaredError, scale } from '../../kernels/index.ts';
import type { VisionLanguage } from '../../model/data/index.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { preparePretraining, pretrainingSettings, runPretraining } from '../../model/training/pretrain.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { EventFile } from '../../model/training/tensorboard.ts';
import { long } from '../support/long.ts';
import { squares, squaresPreset } from '../support/squares.ts';
import { minutePreset, quietListener } from '../support/synthetic-dataset.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-loss-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Calls of WebGPU that a run makes, in every part of it: recording, compiling, submitting, waiting, mapping, saving, measuring, acting. */
const METHODS = {
  gpu: ['createBuffer', 'createComputePipeline', 'createCommandEncoder', 'createBindGroup', 'pushErrorScope'],
  queue: ['submit', 'writeBuffer', 'onSubmittedWorkDone'],
  buffer: ['mapAsync', 'getMappedRange', 'unmap'],
} as const;

/** Calls `onCall` with its number before every call of these methods, until the returned function is called. */
function watched(device: Device, onCall: (number: number) => void): () => void {
  const { gpu } = device;
  const undo: (() => void)[] = [];
  let number = 0;
  const watch = (target: object, names: readonly string[]) => {
    for (const name of names) {
      const own = target as Record<string, (...given: unknown[]) => unknown>;
      const original = own[name];
      own[name] = function (this: unknown, ...given) {
        onCall(++number);
        return original.apply(this, given);
      };
      undo.push(() => {
        own[name] = original;
      });
    }
  };
  watch(Object.getPrototypeOf(gpu), METHODS.gpu);
  watch(Object.getPrototypeOf(gpu.queue), METHODS.queue);
  watch(GPUBuffer.prototype, METHODS.buffer);
  return () => {
    for (const own of undo) own();
  };
}

const questions: VisionLanguage[] = ['red', 'green'].map((answer, channel) => ({
  image: async () => {
    const pixels = Uint8Array.from({ length: 16 * 16 * 3 }, (_, i) => (i % 3 === channel ? 220 : 10));
    return { width: 16, height: 16, pixels };
  },
  prompt: 'answer en what colour is it?',
  answer,
}));

const preset = { ...minutePreset, evaluateEvery: 3, saveEvery: 2 };
const rates = { success: 0.5, rightObject: 0.5, stageScore: 0.25, episodes: 2 };
/** Kinds of runs; the first is run in short tests too. */
const kinds: Readonly<Record<string, TestRun>> = {
  'LoRA, bf16, packed moments, average, accumulation, acting': {
    ...{ preset, system: 'knowledge-insulation', lora: 2, accumulate: 2 },
    ...{ precision: 'bf16', moments: '8bit', ema: 0.5, actEvery: 3 },
  },
  f32: { preset },
  'recomputation, nothing saved in between': { preset: { ...preset, saveEvery: 100 }, recompute: true },
  'co-training': {
    ...{ preset, system: 'knowledge-insulation', batch: 4, cotrain: 0.5 },
    coTraining: { questions: { size: 2, at: (place) => questions[place % 2] }, heldOut: questions },
  },
};

interface Outcome {
  readonly tensors: ReadonlyMap<string, string>;
  readonly measured: readonly unknown[];
  /** A row that was written twice would take more. */
  readonly eventBytes: readonly number[];
  readonly resumedAt: number;
  readonly notes: readonly string[];
  readonly calls: number;
}

/** What a run on a device of its own leaves, but for the clock; the device is destroyed before call `lostAt` of WebGPU, or for Infinity while the result is used. */
async function outcomeOf(run: TestRun, file: string, lostAt?: number): Promise<Outcome> {
  const path = join(folder, file);
  const out = await mkdtemp(join(folder, 'events-'));
  const device = await openDevice();
  const events = new EventFile(out, runSettings({ preset }), run.resume?.progress);
  const notes: string[] = [];
  let [calls, used] = [0, 0];
  const stop = watched(device, (number) => {
    calls = number;
    if (number === lostAt) device.gpu.destroy();
  });
  try {
    const { policy, history, openLoop, answers, step, resumedAt, finished } = await trainRun(path, {
      ...run,
      ...{ device, listener: quietListener({ ...run.listener, note: (line) => notes.push(line) }) },
      closedLoop: async () => rates,
      onHistory: (history) => events.write(history),
      onResult: async ({ policy }) => {
        if (lostAt === Number.POSITIVE_INFINITY && used++ === 0) device.gpu.destroy();
        await [...policy.model.parameters][0].read();
      },
    });
    policy.model.dispose();
    const training = history.training.map(({ step, losses }) => ({ step, losses }));
    const measured = [{ ...history, training }, openLoop?.error, answers, step, finished];
    const sizes = (await readdir(out)).map(async (name) => (await stat(join(out, name))).size);
    return { tensors: await tensorsOf(path), eventBytes: await Promise.all(sizes), measured, resumedAt, notes, calls };
  } finally {
    stop();
    device.close();
  }
}

async function tensorsOf(path: string): Promise<Map<string, string>> {
  const file = await readSafetensors(path);
  const found = new Map<string, string>();
  for (const [name, { shape }] of [...file.tensors]) {
    const values = await file.readFloat32(name, { shape: [...shape] });
    found.set(name, Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64'));
  }
  await file.close();
  return found;
}

function expectSame(disturbed: Outcome, whole: Outcome, what: string): void {
  expect(
    disturbed.notes.filter((line) => line.includes('lost')),
    what,
  ).toEqual([
    expect.stringMatching(
      /^the device was lost \(destroyed\): .*, at step \d of 6; it is open again, and the run goes on from (the beginning|step \d, .*)$/,
    ),
  ]);
  expect(disturbed.measured, what).toEqual(whole.measured);
  expect(disturbed.tensors, what).toEqual(whole.tensors);
}

const PATIENCE = long ? 3_600_000 : 600_000;

describe('a device that is lost while a run trains is opened again', () => {
  const random = new Random(20, 0, 0);
  let moments = 0;
  // Runs differ a little in their calls: how often they wait.
  const moment = ({ calls }: Outcome) => 1 + Math.floor(random.uniform(moments++) * 0.98 * calls);

  test.each(Object.entries(kinds).slice(0, long ? undefined : 1))(
    'and the run ends with the bits of an undisturbed one, resumed or not: %s',
    async (kind, run) => {
      const whole = await outcomeOf(run, 'whole.safetensors');
      const lostAts = Array.from({ length: long ? 20 : 1 }, () => moment(whole));
      for (const lostAt of [...lostAts, Number.POSITIVE_INFINITY]) {
        const disturbed = await outcomeOf(run, 'disturbed.safetensors', lostAt);
        expectSame(disturbed, whole, `${kind}, lost before call ${lostAt} of ${whole.calls}`);
        expect(disturbed.eventBytes).toEqual(whole.eventBytes);
      }
      const abort = new AbortController();
      const listener = quietListener({ step: (step: number) => void (step === 3 && abort.abort()) });
      await outcomeOf({ ...run, signal: abort.signal, listener }, 'part.safetensors');
      for (let i = 0; i < (long ? 5 : 1); i++) {
        const lostAt = Math.ceil(moment(whole) / 3);
        const resume = await openCheckpoint(join(folder, 'part.safetensors'));
        const rest = await outcomeOf({ ...run, resume }, 'rest.safetensors', lostAt);
        expect(rest.resumedAt).toBe(resume.progress.step);
        expectSame(rest, whole, `${kind}, resumed, lost before call ${lostAt}`);
      }
    },
    PATIENCE,
  );

  test(
    'pretraining goes on as well',
    async () => {
      const pretrained = async (file: string, lostAt: number) => {
        using device = await openDevice();
        const notes: string[] = [];
        const listener = quietListener({
          note: (line) => notes.push(line),
          step: (step) => void (step === lostAt && notes.length === before && device.gpu.destroy()),
        });
        const settings = pretrainingSettings({ preset: squaresPreset, seed: 3, steps: 4 });
        const prepared = await preparePretraining({ settings, source: squares, listener });
        const before = notes.length;
        const { model } = await runPretraining(device, prepared, { checkpointPath: join(folder, file) });
        model.dispose();
        return { notes: notes.slice(before), tensors: await tensorsOf(join(folder, file)) };
      };
      const whole = await pretrained('whole-packs.safetensors', 0);
      const disturbed = await pretrained('disturbed-packs.safetensors', 2);
      expect(disturbed.notes).toEqual([expect.stringMatching(/^the device was lost .* goes on from the beginning$/)]);
      expect(disturbed.tensors).toEqual(whole.tensors);
    },
    PATIENCE,
  );

  test(
    'but not a third time within ten steps, and not as another adapter',
    async () => {
      // Dawn's null backend compiles in no time, and computes nothing: the device is lost before anything is read.
      const run = async (device: Device) => {
        const notes: string[] = [];
        const listener = quietListener({
          note: (line) => notes.push(line),
          compiled: (_, done) => void (done === 2 && device.gpu.destroy()),
        });
        const error = await trainRun(join(folder, 'again.safetensors'), { device, preset, listener }).catch(
          (own) => own,
        );
        expect(error).toBeInstanceOf(InputError);
        expect(error).not.toBeInstanceOf(DeviceLostError);
        return [error.message, notes.filter((line) => line.includes('lost')).length];
      };
      using device = await openDevice({ adapter: 'null' });
      expect(await run(device)).toEqual([
        expect.stringMatching(
          /^the device was lost \(destroyed\): .*, at step 0 of 6: 3 losses within 10 steps; .* a smaller --batch shortens; nothing was saved$/,
        ),
        2,
      ]);
      using renamed = Object.assign(await openDevice({ adapter: 'null' }), { description: 'another' });
      const { setTimeout: later } = globalThis;
      vi.stubGlobal('setTimeout', (work: () => void, wait: number) => later(work, wait > 1000 ? 0 : wait));
      expect(await run(renamed)).toEqual([
        expect.stringMatching(/, at step 0 of 6; nothing was saved; it does not open again: .* in place of another/),
        0,
      ]);
      vi.unstubAllGlobals();
    },
    PATIENCE,
  );
});

describe('a device that is lost', () => {
  test('while nobody waits is an error of its own at the next use alone, and opens again in its place', async () => {
    const device = await openDevice();
    using before = tensor(device, [1, 2], [2]);
    device.step(() => scale(before, 2));
    device.gpu.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(() => device.step(() => {})).toThrow(DeviceLostError);
    await expect(before.read()).rejects.toThrow(DeviceLostError);
    const { memory, description } = device;
    await device.reopen();
    expect(device).toMatchObject({ description, inStep: false });
    expect(device.memory).not.toBe(memory);
    using after = tensor(device, [1, 2], [2]);
    const { bytes } = device.memory;
    before.dispose();
    expect(device.memory.bytes).toBe(bytes);
    using twice = device.step(() => scale(after, 2));
    expect([...(await twice.read())]).toEqual([2, 4]);
    device.close();
    await expect(device.reopen()).rejects.toThrow('closed');
  });

  test('takes back what is mapped, and says so', async () => {
    using device = await openDevice();
    using x = tensor(device, [1, 2], [2]);
    await device.finish();
    const original = GPUBuffer.prototype.getMappedRange;
    GPUBuffer.prototype.getMappedRange = function (...given) {
      device.gpu.destroy();
      return original.apply(this, given);
    };
    try {
      await expect(x.read()).rejects.toThrow(DeviceLostError);
    } finally {
      GPUBuffer.prototype.getMappedRange = original;
    }
  });
});

describe('memory that runs out', () => {
  /** Dawn's null backend has 512 MiB; all but `room` of them are taken. */
  async function nearlyFull(room: number) {
    const device = await openDevice({ adapter: 'null' });
    const left = 512 * 2 ** 20 - device.memory.bytes - room;
    for (const part of [0, 1, 2, 3]) persistentTensor(device, [Math.floor(left / 16)], 'f32', `ballast ${part}`);
    await device.finish();
    return device;
  }

  test.each([
    ['the model', 0.02, /^parameters of vision: allocating \d+ bytes/],
    ['moments and averages', 0.3, /^(second moments|averages) of \w+: allocating \d+ bytes/],
    ['the training step', 0.7, /^step 'training', arena \d: allocating \d+ bytes/],
  ])('is said with what was to be allocated and what takes less, and nothing stays: %s', async (_, room, message) => {
    using device = await nearlyFull(room * 2 ** 20);
    const options = { device, preset: minutePreset, steps: 2, ema: 0.5 };
    const path = join(folder, 'full.safetensors');
    // The mask of losses without one stays as long as the device.
    device.step(() => {
      const values = tensor(device, [1, 2], [1, 1, 2]);
      meanSquaredError(values, values);
    });
    device.memory.trim();
    const { bytes } = device.memory;
    const error = await trainRun(path, options).catch((own) => own);
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toMatch(message);
    expect(error.message).toMatch(
      /: Out of memory; make the batch or the model smaller: --recompute, --moments 8bit, --precision bf16, --batch 1 --accumulate 2$/,
    );
    expect(device.memory.bytes).toBe(bytes);
  });

  test('is refused before it is tried where the machine has no more, and what is spare makes room first', async () => {
    using device = await openDevice();
    const begun = device.memory.bytes;
    let most = begun + 10e6;
    Object.assign(device.memory, { machine: { most: () => most }, room: 0 });
    using x = persistentTensor(device, [1_000_000], 'f32', 'large');
    expect(() => persistentTensor(device, [2_000_000], 'f32', 'larger')).toThrow(
      new OutOfMemoryError('larger: 8.0 MB of memory are more than the 6.0 MB that this machine has left'),
    );
    const work = () => scale(scale(x, 2), 3);
    expect(() => device.step(work)).toThrow(/^scale: 4\.\d MB of memory are more than the \d\.\d MB/);
    expect(device.memory.bytes).toBe(begun + 4e6);
    using captured = captureStep(device, {}, () => ({ y: scale(work(), 4) }));
    await expect(captured.run({})).rejects.toThrow(/^step 'step', .*: 4\.\d MB of memory are more/);
    expect(device.memory.bytes).toBe(begun + 4e6);
    most = begun + 13e6;
    // The first step after a failure keeps nothing spare either.
    for (let i = 0; i < 2; i++) device.step(work).dispose();
    expect(device.memory.bytes).toBeGreaterThan(begun + 11e6);
    using other = persistentTensor(device, [2_000_000], 'f32', 'larger');
    expect(device.memory.bytes).toBe(begun + 12e6);
    expect(other.size).toBe(2_000_000);
    await device.finish();
  });
});
