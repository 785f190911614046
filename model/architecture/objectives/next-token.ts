/** Next-token prediction by the backbone: answers, subtasks and discrete action tokens. */
import { InputError, quote } from '../../../engine/files/errors.ts';
import { type Shape, type Tensor, tensor } from '../../../engine/index.ts';
import {
  allowedBits,
  chooseTokens,
  linear,
  linearCrossEntropy,
  linearCrossEntropyRows,
  NO_TOKEN,
  reshape,
  rowsWithLoss,
} from '../../../kernels/index.ts';
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
 * Decodes a target block token by token against a key/value cache, until the writer has ended every sample. The last real row
 * before the block predicts the first token. Token i, at position P + i after P real tokens, predicts token i + 1. The adapter chooses
 * among the allowed ids, so that of a token nothing but its id comes to the host.
 *
 * @throws InputError if no allowed id has a logit that is a number
 */
async function decoded(
  configuration: ModelConfiguration,
  { device, observation, open, writer, sampling, onLogits, tokenHead, embedIds }: Acting,
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
  const ended = new Set<number>();
  const written = { ids: new Uint32Array(batch * length), valid: new Uint8Array(batch * length) };
  const previous = new Uint32Array(batch);
  /** The ids that the samples may say next; none for those that have ended. */
  const allowedNext = () =>
    Array.from({ length: batch }, (_, sample) => {
      const ids = ended.has(sample) ? null : writer.allowed(sample, name);
      if (ids === null) ended.add(sample);
      return ids;
    });
  const ids = (data: Uint32Array, shape: Shape) => tensor(device, data, shape, { dtype: 'u32' });
  /** The ids chosen by the logits of hidden states [batch, 1, width], and the logits if somebody looks at them. */
  const chosenBy = (hidden: Tensor, allowed: Uint32Array) => {
    const logits = linear(reshape(hidden, [batch, hidden.shape[2]]), tokenHead);
    const bits = ids(allowed, [batch, allowed.length / batch]);
    const draws = sampling && { ...sampling, draws: tensor(device, sampling.draws(), [batch]) };
    return { choice: chooseTokens(logits, bits, draws), ...(onLogits && { logits }) };
  };
  for (let token = 0; token < length; token++) {
    const next = allowedNext();
    if (ended.size === batch) break;
    const allowed = allowedBits(next, configuration.vocabulary);
    const { choice, logits } =
      token === 0
        ? await session.prefix((rows) =>
            chosenBy(rows(before.name, { at: ids(Uint32Array.from(last), [batch, 1]) }), allowed),
          )
        : await session.suffix(`token ${token + 1}`, {}, ({ runRow }) => {
            const row = embedIds(ids(previous.slice(), [batch, 1]));
            return chosenBy(runRow({ block: name, first: token - 1, rows: 1 }, row), allowed);
          });
    if (logits) onLogits!(await logits.read(), name);
    logits?.dispose();
    const chosen = await choice.read('u32');
    choice.dispose();
    chosen.forEach((id, sample) => {
      if (ended.has(sample)) return;
      if (id === NO_TOKEN)
        throw new InputError(
          `token ${token + 1} of ${quote(name)}: no logit of an allowed id is a number; are there NaNs in the weights?`,
        );
      if (!writer.write(sample, id, name)) ended.add(sample);
      else {
        previous[sample] = id;
        written.ids[sample * length + token] = id;
        written.valid[sample * length + token] = 1;
      }
    });
  }
  return written;
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
