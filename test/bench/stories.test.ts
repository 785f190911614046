import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { languageModel, sequenceBatch } from '../../bench/step/language-model.ts';
import { runStories } from '../../bench/step/stories.ts';
import { benchStories, storiesLines } from '../../cli/bench-stories.ts';
import { backward, safetensorsChunks, tensor } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import { loadLlama, metaName } from '../../model/architecture/backbones/llama-weights.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { testDevice } from '../support/devices.ts';
import { runCommand } from '../support/run-command.ts';

const sizes = {
  ...{ vocabulary: 261, width: 16, hidden: 20, depth: 1 },
  ...{ heads: 2, kvHeads: 1, headDimension: 8 },
};
const story = 'a cat sat and a dog ran';
const [context, batch] = [8, 2];

let folder = '';
const at = (name: string) => join(folder, name);
const files = () => ({ weights: at('model.safetensors'), tokenizer: at('tokenizer.json'), text: at('text.txt') });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-stories-'));
  using model = new Model(await testDevice('normal'), languageModel(sizes, context, { tied: true }));
  model.initialise(1);
  const tensors = [];
  for (const parameter of model.parameters)
    tensors.push({
      ...{ name: metaName(parameter.name)!, dtype: 'F32' as const, shape: parameter.shape },
      data: await parameter.read(),
    });
  await writeFile(files().weights, safetensorsChunks(tensors));
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const pieces = ['', '', '', ...bytes, ' ', 'a'].map((piece, id) => [piece, -id]);
  await writeFile(files().tokenizer, JSON.stringify({ pieces }));
  await writeFile(files().text, `${story} <|endoftext|>\n${story}\n`);
});
afterAll(() => rm(folder, { recursive: true }));

describe('insula bench stories', () => {
  test('the losses are those of a plain loop, and fall', async () => {
    const device = await testDevice('normal');
    const run = await runStories(device, { ...files(), heads: 2, context, batch }, { rounds: 2, seconds: 60 });
    const [{ loss, steps, tokensPerSecond, time, parameters }] = run.rows;
    // Bytes begin at id 3; every story has a beginning, and a space in front.
    const idOf = (character: string) => ({ ' ': 259, a: 260 })[character] ?? 3 + character.charCodeAt(0);
    const own = [1, ...[...` ${story}`].map(idOf)];
    const ids = [...own, ...own];
    using model = new Model(device, languageModel(sizes, context, { tied: true }));
    await loadLlama(model, files().weights);
    using optimizer = new AdamW(model.parameters);
    const losses: number[] = [];
    for (let step = 0; step < 3 * steps; step++) {
      const begins = [0, 1].map((i) => ((step % steps) * batch + i) * context);
      const sequences = begins.map((begin) => ids.slice(begin, begin + context + 1));
      const inputs = trainingInputs(model.architecture, sequenceBatch(sequences, context));
      const { loss } = device.step(() => {
        const pass = trainingPass(model, tensorsOf(device, inputs));
        model.parameters.zeroGradients();
        backward(pass.loss);
        optimizer.step(tensor(device, optimizer.nextSchedule(1e-4), [optimizer.scheduleSize]));
        return { loss: pass.loss };
      });
      losses.push((await loss.read())[0]);
    }
    expect(steps).toBe(3);
    expect(loss.steps).toEqual(losses);
    expect(loss.epochs).toHaveLength(3);
    expect(loss.epochs[2]).toBeCloseTo((losses[6] + losses[7] + losses[8]) / 3, 12);
    expect(loss.after).toBeLessThan(loss.epochs[2]);
    expect(loss.before).toBeGreaterThan(loss.epochs[0]);
    expect(tokensPerSecond).toBeCloseTo((1000 * batch * context) / time.median, 6);
    expect(parameters).toBe([...model.parameters].reduce((sum, { size }) => sum + size, 0));
    expect(storiesLines(run).join('\n')).toContain('model.safetensors (');
  });

  test('files that are missing or do not fit are one line', async () => {
    const { weights, text, tokenizer } = files();
    const refused = (values: object) => expect(runCommand(benchStories, { adapter: 'null', ...values })).rejects;
    await refused({ text }).toThrow(
      /^bench stories: --weights is missing; give a small Llama language model \(safetensors/,
    );
    await refused({ weights, text: at('no') }).toThrow(
      /--text \S+no: there is no such file; give the text to fine-tune/,
    );
    await refused({ weights, text }).toThrow(
      /model.safetensors: an unknown number of query heads for 16 rows of queries; give them with --heads$/,
    );
    await refused({ weights, text, heads: 2 }).toThrow(
      /text.txt: 50 tokens are no step of 1 x 128; give a longer text/,
    );
    await refused({ weights, text: tokenizer, tokenizer: text, heads: 2 }).toThrow(/text.txt: not a JSON file/);
  });
});

const shared = (name: string) => fileURLToPath(new URL(`../../../shared/data/${name}`, import.meta.url));
const skipped = existsSync(shared('')) ? '' : ' (skipped: ../shared/data is not there)';
test.skipIf(skipped !== '')(`stories260K has the losses of PyTorch in float64${skipped}`, async () => {
  const options = {
    weights: shared('pretrained/stories260K/model.safetensors'),
    tokenizer: shared('pretrained/stories260K/tokenizer.json'),
    text: shared('text/tinystories_sample.txt'),
    ...{ context: 128, batch: 1 },
  };
  const run = await runStories(await testDevice('normal'), options, { rounds: 1, seconds: 60 });
  const { before, steps } = run.rows[0].loss;
  expect(steps).toHaveLength(28);
  const recorded = [1.40719844, 1.15472455, 1.4958925, 1.34227013, 1.14599671];
  [before, ...[0, 1, 13, 27].map((step) => steps[step])].forEach((loss, i) => {
    expect(Math.abs(loss / recorded[i] - 1), `number ${i}`).toBeLessThan(3e-6);
  });
});
