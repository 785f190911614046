/** Greedy autoregressive decoding of discrete action tokens against a key/value cache, one row at a time. */
import { type Tensor, tensor } from '../../engine/index.ts';
import { embedding, linear, reshape } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { type ObservationBatch, observationInputs, sequenceInputs, tensorsOf } from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';
import { KeyValueCache, type OnLatency, partRunner } from './sampling.ts';

export interface Decoded {
  /** [batch, length] */
  readonly ids: Int32Array;
  /** [batch, length, vocabulary] */
  readonly logits: Float32Array;
}

interface DecodingOptions {
  readonly onLatency?: OnLatency;
  /** The next id of a sample from its logits [vocabulary], or null if the sample has ended. Default: argmax, without an end. */
  readonly choose?: (sample: number, logits: Float32Array) => number | null;
}

/** The id of the largest logit, among the allowed ids or all. */
export function argmax(logits: Float32Array, allowed: Iterable<number> = logits.keys()): number {
  let best = -1;
  for (const id of allowed) if (best < 0 || logits[id] > logits[best]) best = id;
  return best;
}

/**
 * Decodes up to `length` tokens of `block` after the blocks it reads, until every sample has ended. The ids after a
 * sample's end repeat its last token.
 *
 * The last real row before the block predicts the first token. Token i, at position P + i after P real tokens, predicts
 * token i + 1.
 */
export async function decodeGreedily(
  model: Model,
  observation: ObservationBatch,
  block: string,
  length: number,
  { onLatency, choose = (_, logits) => argmax(logits) }: DecodingOptions = {},
): Promise<Decoded> {
  const { device, configuration, embeddingTable } = model;
  const { batch } = observation;
  const { after } = model.block(block);
  const prefixTokens = after.reduce((sum, name) => sum + model.block(name).length, 0);
  const decoding = decodingConfiguration(configuration, block, length);
  const vocabulary = configuration.backbone.vocabulary;
  const ids = new Int32Array(batch * length);
  const logits = new Float32Array(batch * length * vocabulary);
  const timed = partRunner(device, onLatency);
  using cache = new KeyValueCache(model, batch, prefixTokens + length + 1);

  const last = lastRealRows(observation, after, model);
  const embedded = await timed(
    'images and language',
    () => model.embed(tensorsOf(device, observationInputs(configuration, observation, after)), after)!,
  );
  let scores = await timed('prefix', () => {
    const inputs = tensorsOf(device, sequenceInputs(configuration, observation, after));
    const { hidden } = model.run(inputs, after, [embedded, null], {
      cache: cache.prefix(),
    });
    const rows = tensor(device, last, [batch], { dtype: 'u32' });
    const width = configuration.backbone.width;
    return linear(embedding(rows, reshape(hidden[0]!, [batch * prefixTokens, width])), embeddingTable);
  });
  embedded.dispose();
  const ended = new Set<number>();
  const take = async (token: number) => {
    const numbers = await scores.read();
    scores.dispose();
    for (let sample = 0; sample < batch; sample++) {
      const own = numbers.subarray(sample * vocabulary, (sample + 1) * vocabulary);
      const at = sample * length + token;
      logits.set(own, at * vocabulary);
      const chosen = ended.has(sample) ? null : choose(sample, own);
      if (chosen === null) ended.add(sample);
      ids[at] = chosen ?? ids[at - 1];
    }
  };
  await take(0);
  for (let token = 1; token < length && ended.size < batch; token++) {
    const previous = Uint32Array.from({ length: batch }, (_, sample) => ids[sample * length + token - 1]);
    const written = Uint8Array.from({ length: batch * length }, (_, i) => (i % length < token - 1 ? 1 : 0));
    const all = new Uint8Array(batch).fill(1);
    const seen = {
      ...observation,
      ids: { ...observation.ids, written: { ids: [], valid: written }, next: { ids: previous, valid: all } },
    };
    scores = await timed(`token ${token + 1}`, () => {
      const table = embeddingTable;
      const row = embedding(tensor(device, previous, [batch, 1], { dtype: 'u32' }), table, {
        scale: Math.sqrt(configuration.backbone.width),
      });
      const attended = cache.at(prefixTokens + length);
      const kept = cache.at(prefixTokens + token - 1);
      const write = (layer: number, key: Tensor, value: Tensor) => {
        kept(layer, key, value);
        return attended(layer, key, value);
      };
      const inputs = tensorsOf(device, sequenceInputs(decoding, seen, ['next'], [...after, 'written']));
      const { hidden } = model.run(inputs, ['next'], [row, null], {
        cached: [...after, 'written'],
        cache: write,
        configuration: decoding,
      });
      return linear(reshape(hidden[0]!, [batch, configuration.backbone.width]), table);
    });
    await take(token);
  }
  return { ids, logits };
}

/** The block is divided into the tokens `written` so far and the `next` token, which runs as a block of one row after them. */
function decodingConfiguration(configuration: ModelConfiguration, block: string, length: number): ModelConfiguration {
  const own = configuration.blocks.find(({ name }) => name === block)!;
  const prefix = configuration.blocks.filter(({ name }) => own.after.includes(name));
  const full = { mask: 'full', stopKey: false, stopValue: false } as const;
  return {
    ...configuration,
    blocks: [
      ...prefix,
      { ...own, name: 'written', length },
      { ...own, name: 'next', length: 1, after: [...own.after, 'written'] },
    ],
    edges: [...own.after, 'written', 'next'].map((key) => ({ query: 'next', key, edge: full })),
  };
}

/** Index of each sample's last real row in the rows of `names`, flattened over the batch. */
function lastRealRows({ batch, ids }: ObservationBatch, names: readonly string[], model: Model): Uint32Array {
  const blocks = names.map((name) => model.block(name));
  const tokens = blocks.reduce((sum, { length }) => sum + length, 0);
  const { name, length } = blocks[blocks.length - 1];
  return Uint32Array.from({ length: batch }, (_, sample) => {
    const valid = ids[name]?.valid;
    let row = length - 1;
    while (valid && row > 0 && !valid[sample * length + row]) row -= 1;
    return sample * tokens + tokens - length + row;
  });
}
