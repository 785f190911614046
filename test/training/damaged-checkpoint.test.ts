import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { InputError, readSafetensors, type TensorToWrite, writeSafetensors } from '../../engine/index.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { trainRun } from '../support/train-run.ts';

// Metadata that are JSON, and fit the schema or not: what does not agree is refused before anything is built from it.

// biome-ignore lint/suspicious/noExplicitAny: what a checkpoint's metadata holds
type Json = any;

let folder = '';
let metadata: Json;
const tensors: TensorToWrite[] = [];
const path = () => join(folder, 'damaged.safetensors');

/** Opens the checkpoint with other metadata; the message of an error begins with `folder/`. */
async function openWith(changed: Json): Promise<void> {
  await writeSafetensors(path(), tensors, { metadata: { insula: JSON.stringify(changed) } });
  const checkpoint = await openCheckpoint(path()).catch((error) => {
    throw error instanceof InputError ? new InputError(error.message.replace(folder, 'folder')) : error;
  });
  await checkpoint.close();
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-damaged-'));
  const whole = join(folder, 'whole.safetensors');
  const run = await trainRun(whole, { system: 'knowledge-insulation', steps: 1 });
  run.policy.model.dispose();
  const file = await readSafetensors(whole);
  for (const { name, dtype, shape } of file.tensors.values())
    tensors.push({ name, dtype, shape, data: await file.read(name, dtype) });
  metadata = JSON.parse(file.metadata.get('insula')!);
  await file.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const configuration = (change: (configuration: Json) => void) => (settings: Json) => change(settings.configuration);

test.each<[string, (settings: Json) => void, RegExp]>([
  [
    'no blocks',
    configuration((own) => (own.blocks = [])),
    /"settings\.configuration": this model cannot run: an edge names block "image"/,
  ],
  ['no expert', configuration((own) => delete own.experts.expert), /: block "action" runs through "expert"/],
  ['no objective', configuration((own) => (own.objectives = [])), /: it has no objective, and cannot be trained$/],
  [
    'an unknown objective',
    configuration((own) => (own.objectives[0].kind = 'guess')),
    /"settings\.configuration\.objectives\[0\]\.kind": expected "nextToken" or .*, got "guess"$/,
  ],
  [
    'an unknown backbone',
    configuration((own) => (own.backbone = 'spine')),
    /"settings\.configuration\.backbone": expected "gemma" or .*, got "spine"$/,
  ],
  ['a block twice', configuration((own) => own.blocks.push(own.blocks[0])), /: two blocks are named "image"$/],
  ['an edge twice', configuration((own) => own.edges.push(own.edges[0])), /: two edges lead from "image" to "image"$/],
  [
    'an edge of no block',
    configuration((own) => (own.edges[0].key = 'nowhere')),
    /: an edge names block "nowhere"; there are image, language, target, action$/,
  ],
  [
    'an absurd depth',
    configuration((own) => (own.depth = 1e9)),
    /"settings\.configuration\.depth": expected at most 1000, got 1000000000$/,
  ],
  [
    'odd heads',
    configuration((own) => (own.headDimension = 7)),
    /: headDimension is 7; expected a multiple of 4 up to 256$/,
  ],
  ['a text vocabulary', ({ encoding }) => (encoding.text.model = null), /"settings\.encoding": TextTokenizer/],
  ['other text', ({ encoding }) => delete encoding.text.model.vocab, /"settings\.encoding": TextTokenizer/],
  ['a tokenizer', ({ encoding }) => (encoding.actions = { type: 'fast' }), /"settings\.encoding": FastTokenizer/],
  ['cameras', ({ encoding }) => (encoding.cameras = []), /: cameras has 0 names; the model has 1 cameras$/],
  ['statistics', ({ encoding }) => (encoding.statistics = null), /"settings\.encoding": no statistics of any robot$/],
  ['a negative count', ({ run }) => (run.steps = -1), /"settings\.run\.steps": expected at least 0, got -1$/],
  ['a fraction', ({ run }) => (run.batch = 1.5), /"settings\.run\.batch": expected a whole number, got 1\.5$/],
])('%s', async (_, damage, message) => {
  const changed = structuredClone(metadata);
  damage(changed.settings);
  const start = "^folder/damaged\\.safetensors: damaged: the checkpoint's metadata: ";
  await expect(openWith(changed)).rejects.toThrow(new RegExp(`${start}.*${message.source}`));
});

test('an absurd width is not that of the tensors', async () => {
  const changed = structuredClone(metadata);
  changed.settings.configuration.experts.expert.width = 1e9;
  await expect(openWith(changed)).rejects.toThrow(/tensor ".*" has shape \[.*\], \[.*1000000000.*\] was expected$/);
});

test('more layers than the file has tensors are refused before any is made', async () => {
  const changed = structuredClone(metadata);
  changed.settings.configuration.depth = 999;
  await expect(openWith(changed)).rejects.toThrow(
    /"settings\.configuration" has 1999 layers, and the file \d+ tensors$/,
  );
});
