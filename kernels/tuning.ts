/** Tuning files: the kernel variants that an adapter runs best, measured by `insula bench --tune`. */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as v from 'valibot';
import { cacheFolder } from '../engine/adapters/cache-folder.mjs';
import { ensureFolder, writeFileSafely } from '../engine/files/files.ts';
import { count, readJsonFile } from '../engine/files/json-schema.ts';
import { bytesPerElement, type DataType, type Device, InputError, openDevice, quote } from '../engine/index.ts';
import {
  attentionEntries,
  attentionVariants,
  type MatmulChoice,
  matmulSizes,
  matmulVariants,
  useVariants,
  type VariantChoice,
} from './index.ts';

const TUNING_FORMAT = 'insula tuning 2';

const tunedBy = {
  variant: v.string(),
  /** Median milliseconds of one repeat, for each variant that was measured. */
  milliseconds: v.record(v.string(), v.number()),
  /** The sizes that the variants were measured at, for people. */
  sizes: v.string(),
  date: v.string(),
  commit: v.string(),
};
const dtype = v.picklist(Object.keys(bytesPerElement) as DataType[]);
const tunedAttention = v.object({
  ...{ entry: v.picklist(attentionEntries), dtype, headDimension: count(1) },
  ...tunedBy,
});
const tunedProduct = v.object({
  ...{ a: dtype, b: dtype, transposeA: v.boolean(), transposeB: v.boolean(), sides: v.picklist([1, 2]) },
  ...{ size: v.picklist(matmulSizes), ...tunedBy },
});
const tuningSchema = v.object({
  format: v.literal(TUNING_FORMAT),
  /** Description of the adapter, driver included: another adapter refuses the file. */
  adapter: v.string(),
  /** Made with the adapter's experimental features, with which a command that names the file opens it. */
  experimental: v.optional(v.boolean()),
  attention: v.pipe(v.array(tunedAttention), v.readonly()),
  matmul: v.pipe(v.array(tunedProduct), v.readonly()),
});

/** A variant with how it was chosen. */
export type Tuned = v.InferOutput<v.ObjectSchema<typeof tunedBy, undefined>>;
export type Tuning = v.InferOutput<typeof tuningSchema>;

/** The path of an adapter's tuning, in the user's cache folder, unless another file is named. */
export function tuningPath(adapter: string): string {
  return join(cacheFolder(), 'tuning', `${fileName(adapter)}.json`);
}

/** The path of a tuning that comes with the project, contributed by someone with that adapter and driver. */
export function shippedTuningPath(adapter: string): string {
  return fileURLToPath(new URL(`../bench/results/tuning/${fileName(adapter)}.json`, import.meta.url));
}

function fileName(adapter: string): string {
  const name = adapter.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  return name.replace(/^-|-$/g, '');
}

/**
 * The tuning of a device: from the file that is named; otherwise from the cache folder, or as it comes with the project; null if
 * there is none.
 *
 * @throws InputError if the file cannot be read, is not a tuning, belongs to another adapter, or names variants that do not run here
 */
export async function findTuning(device: Device, named?: string): Promise<{ path: string; tuning: Tuning | null }> {
  let path = named ?? tuningPath(device.description);
  let tuning = await readTuningFile(device, path, named !== undefined);
  if (!tuning) {
    path = shippedTuningPath(device.description);
    tuning = await readTuningFile(device, path, false);
  }
  const choices = tuning ? [...tuning.attention, ...tuning.matmul] : [];
  const unknown = choices.find((choice) => !runsOn(device, choice));
  if (unknown)
    throw new InputError(
      `${path}: no variant ${quote(unknown.variant)} of ${placeText(unknown)} runs here; run 'insula bench --tune' to write the file again, or delete it`,
    );
  return { path, tuning };
}

function runsOn(device: Device, choice: VariantChoice | MatmulChoice): boolean {
  const variants = 'entry' in choice ? attentionVariants(device, choice) : matmulVariants(device, choice);
  return variants.includes(choice.variant);
}

/** The place that a choice is for, in words: choices differ in it, or one replaces the other. */
export function placeText(choice: VariantChoice | MatmulChoice): string {
  if ('entry' in choice) return `attention ${choice.entry}, ${choice.dtype}, head dimension ${choice.headDimension}`;
  const { a, b, transposeA, transposeB, sides, size } = choice;
  const form = `${transposeA ? 'A^T' : 'A'} ${transposeB ? 'B^T' : 'B'}${sides === 2 ? ', two sides' : ''}`;
  return `${size} products ${form}, ${a === b ? a : `${a} and ${b}`}`;
}

const readTuning = (path: string) => readJsonFile(path, tuningSchema, "a tuning file of 'insula bench --tune'");

/** Reads a tuning file as `findTuning` does, but does not check that this device has the variants. */
export async function readTuningFile(device: Device, path: string, mustExist: boolean): Promise<Tuning | null> {
  const tuning = await readTuning(path).catch((error) => {
    if (error.cause?.code === 'ENOENT' && !mustExist) return null;
    throw error instanceof InputError && !mustExist ? new InputError(`${error.message}; delete it`) : error;
  });
  if (tuning && tuning.adapter !== device.description)
    throw new InputError(
      `${path}: this is the tuning of ${quote(tuning.adapter)}, but this adapter is ${quote(device.description)}`,
    );
  return tuning;
}

/** Writes choices into a tuning file. Choices for other places that it already holds stay, if they still run here. */
export async function keepTuning(
  device: Device,
  path: string,
  chosen: Pick<Tuning, 'attention' | 'matmul'>,
): Promise<Tuning> {
  const before = await readTuningFile(device, path, false);
  const kept = <T extends VariantChoice | MatmulChoice>(old: readonly T[] = [], now: readonly T[]) => {
    const places = now.map(placeText);
    const others = old.filter((choice) => !places.includes(placeText(choice)));
    return [...others, ...now].filter((choice) => runsOn(device, choice));
  };
  const tuning: Tuning = {
    ...{ format: TUNING_FORMAT, adapter: device.description, experimental: device.options.experimental },
    attention: kept(before?.attention, chosen.attention),
    matmul: kept(before?.matmul, chosen.matmul),
  };
  await ensureFolder(dirname(path));
  await writeFileSafely(path, [`${JSON.stringify(tuning, null, 1)}\n`]);
  return tuning;
}

interface TunedDeviceOptions {
  adapter?: string;
  floor?: boolean;
  /** A tuning file that replaces the one kept for the adapter. */
  tuning?: string;
}

/** @throws InputError if no such adapter opens, or if its tuning cannot be used: asked before long work that needs the device later */
export async function expectDevice(options: TunedDeviceOptions): Promise<void> {
  const { device } = await openTunedDevice(options, () => {});
  device.close();
}

/** Opens the device of a command, applies its tuning and reports it to `note`. On the floor only a file that is named applies. */
export async function openTunedDevice(
  { adapter, floor, tuning: named }: TunedDeviceOptions,
  note: (line: string) => void,
): Promise<{ device: Device; tuning: Tuning | null }> {
  const experimental = !floor && named !== undefined && (await readTuning(named)).experimental;
  const device = await openDevice({ adapter, floor, experimental });
  try {
    const onDefaults = floor && named === undefined;
    const { path, tuning } = onDefaults ? { path: '', tuning: null } : await findTuning(device, named);
    if (tuning) {
      useVariants(device, tuning);
      note(`tuned by ${path}`);
    }
    return { device, tuning };
  } catch (error) {
    device.close();
    throw error;
  }
}
