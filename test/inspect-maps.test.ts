import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { probeWorld } from '../bench/tabletop/probe.ts';
import { attention } from '../cli/inspect-attention.ts';
import { probe } from '../cli/inspect-probe.ts';
import type { Inspected } from '../cli/inspect-subject.ts';
import { swap } from '../cli/inspect-swap.ts';
import { linesOf, sectionsOf } from '../cli/measurement.ts';
import { Progress } from '../cli/progress.ts';
import { Model } from '../model/architecture/model.ts';
import { probeLayers } from '../model/inspect/layer-probes.ts';
import { randomSubject, realSubject } from '../model/inspect/subject.ts';
import { Encoding } from '../model/policy/encoding.ts';
import { Policy } from '../model/policy/policy.ts';
import { findingSection, inspectPage } from '../model/report/inspect-page.ts';
import { probeFinding } from '../model/report/probe-section.ts';
import { configurationOf, systemNamed } from '../model/systems/index.ts';
import type { RunResult } from '../model/training/run.ts';
import { openStart } from '../model/training/start.ts';
import { testDevice } from './support/devices.ts';
import { tinySizes } from './support/tiny-sizes.ts';
import { trainRun } from './support/train-run.ts';
import { seeingEncoding, seeingModel } from './support/vision-language.ts';

const words = { title: 'a model', examples: 'examples', system: 'a system' };
const context = { progress: new Progress(), signal: new AbortController().signal };
let folder = '';
let result: RunResult;
let inspected: Inspected;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-maps-'));
  result = await trainRun(join(folder, 'checkpoint.safetensors'), { system: 'knowledge-insulation', steps: 1 });
  const { policy, settings, split } = result;
  inspected = { ...(await realSubject(policy, settings.run, split, 3, 0)), ...words };
});
afterAll(async () => {
  result.policy.model.dispose();
  await rm(folder, { recursive: true });
});

test('attention as lines, JSON and a page: shares, words, and the picture under the maps', async () => {
  const result = await attention.measure(inspected, { example: 1 });
  const { json } = result;
  const lines = linesOf(result);
  expect(lines[1]).toMatch(/^ +image +language /);
  const [shares, looked] = lines.filter((line) => /^ *action +layer 0 /.test(line));
  expect(shares).toMatch(/layer 0 .*%$/);
  expect(looked).toMatch(/"[^"]+" \d+\.\d %/);
  const { heads, depth } = inspected.model.configuration;
  const own = json.attention.find(({ query, layer }) => query === 'action' && layer === depth - 1)!;
  expect(own.heads).toHaveLength(heads);
  expect(own.words.map(({ text }) => text).join('')).toContain('red cube');
  const seen = own.heads[0].keys.image.reduce((sum, value) => sum + value, 0);
  expect(seen).toBeGreaterThan(0);
  const page = inspectPage('title', [], await sectionsOf(result));
  expect(page.match(/<image /g)).toHaveLength(json.attention.length / depth);
  expect(page.match(/<use /g)).toHaveLength(json.attention.length * heads);
  expect(page).not.toMatch(/NaN|undefined|<script/);

  const one = await attention.measure(inspected, { layer: 1, head: 0, query: 'action', row: 2 });
  expect(one.json.attention.map(({ heads }) => heads.length)).toEqual([1]);
  expect(inspectPage('title', [], await sectionsOf(one))).toContain('What row 2 of action looks at');
});

test('attention to what is not there is refused; without a camera there are words alone', async () => {
  const refused = (values: object, reason: string) =>
    expect(attention.measure(inspected, { ...values })).rejects.toThrow(reason);
  await refused({ layer: 9 }, 'there is no layer 9: the model has layers 0 to');
  await refused({ head: 9 }, 'there is no head 9: the model has heads 0 to');
  await refused({ query: 'hand' }, `--query "hand": this model has no such block`);
  await refused({ query: 'action', row: 99 }, "block 'action' has rows 0 to");
  await refused({ example: 3 }, '--example 3: the batch has examples 0 to 2');
  using model = new Model(
    await testDevice('normal'),
    configurationOf(systemNamed('knowledge-insulation'), { ...tinySizes, vision: null }),
  );
  model.initialise(0);
  const blind = await attention.measure({ ...randomSubject(model, 1, 0), ...words }, {});
  expect(linesOf(blind)).toContain('No map lies over the picture: this model sees no pictures.');
  const page = inspectPage('title', [], await sectionsOf(blind));
  expect([page.includes('<image'), page.includes('<h3>Words</h3>')]).toEqual([false, true]);
});

test('swaps as lines, JSON and a page: multiples of losses, and distances of chunks', async () => {
  const real = inspected.real!;
  await expect(swap.measure(inspected, { batch: 4 }, context)).rejects.toThrow(
    '--swap: these 4 control steps have the same words',
  );
  const split = { ...real.split, heldOut: [...real.split.heldOut, ...real.split.train] };
  const { lines, json, sections } = await swap.measure(
    { ...inspected, real: { ...real, split } },
    { batch: 4 },
    context,
  );
  expect(lines[0]).toMatch(/^with another example's pictures: token loss \d\.\d+ ×, flow loss/);
  expect(lines.at(-2)).toMatch(/between demonstrated chunks of both +\d/);
  expect(json.moves!.pictures).toBeGreaterThan(0);
  expect(json.moves!.byExample).toHaveLength(4);
  const page = inspectPage('title', [], await sections());
  expect(page.match(/<img /g)).toHaveLength(8);
  // All episodes have the same instruction.
  expect([json.losses.words, json.moves!.words, page.includes("another example's instruction")]).toEqual([
    null,
    null,
    false,
  ]);
});

test('probes of scenes that a policy of another robot cannot see are refused', async () => {
  await expect(probe.measure(inspected, { scenes: 3 }, context)).rejects.toThrow('the states of another robot');
});

test('a probe reads what the picture shows, and finds where it is', async () => {
  using model = seeingModel(await testDevice('normal'));
  const policy = new Policy(model, new Encoding(seeingEncoding));
  const centres = [0.25, 0.75].flatMap((down) => [0.25, 0.75].map((across) => [down, across] as const));
  const scenes = Array.from({ length: 36 }, (_, i) => {
    const named = (i * 7) % 4;
    const pixels = Uint8Array.from({ length: 16 * 16 * 3 }, (_, at) => {
      const [row, column] = [Math.floor(at / 48), Math.floor((at % 48) / 3)].map((own) => own >> 3);
      return (row * 2 + column === named ? 200 : 40) + ((at * (i + 3)) % 30);
    });
    return {
      observation: {
        images: { front: { width: 16, height: 16, pixels } },
        state: null,
        instruction: 'see',
        request: 'answer' as const,
      },
      things: centres.map((place, patch) => ({ place, classes: { bright: patch === named ? 1 : 0 } })),
      named,
    };
  });
  const probes = await probeLayers(policy, { fit: scenes.slice(0, 24), heldOut: scenes.slice(24) }, { bright: 2 });
  const { depth } = model.configuration;
  const everywhere = <T>(value: T) => Array(depth + 1).fill(value);
  expect(probes.classes).toEqual([{ question: 'bright', classes: 2, baseline: 0.75, layers: everywhere(1) }]);
  expect(probes.place.layers).toEqual(everywhere({ pixels: 0, r2: 1 }));
  expect(probes.place.baseline).toBeGreaterThan(4);
  expect([probes.scenes, probes.things]).toEqual([
    { fit: 24, heldOut: 12 },
    { fit: 96, heldOut: 48 },
  ]);
  expect(inspectPage('title', [], [findingSection(probeFinding(probes))])).toContain(
    'fitted to 96 things in 24 scenes',
  );
});

test('in the shipped model, which thing is named reaches the rows of the picture by attention alone', async () => {
  const file = await openStart('tiny');
  using model = await file.loadModel(await testDevice('normal'));
  const policy = new Policy(model, new Encoding(file.encoding));
  await file.close();
  const { classes, place } = await probeWorld(policy, { scenes: 60, seed: 0, variation: 'simple' });
  const named = classes.find(({ question }) => question === 'named')!;
  expect(named.layers[0]).toBeLessThan(named.baseline + 0.15);
  expect(named.layers.at(-1)).toBeGreaterThan(0.85);
  expect(place.layers[0].pixels).toBeGreaterThan(0.8 * place.baseline);
  expect(place.layers.at(-1)!.pixels).toBeLessThan(0.5 * place.baseline);
  const pairs = await probeWorld(policy, { scenes: 9, seed: 0, variation: 'pairs' });
  expect(pairs.classes.map(({ question }) => question)).toEqual(['colour', 'shape']);
  expect(pairs.things.heldOut).toBe(pairs.scenes.heldOut);
});
