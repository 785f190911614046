import fs from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { emptyHistory, type RunHistory } from '../../model/training/history.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { EventFile } from '../../model/training/tensorboard.ts';

/** CRC-32C bit by bit, masked as TensorFlow does. */
function maskedChecksum(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  const whole = BigInt(~crc >>> 0);
  return Number((((whole >> 15n) | (whole << 17n)) + 0xa282ead8n) & 0xffffffffn);
}

/** The fields of a protobuf message, in order. */
function fieldsOf(bytes: Uint8Array): { field: number; number: number; content: Uint8Array }[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const varint = () => {
    let [value, scale] = [0, 1];
    for (; view.getUint8(at) >= 128; scale *= 128) value += (view.getUint8(at++) - 128) * scale;
    return value + view.getUint8(at++) * scale;
  };
  const fields = [];
  while (at < bytes.length) {
    const key = varint();
    const [field, wire] = [Math.floor(key / 8), key % 8];
    let [number, content] = [0, new Uint8Array()];
    if (wire === 0) number = varint();
    else if (wire === 1) [number, at] = [view.getFloat64(at, true), at + 8];
    else if (wire === 5) [number, at] = [view.getFloat32(at, true), at + 4];
    else {
      const length = varint();
      [content, at] = [bytes.slice(at, at + length), at + length];
    }
    fields.push({ field, number, content });
  }
  return fields;
}

const textOf = (content: Uint8Array) => new TextDecoder().decode(content);

/** The events of a file: steps with their scalars; the step at which a session starts; the version. */
async function eventsOf(path: string) {
  const bytes = new Uint8Array(await readFile(path));
  const view = new DataView(bytes.buffer);
  const events = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(view.getBigUint64(at, true));
    expect(view.getUint32(at + 8, true)).toBe(maskedChecksum(bytes.subarray(at, at + 8)));
    const event = bytes.slice(at + 12, at + 12 + length);
    expect(view.getUint32(at + 12 + length, true)).toBe(maskedChecksum(event));
    at += 16 + length;
    const fields = fieldsOf(event);
    const own = (field: number) => fields.find((each) => each.field === field);
    const summary = own(5);
    const scalars = summary && fieldsOf(summary.content).map(({ content }) => fieldsOf(content));
    events.push({
      wall: own(1)!.number,
      step: own(2)!.number,
      version: own(3) && textOf(own(3)!.content),
      session: own(7) && fieldsOf(own(7)!.content).map(({ field, number }) => [field, number]),
      scalars: scalars?.map(([tag, value]) => [textOf(tag.content), value.number]),
    });
  }
  return events;
}

const measured = (steps: readonly number[], every: number): RunHistory => ({
  training: steps.map((step) => ({ step, losses: { flow: 1 / step }, seconds: step })),
  heldOut: steps.filter((step) => step % every === 0).map((step) => ({ step, losses: { flow: 2 } })),
  gradients: steps
    .filter((step) => step % every === 0)
    .map((step) => ({ step, loss: 'flow', group: 'expert', norm: 0.5 })),
  baselines: { flow: 4 },
  acting: [{ step: 2, openLoop: { oneSample: 0.25, bestConstant: 0.5 } }],
});

test('event files hold every measurement once; a resumed run begins another, a new run removes those of the old one', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'insula-events-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, 'events.out.tfevents.1600000000.000.insula'), 'of an earlier run');
  await writeFile(join(folder, 'events.out.tfevents.1600000000.other'), 'of another program');
  const settings = runSettings();
  const { learningRate, warmUpSteps } = settings.preset;
  const rate = (step: number) => expect.closeTo((learningRate * step) / warmUpSteps, 6);
  const first = new EventFile(folder, settings);
  await first.write(emptyHistory());
  await first.write(measured([1], 2));
  await first.write(measured([1, 2], 2));
  const begun = measured([1, 2], 2);
  const second = new EventFile(folder, settings, { step: 2, history: begun });
  await second.write(begun);
  await second.write(measured([1, 2, 300], 2));

  const names = (await readdir(folder)).sort();
  expect(names.filter((name) => name.startsWith('events.out.tfevents.1600000000'))).toEqual([
    'events.out.tfevents.1600000000.other',
  ]);
  const [before, after] = await Promise.all(names.slice(1).map((name) => eventsOf(join(folder, name))));
  const content = (events: typeof before) =>
    events.map(({ wall: _, ...event }) => event).map((own) => JSON.parse(JSON.stringify(own)));
  const heldOut = (step: number) => [
    {
      step,
      scalars: [
        ['held-out/flow', 2],
        ['baseline/flow', 4],
      ],
    },
    { step, scalars: [['gradient-norm/flow/expert', 0.5]] },
  ];
  expect(content(before)).toEqual([
    { step: 0, version: 'brain.Event:2' },
    {
      step: 1,
      scalars: [
        ['training/flow', 1],
        ['learning-rate', rate(1)],
      ],
    },
    {
      step: 2,
      scalars: [
        ['open-loop-error/oneSample', 0.25],
        ['open-loop-error/bestConstant', 0.5],
      ],
    },
    {
      step: 2,
      scalars: [
        ['training/flow', 0.5],
        ['learning-rate', rate(2)],
      ],
    },
    ...heldOut(2),
  ]);
  expect(content(after)).toEqual([
    { step: 0, version: 'brain.Event:2' },
    { step: 3, session: [[1, 1]] },
    {
      step: 300,
      scalars: [
        ['training/flow', Math.fround(1 / 300)],
        ['learning-rate', expect.any(Number)],
      ],
    },
    ...heldOut(300),
  ]);
  // Training steps lie as far apart as they were computed.
  expect(before[3].wall - before[1].wall).toBeLessThan(1.5);
  expect(Math.abs(after[2].wall - Date.now() / 1000)).toBeLessThan(60);
});

test('an append that fails halfway leaves nothing of it, and is repeated', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'insula-events-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const events = new EventFile(folder, runSettings());
  const append = fs.promises.appendFile;
  const full = Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC', syscall: 'write' });
  const failing = async (steps: readonly number[]) => {
    const spy = vi.spyOn(fs.promises, 'appendFile').mockImplementation(async (path, data) => {
      await append(path, (data as Buffer).subarray(0, 30));
      throw full;
    });
    syncBuiltinESMExports();
    const message = 'cannot write it: the disk is full; free some space and try again';
    await expect(events.write(measured(steps, 2))).rejects.toThrow(message);
    spy.mockRestore();
    syncBuiltinESMExports();
  };
  await failing([1]);
  await events.write(measured([1], 2));
  await failing([1, 2]);
  await events.write(measured([1, 2], 2));
  const [name, ...others] = await readdir(folder);
  expect(others).toEqual([]);
  const steps = (await eventsOf(join(folder, name))).map(({ step }) => step);
  expect(steps).toEqual([0, 1, 2, 2, 2, 2]);
});
