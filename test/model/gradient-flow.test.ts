import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { inspect } from '../../cli/inspect.ts';
import type { ValuesOf } from '../../cli/options.ts';
import { backward } from '../../engine/index.ts';
import { AdamW, edge } from '../../kernels/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { withTable } from '../../model/inspect/attention-file.ts';
import { type GradientFlow, gradientFlow } from '../../model/inspect/gradient-flow.ts';
import { interference } from '../../model/inspect/interference.ts';
import { systemTables } from '../../model/inspect/system-tables.ts';
import { fillZeros } from '../../model/inspect/without-zeros.ts';
import { flowFinding } from '../../model/report/flow-figure.ts';
import { configurationOf, edgeDifferences, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { TrainingStep } from '../../model/training/training-step.ts';
import { testDevice } from '../support/devices.ts';
import { runCommand } from '../support/run-command.ts';
import { distinctSystems, tinySizes } from '../support/tiny-sizes.ts';

const configurationNamed = (name: string) => configurationOf(systemNamed(name), tinySizes);

/** A model with initial values, or with random numbers in place of their zeros, and a batch; the test disposes of it. */
async function subjectOf(configuration: ReturnType<typeof configurationNamed>, { filled = true } = {}) {
  const model = new Model(await testDevice('normal'), configuration);
  onTestFinished(() => model.dispose());
  model.initialise(0);
  if (filled) await fillZeros(model);
  return { model, inputs: trainingInputs(model.architecture, randomBatch(configuration, 2, 0)) };
}

/** The causes in a group, each written once. */
const causesIn = ({ parts, losses }: GradientFlow, loss: string, group: string) => [
  ...new Set(
    losses[loss].flatMap(({ causes }, i) => (parts[i].group === group ? [causes?.join(' ') ?? 'another'] : [])),
  ),
];

describe('gradient flow', () => {
  test('knowledge insulation cuts the flow loss off; at the start closed gates do too', async () => {
    const configuration = configurationNamed('knowledge-insulation');
    const open = await subjectOf(configuration);
    const flow = await gradientFlow(open.model, open.inputs);
    expect(flow.parts.map(({ group, name }) => `${group}: ${name}`)).toEqual([
      ...['patch_embedding', 'position_embedding', 'layer 0', 'post_layernorm', 'multi_modal_projector'].map(
        (name) => `vision: ${name}`,
      ),
      ...['embed_tokens', 'layer 0', 'layer 1', 'norm'].map((name) => `backbone: ${name}`),
      ...['layer 0', 'layer 1', 'norm', 'action_in_proj', 'action_out_proj', 'time_mlp_in', 'time_mlp_out'].map(
        (name) => `expert: ${name}`,
      ),
    ]);
    expect(causesIn(flow, 'flow', 'vision')).toEqual(['table']);
    expect(causesIn(flow, 'flow', 'backbone')).toEqual(['table', 'no path']); // only the token loss reads its last norm
    expect(causesIn(flow, 'flow', 'expert')).toEqual(['another']);
    expect(causesIn(flow, 'token', 'expert')).toEqual(['no path']);
    const start = await subjectOf(configuration, { filled: false });
    const atStart = await gradientFlow(start.model, start.inputs);
    expect(causesIn(atStart, 'flow', 'vision')).toEqual(['table initialisation']);
    expect(causesIn(atStart, 'token', 'vision')).toEqual(['another']);
    const joint = await subjectOf(configurationNamed('joint-training'), { filled: false });
    expect(causesIn(await gradientFlow(joint.model, joint.inputs), 'flow', 'vision')).toEqual(['initialisation']);
  });

  test('an absent camera is a cause, and so is freezing', async () => {
    const configuration = configurationNamed('frozen-backbone');
    const { model } = await subjectOf(configuration);
    const batch = { ...randomBatch(configuration, 2, 0), cameraValid: [0, 0] };
    const flow = await gradientFlow(model, trainingInputs(model.architecture, batch));
    expect(causesIn(flow, 'flow', 'backbone')).toEqual(['frozen']);
    const free = await subjectOf({ ...configuration, rules: [] });
    const alone = await gradientFlow(free.model, trainingInputs(free.model.architecture, batch));
    expect(causesIn(alone, 'flow', 'vision')).toEqual(['batch']);
  });

  test('behind frozen zeros a gradient stays 0 for ever, which initialisation is no cause of', async () => {
    const rules = [{ match: '*.dense.*', frozen: true }];
    const frozen = await subjectOf({ ...configurationNamed('knowledge-insulation'), rules }, { filled: false });
    const flow = await gradientFlow(frozen.model, frozen.inputs);
    const causesOf = (wanted: string) => flow.losses.flow[flow.parts.findIndex(({ name }) => name === wanted)].causes;
    expect(causesOf('time_mlp_in')).toEqual(['frozen']);
    expect(causesOf('action_in_proj')).toBeNull();
    expect(causesIn(flow, 'flow', 'vision')).toEqual(['frozen table']);
    expect(causesIn(flow, 'flow', 'backbone')).toEqual(['frozen table', 'no path']);
    expect(causesIn(flow, 'token', 'expert')).toEqual(['no path', 'frozen']);
    expect(flowFinding(flow).notes).toContain(
      'The token loss sends expert a gradient of exactly 0: no path (norm: frozen).',
    );
  });

  test('norms are those of a backward pass of each loss, and values stay', async () => {
    const { model, inputs } = await subjectOf(configurationNamed('pi05-stage-2'));
    const before = await Promise.all([...model.parameters].map((own) => own.read()));
    const { parts, losses } = await gradientFlow(model, inputs, { reasons: false });
    expect(losses.token.find(({ isZero }) => isZero)?.causes).toBeNull();
    for (const name of ['token', 'flow']) {
      const squares = await model.device.step(async () => {
        model.parameters.zeroGradients();
        backward(trainingPass(model, tensorsOf(model.device, inputs)).objectives[name].loss);
        const sums = parts.map(async ({ parameters }) => {
          const gradients = await Promise.all(parameters.map((own) => model.parameters.get(own).grad!.read()));
          return gradients.flatMap((own) => [...own]).reduce((sum, value) => sum + value * value, 0);
        });
        return await Promise.all(sums);
      });
      expect(losses[name].map(({ norm }) => norm)).toEqual(squares.map(Math.sqrt));
      expect(losses[name].map(({ isZero }) => isZero)).toEqual(squares.map((own) => own === 0));
    }
    const after = await Promise.all([...model.parameters].map((own) => own.read()));
    expect(after).toEqual(before);
  });

  test('training goes on as it would without, and need not wait for the result', async () => {
    const trained = async (measures: boolean, waits: boolean) => {
      const { model, inputs } = await subjectOf(configurationNamed('knowledge-insulation'));
      using optimizer = new AdamW(model.parameters, { maximumNorm: 1 });
      using step = new TrainingStep(model, optimizer);
      await step.run([inputs], 1e-2, () => {});
      const measuring = measures ? gradientFlow(model, inputs, { reasons: false }) : null;
      if (waits) await measuring;
      await step.run([inputs], 1e-2, () => {});
      return { flow: await measuring, values: await Promise.all([...model.parameters].map((own) => own.read())) };
    };
    const [{ values }, beside, awaited] = [
      await trained(false, false),
      await trained(true, false),
      await trained(true, true),
    ];
    expect(beside).toEqual({ flow: awaited.flow, values });
    expect(awaited.values).toEqual(values);
  });

  test.each(distinctSystems)('the causes in $name agree with its tables', async (system) => {
    const configuration = configurationOf(system, tinySizes);
    const { model, inputs } = await subjectOf(configuration);
    const flow = await gradientFlow(model, inputs);
    for (const [loss, row] of Object.entries(systemTables(configuration).gradients))
      for (const [group, declared] of Object.entries(row)) {
        const causes = causesIn(flow, loss, group);
        const found = {
          yes: causes.includes('another'),
          'cut by the table': causes.includes('table') && !causes.includes('another'),
          'not read': causes.join() === 'no path',
          frozen: causes.join() === 'frozen',
        };
        expect(found[declared], `${loss} on ${group}: ${causes.join('; ')}`).toBe(true);
      }
  });
});

describe('interference', () => {
  test('cosines and ratios are those of the gradients, with edges open, scaled and cut', async () => {
    const { model, inputs } = await subjectOf(configurationNamed('joint-training'));
    const { parts, pairs, settings } = await interference(model, inputs);
    expect(pairs).toEqual([['token', 'flow']]);
    expect(settings.map(({ factor, isOwn }) => [factor, isOwn])).toEqual([
      [1, true],
      [0.3, false],
      [0, false],
    ]);
    const [token, flow] = await model.device.step(async () => {
      const { objectives } = trainingPass(model, tensorsOf(model.device, inputs));
      const gradients: number[][] = [];
      for (const name of pairs[0]) {
        model.parameters.zeroGradients();
        backward(objectives[name].loss);
        const own = parts[6].parameters.map((parameter) => model.parameters.get(parameter).grad!.read());
        gradients.push((await Promise.all(own)).flatMap((values) => [...values]));
      }
      return gradients;
    });
    const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * b[i], 0);
    const [open, scaled, cut] = settings.map((setting) => setting.pairs[0][6]);
    expect(parts[6]).toMatchObject({ group: 'backbone', name: 'layer 0' });
    expect(open.cosine).toBeCloseTo(dot(token, flow) / Math.sqrt(dot(token, token) * dot(flow, flow)), 12);
    expect(open.ratio).toBeCloseTo(Math.sqrt(dot(token, token) / dot(flow, flow)), 10);
    expect(scaled.ratio! / open.ratio!).toBeCloseTo(1 / 0.3, 4);
    expect(cut).toEqual({ cosine: null, ratio: null });
    const insulated = await subjectOf(configurationNamed('knowledge-insulation'));
    const own = (await interference(insulated.model, insulated.inputs)).settings;
    expect(own.map(({ isOwn }) => isOwn)).toEqual([false, false, true]);
  });
});

describe('an attention table of one’s own', () => {
  const { blocks, ...others } = configurationNamed('knowledge-insulation');
  const configuration = { ...others, blocks };

  test('takes the place of the edges', () => {
    const soft = { mask: 'full', keyGradient: 0.1 } as const;
    const { edges } = withTable(configuration, { target: { target: 'causal' }, action: { image: soft } }, 'a.json');
    expect(edges).toEqual([
      { query: 'target', key: 'target', edge: edge({ mask: 'causal' }) },
      { query: 'action', key: 'image', edge: edge(soft) },
    ]);
    expect(edgeDifferences(configuration.edges, edges)).toEqual([
      'image, language, target no longer attend to image, language',
      'action attends to image: full, keys x 0.1, values x 1 (was insulated)',
      'action no longer attends to language',
      'action no longer attends to action',
    ]);
    expect(edgeDifferences(edges, edges)).toEqual([]);
  });

  test.each([
    ['full', 'a.json: this is not a table { "query": { "key": cell } }: expected object, got "full"'],
    [{ fast: {} }, 'a.json: the model has no block "fast"; its blocks are image, language, target, action'],
    [{ action: { image: 'ful' } }, 'a.json: "action" to "image": there is no cell "ful"; did you mean'],
    [{ action: { image: { mask: 'full', keyGradient: 2 } } }, '"keyGradient": expected at most 1, got 2'],
    [{ action: { image: { mask: 'full', window: 3 } } }, 'a.json: "action" to "image": edge: window 3 on a full edge'],
    [{ action: { image: 'causal' } }, 'a.json: this model cannot run: "action" reads "image" by a causal edge'],
  ])('%j is refused', (table, message) => {
    expect(() => withTable(configuration, table, 'a.json')).toThrow(message);
  });
});

describe('insula inspect', () => {
  test('--gradients with a table: lines, JSON and page', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'insula-inspect-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const [table, page, out] = ['table.json', 'page.html', 'out.json'].map((name) => join(folder, name));
    await writeFile(table, JSON.stringify({ target: { target: 'causal' }, action: { action: 'full' } }));
    const sizes = { preset: 'nano', batch: 1, gates: 1 };
    const { json, lines } = await runCommand(inspect, { gradients: true, table, page, out, ...sizes });
    expect(JSON.parse(await readFile(out, 'utf8'))).toEqual(JSON.parse(JSON.stringify(json)));
    expect(lines).toContain('The token loss sends vision a gradient of exactly 0: no path.');
    expect(lines.find((line) => /^ +backbone +layer 0/.test(line))).toMatch(/\d +0 N$/);
    const html = await readFile(page, 'utf8');
    expect(html).toContain('flow on backbone, layer 0: 0, no path');
  });

  test.each([
    [{}, 'inspect: give one of --step, --gradients, --interference'],
    [{ gradients: true, interference: true }, 'inspect: give one of --step, --gradients, --interference'],
    [{ interference: true, system: 'openvla' }, '--interference: openvla has one loss, token; choose another --system'],
    [{ gradients: true, observations: 'random', data: ['x'] }, '--data changes nothing with --observations random'],
    [{ gradients: true, data: ['x'], depth: 1 }, '--depth is for --observations random'],
    [{ gradients: true, gates: 1, system: 'openvla' }, '--gates: openvla has no adaptive norms'],
    [
      { gradients: true, lora: 4, system: 'frozen-backbone' },
      '--lora 4: frozen-backbone freezes backbone: give --lora-on expert',
    ],
    [{ gradients: true, lora: 400 }, '--lora 400: '],
    [{ gradients: true, lora: 4, 'lora-on': ['actor'] }, '--lora-on actor: no expert of knowledge-insulation'],
  ] as [ValuesOf<typeof inspect.options>, string][])('%j is refused', async (values, message) => {
    await expect(runCommand(inspect, { adapter: 'null', ...values })).rejects.toThrow(message);
  });
});
