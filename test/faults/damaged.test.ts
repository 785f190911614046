/** Damaged checkpoints and vision-language models: each opens to a model that runs, or is refused in one line that names file and field. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { act } from '../../cli/act.ts';
import { convert } from '../../cli/convert.ts';
import { evaluate } from '../../cli/evaluate.ts';
import { inspect } from '../../cli/inspect.ts';
import { InputError, readSafetensors, type TensorToWrite, writeSafetensors } from '../../engine/index.ts';
import { evaluationSamples, mixDatasets, ownSlotMap, wholeEpisodes } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import { observationsAt } from '../../model/training/batches.ts';
import { type Checkpoint, openCheckpoint } from '../../model/training/checkpoint.ts';
import { checkpointSchema } from '../../model/training/checkpoint-schema.ts';
import { prepareRun } from '../../model/training/prepare-run.ts';
import { openStart } from '../../model/training/start.ts';
import { openVisionLanguageModel } from '../../model/training/vision-language-file.ts';
import { testDevice } from '../support/devices.ts';
import { long } from '../support/long.ts';
import { runCommand } from '../support/run-command.ts';
import { quietListener, syntheticDataset } from '../support/synthetic-dataset.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';
import { writeSeeing } from '../support/vision-language.ts';
import { contradictionsOf, type Mutation, mutationsOf, outcomeOf, sampled, Tally } from './mutations.ts';

const device = await testDevice('normal');
const dataset = syntheticDataset();
const robots = mixDatasets([{ dataset, slots: ownSlotMap(dataset) }]);
let folder = '';
const at = (name: string) => join(folder, name);
const PATH = 'damaged.safetensors';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-damaged-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

// biome-ignore lint/suspicious/noExplicitAny: what a file's metadata holds
type Json = any;

async function contentsOf(path: string): Promise<{ tensors: TensorToWrite[]; metadata: Json }> {
  const file = await readSafetensors(path);
  const tensors: TensorToWrite[] = [];
  for (const { name, dtype, shape } of file.tensors.values())
    tensors.push({ name, dtype, shape, data: await file.read(name, dtype) });
  const metadata = JSON.parse(file.metadata.get('insula')!);
  await file.close();
  return { tensors, metadata };
}

/** Opens the file with each metadata in turn: it opens and can be used, or is refused by a line that names the field. */
async function damaging(
  source: string,
  all: (metadata: Json) => readonly Mutation[],
  open: () => Promise<() => Promise<void>>,
): Promise<void> {
  const { tensors, metadata } = await contentsOf(source);
  const tally = new Tally();
  for (const { what, make } of all(metadata)) {
    await writeSafetensors(at(PATH), tensors, { metadata: { insula: JSON.stringify(make()) } });
    const bytes = device.memory.bytes;
    let run: () => Promise<void> = async () => {};
    const opened = await outcomeOf(at(PATH), async () => {
      run = await open().catch((error) => {
        const names = /metadata: "[\w.[\]]|tensor "|format| needs .* beside it|a checkpoint of/.test(error.message);
        throw error instanceof InputError && !names ? new Error(`names no field: ${error.message}`) : error;
      });
    });
    if (opened !== 'used' && device.memory.bytes !== bytes) tally.add(what, 'took memory of the device');
    // What the model cannot do with this data set, such as a prompt that is too long, it says in a line.
    const ran = await outcomeOf('', run);
    tally.add(what, opened === 'used' && ran !== 'refused' ? ran : opened);
  }
  if (long) console.log(`${source.replace(folder, '')}: ${JSON.stringify(tally.counts)}`);
  expect(tally.faults).toEqual([]);
}

const [part] = wholeEpisodes(dataset.episodes.slice(0, 1));
const [sample] = evaluationSamples([part], 1);

/** Acts with an opened checkpoint, once for each model and encoding, and prepares to go on with its run. */
function user(own: typeof dataset): (checkpoint: Checkpoint) => Promise<void> {
  const seen = new Set<string>();
  const isNew = (...facts: unknown[]) => seen.size < seen.add(JSON.stringify(facts)).size;
  return async (checkpoint) => {
    try {
      const { settings, progress } = checkpoint;
      const { configuration, encoding } = settings;
      const tokens = configuration.blocks.reduce((sum, { length, repeats = 1 }) => sum + length * repeats, 0);
      // A model of many tokens runs, for minutes.
      const isShort = tokens * (configuration.history?.window ?? 1) < 2000;
      if (isShort && isNew(configuration, encoding)) {
        using model = await checkpoint.loadModel(device);
        const policy = new Policy(model, new Encoding(encoding));
        const [robot] = Object.keys(own.robots ?? {});
        const given = await observationsAt(sample, encoding.cameras, configuration);
        const observations = given.map((one) => ({ ...one, robot }));
        const [chunk] = await policy.actInWindows(observations, { seed: 1 });
        if (!chunk.every(Number.isFinite)) throw new Error('acts with numbers that are not finite');
      }
      if (isNew(settings, progress))
        await prepareRun({ settings: settings.run, dataset: own, resume: checkpoint, listener: quietListener() });
    } finally {
      await checkpoint.close();
    }
  };
}

const runs: Record<string, TestRun> = {
  'knowledge-insulation': {},
  'robovlms-policy-head': {},
  ...(long && {
    pi0: { ema: 0.5, draws: 2 },
    robots: { system: 'knowledge-insulation', dataset: robots },
    lora: { system: 'knowledge-insulation', lora: 2 },
    'openvla-oft': {},
    'hybrid-vla-original': {},
    'pi0-plus': {},
    'robovlms-flamingo': {},
    'robovlms-policy-head-transformer': {},
    'robovlms-policy-head-diffusion': {},
  }),
};

test.each(Object.entries(runs))('the checkpoint of %s', { timeout: 3_600_000 }, async (name, given) => {
  const path = at(`${name}.safetensors`);
  const own = given.dataset ?? dataset;
  const { policy } = await trainRun(path, { system: name, steps: 1, dataset: own, ...given });
  policy.model.dispose();
  const use = user(own);
  const all = (metadata: Json) => {
    // The text is the same in all; one of them damages it.
    if (name !== 'knowledge-insulation') delete metadata.settings.encoding.text;
    const every = [...mutationsOf(metadata, checkpointSchema), ...contradictionsOf(metadata, long ? 1500 : 60)];
    return sampled(every, long ? 3000 : 70);
  };
  await damaging(path, all, async () => {
    const checkpoint = await openCheckpoint(at(PATH));
    return () => use(checkpoint);
  });
});

test('a vision-language model', { timeout: 3_600_000 }, async () => {
  await writeSeeing(at('seeing.safetensors'), device);
  const seen = new Set<string>();
  const all = (metadata: Json) => {
    const schema = { entries: { configuration: checkpointSchema.entries.settings.entries.configuration } };
    return sampled([...mutationsOf(metadata, schema), ...contradictionsOf(metadata, 300)], long ? 3000 : 60);
  };
  await damaging(at('seeing.safetensors'), all, async () => {
    const file = await openVisionLanguageModel(at(PATH));
    return async () => {
      const { configuration, encoding } = file;
      const isNew = seen.size < seen.add(JSON.stringify([configuration, encoding])).size;
      using model =
        isNew && configuration.blocks.every(({ length }) => length < 500) ? await file.loadModel(device) : null;
      await file.close();
      if (!model) return;
      const image = { width: 16, height: 16, pixels: new Uint8Array(768) };
      const asked = { images: { [encoding.cameras[0]]: image }, state: null, request: 'answer' as const };
      await new Policy(model, new Encoding(encoding)).generateText([{ ...asked, instruction: 'point to a cup' }]);
    };
  });
});

/** A file of a header as text, and data. */
function fileOf(header: string | Uint8Array, data = 16, length?: bigint): Uint8Array {
  const text = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + text.length + data);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

const tensor = (begin: number, end: number, shape = [(end - begin) / 4], dtype = 'F32') => ({
  ...{ dtype, shape, data_offsets: [begin, end] },
});
const headers: Record<string, () => Uint8Array> = {
  'a length of 2^63': () => fileOf('{}', 0, 2n ** 63n),
  'a length of 2^64 - 1': () => fileOf('{}', 0, 2n ** 64n - 1n),
  'a length beyond the file': () => fileOf('{}', 0, 99n),
  'no byte': () => new Uint8Array(),
  'three bytes': () => new Uint8Array(3),
  'an empty header': () => fileOf('', 0),
  'text that is not UTF-8': () => fileOf(Uint8Array.of(0x7b, 0xff, 0xfe, 0x7d)),
  'a hundred thousand brackets': () => fileOf('['.repeat(100_000)),
  'deep objects': () => fileOf('{"a":'.repeat(100_000)),
  'deep metadata': () => fileOf(`{"__metadata__":{"insula":"${'['.repeat(100_000)}"}}`, 0),
  'deep closed metadata': () => fileOf(`{"__metadata__":{"insula":"${'['.repeat(9000)}${']'.repeat(9000)}"}}`, 0),
  'a header of spaces alone': () => fileOf(' '.repeat(long ? 90_000_000 : 10_000_000)),
  'the key __proto__': () => fileOf(`{"__proto__":${JSON.stringify(tensor(0, 16))}}`),
  'metadata of __proto__': () => fileOf('{"__metadata__":{"__proto__":"x","constructor":"y"}}', 0),
  'metadata of a number': () => fileOf('{"__metadata__":7}', 0),
  'two tensors of one name': () => fileOf('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":1}'),
  overlapping: () => fileOf(JSON.stringify({ a: tensor(0, 12), b: tensor(8, 16) })),
  backwards: () => fileOf(JSON.stringify({ a: tensor(16, 0, [4]) })),
  'a gap': () => fileOf(JSON.stringify({ a: tensor(0, 4), b: tensor(8, 16) })),
  'a negative offset': () => fileOf(JSON.stringify({ a: tensor(-4, 12, [4]) })),
  'offsets of 2^53': () => fileOf(JSON.stringify({ a: tensor(2 ** 53 - 16, 2 ** 53, [4]) })),
  'a shape that overflows': () => fileOf(JSON.stringify({ a: tensor(0, 16, [2 ** 40, 2 ** 40]) })),
  'a shape of ten thousand ones': () => fileOf(JSON.stringify({ a: tensor(0, 16, Array(10_000).fill(1)) })),
  'a tensor of no numbers': () => fileOf(JSON.stringify({ a: tensor(0, 0, [0, 2 ** 50]), b: tensor(0, 16) })),
  'an unknown dtype': () => fileOf(JSON.stringify({ a: tensor(0, 16, [4], '__proto__') })),
  'a shape of words': () => fileOf(JSON.stringify({ a: { ...tensor(0, 16), shape: ['4'] } })),
};

/** Every way by which commands open a checkpoint or a start. */
const ways: Record<string, (path: string) => Promise<unknown>> = {
  checkpoint: openCheckpoint,
  start: openStart,
  act: (checkpoint) => runCommand(act, { checkpoint }),
  evaluate: (checkpoint) => runCommand(evaluate, { checkpoint }),
  inspect: (from) => runCommand(inspect, { gradients: true, from } as never),
  convert: (checkpoint) => runCommand(convert, { checkpoint, out: at('converted.safetensors') }),
};

test('headers of every kind are refused by all that open files', async () => {
  const tally = new Tally();
  for (const [what, make] of Object.entries(headers)) {
    await writeFile(at(PATH), make());
    for (const [way, open] of Object.entries(ways)) {
      const came = await outcomeOf(at(PATH), () => open(at(PATH)));
      tally.add(`${what}, ${way}`, came === 'used' ? 'is used' : came);
    }
  }
  expect(tally.faults).toEqual([]);
});

test('bytes that were changed, cut out or put in are refused, or change numbers alone', async () => {
  const path = at('whole.safetensors');
  const { policy } = await trainRun(path, { steps: 1 });
  policy.model.dispose();
  const whole = new Uint8Array(await readFile(path));
  const header = 8 + Number(new DataView(whole.buffer).getBigUint64(0, true));
  const use = user(dataset);
  const tally = new Tally();
  const every = Array.from({ length: long ? 2000 : 30 }, (_, i) => Math.floor((i * header) / (long ? 2000 : 30)));
  for (const place of every)
    for (const [i, replacement] of [[0xff], [0x20], [], [0x7b, 0x7b]].entries()) {
      const damaged = new Uint8Array(
        Buffer.concat([whole.subarray(0, place), Uint8Array.from(replacement), whole.subarray(place + 1)]),
      );
      await writeFile(at(PATH), damaged);
      const came = await outcomeOf(at(PATH), async () => {
        const checkpoint = await openCheckpoint(at(PATH));
        await use(checkpoint).catch((error) => {
          if (!(error instanceof InputError)) throw error;
        });
      });
      tally.add(`byte ${place}, ${i}`, came);
    }
  if (long) console.log(`bytes: ${JSON.stringify(tally.counts)}`);
  expect(tally.faults).toEqual([]);
});
