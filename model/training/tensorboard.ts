/**
 * TensorBoard event files: TFRecords of Event messages in protobuf's encoding. The field numbers below are those of TensorFlow's
 * core/util/event.proto and core/framework/summary.proto.
 */
import { crc32c } from '../../engine/files/checksum.ts';
import { masked } from '../data/import/tfrecord.ts';
import type { RunHistory } from './history.ts';
import type { RunSettings } from './run-settings.ts';
import { learningRateAt } from './schedule.ts';

/** Bytes of an encoded message, or of a field. */
type Message = readonly number[];

/** Seven bits a byte, the lowest first; the eighth bit says that more follow. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 128);
  }
}

// A field is its number times 8 plus a wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes), and its value.
const integer = (field: number, value: number): Message => [...varint(field * 8), ...varint(value)];
const double = (field: number, value: number): Message => [
  ...varint(field * 8 + 1),
  ...new Uint8Array(Float64Array.of(value).buffer),
];
const float = (field: number, value: number): Message => [
  ...varint(field * 8 + 5),
  ...new Uint8Array(Float32Array.of(value).buffer),
];
const message = (field: number, content: Message): Message => [
  ...varint(field * 8 + 2),
  ...varint(content.length),
  ...content,
];
const text = (field: number, value: string): Message => message(field, [...new TextEncoder().encode(value)]);

const FILE_VERSION = text(3, 'brain.Event:2');
/** A SessionLog of status START: from its step on, TensorBoard ignores the events of earlier files. */
const SESSION_START = message(7, integer(1, 1));
const summary = (scalars: Scalars): Message =>
  message(
    5,
    Object.entries(scalars).flatMap(([tag, value]) => message(1, [...text(1, tag), ...float(2, value)])),
  );

/** An event as a TFRecord: length, masked CRC-32C of the length, bytes, masked CRC-32C of the bytes. */
function record(wallSeconds: number, step: number, content: Message): Uint8Array {
  const event = Uint8Array.from([...double(1, wallSeconds), ...integer(2, step), ...content]);
  const bytes = new Uint8Array(12 + event.length + 4);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(event.length), true);
  view.setUint32(8, masked(crc32c(bytes.subarray(0, 8))), true);
  bytes.set(event, 12);
  view.setUint32(12 + event.length, masked(crc32c(event)), true);
  return bytes;
}

/** Values by tag; TensorBoard groups tags by the part before the first slash. */
type Scalars = Readonly<Record<string, number>>;

/** The scalars of one event. */
interface Row {
  /** Unique among the rows of a run. */
  readonly key: string;
  readonly step: number;
  readonly scalars: Scalars;
  /** Seconds of training, for a training step. */
  readonly seconds?: number;
}

const tagged = (group: string, values: Readonly<Record<string, number>>): Scalars =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [`${group}/${name}`, value]));

/** The rows of a history: losses, learning rate, gradient norms, and the errors and successes of acting. */
function rowsOf({ training, heldOut, gradients, baselines, acting = [] }: RunHistory, settings: RunSettings): Row[] {
  const { preset, steps } = settings;
  const schedule = { peak: preset.learningRate, warmUpSteps: preset.warmUpSteps, steps };
  const row = (kind: string, step: number, scalars: Scalars): Row => ({ key: `${kind} ${step}`, step, scalars });
  return [
    ...training.map(({ step, losses, seconds }) => {
      const scalars = { ...tagged('training', losses), 'learning-rate': learningRateAt(step - 1, schedule) };
      return { ...row('training', step, scalars), seconds };
    }),
    ...heldOut.map(({ step, losses }) =>
      row('held out', step, { ...tagged('held-out', losses), ...tagged('baseline', baselines) }),
    ),
    ...gradients.map(({ step, loss, group, norm }) =>
      row(`gradient of ${loss} on ${group}`, step, { [`gradient-norm/${loss}/${group}`]: norm }),
    ),
    ...acting.map(({ step, openLoop, closedLoop }) =>
      row('acting', step, { ...tagged('open-loop-error', openLoop), ...tagged('closed-loop', closedLoop ?? {}) }),
    ),
  ];
}

const FILE_NAME = /^events\.out\.tfevents\.\d+\.\d+\.insula$/;

/**
 * The event file of a run in its folder (node only). A resumed run begins another file with the rows that its checkpoint lacks; earlier
 * files hold the others. A new run removes the event files of the run that it replaces.
 */
export class EventFile {
  private path: string | null = null;
  private readonly written: Set<string>;

  constructor(
    private readonly folder: string,
    private readonly settings: RunSettings,
    private readonly resume?: { readonly step: number; readonly history: RunHistory },
  ) {
    this.written = new Set(resume ? rowsOf(resume.history, settings).map(({ key }) => key) : []);
  }

  /** Appends the rows of `history` that are not written yet. @throws InputError if the file cannot be written */
  async write(history: RunHistory): Promise<void> {
    const rows = rowsOf(history, this.settings).filter(({ key }) => !this.written.has(key));
    if (rows.length === 0) return;
    const now = Date.now() / 1000;
    const last = history.training.at(-1)?.seconds ?? 0;
    const records = rows.map(({ step, scalars, seconds = last }) =>
      record(now - (last - seconds), step, summary(scalars)),
    );
    const [{ appendFile, stat, truncate }, { fileError }] = await Promise.all([
      import('node:fs/promises'),
      import('../../engine/files/files.ts'),
    ]);
    const path = this.path ?? (await this.begin(records, now));
    const size = (await stat(path).catch(() => null))?.size ?? 0;
    await appendFile(path, Buffer.concat(records)).catch(async (error) => {
      await truncate(path, size).catch(() => {}); // a part of a record would hide those behind it
      throw fileError(error, path, 'write it');
    });
    this.path = path;
    for (const { key } of rows) this.written.add(key);
  }

  /** Puts the records that begin a file before `records`, and returns its path. */
  private async begin(records: Uint8Array[], now: number): Promise<string> {
    const { folder, resume } = this;
    const [{ readdir, rm }, { join }] = await Promise.all([import('node:fs/promises'), import('node:path')]);
    if (resume) records.unshift(record(now, resume.step + 1, SESSION_START));
    else for (const name of await readdir(folder)) if (FILE_NAME.test(name)) await rm(join(folder, name));
    records.unshift(record(now, 0, FILE_VERSION));
    return join(folder, `events.out.tfevents.${now.toFixed(3)}.insula`);
  }
}
