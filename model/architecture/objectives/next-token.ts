/** Next-token prediction by the backbone: answers, subtasks and discrete action tokens. */
import { InputError, quote } from '../../../engine/files/errors.ts';
import { tensor } from '../../../engine/index.ts';
import { embedding, linear, linearCrossEntropy, linearCrossEntropyRows, reshape } from '../../../kernels/index.ts';
import { blockBefore, type ModelConfiguration } from '../configuration.ts';
import { type Inputs, inputNamed, integers, type TrainingBatch } from '../inputs.ts';
import { readBy } from '../reach.ts';
import { lastRealRows } from '../sequence.ts';
import type { Acting, LossResult, Objective, Pass, Reference } from './objective.ts';
import type { NextTokenSettings } from './settings.ts';

export class NextToken implements Objective {
  readonly name: string;
  readonly weight: number;
  readonly title: string;
  readonly meaning = 'mean cross-entropy of the next token, in nats';
  readonly layers = [];
  readonly blocks: readonly string[];
  readonly acts = 'tokens';
  readonly baseline = { name: 'unigram predictor', measure: unigramLoss };

  constructor(
    { name, weight }: NextTokenSettings,
    private readonly configuration: ModelConfiguration,
  ) {
    this.name = name;
    this.weight = weight;
    this.title = `${name} loss`;
    const { blocks } = configuration;
    const first = blocks.flatMap((block) =>
      block.input === 'target' ? (blockBefore(configuration, block) ?? []) : [],
    );
    this.blocks = blocks
      .filter((block) => block.input === 'prompt' || block.input === 'target' || first.includes(block))
      .map(({ name }) => name);
  }

  inputs({ batch, lossTarget, lossMask }: TrainingBatch): Inputs {
    if (!lossTarget || !lossMask) throw new Error(`the ${this.title} needs lossTarget and lossMask`);
    const rows = lossMask.length / batch;
    return { lossTarget: integers(lossTarget, [batch, rows]), lossMask: integers(lossMask, [batch, rows]) };
  }

  /** The loss is a mean over examples of means over their tokens. */
  count({ lossMask }: Inputs): number {
    return lossMask.shape[0];
  }

  loss({ expert, inputs, tokenHead, allLogits }: Pass): LossResult {
    const [targets, mask] = ['lossTarget', 'lossMask'].map((name) => inputNamed(inputs, name));
    const hidden = expert('backbone');
    if (allLogits) {
      const { loss, rowLoss, logSumExp, prediction } = linearCrossEntropyRows(hidden, tokenHead, targets, mask);
      return { loss, rowLoss, logSumExp, prediction };
    }
    const capacity = hidden.shape[0] * this.mostRows();
    return { loss: linearCrossEntropy(hidden, tokenHead, targets, mask, { capacity }) };
  }

  /**
   * Decodes a target block token by token against a key/value cache, until `choose` has ended every sample. The last real row
   * before the block predicts the first token. Token i, at position P + i after P real tokens, predicts token i + 1.
   */
  async act({ device, observation, open, choose, tokenHead, embedIds }: Acting): Promise<null> {
    const { configuration } = this;
    const { batch } = observation;
    const { target, prefix } = decodingBlocks(configuration);
    using session = open({ prefix, suffix: [target.name] });
    const before = blockBefore(configuration, target)!;
    const last = lastRealRows(configuration, observation, before).map((row, sample) => sample * before.length + row);
    let scores = await session.prefix((rows) => {
      const hidden = rows(before.name);
      const [, length, width] = hidden.shape;
      const chosen = tensor(device, Uint32Array.from(last), [batch], { dtype: 'u32' });
      return linear(embedding(chosen, reshape(hidden, [batch * length, width])), tokenHead);
    });
    const ended = new Set<number>();
    const written = new Uint32Array(batch);
    for (let token = 0; ; token++) {
      const logits = await scores.read();
      scores.dispose();
      const vocabulary = logits.length / batch;
      for (let sample = 0; sample < batch; sample++) {
        if (ended.has(sample)) continue;
        const id = choose(sample, logits.subarray(sample * vocabulary, (sample + 1) * vocabulary));
        if (id === null) ended.add(sample);
        else written[sample] = id;
      }
      if (ended.size === batch || token + 1 >= target.length) return null;
      const previous = written.slice();
      scores = await session.suffix(`token ${token + 2}`, {}, ({ runRow }) => {
        const row = embedIds(tensor(device, previous, [batch, 1], { dtype: 'u32' }));
        const hidden = runRow({ block: target.name, first: token, rows: 1 }, row);
        return linear(reshape(hidden, [batch, hidden.shape[2]]), tokenHead);
      });
    }
  }

  /** The most rows of an example that have a loss: for each target, the row before it and its own. */
  private mostRows(): number {
    return this.configuration.blocks.reduce((sum, { input, length }) => sum + (input === 'target' ? 1 + length : 0), 0);
  }
}

/**
 * The block whose tokens are decoded, and the blocks that they read.
 *
 * @throws InputError if one of these is made by a flow
 */
export function decodingBlocks(configuration: ModelConfiguration) {
  const target = configuration.blocks.find(({ input }) => input === 'target')!;
  const read = readBy(configuration, target.name);
  const blocks = configuration.blocks.filter(({ name }) => name !== target.name && read.has(name));
  const noisy = blocks.find(({ input }) => input === 'noisyActions');
  if (noisy)
    throw new InputError(
      `block ${quote(target.name)} reads the noisy actions of ${quote(noisy.name)}, so this model cannot write text: train it without questions`,
    );
  return { target, prefix: blocks.map(({ name }) => name) };
}

/** The loss of a predictor that knows only how often each id occurs. */
function unigramLoss({ unigram }: Reference, { batch, lossTarget, lossMask }: TrainingBatch) {
  const rows = lossMask!.length / batch;
  let sum = 0;
  for (let sample = 0; sample < batch; sample++) {
    let [own, count] = [0, 0];
    for (let row = sample * rows; row < (sample + 1) * rows; row++) {
      if (!lossMask![row]) continue;
      own -= unigram![lossTarget![row]];
      count += 1;
    }
    if (count > 0) sum += own / count;
  }
  return { loss: sum / batch, count: batch };
}
