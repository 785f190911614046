/** Tuning files: which variants of the kernels an adapter runs best, as `insula bench --tune` measured them. */
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheFolder } from '../../engine/adapters/cache-folder.mjs';
import { fileError, writeFileSafely } from '../../engine/files/files.ts';
import { type Device, InputError, openDevice, quote } from '../../engine/index.ts';
import {
  attentionVariants,
  type MatmulChoice,
  matmulVariants,
  useAttentionVariants,
  useMatmulVariants,
  type VariantChoice,
} from '../../kernels/index.ts';

export const TUNING_FORMAT = 'insula tuning 2';
/** Of attention alone. */
const FIRST_FORMAT = 'insula tuning 1';

/** How a choice was made. */
export interface TunedBy {
  /** Median of one repeat, for each variant that was measured. */
  readonly milliseconds: Readonly<Record<string, number>>;
  /** What it was measured at. */
  readonly sizes: string;
  readonly date: string;
  readonly commit: string;
}
export type TunedAttention = VariantChoice & TunedBy;
export type TunedProduct = MatmulChoice & TunedBy;

/** What was chosen, by kind of kernel. */
export interface Choices {
  readonly attention: readonly TunedAttention[];
  readonly matmul: readonly TunedProduct[];
}

export interface Tuning extends Choices {
  readonly format: typeof TUNING_FORMAT;
  /** Description of the adapter, driver included: another one refuses the file. */
  readonly adapter: string;
}

/** Where the tuning of an adapter is kept unless another file is named: in the user's cache folder. */
export function tuningPath(adapter: string): string {
  return adapterPath(adapter, '.json');
}

/** Where something that was measured on an adapter is kept: in the user's cache folder, under the adapter's name. */
export function adapterPath(adapter: string, ending: string): string {
  return join(cacheFolder(), 'tuning', fileName(adapter) + ending);
}

/** Where a tuning that comes with the project lies: contributed by someone with that adapter and driver. */
export function shippedTuningPath(adapter: string): string {
  return fileURLToPath(new URL(`../results/tuning/${fileName(adapter)}.json`, import.meta.url));
}

function fileName(adapter: string): string {
  const name = adapter.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  return name.replace(/^-|-$/g, '');
}

/** Writes a file of an adapter as JSON, with its folder. @throws InputError where that cannot be done */
export async function writeAdapterFile(path: string, contents: unknown): Promise<void> {
  await mkdir(dirname(path), { recursive: true }).catch((error) => {
    throw fileError(error, dirname(path), 'make this folder');
  });
  await writeFileSafely(path, [`${JSON.stringify(contents, null, 1)}\n`]);
}

/**
 * The tuning of a device: from the file that is named, or from where it is kept, or as it comes with the project; null where there is
 * none.
 *
 * @throws InputError where the file cannot be read, is none, is another adapter's, or names variants that do not run here
 */
export async function readTuning(device: Device, named?: string): Promise<Tuning | null> {
  return (await findTuning(device, named)).tuning;
}

async function findTuning(device: Device, named?: string): Promise<{ path: string; tuning: Tuning | null }> {
  const found = await firstTuning(device, named);
  const { path, tuning } = found;
  const unknown = [
    ...(tuning?.attention ?? []).filter((choice) => !attentionVariants(device, choice).includes(choice.variant)),
    ...(tuning?.matmul ?? []).filter((choice) => !matmulVariants(device, choice).includes(choice.variant)),
  ][0];
  if (unknown)
    throw new InputError(
      `${path}: no variant ${quote(unknown.variant)} of ${placeText(unknown)} runs here; make the file anew by 'insula bench --tune', or delete it`,
    );
  return found;
}

async function firstTuning(device: Device, named?: string): Promise<{ path: string; tuning: Tuning | null }> {
  if (named !== undefined) return { path: named, tuning: await readTuningFile(device, named, true) };
  const kept = tuningPath(device.description);
  const tuning = await readTuningFile(device, kept, false);
  if (tuning) return { path: kept, tuning };
  const path = shippedTuningPath(device.description);
  return { path, tuning: await readTuningFile(device, path, false) };
}

/** What a choice decides, for people. */
export function placeText(choice: VariantChoice | MatmulChoice): string {
  if ('entry' in choice) return `attention ${choice.entry}, ${choice.dtype}, head dimension ${choice.headDimension}`;
  const { a, b, transposeA, transposeB, sides, size } = choice;
  const form = `${transposeA ? 'A^T' : 'A'} ${transposeB ? 'B^T' : 'B'}${sides === 2 ? ', two sides' : ''}`;
  return `${size} products ${form}, ${a === b ? a : `${a} and ${b}`}`;
}

/** As readTuning, without asking whether the variants are there. */
export async function readTuningFile(device: Device, path: string, mustExist: boolean): Promise<Tuning | null> {
  const text = await readFile(path, 'utf8').catch((error) => {
    if (error.code === 'ENOENT' && !mustExist) return null;
    throw fileError(error, path, 'read it');
  });
  if (text === null) return null;
  const tuning = parse(text);
  if (!tuning) throw new InputError(`${path}: this is no tuning file of 'insula bench --tune'`);
  if (tuning.adapter !== device.description)
    throw new InputError(
      `${path}: the tuning of ${quote(tuning.adapter)}; this adapter is ${quote(device.description)}`,
    );
  return tuning;
}

function parse(text: string): Tuning | null {
  let read: Omit<Tuning, 'format'> & { readonly format: string };
  try {
    read = JSON.parse(text);
  } catch {
    return null;
  }
  const first = read?.format === FIRST_FORMAT;
  if (!(first || read?.format === TUNING_FORMAT) || typeof read.adapter !== 'string') return null;
  const tuning: Tuning = { ...read, format: TUNING_FORMAT, matmul: first ? [] : read.matmul };
  const whole =
    Array.isArray(tuning.attention) &&
    Array.isArray(tuning.matmul) &&
    tuning.attention.every((choice) => hasTexts(choice, 'entry', 'dtype', 'variant') && choice.headDimension > 0) &&
    tuning.matmul.every((choice) => hasTexts(choice, 'a', 'b', 'size', 'variant') && choice.sides > 0);
  return whole ? tuning : null;
}

function hasTexts<T extends object>(choice: T, ...fields: (keyof T)[]): boolean {
  return fields.every((field) => typeof choice?.[field] === 'string');
}

/** Takes the variants of a tuning, before anything is dispatched. */
export function applyTuning(device: Device, { attention, matmul }: Choices): void {
  useAttentionVariants(device, attention);
  useMatmulVariants(device, matmul);
}

const keyFields = {
  attention: ['entry', 'dtype', 'headDimension'],
  matmul: ['a', 'b', 'transposeA', 'transposeB', 'sides', 'size'],
} as const;

/** Writes what was chosen into a tuning file; choices of other places that it holds stay, if they still run here. */
export async function keepTuning(device: Device, path: string, chosen: Choices): Promise<Tuning> {
  const before = await readTuningFile(device, path, false);
  const kept = <T extends object>(all: readonly T[], now: readonly T[], fields: readonly (keyof T)[]) => [
    ...all.filter((old) => !now.some((own) => fields.every((field) => own[field] === old[field]))),
    ...now,
  ];
  const attention = kept(before?.attention ?? [], chosen.attention, keyFields.attention);
  const matmul = kept(before?.matmul ?? [], chosen.matmul, keyFields.matmul);
  const tuning: Tuning = {
    ...{ format: TUNING_FORMAT, adapter: device.description },
    attention: attention.filter((choice) => attentionVariants(device, choice).includes(choice.variant)),
    matmul: matmul.filter((choice) => matmulVariants(device, choice).includes(choice.variant)),
  };
  await writeAdapterFile(path, tuning);
  return tuning;
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
    const onDefaults = floor && named === undefined;
    const { path, tuning } = onDefaults ? { path: '', tuning: null } : await findTuning(device, named);
    if (tuning) {
      applyTuning(device, tuning);
      note(`tuned by ${path}`);
    }
    return { device, tuning };
  } catch (error) {
    device.close();
    throw error;
  }
}
