/** A Llama language model by itself: its configuration, and batches of sequences. */
import { InputError } from '../../engine/files/errors.ts';
import { readSafetensors } from '../../engine/index.ts';
import { causal, full } from '../../kernels/index.ts';
import { metaName } from '../../model/architecture/backbones/llama-weights.ts';
import type { ModelConfiguration } from '../../model/architecture/configuration.ts';
import type { TrainingBatch } from '../../model/architecture/inputs.ts';

export type LanguageModelSizes = Pick<
  ModelConfiguration,
  'vocabulary' | 'depth' | 'heads' | 'kvHeads' | 'headDimension'
> & {
  readonly width: number;
  readonly hidden: number;
};

/** A causal language model as the blocks of a sequence: its first token, and those that it predicts. */
export function languageModel(
  { width, hidden, ...sizes }: LanguageModelSizes,
  length: number,
  backboneVariant?: ModelConfiguration['backboneVariant'],
): ModelConfiguration {
  return {
    ...sizes,
    backbone: 'llama',
    ...(backboneVariant && { backboneVariant }),
    experts: { backbone: { width, hidden } },
    vision: null,
    ...{ horizon: 0, actionDimension: 0, stateDimension: 0 },
    blocks: [
      { name: 'start', input: 'prompt', length: 1, weights: 'backbone', after: [] },
      { name: 'text', input: 'target', length: length - 1, weights: 'backbone', after: ['start'] },
    ],
    edges: [
      { query: 'start', key: 'start', edge: causal },
      { query: 'text', key: 'start', edge: full },
      { query: 'text', key: 'text', edge: causal },
    ],
    objectives: [{ kind: 'nextToken', name: 'token', weight: 1 }],
  };
}

/** Sequences that begin with their first token, padded to `length`; every row predicts the next id. */
export function sequenceBatch(sequences: readonly ArrayLike<number>[], length: number): TrainingBatch {
  const rows = (make: (sequence: ArrayLike<number>, i: number) => number, count = length) =>
    sequences.flatMap((sequence) => Array.from({ length: count }, (_, i) => make(sequence, i)));
  return {
    batch: sequences.length,
    ids: {
      start: { ids: rows((sequence) => sequence[0], 1), valid: rows(() => 1, 1) },
      text: {
        ids: rows((sequence, i) => sequence[i + 1] ?? 0, length - 1),
        valid: rows((sequence, i) => Number(i + 1 < sequence.length), length - 1),
      },
    },
    lossTarget: rows((sequence, i) => sequence[i + 1] ?? 0),
    lossMask: rows((sequence, i) => Number(i + 1 < sequence.length)),
    ...{ images: null, cameraValid: null, actions: null, noise: null, time: null },
    ...{ actionValid: null, realDimensions: null },
  };
}

/**
 * The sizes of the language model in a file that `loadLlama` reads, by the shapes of its tensors. They do not say the number of
 * query heads: `heads`, or the file's metadata.
 *
 * @throws InputError if the file is no such model, or nobody says the heads
 */
export async function sizesOf(path: string, heads?: number): Promise<LanguageModelSizes & { readonly tied: boolean }> {
  const file = await readSafetensors(path);
  try {
    const shapes = new Map([...file.tensors].map(([name, { shape }]) => [metaName(name) ?? name, shape]));
    const shapeOf = (name: string) => {
      const shape = shapes.get(`${name}.weight`);
      if (shape?.length !== 2)
        throw new InputError(`${path}: no Llama language model: it has no matrix "${name}.weight"`);
      return shape;
    };
    const [vocabulary, width] = shapeOf('tok_embeddings');
    const [queries] = shapeOf('layers.0.attention.wq');
    const count = heads ?? Number(file.metadata.get('heads'));
    if (!Number.isInteger(queries / count))
      throw new InputError(
        `${path}: ${count || 'an unknown number of'} query heads for ${queries} rows of queries; give them with --heads`,
      );
    const headDimension = queries / count;
    return {
      ...{ vocabulary, width, heads: count, headDimension },
      hidden: shapeOf('layers.0.feed_forward.w1')[0],
      kvHeads: shapeOf('layers.0.attention.wk')[0] / headDimension,
      depth: [...shapes.keys()].filter((name) => name.endsWith('.attention_norm.weight')).length,
      tied: !shapes.has('output.weight'),
    };
  } finally {
    await file.close();
  }
}
