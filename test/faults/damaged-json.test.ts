/** Damaged JSON files of all kinds that commands read: each is used, or refused in one line that names it. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { compareSaved, readSavedRun } from '../../bench/measure/run.ts';
import { savedSchema } from '../../bench/study/saved.ts';
import { dataOptions } from '../../cli/data.ts';
import { givenEncoding } from '../../cli/given-encoding.ts';
import { readAnswer } from '../../cli/setup/find-adapter.mjs';
import { readChunks, readIds } from '../../cli/tokenize-input.ts';
import { readJsonFile } from '../../engine/files/json-schema.ts';
import { openPath } from '../../engine/files/paths.ts';
import { openDevice } from '../../engine/index.ts';
import { attentionVariants, matmulVariants, useVariants } from '../../kernels/index.ts';
import { findTuning } from '../../kernels/tuning.ts';
import { openImagePack } from '../../model/data/image-pack.ts';
import { Normaliser } from '../../model/data/index.ts';
import { readParaphrases } from '../../model/data/paraphrases.ts';
import { withTable } from '../../model/inspect/attention-file.ts';
import { jsonOf, readTokenizer, writePublished, writeTokenizer } from '../../model/policy/tokenizer-file.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { openQuestionFile } from '../../model/training/question-file.ts';
import { BinActionTokenizer, FastTokenizer, StrideTokenizer, StringActionTokenizer } from '../../tokenizers/index.ts';
import { long } from '../support/long.ts';
import { syntheticDataset } from '../support/synthetic-dataset.ts';
import { tinySizes } from '../support/tiny-sizes.ts';
import { contradictionsOf, mutationsOf, outcomeOf, sampled, Tally } from './mutations.ts';

let folder = '';
const at = (...parts: string[]) => join(folder, ...parts);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-json-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Damages the JSON file at `path` in turn, and expects that `use` takes it or refuses it in one line that names it. */
async function damaging(path: string, use: () => unknown, given?: unknown, empty: readonly string[] = ['', '\u0000']) {
  const whole = given ?? JSON.parse(await readFile(path, 'utf8'));
  await writeFile(path, JSON.stringify(whole));
  await use();
  const all = [...mutationsOf(whole), ...contradictionsOf(whole, 500)];
  const documents = [null, [], {}, '', 7, true].map((own) => ({ what: JSON.stringify(own), make: () => own }));
  const tally = new Tally();
  for (const { what, make } of [...documents, ...sampled(all, long ? Infinity : 60)]) {
    await writeFile(path, JSON.stringify(make()));
    tally.add(what, await outcomeOf(folder, use));
  }
  const deep = ['['.repeat(100_000), '{"a":'.repeat(100_000)];
  for (const text of [...empty, '{', '[1,', 'NaN', '\ud800', ...deep]) {
    await writeFile(path, text);
    expect([text.slice(0, 9), await outcomeOf(folder, use)]).toEqual([text.slice(0, 9), 'refused']);
  }
  if (long) console.log(`${path.replace(folder, '')}: ${JSON.stringify(tally.counts)}`);
  expect(tally.faults).toEqual([]);
}

const chunk = { horizon: 4, dimension: 3, data: Float32Array.from({ length: 12 }, (_, i) => Math.sin(i)) };
const column = [0.1, 0.2, 0.3];
const columns = {
  count: 9,
  mean: column,
  std: column,
  min: [-1, -1, -1],
  max: [1, 1, 1],
  q01: [-1, -1, -1],
  q99: [1, 1, 1],
};

describe('a tokenizer file', () => {
  const kinds = {
    fast: () => FastTokenizer.fit([chunk], { vocabularySize: 64 }),
    bins: () => new BinActionTokenizer({ bins: 16 }),
    string: () => new StringActionTokenizer({ decimals: 2 }),
    stride: () => new StrideTokenizer(new BinActionTokenizer({ bins: 16 }), 2),
  };
  const use = (path: string) => async () => {
    const { tokenizer, statistics } = await readTokenizer(path);
    const normaliser = statistics && new Normaliser(statistics.actions, statistics);
    const ids = tokenizer.encode({ ...chunk, data: normaliser?.normalise(chunk.data) ?? chunk.data });
    tokenizer.decode(ids, chunk);
    tokenizer.grammar(chunk).allowed(0, undefined);
  };
  test.each(Object.entries(kinds))('%s', async (name, make) => {
    const path = at(`${name}.json`);
    const statistics = { bound: 5, actions: columns, states: null };
    await writeTokenizer(path, { tokenizer: make(), statistics, horizon: 4, dimension: 3, dataset: 'made', rate: 4 });
    await damaging(path, use(path));
  });
  test.each(['tokenizer.json', 'processor_config.json'])('published, %s', async (name) => {
    await writePublished(at('published'), FastTokenizer.fit([chunk], { vocabularySize: 64, format: 'published' }));
    await damaging(at('published', name), async () => {
      const { tokenizer } = await readTokenizer(at('published'));
      tokenizer.decode(tokenizer.encode(chunk), chunk);
    });
  });
});

test('a tuning file', async () => {
  const device = await openDevice();
  onTestFinished(() => device.close());
  const key = { entry: 'forward', dtype: 'f32', headDimension: 16 } as const;
  const product = { a: 'f32', b: 'f32', transposeA: false, transposeB: true, sides: 1, size: 'small' } as const;
  const by = { milliseconds: { 'base-128': 1 }, sizes: 'T=8', date: '2026-01-01', commit: 'unknown' };
  const json = {
    ...{ format: 'insula tuning 2', adapter: device.description, experimental: false },
    attention: [{ ...key, variant: attentionVariants(device, key)[0], ...by }],
    matmul: [{ ...product, variant: matmulVariants(device, product)[0], ...by }],
  };
  const path = at('tuning.json');
  await damaging(path, async () => useVariants(device, (await findTuning(device, path)).tuning!), json);
});

test('statistics', async () => {
  const lists = { mean: column, std: column, q01: [-1, -1, -1], q99: [1, 1, 1] };
  const two = Object.fromEntries(Object.entries(lists).map(([name, own]) => [name, own.slice(0, 2)]));
  const path = at('norm_stats.json');
  const json = { norm_stats: { actions: lists, state: two } };
  const use = async () => {
    const given = (await givenEncoding({ tokenizer: null, statistics: path }))(syntheticDataset());
    const { actions } = given!.statistics!;
    const normalised = new Normaliser(actions).denormalise(new Normaliser(actions).normalise(chunk.data));
    if (!normalised.every(Number.isFinite)) throw new Error('numbers that are not finite');
  };
  await damaging(path, use, json);
});

test('paraphrases, questions, images and maps', async () => {
  const paraphrases = at('paraphrases.json');
  await damaging(paraphrases, async () => readParaphrases(await openPath(paraphrases)), {
    ...{ 'put it down': ['set it down', 'lay it down'], 'take it': ['grasp it'] },
  });
  await writeFile(at('1.png'), '');
  const question = { image: '1.png', prompt: 'point to the cup', answer: '<loc0512><loc0300>', kind: 'point' };
  await damaging(at('questions.jsonl'), () => openQuestionFile(folder, 'questions.jsonl'), question, []);
  const map = at('map.json');
  const json = { action: ['a'], state: ['b'], cameras: { front: 'c' }, language: ['d'], subtask: 'e', time: null };
  await damaging(map, async () => dataOptions.map.read([`${map},${map}`]), json);
});

test('results of benchmarks and studies', async () => {
  const run = new URL('../../bench/results/kernels-lavapipe.json', import.meta.url);
  const saved = JSON.parse(await readFile(run, 'utf8'));
  const shown = (rows: { name: string; times: number[] }[]) =>
    rows.slice(0, 2).map((row) => ({ ...row, times: row.times.slice(0, 5) }));
  const path = at('run.json');
  const json = { ...saved, rows: shown(saved.rows), anchors: shown(saved.anchors) };
  const timed = ({ rows }: { rows: { name: string; times: number[] }[] }) =>
    rows.map((row) => ({ ...row, time: { median: 1, low: 1, high: 1 } }));
  const command = saved.format.replace(/^insula | 2$/g, '');
  const use = async () =>
    compareSaved(
      { ...json, rows: timed(json), anchors: timed({ rows: json.anchors }) } as never,
      await readSavedRun(path, command),
    );
  await damaging(path, use, json);
  const study = JSON.parse(
    await readFile(new URL('../../bench/results/study/runs/pi0-0.json', import.meta.url), 'utf8'),
  );
  const finished = at('study.json');
  await damaging(finished, () => readJsonFile(finished, savedSchema, 'a finished run of insula study'), study);
});

test('tables and chunks', async () => {
  const configuration = configurationOf(systemNamed('pi0'), tinySizes);
  const table = at('table.json');
  const cell = { mask: 'full', keyGradient: 0.5, valueGradient: 1 };
  const names = configuration.blocks.map(({ name }) => name);
  const json = Object.fromEntries(names.map((name) => [name, { [names[0]]: 'full', [name]: cell }]));
  await damaging(table, async () => withTable(configuration, await jsonOf(table), table), json);
  const chunks = at('chunks.json');
  await damaging(chunks, async () => readChunks(await jsonOf(chunks), chunks), [
    [
      [1, 2],
      [3, 4],
    ],
  ]);
  const ids = at('ids.json');
  await damaging(ids, async () => readIds(await jsonOf(ids), ids), {
    chunks: [{ ids: [1, 2, 3], horizon: 2, dimension: 2 }],
  });
});

test('the list of an image pack', async () => {
  await writeFile(at('pack.pack'), new Uint8Array(8));
  const json = {
    mime: 'image/png',
    columns: ['name', 'offset', 'length'],
    items: [
      ['a', 0, 4],
      ['b', 4, 4],
    ],
  };
  const { diskFolder } = await import('../../engine/files/files.ts');
  const use = async () => openImagePack(await diskFolder(folder), 'pack', ['offset', 'length']);
  await damaging(at('pack.json'), use, json);
});

test('the adapter that was found before is looked for again, whatever the file says', async () => {
  await mkdir(at('cache'));
  const path = at('cache', 'adapter.json');
  const json = { key: 'x', found: { adapter: 'software', description: 'made' } };
  const whole = [null, 7, []].map((own) => ({ make: () => own }));
  for (const { make } of [...whole, ...mutationsOf(json)]) {
    await writeFile(path, JSON.stringify(make()));
    const answer = readAnswer(path);
    if (answer) expect([typeof answer.key, typeof answer.found.description]).toEqual(['string', 'string']);
  }
});
