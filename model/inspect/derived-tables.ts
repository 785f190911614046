/**
 * The tables of a model as it runs, derived by experiment and not read from its settings: who attends to whom, which edges pass
 * gradient, and which parameters each loss reaches.
 *
 * In a model of one layer a row changes others by attention alone, and only those that attend to it. Each row is perturbed in an
 * example of its own, so that two passes over one batch show all edges. Every token of the batch is real.
 */
import {
  backward,
  type Device,
  elementCount,
  parameter,
  randomStream,
  streams,
  type Tensor,
  tensor,
  withoutTape,
} from '../../engine/index.ts';
import { add } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { initialise } from '../architecture/initialise.ts';
import { type Inputs, integers, type TrainingBatch, tensorsOf } from '../architecture/inputs.ts';
import type { PerExpert } from '../architecture/mixture.ts';
import { Model } from '../architecture/model.ts';
import { type RunningBlock, rowsOf, trainingBlocks } from '../architecture/sequence.ts';
import { trainingInputs, trainingPass } from '../architecture/training-pass.ts';
import { randomBatch } from '../training/random-batch.ts';

/** What a query block sees of a key block: every row, for each row itself and those before it, or another part. */
export interface DerivedEdge {
  readonly mask: 'full' | 'causal' | 'other';
  /** Whether gradient passes to the key block; null where no loss reads the query block, and for the edge of a single row to itself. */
  readonly passes: boolean | null;
}

/** By query block: the key blocks that it attends to. */
export type DerivedAttention = Readonly<Record<string, Readonly<Record<string, DerivedEdge>>>>;

/** By objective and group of parameters: whether the loss alone gives one of them a gradient that is not exactly 0. Without frozen groups. */
export type DerivedGradients = Readonly<Record<string, Readonly<Record<string, boolean>>>>;

const SEED = 1;

/** The attention table of a model with these settings and one layer. The edge of a single row to itself counts as `full`. */
export async function derivedAttention(device: Device, settings: ModelConfiguration): Promise<DerivedAttention> {
  const configuration = withOneLayer(settings);
  const blocks = trainingBlocks(configuration);
  const tokens = blocks.flatMap((block) => Array.from({ length: block.length }, (_, row) => ({ block, row })));
  const single = tokens.filter(({ block }) => block.length === 1);
  using model = new Model(device, configuration);
  initialiseWithoutZeros(model);
  const examples = tokens.length + single.length;
  const inputs = trainingInputs(model.architecture, wholeBatch(configuration, examples));
  // Of a single row every change shows, in its residual stream. It sees itself if its being real changes it where all else is padding.
  const singled = (isReal: boolean): Inputs => ({
    ...inputs,
    validity: integers(
      Array.from({ length: examples * tokens.length }, (_, i) => {
        const [example, token] = [Math.floor(i / tokens.length), tokens[i % tokens.length]];
        return example < tokens.length || (isReal && token === single[example - tokens.length]) ? 1 : 0;
      }),
      [examples, tokens.length],
    ),
  });
  const before = await hiddenRows(model, singled(false), (rows) => rows);
  const after = await hiddenRows(model, singled(true), (rows) =>
    mapped(rows, (own, expert) => {
      const places = tokens.map(({ block, row }) => (block.weights === expert ? place(blocks, block, row) : null));
      return add(own, tensor(device, normalsAt(own.shape, places), own.shape));
    }),
  );
  const changes = (example: number, block: RunningBlock, row: number) => {
    const [was, is] = [before, after].map((own) => rowOf(own[block.weights], example, place(blocks, block, row)));
    return is.some((value, i) => value !== was[i]);
  };
  const maskOf = (query: RunningBlock, key: RunningBlock): DerivedEdge['mask'] | null => {
    if (query === key && query.length === 1)
      return changes(tokens.length + single.findIndex(({ block }) => block === query), query, 0) ? 'full' : null;
    const first = tokens.findIndex(({ block }) => block === key);
    const pairs = tokens
      .filter(({ block }) => block === query)
      .flatMap(({ row }) =>
        Array.from({ length: key.length }, (_, seen) => ({ row, seen, sees: changes(first + seen, query, row) })),
      )
      .filter(({ row, seen }) => query !== key || row !== seen);
    if (pairs.every(({ sees }) => !sees)) return null;
    if (pairs.every(({ sees }) => sees)) return 'full';
    return query === key && pairs.every(({ row, seen, sees }) => sees === seen < row) ? 'causal' : 'other';
  };
  const passes = await passingEdges(model, blocks, inputs);
  const rowFor = (query: RunningBlock) =>
    blocks.flatMap((key) => {
      const mask = maskOf(query, key);
      return mask ? [[key.name, { mask, passes: passes(query, key) }] as const] : [];
    });
  return Object.fromEntries(blocks.map((query) => [query.name, Object.fromEntries(rowFor(query))]));
}

/** The gradient table of a model with these settings, each loss backward by itself. */
export async function derivedGradients(device: Device, settings: ModelConfiguration): Promise<DerivedGradients> {
  using model = new Model(device, settings);
  initialiseWithoutZeros(model);
  const inputs = trainingInputs(model.architecture, wholeBatch(settings, 1));
  const { parameters } = model;
  return await device.step(async () => {
    const pass = trainingPass(model, tensorsOf(device, inputs));
    const table: Record<string, Record<string, boolean>> = {};
    for (const { name } of model.objectives) {
      parameters.zeroGradients();
      backward(pass.objectives[name].loss);
      table[name] = {};
      for (const { group, rate, gradients } of parameters.arenas) {
        if (rate === null) continue;
        const range = gradients();
        const own = new Float32Array(await device.read(range, range.byteLength));
        table[name][group] ||= own.some((value) => value !== 0);
      }
    }
    return table;
  });
}

/** The settings with one layer, and one copy of each block: the others see the same. */
function withOneLayer(settings: ModelConfiguration): ModelConfiguration {
  return {
    ...settings,
    depth: 1,
    blocks: settings.blocks.map(({ repeats: _, ...block }) => block),
    objectives: settings.objectives.map((own) =>
      'rows' in own && 'layer' in own.rows && own.rows.layer ? { ...own, rows: { ...own.rows, layer: 1 } } : own,
    ),
  };
}

/** Initial values without zeros: gates are open, and every path carries a gradient. */
function initialiseWithoutZeros({ architecture, parameters }: Model): void {
  initialise(parameters, architecture.parameters, SEED);
  architecture.parameters.forEach(({ name, initialisation, gateBias }, index) => {
    if (initialisation !== 'zero' && gateBias === undefined) return;
    const tensor = parameters.get(name);
    const values = new Float32Array(tensor.size);
    randomStream(SEED, index, streams.initialisation).fillNormal(values);
    tensor.write(values.map((own) => own / 2));
  });
}

/** A random batch without padding. */
function wholeBatch(configuration: ModelConfiguration, examples: number): TrainingBatch {
  const batch = randomBatch(configuration, examples, SEED);
  return { ...batch, ids: mapped(batch.ids, ({ ids, valid }) => ({ ids, valid: Array.from(valid, () => 1) })) };
}

/** Row of a block among those of its expert. */
const place = (blocks: readonly RunningBlock[], { name }: RunningBlock, row: number): number =>
  rowsOf(blocks, name).start + row;

interface HostRows {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

/** The numbers of one row in [examples, rows, width]. */
function rowOf({ data, shape: [, rows, width] }: HostRows, example: number, row: number): Float32Array {
  const start = (example * rows + row) * width;
  return data.subarray(start, start + width);
}

/** Normal numbers in one row of each example, [examples, rows, width]; an example whose place is null or missing has zeros. */
function normalsAt([examples, rows, width]: readonly number[], places: readonly (number | null)[]): Float32Array {
  const data = new Float32Array(examples * rows * width);
  places.forEach((row, example) => {
    if (row !== null)
      randomStream(SEED, example, streams.noise).fillNormal(
        rowOf({ data, shape: [examples, rows, width] }, example, row),
      );
  });
  return data;
}

/** The final hidden states of each expert. */
async function hiddenRows(
  model: Model,
  inputs: Inputs,
  firstRows: (rows: PerExpert<Tensor>) => PerExpert<Tensor>,
): Promise<PerExpert<HostRows>> {
  const { device } = model;
  return await device.step(async () => {
    const { hidden } = withoutTape(device, () =>
      trainingPass(model, tensorsOf(device, inputs), { allRows: true, firstRows }),
    );
    const read = Object.entries(hidden).map(async ([expert, own]) => {
      return [expert, { data: await own.read(), shape: own.shape }] as const;
    });
    return Object.fromEntries(await Promise.all(read));
  });
}

/** Whether edges pass gradient: for each query block with a loss, that of its last row, in an example of its own. */
async function passingEdges(
  model: Model,
  blocks: readonly RunningBlock[],
  inputs: Inputs,
): Promise<(query: RunningBlock, key: RunningBlock) => boolean | null> {
  const { device, objectives } = model;
  const queries = blocks.filter(({ name }) => objectives.some((own) => own.blocks.includes(name)));
  const probes: Record<string, Tensor> = {};
  const gradients = await device.step(async () => {
    const { hidden } = trainingPass(model, tensorsOf(device, inputs), {
      allRows: true,
      firstRows: (rows) =>
        mapped(rows, (own, expert) => {
          probes[expert] = parameter(device, new Float32Array(own.size), own.shape, {
            name: `first rows of ${expert}`,
          });
          return add(own, probes[expert]);
        }),
    });
    for (const [expert, own] of Object.entries(hidden)) {
      const places = queries.map((query) => (query.weights === expert ? place(blocks, query, query.length - 1) : null));
      if (places.every((row) => row === null)) continue;
      const gradient = tensor(device, normalsAt(own.shape, places), own.shape);
      backward(own, { parameters: Object.values(probes), gradient });
    }
    const read = Object.entries(probes).map(async ([expert, { grad, shape }]) => {
      return [expert, { data: (await grad?.read()) ?? new Float32Array(elementCount(shape)), shape }] as const;
    });
    return Object.fromEntries(await Promise.all(read));
  });
  for (const probe of Object.values(probes)) probe.dispose();
  return (query, key) => {
    const example = queries.indexOf(query);
    const rows = Array.from({ length: query === key ? key.length - 1 : key.length }, (_, row) => row);
    if (example < 0 || rows.length === 0) return null;
    return rows.some((row) => rowOf(gradients[key.weights], example, place(blocks, key, row)).some((own) => own !== 0));
  };
}

const mapped = <T, R>(record: Readonly<Record<string, T>>, change: (own: T, name: string) => R): Record<string, R> =>
  Object.fromEntries(Object.entries(record).map(([name, own]) => [name, change(own, name)]));
