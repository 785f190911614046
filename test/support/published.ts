/** Small published policies with weights of their own, for tests of what is read and written. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { encodeBfloat16, encodeFloat16 } from '../../engine/files/half.ts';
import { writeSafetensors } from '../../engine/files/safetensors-writer.ts';
import { Architecture } from '../../model/architecture/model.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { EMBEDDING } from '../../model/training/public-tensors.ts';
import { defaultTokenizerJson, TextTokenizer } from '../../tokenizers/index.ts';
import { normals } from './numbers.ts';

export const vocabulary = TextTokenizer.default().vocabularySize + 3;
export const sizes = {
  backbone: { width: 64, hidden: 96 },
  expert: { width: 32, hidden: 48 },
  ...{ depth: 2, heads: 8, kvHeads: 1, headDimension: 16, vocabulary },
  vision: { width: 32, depth: 1, heads: 2, hidden: 40, patch: 14, imageHeight: 28, imageWidth: 28, cameras: 2 },
  ...{ promptTokens: 64, targetTokens: 1, horizon: 4, actionDimension: 6, stateDimension: 6 },
};
export const parametersOf = (system: string) =>
  new Architecture(configurationOf(systemNamed(system), sizes)).parameters;
export type Kind = 'pi0' | 'pi05' | 'pi0-fast';

export interface Written {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array;
  readonly dtype?: 'F32' | 'BF16' | 'F16';
}

/** The tensors of a model under their own names. */
export const weightsOf = (kind: Kind): Written[] =>
  parametersOf(kind).map(({ name, shape }, i) => ({
    ...{ name, shape },
    values: normals(
      shape.reduce((a, b) => a * b, 1),
      900 + i,
      0.1,
    ),
  }));

export const write = (path: string, tensors: readonly Written[]) =>
  writeSafetensors(
    path,
    tensors.map(({ name, shape, values, dtype = 'F32' }) => ({
      ...{ name, shape, dtype },
      data: { F32: (own: Float32Array) => own, BF16: encodeBfloat16, F16: encodeFloat16 }[dtype](values),
    })),
    { metadata: { format: 'pt' } },
  );

/** A temporary folder with a text tokenizer, for the policies of one test file. */
export async function publishedFolders() {
  const root = await mkdtemp(join(tmpdir(), 'insula-public-'));
  afterAll(() => rm(root, { recursive: true, force: true }));
  const textTokenizer = join(root, 'tokenizer.json');
  await writeFile(textTokenizer, JSON.stringify(defaultTokenizerJson()));
  let made = 0;
  return {
    root,
    textTokenizer,
    /** A folder with these tensors and files. */
    async folderOf(tensors: readonly Written[], files: Readonly<Record<string, unknown>> = {}): Promise<string> {
      const folder = join(root, `policy-${made++}`);
      await mkdir(folder);
      if (tensors.length > 0) await write(join(folder, 'model.safetensors'), tensors);
      for (const [name, json] of Object.entries(files)) await writeFile(join(folder, name), JSON.stringify(json));
      return folder;
    },
    messageOf: (action: Promise<unknown>) =>
      action.then(
        () => 'no error',
        (error: Error) => error.message.replaceAll(root, ''),
      ),
  };
}

export const renamed = (own: readonly Written[], change: (name: string) => string): Written[] =>
  own.map((tensor) => ({ ...tensor, name: change(tensor.name) }));
export const old = (name: string) =>
  name
    .replace('paligemma.model.language_model.', 'paligemma.language_model.model.')
    .replace(/paligemma\.model\.(vision_tower|multi_modal_projector)/, 'paligemma.$1');
export const embedding = { name: EMBEDDING, shape: [vocabulary, 64] };
export const numbers = (length: number, from: number) => Array.from({ length }, (_, i) => from + i / 4);
export const normStats = (actions: number, states: number) => {
  const columns = (length: number) => ({
    mean: numbers(length, 0),
    std: numbers(length, 1),
    q01: numbers(length, -2),
    q99: numbers(length, 3),
  });
  return { norm_stats: { actions: columns(actions), state: columns(states) } };
};

/** A run of no step. */
export const short = { steps: 0, batch: 1, heldOutSteps: 1, finalHeldOutSteps: 1 };
export const quiet = { note() {}, compiled() {}, step() {}, heldOut() {}, acted() {}, saved() {}, openLoop() {} };
