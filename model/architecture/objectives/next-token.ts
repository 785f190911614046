/** Next-token prediction by the backbone: answers, subtasks and discrete action tokens. */
import { InputError } from '../../../engine/files/errors.ts';
import { tensor } from '../../../engine/index.ts';
import { linear, linearCrossEntropy, linearCrossEntropyRows, reshape, rowsWithLoss } from '../../../kernels/index.ts';
import { type BlockSettings, blocksBefore, type ModelConfiguration, runsThrough } from '../configuration.ts';
import { expectBelow, expectLength, floats, type Ids, inputNamed, integers, type TrainingBatch } from '../inputs.ts';
import { blocksNamed, lastRowsBefore, rowsOf } from '../sequence.ts';
import type { Acting, LossResult, Objective, Reference } from './objective.ts';
import { labelCounts } from './rows.ts';
import { notDecodable, prefixOf } from './running.ts';
import type { NextTokenSettings } from './settings.ts';

export function nextToken(
  { name, weight, perTarget = false }: NextTokenSettings,
  configuration: ModelConfiguration,
): Objective {
  const { blocks, vocabulary } = configuration;
  const targets = blocks.filter(({ input }) => input === 'target');
  const first = targets.flatMap((block) => blocksBefore(configuration, block));
  const read = blocks
    .filter((block) => block.input === 'prompt' || block.input === 'target' || first.includes(block))
    .map(({ name }) => name);
  /** For each row of the backbone, copies included: it may have a loss. */
  const readable = blocks
    .filter((block) => runsThrough(block, 'backbone'))
    .flatMap(({ name, length, repeats = 1 }) => Array<boolean>(length * repeats).fill(read.includes(name)));
  /** The most rows of an example that have a loss: for each target, the row before it and its own. */
  const most = targets.reduce((sum, { length }) => sum + 1 + length, 0);
  const obstacle = notDecodable(configuration, targets);
  return {
    ...{ name, weight, layers: [], blocks: read },
    meaning:
      perTarget && targets.length > 1
        ? `sum of the mean cross-entropies of ${targets.map((own) => own.name).join(' and ')}, in nats`
        : 'mean cross-entropy of the next token, in nats',
    makes: targets.map(({ name }) => name),
    obstacle,
    acts: obstacle ? undefined : 'tokens',
    baseline: {
      name: 'unigram predictor',
      measure: (reference, batch) => unigramLoss(reference, batch, perTarget),
    },
    inputs({ batch, lossTarget, lossMask }) {
      if (!lossTarget || !lossMask) throw new InputError(`the ${name} loss needs lossTarget and lossMask`);
      const rows = readable.length;
      expectLength('lossMask', lossMask, batch * rows, [batch, rows]);
      expectBelow('lossTarget', lossTarget, lossMask, vocabulary);
      for (let sample = 0; sample < batch; sample++) {
        const marked = readable.flatMap((_, row) => (lossMask[sample * rows + row] ? [row] : []));
        const wrong = marked.find((row) => !readable[row]);
        if (wrong !== undefined)
          throw new InputError(
            `lossMask marks row ${wrong} of example ${sample}; the ${name} loss reads the rows of ${read.join(', ')}`,
          );
        if (marked.length > most)
          throw new InputError(
            `lossMask marks ${marked.length} rows of example ${sample}; its targets have ${most} at most`,
          );
      }
      const shape = [batch, rows];
      const mask = perTarget
        ? floats(
            weightsByTarget(lossMask, rows).map((own) => own / batch),
            shape,
          )
        : integers(
            Array.from(lossMask, (own) => (own ? 1 : 0)),
            shape,
          );
      return { lossTarget: integers(lossTarget, shape), lossMask: mask };
    },
    /** The loss is a mean over examples: of means over their tokens, or of the sums of such means of their targets. */
    count: ({ lossMask }) => lossMask.shape[0],
    finalRows({ lossMask }) {
      const capacity = lossMask.shape[0] * most;
      return capacity < lossMask.size ? rowsWithLoss(lossMask, capacity) : undefined;
    },
    loss({ expert, inputs, tokenHead, allRows }): LossResult {
      const [targets, mask] = ['lossTarget', 'lossMask'].map((name) => inputNamed(inputs, name));
      const hidden = expert('backbone');
      if (allRows) {
        const { loss, rowLoss, logSumExp, prediction } = linearCrossEntropyRows(hidden, tokenHead, targets, mask);
        return { loss, rowLoss, logSumExp, prediction };
      }
      return { loss: linearCrossEntropy(hidden, tokenHead, targets, mask, { capacity: mask.shape[0] * most }) };
    },
    decode: (acting, target) => decoded(configuration, acting, target),
  };
}

/**
 * Decodes a target block token by token against a key/value cache, until `choose` has ended every sample. The last real row
 * before the block predicts the first token. Token i, at position P + i after P real tokens, predicts token i + 1.
 */
async function decoded(
  configuration: ModelConfiguration,
  { device, observation, open, choose, tokenHead, embedIds }: Acting,
  target: BlockSettings,
): Promise<Ids> {
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
