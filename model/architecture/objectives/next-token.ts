/** Next-token prediction by the backbone: answers, subtasks and discrete action tokens. */
import { InputError } from '../../../engine/files/errors.ts';
import { type Tensor, tensor } from '../../../engine/index.ts';
import { linear, linearCrossEntropy, linearCrossEntropyRows, reshape, rowsWithLoss } from '../../../kernels/index.ts';
import { type BlockSettings, blocksBefore, type ModelConfiguration, runsThrough } from '../configuration.ts';
import {
  expectBelow,
  expectLength,
  floats,
  type Ids,
  type Inputs,
  type InputTensors,
  inputNamed,
  integers,
  type TrainingBatch,
} from '../inputs.ts';
import { blocksNamed, lastRowsBefore, rowsOf } from '../sequence.ts';
import type { Acting, LossResult, Objective, Pass, Reference } from './objective.ts';
import { labelCounts } from './rows.ts';
import { notDecodable, prefixOf } from './running.ts';
import type { NextTokenSettings } from './settings.ts';

export class NextToken implements Objective {
  readonly name: string;
  readonly weight: number;
  readonly meaning: string;
  readonly layers = [];
  readonly blocks: readonly string[];
  readonly acts: 'tokens' | undefined;
  readonly obstacle: string | null;
  readonly makes: readonly string[];
  /** For each row of the backbone, copies included: it may have a loss. */
  private readonly readable: readonly boolean[];
  private readonly perTarget: boolean;
  readonly baseline = {
    name: 'unigram predictor',
    measure: (reference: Reference, batch: TrainingBatch) => unigramLoss(reference, batch, this.perTarget),
  };

  constructor(
    { name, weight, perTarget = false }: NextTokenSettings,
    private readonly configuration: ModelConfiguration,
  ) {
    this.name = name;
    this.weight = weight;
    this.perTarget = perTarget;
    const { blocks } = configuration;
    const targets = blocks.filter(({ input }) => input === 'target');
    const first = targets.flatMap((block) => blocksBefore(configuration, block));
    this.blocks = blocks
      .filter((block) => block.input === 'prompt' || block.input === 'target' || first.includes(block))
      .map(({ name }) => name);
    const own = blocks.filter((block) => runsThrough(block, 'backbone'));
    this.readable = own.flatMap(({ name, length, repeats = 1 }) =>
      Array<boolean>(length * repeats).fill(this.blocks.includes(name)),
    );
    const several = perTarget && targets.length > 1;
    this.meaning = several
      ? `sum of the mean cross-entropies of ${targets.map((own) => own.name).join(' and ')}, in nats`
      : 'mean cross-entropy of the next token, in nats';
    this.makes = targets.map(({ name }) => name);
    this.obstacle = notDecodable(configuration, targets);
    this.acts = this.obstacle ? undefined : 'tokens';
  }

  inputs({ batch, lossTarget, lossMask }: TrainingBatch): Inputs {
    if (!lossTarget || !lossMask) throw new InputError(`the ${this.name} loss needs lossTarget and lossMask`);
    const rows = this.readable.length;
    expectLength('lossMask', lossMask, batch * rows, [batch, rows]);
    expectBelow('lossTarget', lossTarget, lossMask, this.configuration.vocabulary);
    for (let sample = 0; sample < batch; sample++) {
      const marked = this.readable.flatMap((_, row) => (lossMask[sample * rows + row] ? [row] : []));
      const wrong = marked.find((row) => !this.readable[row]);
      if (wrong !== undefined)
        throw new InputError(
          `lossMask marks row ${wrong} of example ${sample}; the ${this.name} loss reads the rows of ${this.blocks.join(', ')}`,
        );
      if (marked.length > this.mostRows())
        throw new InputError(
          `lossMask marks ${marked.length} rows of example ${sample}; its targets have ${this.mostRows()} at most`,
        );
    }
    const shape = [batch, rows];
    const weights = this.perTarget
      ? floats(
          weightsByTarget(lossMask, rows).map((own) => own / batch),
          shape,
        )
      : integers(
          Array.from(lossMask, (own) => (own ? 1 : 0)),
          shape,
        );
    return { lossTarget: integers(lossTarget, shape), lossMask: weights };
  }

  /** The loss is a mean over examples: of means over their tokens, or of the sums of such means of their targets. */
  count({ lossMask }: Inputs): number {
    return lossMask.shape[0];
  }

  finalRows({ lossMask }: InputTensors): Tensor | undefined {
    const capacity = this.capacity(lossMask);
    return capacity < lossMask.size ? rowsWithLoss(lossMask, capacity) : undefined;
  }

  loss({ expert, inputs, tokenHead, allRows }: Pass): LossResult {
    const [targets, mask] = ['lossTarget', 'lossMask'].map((name) => inputNamed(inputs, name));
    const hidden = expert('backbone');
    if (allRows) {
      const { loss, rowLoss, logSumExp, prediction } = linearCrossEntropyRows(hidden, tokenHead, targets, mask);
      return { loss, rowLoss, logSumExp, prediction };
    }
    return { loss: linearCrossEntropy(hidden, tokenHead, targets, mask, { capacity: this.capacity(mask) }) };
  }

  /**
   * Decodes a target block token by token against a key/value cache, until `choose` has ended every sample. The last real row
   * before the block predicts the first token. Token i, at position P + i after P real tokens, predicts token i + 1.
   */
  async decode(
    { device, observation, open, choose, tokenHead, embedIds }: Acting,
    target: BlockSettings,
  ): Promise<Ids> {
    const { configuration } = this;
    const { batch } = observation;
    const { name, length } = target;
    const prefix = prefixOf(configuration, target);
    using session = open({ prefix, suffix: [name] });
    const [before] = blocksBefore(configuration, target);
    const blocks = blocksNamed(configuration, prefix);
    const { of } = rowsOf(blocks, before.name);
    const last = lastRowsBefore(configuration, observation, blocks, target).map((row, sample) => sample * of + row);
    let scores = await session.prefix((rows) => {
      const at = tensor(device, Uint32Array.from(last), [batch, 1], { dtype: 'u32' });
      const hidden = rows(before.name, { at });
      return linear(reshape(hidden, [batch, hidden.shape[2]]), tokenHead);
    });
    const ended = new Set<number>();
    const written = { ids: new Uint32Array(batch * length), valid: new Uint8Array(batch * length) };
    const previous = new Uint32Array(batch);
    for (let token = 0; ; token++) {
      const logits = await scores.read();
      scores.dispose();
      const vocabulary = logits.length / batch;
      for (let sample = 0; sample < batch; sample++) {
        if (ended.has(sample)) continue;
        const id = choose(sample, logits.subarray(sample * vocabulary, (sample + 1) * vocabulary), name);
        if (id === null) ended.add(sample);
        else {
          previous[sample] = id;
          written.ids[sample * length + token] = id;
          written.valid[sample * length + token] = 1;
        }
      }
      if (ended.size === batch || token + 1 >= length) return written;
      scores = await session.suffix(`token ${token + 2}`, {}, ({ runRow }) => {
        const row = embedIds(tensor(device, previous.slice(), [batch, 1], { dtype: 'u32' }));
        const hidden = runRow({ block: name, first: token, rows: 1 }, row);
        return linear(reshape(hidden, [batch, hidden.shape[2]]), tokenHead);
      });
    }
  }

  /** The most rows of a batch that have a loss. */
  private capacity({ shape: [batch] }: Tensor): number {
    return batch * this.mostRows();
  }

  /** The most rows of an example that have a loss: for each target, the row before it and its own. */
  private mostRows(): number {
    return this.configuration.blocks.reduce((sum, { input, length }) => sum + (input === 'target' ? 1 + length : 0), 0);
  }
}

/** Factors of the rows in sums over examples of means over the tokens of each target. */
function weightsByTarget(lossMask: ArrayLike<number>, rows: number): Float32Array {
  const counts = labelCounts(lossMask, lossMask, rows);
  return Float32Array.from(lossMask, (own, row) => (own ? 1 / counts[Math.floor(row / rows)].get(own)! : 0));
}

/** The loss of a predictor that knows only how often each id occurs. */
function unigramLoss({ unigram }: Reference, { batch, lossTarget, lossMask }: TrainingBatch, perTarget: boolean) {
  const ofTargets = perTarget ? lossMask! : Uint8Array.from(lossMask!, (own) => (own ? 1 : 0));
  const weights = weightsByTarget(ofTargets, lossMask!.length / batch);
  let sum = 0;
  weights.forEach((weight, row) => {
    if (weight > 0) sum -= weight * unigram![lossTarget![row]];
  });
  return { loss: sum / batch, count: batch };
}
