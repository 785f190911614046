/** Tuning files: which variants of the kernels an adapter runs best, as `insula bench attention --tune` measured them. */
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileError, writeFileSafely } from '../engine/files.ts';
import { type Device, InputError, openDevice, quote } from '../engine/index.ts';
import { cacheFolder } from '../engine/setup/adapter.mjs';
import { attentionVariants, useAttentionVariants, type VariantChoice } from '../kernels/index.ts';

export const TUNING_FORMAT = 'insula tuning 1';

export interface TunedChoice extends VariantChoice {
  /** Median of one dispatch, for each variant that was measured. */
  readonly milliseconds: Readonly<Record<string, number>>;
  /** What it was measured at, as --shape takes it. */
  readonly sizes: string;
  readonly date: string;
  readonly commit: string;
}

export interface Tuning {
  readonly format: typeof TUNING_FORMAT;
  /** Description of the adapter, driver included: another one refuses the file. */
  readonly adapter: string;
  readonly attention: readonly TunedChoice[];
}

/** Where the tuning of an adapter is kept unless another file is named: in the user's cache folder. */
export function tuningPath(adapter: string): string {
  return adapterPath(adapter, '.json');
}

/** Where something that was measured on an adapter is kept: in the user's cache folder, under the adapter's name. */
export function adapterPath(adapter: string, ending: string): string {
  const name = adapter.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  return join(cacheFolder(), 'tuning', name.replace(/^-|-$/g, '') + ending);
}

/** Writes a file of an adapter as JSON, with its folder. @throws InputError where that cannot be done */
export async function writeAdapterFile(path: string, contents: unknown): Promise<void> {
  await mkdir(dirname(path), { recursive: true }).catch((error) => {
    throw fileError(error, dirname(path), 'make this folder');
  });
  await writeFileSafely(path, [`${JSON.stringify(contents, null, 1)}\n`]);
}

/**
 * The tuning of a device, from the file that is named or from where it is kept; null where none is named and none is kept.
 *
 * @throws InputError where the file cannot be read, is none, is another adapter's, or names variants that do not run here
 */
export async function readTuning(device: Device, named?: string): Promise<Tuning | null> {
  const path = named ?? tuningPath(device.description);
  const tuning = await readTuningFile(device, path, named !== undefined);
  const unknown = tuning?.attention.find((choice) => !attentionVariants(device, choice).includes(choice.variant));
  if (unknown)
    throw new InputError(
      `${path}: no variant ${quote(unknown.variant)} of ${unknown.entry}, ${unknown.dtype}, head dimension ${unknown.headDimension}, runs here; make the file anew by 'insula bench attention --tune', or delete it`,
    );
  return tuning;
}

/** As readTuning, without asking whether the variants are there. */
export async function readTuningFile(device: Device, path: string, mustExist: boolean): Promise<Tuning | null> {
  const text = await readFile(path, 'utf8').catch((error) => {
    if (error.code === 'ENOENT' && !mustExist) return null;
    throw fileError(error, path, 'read it');
  });
  if (text === null) return null;
  const tuning = parse(text);
  if (!tuning) throw new InputError(`${path}: this is no tuning file of 'insula bench attention --tune'`);
  if (tuning.adapter !== device.description)
    throw new InputError(
      `${path}: the tuning of ${quote(tuning.adapter)}; this adapter is ${quote(device.description)}`,
    );
  return tuning;
}

function parse(text: string): Tuning | null {
  let read: Tuning;
  try {
    read = JSON.parse(text);
  } catch {
    return null;
  }
  const isText = (value: unknown) => typeof value === 'string';
  const whole =
    read?.format === TUNING_FORMAT &&
    isText(read.adapter) &&
    Array.isArray(read.attention) &&
    read.attention.every(
      (choice) =>
        isText(choice?.entry) &&
        isText(choice.dtype) &&
        isText(choice.variant) &&
        Number.isInteger(choice.headDimension),
    );
  return whole ? read : null;
}

/** Takes the variants of a tuning, before anything is dispatched. */
export function applyTuning(device: Device, { attention }: Tuning): void {
  useAttentionVariants(device, attention);
}

export interface TunedDeviceOptions {
  adapter?: string;
  floor?: boolean;
  /** A tuning file in place of the one that is kept for the adapter. */
  tuning?: string;
}

/** Opens the device of a command and takes its tuning, which is told to `note`. On the floor only a file that is named is taken. */
export async function openTunedDevice(
  { adapter, floor, tuning: named }: TunedDeviceOptions,
  note: (line: string) => void,
): Promise<{ device: Device; tuning: Tuning | null }> {
  const device = await openDevice({ adapter, floor });
  try {
    const tuning = floor && named === undefined ? null : await readTuning(device, named);
    if (tuning) {
      applyTuning(device, tuning);
      note(`tuned by ${named ?? tuningPath(device.description)}`);
    }
    return { device, tuning };
  } catch (error) {
    device.close();
    throw error;
  }
}
