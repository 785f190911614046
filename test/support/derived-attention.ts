/**
 * The attention table of a model as it runs, derived by experiment and not read from its settings: who attends to whom, and which edges
 * pass gradient. Which parameters each loss reaches is what gradient-flow.ts measures.
 *
 * In a model of one layer, a row changes other rows by attention alone, and only those that attend to it. Each row is perturbed in an
 * example of its own, so that two passes over one batch show all edges. Rows of memory are perturbed where cross-attention reads them, in
 * two further passes, because an encoder mixes its rows before that. Every token of the batch is real.
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
import { isMemory, type ModelConfiguration, runsThrough, windowOf } from '../../model/architecture/configuration.ts';
import { type Inputs, integers, tensorsOf } from '../../model/architecture/inputs.ts';
import type { PerExpert } from '../../model/architecture/mixture.ts';
import { Model } from '../../model/architecture/model.ts';
import { mapped } from '../../model/architecture/records.ts';
import { imagesAsMemory, type RunningBlock, rowsOf, trainingBlocks } from '../../model/architecture/sequence.ts';
import { type PassOptions, trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { fillZeros, wholeBatch } from '../../model/inspect/without-zeros.ts';

/** The part of a key block that a query block sees: every row; each row itself and those before it; or another part. */
export interface DerivedEdge {
  readonly mask: 'full' | 'causal' | 'other';
  /** Whether gradient passes to the key block; null where no loss reads the query block, and for the edge of a single row to itself. */
  readonly passes: boolean | null;
}

/** By query block: the key blocks that it attends to. */
export type DerivedAttention = Readonly<Record<string, Readonly<Record<string, DerivedEdge>>>>;

const SEED = 1;

/**
 * The attention table of a model with these settings and one layer, within a control step; with `earlier`, of the last control step in a
 * window to the first. The edge of a single row to itself counts as `full`.
 */
export async function derivedAttention(
  device: Device,
  settings: ModelConfiguration,
  { earlier = false }: { earlier?: boolean } = {},
): Promise<DerivedAttention> {
  const configuration = withOneLayer(settings);
  const blocks = [...trainingBlocks(configuration), ...imagesAsMemory(configuration)];
  const isRead = (block: RunningBlock) => isMemory(configuration, block);
  const tokens = blocks.flatMap((block) => Array.from({ length: block.length }, (_, row) => ({ block, row })));
  const single = earlier ? [] : tokens.filter(({ block }) => block.length === 1);
  using model = new Model(device, configuration);
  model.initialise(SEED);
  await fillZeros(model);
  const examples = tokens.length + single.length;
  const window = windowOf(configuration);
  const last = (example: number) => (example + 1) * window - 1;
  const steps = { query: last, key: earlier ? (example: number) => example * window : last };
  const inputs = trainingInputs(model.architecture, wholeBatch(configuration, examples, SEED));
  const alone = (isReal: boolean) =>
    withSingleRows(inputs, { steps: examples * window, whole: tokens.length * window }, (name) => {
      const maskOf = (block: RunningBlock) => (isRead(block) ? 'encoder/validity' : 'validity');
      const inMask = tokens.filter(({ block }) => !block.memory && name === maskOf(block));
      return single.flatMap((token, i) =>
        isReal && inMask.includes(token) ? { step: last(tokens.length + i), row: inMask.indexOf(token) } : [],
      );
    });
  // A row of zeros has a value of zero, and to attend to it changes nothing; so single rows are perturbed in both passes.
  type Placing = (block: RunningBlock, row: number, step: number) => Place | null;
  const perturbed = (own: Tensor, all: boolean, place: Placing) => {
    const places = [...tokens, ...single].flatMap(({ block, row }, example) =>
      all || example >= tokens.length ? (place(block, row, steps.key(example)) ?? []) : [],
    );
    return add(own, tensor(device, normalsAt(own.shape, places), own.shape));
  };
  const first = (all: boolean) => (rows: PerExpert<Tensor>) =>
    mapped(rows, (own, expert) =>
      perturbed(own, all, (block, ...at) => (runsThrough(block, expert) ? placeOf(blocks, block, ...at) : null)),
    );
  const before = await hiddenRows(model, alone(false), { firstRows: first(false) });
  const after = await hiddenRows(model, alone(true), { firstRows: first(true) });
  // If every row of the joint sequence is padding, a row holds only what it has itself read of memory, and nothing that others have read.
  const blind = { ...inputs, validity: integers(new Uint8Array(inputs.validity.data.length), inputs.validity.shape) };
  const memoryRows = (rows: Readonly<Record<string, Tensor>>) =>
    mapped(rows, (own, name) =>
      perturbed(own, true, (block, row, step) => (block.name === name ? { step, row } : null)),
    );
  const hasMemory = blocks.some(isRead);
  const crossed = hasMemory ? [await hiddenRows(model, blind, {}), await hiddenRows(model, blind, { memoryRows })] : [];
  const crosses = (query: RunningBlock, key: RunningBlock) => isRead(key) && !isRead(query);
  const changes = (example: number, block: RunningBlock, row: number, key: RunningBlock) => {
    const place = placeOf(blocks, block, row, steps.query(example));
    const passes = crosses(block, key) ? crossed : [before, after];
    const [was, is] = passes.map((own) => rowOf(own[block.weights], place));
    return is.some((value, i) => value !== was[i]);
  };
  const maskOf = (query: RunningBlock, key: RunningBlock): DerivedEdge['mask'] | null => {
    if (query.memory) return null;
    if (query === key && query.length === 1 && !earlier)
      return changes(tokens.length + single.findIndex(({ block }) => block === query), query, 0, key) ? 'full' : null;
    const first = tokens.findIndex(({ block }) => block === key);
    const pairs = tokens
      .filter(({ block }) => block === query)
      .flatMap(({ row }) =>
        Array.from({ length: key.length }, (_, seen) => ({ row, seen, sees: changes(first + seen, query, row, key) })),
      )
      .filter(({ row, seen }) => query !== key || row !== seen || earlier);
    if (pairs.every(({ sees }) => !sees)) return null;
    if (pairs.every(({ sees }) => sees)) return 'full';
    return query === key && pairs.every(({ row, seen, sees }) => sees === seen < row) ? 'causal' : 'other';
  };
  const passes = await passingEdges(model, blocks, inputs, steps);
  const passesAcross = hasMemory ? await passingEdges(model, blocks, blind, steps) : passes;
  const rowFor = (query: RunningBlock) =>
    blocks.flatMap((key) => {
      const mask = maskOf(query, key);
      const pass = crosses(query, key) ? passesAcross : passes;
      return mask ? [[key.name, { mask, passes: pass(query, key) }] as const] : [];
    });
  return Object.fromEntries(blocks.map((query) => [query.name, Object.fromEntries(rowFor(query))]));
}

/**
 * Padding masks that show whether the single row of a block attends to itself. A perturbation of the row shows in its residual stream in
 * either case; but if all other rows are padding, the row changes with its own mask only if it attends to itself. All tokens of the first
 * `whole` control steps are real, and in the others those that `real` names for a padding mask.
 */
function withSingleRows(
  inputs: Inputs,
  { steps, whole }: { steps: number; whole: number },
  real: (mask: string) => readonly Place[],
): Inputs {
  const masks = Object.entries(inputs).filter(([name]) => name.endsWith('validity'));
  const made = masks.map(([name, { shape }]): [string, Inputs[string]] => {
    const rows = elementCount(shape) / steps;
    const validity = new Uint8Array(elementCount(shape)).fill(1, 0, whole * rows);
    for (const { step, row } of real(name)) validity[step * rows + row] = 1;
    return [name, integers(validity, shape)];
  });
  return { ...inputs, ...Object.fromEntries(made) };
}

/** The settings with one layer, and one copy of each block: all copies see the same. */
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

const placeOf = (blocks: readonly RunningBlock[], { name }: RunningBlock, row: number, step: number): Place => ({
  step,
  row: rowsOf(blocks, name).start + row,
});

interface HostRows {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

/** A row of an expert in a control step of the batch. */
interface Place {
  readonly step: number;
  readonly row: number;
}

/** The numbers of one row in [control steps, rows, width]. */
function rowOf({ data, shape: [, rows, width] }: HostRows, { step, row }: Place): Float32Array {
  const start = (step * rows + row) * width;
  return data.subarray(start, start + width);
}

/** Normal random numbers in these rows, and zeros in all others. */
function normalsAt(shape: readonly number[], places: readonly Place[]): Float32Array {
  const data = new Float32Array(elementCount(shape));
  for (const own of places) randomStream(SEED, own.step, streams.noise).fillNormal(rowOf({ data, shape }, own));
  return data;
}

async function onHost(tensors: PerExpert<Tensor>, read: (own: Tensor) => Promise<Float32Array>) {
  const rows: Record<string, HostRows> = {};
  for (const [name, own] of Object.entries(tensors)) rows[name] = { data: await read(own), shape: own.shape };
  return rows;
}

/** The final hidden states of each expert. */
async function hiddenRows(
  model: Model,
  inputs: Inputs,
  change: Pick<PassOptions, 'firstRows' | 'memoryRows'>,
): Promise<PerExpert<HostRows>> {
  const { device } = model;
  return await device.step(async () => {
    const { hidden } = withoutTape(device, () =>
      trainingPass(model, tensorsOf(device, inputs), { allRows: true, ...change }),
    );
    return await onHost(hidden, (own) => own.read());
  });
}

/** Whether edges pass gradient, by that of the last row of each query block with a loss, in an example of its own. */
async function passingEdges(
  model: Model,
  blocks: readonly RunningBlock[],
  inputs: Inputs,
  steps: Record<'query' | 'key', (example: number) => number>,
): Promise<(query: RunningBlock, key: RunningBlock) => boolean | null> {
  const { device, objectives } = model;
  const queries = blocks.filter(({ name }) => objectives.some((own) => own.blocks.includes(name)));
  const probes: Record<string, Tensor> = {};
  const probed = (own: Tensor, name: string) => {
    probes[name] = parameter(device, new Float32Array(own.size), own.shape, { name });
    return add(own, probes[name]);
  };
  const gradients = await device.step(async () => {
    const { hidden } = trainingPass(model, tensorsOf(device, inputs), {
      allRows: true,
      firstRows: (rows) => mapped(rows, (own, expert) => probed(own, `first rows of ${expert}`)),
      memoryRows: (rows) => mapped(rows, (own, block) => probed(own, `memory ${block}`)),
    });
    for (const [expert, own] of Object.entries(hidden)) {
      const places = queries.flatMap((query, example) =>
        query.weights === expert ? [placeOf(blocks, query, query.length - 1, steps.query(example))] : [],
      );
      if (places.length === 0) continue;
      const gradient = tensor(device, normalsAt(own.shape, places), own.shape);
      backward(own, { parameters: Object.values(probes), gradient });
    }
    return await onHost(probes, async ({ grad, size }) => (await grad?.read()) ?? new Float32Array(size));
  });
  for (const probe of Object.values(probes)) probe.dispose();
  return (query, key) => {
    const example = queries.indexOf(query);
    const step = steps.key(example);
    const others = step === steps.query(example) && query === key ? key.length - 1 : key.length;
    if (example < 0 || others === 0) return null;
    const crosses = isMemory(model.configuration, key) && !isMemory(model.configuration, query);
    const rows = Array.from({ length: others }, (_, row) =>
      crosses
        ? rowOf(gradients[`memory ${key.name}`], { step, row })
        : rowOf(gradients[`first rows of ${key.weights}`], placeOf(blocks, key, row, step)),
    );
    return rows.some((own) => own.some((value) => value !== 0));
  };
}
