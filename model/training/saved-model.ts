/** The common parts of the files that hold a model: JSON in the metadata, and tensors under the names of parameters. */
import { parseJson } from '../../engine/files/bytes.ts';
import { InputError, quote, reasonOf } from '../../engine/files/errors.ts';
import { encodeBfloat16, encodeFloat16 } from '../../engine/files/half.ts';
import { firstBeyond, LARGEST_F32 } from '../../engine/files/safetensors.ts';
import type { TensorToWrite } from '../../engine/files/safetensors-writer.ts';
import { type Device, elementCount, readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import type { Moment } from '../../kernels/index.ts';
import { layersOf, type ModelConfiguration } from '../architecture/configuration.ts';
import { Architecture, Model } from '../architecture/model.ts';

const METADATA = 'insula';

/** The tensors of a model, in one file or several. */
export type SavedTensors = Pick<SafetensorsFile, 'name' | 'tensors' | 'entry' | 'readInto' | 'verifyMetadata'>;

/** The tensors of a file, and those of its base. */
export function withBase(file: SafetensorsFile, base: SafetensorsFile): SavedTensors {
  const holding = (name: string) => (base.has(name) ? base : file);
  return {
    name: file.name,
    tensors: new Map([...file.tensors, ...base.tensors]),
    entry: (name, expected) => holding(name).entry(name, expected),
    readInto: (name, target) => holding(name).readInto(name, target),
    verifyMetadata: () => file.verifyMetadata(),
  };
}

/** The result of `read` on a file, which stays open; it is closed if `read` fails. */
export async function openSaved<T>(
  source: Parameters<typeof readSafetensors>[0],
  read: (file: SafetensorsFile) => T | Promise<T>,
): Promise<T> {
  const file = await readSafetensors(source);
  try {
    return await read(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** A number that a file of a model must not hold, because training has diverged. */
export class NotFiniteError extends InputError {}

/** The metadata of a file with these contents. @throws NotFiniteError if one of their numbers is not finite, which JSON would lose */
export const metadataOf = (contents: { readonly format: number | string }): Record<string, string> => ({
  format: 'pt',
  [METADATA]: JSON.stringify(contents, (key, value) => {
    if (typeof value !== 'number' || Number.isFinite(value)) return value;
    throw new NotFiniteError(`its measurement ${quote(key)} is ${value}`);
  }),
});

/** The largest magnitudes that files hold. */
const largest = { F32: LARGEST_F32, BF16: 2 ** 128 - 2 ** 120, F16: 65504 };
const encoders = { F32: (values: Float32Array) => values, BF16: encodeBfloat16, F16: encodeFloat16 };

/** A tensor to write, of which one piece at a time is in memory. Its `data` throw NotFiniteError for a number that the file cannot hold. */
export function tensorToWrite(name: string, { shape, pieces }: Moment, dtype: keyof typeof largest): TensorToWrite {
  async function* data() {
    let before = 0;
    for (const piece of pieces) {
      const values = await piece.read();
      const bad = firstBeyond(values, largest[dtype]);
      if (bad >= 0)
        throw new NotFiniteError(
          `tensor ${quote(name)} holds ${values[bad]} at element ${before + bad} of ${elementCount(shape)}`,
        );
      yield encoders[dtype](values);
      before += values.length;
    }
  }
  return { name, dtype, shape: [...shape], data };
}

/** The contents of a file's metadata and the format that they name, before any check. `what` is the kind of file that is wanted. */
export function contentsOf({ name, metadata }: SafetensorsFile, what: string): { contents: unknown; format: unknown } {
  const text = metadata.get(METADATA);
  if (text === undefined)
    throw new InputError(`${name}: a safetensors file, but not a ${what} of Insula: its metadata has no "${METADATA}"`);
  const contents = parseJson(new TextEncoder().encode(text), name, `damaged: the ${what}'s metadata is not JSON`);
  return {
    contents,
    format: typeof contents === 'object' && contents && 'format' in contents ? contents.format : undefined,
  };
}

/** @throws InputError if a model of this configuration cannot run, `check` fails, or a tensor is missing or has another shape */
export function expectFitting(
  file: SavedTensors,
  configuration: ModelConfiguration,
  /** The place of configuration and encoding in the metadata, for errors. */
  where: string,
  check: () => void,
): void {
  const checked = <T>(part: string, run: () => T): T => {
    try {
      return run();
    } catch (error) {
      throw new InputError(`${file.name}: damaged: ${where}${part}": ${reasonOf(error)}`);
    }
  };
  // Before any layer is made: a damaged number of them would take all time and memory.
  const layers = layersOf(configuration);
  if (layers > file.tensors.size)
    throw new InputError(
      `${file.name}: damaged: ${where}configuration" has ${layers} layers, and the file ${file.tensors.size} tensors`,
    );
  const { parameters } = checked('configuration', () => new Architecture(configuration));
  checked('encoding', check);
  for (const { name, shape } of parameters) file.entry(name, { shape });
  // It comes last, because the checks above say what does not fit.
  file.verifyMetadata();
}

/** A model with the values of the file's tensors; with `partial`, those that it lacks are random. */
export async function loadModel(
  file: SavedTensors,
  device: Device,
  configuration: ModelConfiguration,
  partial = false,
): Promise<Model> {
  const model = new Model(device, configuration);
  try {
    if (partial) model.initialise(0);
    for (const parameter of model.parameters)
      if (!partial || file.tensors.has(parameter.name)) await file.readInto(parameter.name, parameter);
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}
