/** Fine-tunes a small Llama language model on a text, and measures it: a yardstick that other engines publish too. */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { parseJson } from '../../engine/files/bytes.ts';
import { reasonOf } from '../../engine/files/errors.ts';
import { fileError } from '../../engine/files/files.ts';
import { type Device, InputError } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import { loadLlama } from '../../model/architecture/backbones/llama-weights.ts';
import { type Inputs, tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { TrainingStep } from '../../model/training/training-step.ts';
import { type ScoredPieces, scoredPiecesTokenizerJson, TextTokenizer } from '../../tokenizers/index.ts';
import { limited, type Roof, RoofProbes } from '../measure/roofline.ts';
import type { Entrant } from '../measure/rounds.ts';
import { measureRun, type RunBudget, type Timed } from '../measure/run.ts';
import { spread } from '../measure/statistics.ts';
import { languageModel, sequenceBatch, sizesOf } from './language-model.ts';
import { sizesText, stepFigures } from './run.ts';

export interface StoriesOptions {
  /** Paths of the weights (safetensors), of their tokenizer and of the text. */
  readonly weights: string;
  readonly tokenizer: string;
  readonly text: string;
  /** Query heads; by default those that the metadata of the weights name. */
  readonly heads?: number;
  /** Tokens that a sequence predicts, and sequences of a step. */
  readonly context: number;
  readonly batch: number;
}

const LEARNING_RATE = 1e-4;
const END_OF_TEXT = '<|endoftext|>';

export type StoriesRun = Awaited<ReturnType<typeof runStories>>;

/** A round is an epoch, and the first one is no round. @throws InputError if a file cannot be read or does not fit the others */
export async function runStories(device: Device, given: StoriesOptions, budget: RunBudget) {
  const { weights, text, context, batch } = given;
  const sizes = await sizesOf(weights, given.heads);
  const ids = await idsOf(given, sizes.vocabulary);
  const steps = Math.floor((ids.length - 1) / context / batch);
  if (steps === 0)
    throw new InputError(
      `${text}: ${ids.length} tokens are no step of ${batch} x ${context}; give a longer text, or a smaller --batch`,
    );
  const options = { weights: basename(weights), text: basename(text), context, batch };
  const { tied, ...own } = sizes;
  using model = new Model(device, languageModel(own, context, { tied }));
  await loadLlama(model, weights);
  const batches = Array.from({ length: steps }, (_, step) => {
    // The last token of a sequence is the first of the next.
    const sequence = (i: number) => ids.slice((step * batch + i) * context, (step * batch + i + 1) * context + 1);
    const sequences = Array.from({ length: batch }, (_, i) => sequence(i));
    return trainingInputs(model.architecture, sequenceBatch(sequences, context));
  });
  using work = new FineTuning(model, batches, batch * context, sizesText(options));
  using probes = new RoofProbes(device);
  const anchors = probes.all.map(({ entrant }) => entrant);
  const run = await measureRun(device, budget, { command: 'bench stories', options, rows: [{ work }], anchors });
  const roof = probes.roofOf(run.anchors);
  const rows = [];
  for (const { timed } of run.rows) rows.push(await work.row(timed, roof));
  return { ...run, options, rows, roof };
}

/** Fine-tuning as an entrant: a sample is an epoch over the batches in their order, in milliseconds by step. */
class FineTuning implements Entrant, Disposable {
  readonly step: TrainingStep;
  private readonly optimizer: AdamW;
  private compileSeconds = 0;
  private trainSeconds = 0;
  /** The mean loss before the first step, and the loss of each step. */
  private before = 0;
  private readonly losses: number[] = [];
  private readonly host: number[] = [];
  private readonly encoding: number[] = [];

  constructor(
    private readonly model: Model,
    private readonly batches: readonly Inputs[],
    /** The number of tokens in a step. */
    readonly tokens: number,
    readonly name: string,
  ) {
    this.optimizer = new AdamW(model.parameters);
    this.step = new TrainingStep(model, this.optimizer);
  }

  async start(): Promise<void> {
    const start = performance.now();
    await this.step.prepare(this.batches[0]);
    await this.model.device.finish();
    this.compileSeconds = (performance.now() - start) / 1000;
    this.before = await this.meanLoss();
  }

  async sample(): Promise<number> {
    const { step, batches, host, encoding } = this;
    const start = performance.now();
    const reading: Promise<Float32Array>[] = [];
    for (const batch of batches) {
      await step.run([batch], LEARNING_RATE, ({ token }) => reading.push(token.read()));
      const { hostMilliseconds, encodingMilliseconds } = step.stats();
      host.push(hostMilliseconds);
      encoding.push(encodingMilliseconds);
    }
    for (const own of reading) this.losses.push((await own)[0]);
    const milliseconds = performance.now() - start;
    this.trainSeconds += milliseconds / 1000;
    return milliseconds / batches.length;
  }

  /** One step more, which is timed by kernel. */
  async run(): Promise<void> {
    await this.step.run([this.batches[0]], LEARNING_RATE, () => {});
  }

  async row(timed: Timed, roof: Roof) {
    const { model, losses, batches, before, compileSeconds, trainSeconds } = this;
    const after = await this.meanLoss();
    const list = this.step.list();
    const figures = await stepFigures(model.device, this, timed.time.median, this.encoding);
    const sum = (what: 'flops' | 'bytes') => list.reduce((all, { [what]: own = 0 }) => all + own, 0);
    const counts = { flops: sum('flops'), bytes: sum('bytes'), dispatches: figures.dispatches };
    return {
      ...timed,
      parameters: [...model.parameters].reduce((all, { size }) => all + size, 0),
      steps: batches.length,
      // Capture and compilation; and all epochs, the first too.
      ...{ compileSeconds, trainSeconds },
      loss: { before, after, steps: losses, epochs: epochMeans(losses, batches.length) },
      ...figures,
      ...limited(counts, timed.time.median, roof),
      // Milliseconds in which the host writes numbers, encodes and submits.
      host: spread(this.host),
    };
  }

  /** Over all batches, in nats by token. */
  private async meanLoss(): Promise<number> {
    const { model, batches } = this;
    const { device } = model;
    let sum = 0;
    for (const batch of batches) {
      const { loss } = device.step(() => ({ loss: trainingPass(model, tensorsOf(device, batch)).loss }));
      sum += (await loss.read())[0];
    }
    return sum / batches.length;
  }

  [Symbol.dispose](): void {
    this.step.dispose();
    this.optimizer.dispose();
  }
}

const epochMeans = (losses: readonly number[], steps: number) =>
  Array.from({ length: losses.length / steps }, (_, epoch) => {
    const own = losses.slice(epoch * steps, (epoch + 1) * steps);
    return own.reduce((sum, loss) => sum + loss) / steps;
  });

/** The text as ids: each of its stories begins with the token for a beginning. */
async function idsOf({ text, tokenizer: file }: StoriesOptions, vocabulary: number): Promise<number[]> {
  const json = parseJson(await bytesOf(file), file, 'not a JSON file, or cut off') as object;
  const stories = new TextDecoder().decode(await bytesOf(text)).split(END_OF_TEXT);
  try {
    const pieces = 'pieces' in json ? scoredPiecesTokenizerJson(json as ScoredPieces) : json;
    const tokenizer = new TextTokenizer(pieces, { pad: 0 });
    if (tokenizer.vocabularySize > vocabulary)
      throw new InputError(`it has ${tokenizer.vocabularySize} ids, and the model ${vocabulary}`);
    return stories.flatMap((story) => (story.trim() ? [...tokenizer.encode(story.trim(), { bos: true })] : []));
  } catch (error) {
    throw new InputError(`${file}: not the tokenizer of these weights: ${reasonOf(error)}`);
  }
}

const bytesOf = (path: string) =>
  readFile(path).catch((error) => {
    throw fileError(error, path, 'read it');
  });
