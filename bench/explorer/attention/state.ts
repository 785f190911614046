/** What the workbench shows, as a link holds it, and what the library makes of it. */
import * as v from 'valibot';
import { count } from '../../../engine/files/json-schema.ts';
import {
  type AttentionTable,
  attentionTable,
  type Edge,
  type ExpressionSource,
  edge,
  sequence,
} from '../../../kernels/index.ts';
import { objectivesOf } from '../../../model/architecture/objectives/index.ts';
import { imagesAsMemory, inSequence, tableOf, trainingBlocks } from '../../../model/architecture/sequence.ts';
import { edgeSchema, namedEdges } from '../../../model/inspect/attention-file.ts';
import { historyWords } from '../../../model/inspect/system-tables.ts';
import { configurationOf, edgeText, type ModelSizes, systemNamed } from '../../../model/systems/index.ts';

const MOST_TOKENS = 1024;
/** The numbers of heads and the head dimensions to choose from. */
export const sizes = { heads: [1, 2, 4, 8], kvHeads: [1, 2, 4, 8], headDimension: [16, 32, 64, 128, 256] };
const edgeNames = ['none', 'full', 'causal', 'insulated'] as const;
const cellSchema = v.union([v.picklist(edgeNames), edgeSchema]);
/** A cell of the table: one of the library's named edges, or the options of another. */
export type Cell = v.InferOutput<typeof cellSchema>;

const blockSchema = v.object({
  name: v.pipe(v.string(), v.regex(/^\p{L}[\p{L}\p{N} _-]{0,31}$/u)),
  length: count(1, MOST_TOKENS),
  /** The rows that it has: a block of keys alone is a cached prefix, one of queries alone is read by nobody. */
  rows: v.picklist(['both', 'keys', 'queries']),
  loss: v.boolean(),
});
export type BlockState = v.InferOutput<typeof blockSchema>;

const expressionSchema = v.object({
  mask: v.pipe(v.string(), v.maxLength(2000)),
  score: v.pipe(v.string(), v.maxLength(2000)),
  derivative: v.pipe(v.string(), v.maxLength(2000)),
  /** Tokens at which a document begins, beside the first: the data of a token is the number of its document. */
  borders: v.array(count()),
  constants: v.array(v.number()),
  heads: v.optional(count(1)),
});
export type Expression = v.InferOutput<typeof expressionSchema>;
export const noExpression: Expression = { mask: '', score: '', derivative: '', borders: [], constants: [] };

const shape = v.object({
  /** The system that the table began as; empty for none. */
  system: v.pipe(v.string(), v.maxLength(64)),
  blocks: v.pipe(v.array(blockSchema), v.minLength(1), v.maxLength(16)),
  /** [query block][key block] */
  cells: v.array(v.array(cellSchema)),
  /** Query block and key block of the edge whose gradient is shown. */
  selected: v.tuple([count(), count()]),
  heads: v.picklist(sizes.heads),
  kvHeads: v.picklist(sizes.kvHeads),
  headDimension: v.picklist(sizes.headDimension),
  expression: expressionSchema,
});
export type State = v.InferOutput<typeof shape>;
export type TableState = Pick<State, 'blocks' | 'cells'>;

export const stateSchema = v.pipe(
  shape,
  v.check((state) => problemWith(state) === null),
);

/** Why there is no such table, in one sentence; null if there is. */
export function problemWith({ blocks, cells, heads, kvHeads }: State): string | null {
  const broken = blocks.find((block) => !v.safeParse(blockSchema, block).success);
  if (broken)
    return `Block '${broken.name}' with ${broken.length} tokens: a name begins with a letter and has at most 32 letters, digits, spaces and dashes; a block has 1 to ${MOST_TOKENS} tokens.`;
  const tokens = blocks.reduce((sum, { length }) => sum + length, 0);
  if (tokens > MOST_TOKENS) return `The blocks have ${tokens} tokens together; this page draws at most ${MOST_TOKENS}.`;
  if (blocks.every(({ rows }) => rows === 'keys')) return 'No block has queries; give one of them queries.';
  if (blocks.every(({ rows }) => rows === 'queries')) return 'No block has keys; give one of them keys.';
  if (cells.length !== blocks.length || cells.some((row) => row.length !== blocks.length))
    return 'The table has not as many cells as pairs of blocks.';
  if (heads % kvHeads !== 0)
    return `${heads} query heads cannot share ${kvHeads} key heads: the second divides the first.`;
  try {
    makeTable({ blocks, cells });
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

export const edgeOf = (cell: Cell): Edge => (typeof cell === 'string' ? namedEdges[cell] : edge(cell));

/** The cell of an edge, by its name where it has one. */
export function cellOf(own: Edge): Cell {
  const { mask, window, keyGradient, valueGradient } = own;
  const name = edgeNames.find((other) => edgeText(namedEdges[other]) === edgeText(own));
  return name ?? { mask: mask === 'causal' ? mask : 'full', window, keyGradient, valueGradient };
}

/** The cell of a pair of blocks: none where they lack queries or keys, whatever it was before. */
export function cellAt({ blocks, cells }: TableState, query: number, key: number): Cell {
  return blocks[query].rows === 'keys' || blocks[key].rows === 'queries' ? 'none' : cells[query][key];
}

/** What a click makes of a cell: a full edge where there is none; elsewhere it stops the gradient, or lets all of it pass. */
export function nextCell(cell: Cell): Cell {
  const own = edgeOf(cell);
  if (own.mask === 'none') return 'full';
  const passes = own.keyGradient + own.valueGradient === 0 ? 1 : 0;
  return cellOf({ ...own, keyGradient: passes, valueGradient: passes });
}

export function makeTable(state: TableState): AttentionTable {
  const { blocks } = state;
  const withoutKeys = blocks.filter(({ rows }) => rows === 'queries').map(({ name }) => name);
  const layout = sequence(
    blocks.map(({ name, length }) => [name, length] as const),
    { withoutKeys },
  );
  const rows = blocks.map(({ name }, q) => [
    name,
    Object.fromEntries(blocks.map((key, k) => [key.name, edgeOf(cellAt(state, q, k))])),
  ]);
  return attentionTable(layout, Object.fromEntries(rows));
}

/** The blocks that have queries, and those of them whose rows carry a loss, as `attention` takes them. */
export function chosenBlocks(blocks: readonly BlockState[]) {
  const asking = blocks.filter(({ rows }) => rows !== 'keys');
  const names = (own: readonly BlockState[]) => own.map(({ name }) => name);
  return { queries: names(asking), lossBlocks: names(asking.filter(({ loss }) => loss)) };
}

export const isEmpty = ({ mask, score }: Expression) => mask.trim() === '' && score.trim() === '';

/** The expression as the library takes it, for so many tokens; null where there is none. */
export function sourceOf(expression: Expression, tokens: number) {
  const { mask, score, derivative, borders, constants, heads } = expression;
  if (isEmpty(expression)) return null;
  return {
    ...(mask.trim() !== '' && { mask }),
    ...(score.trim() !== '' && { score, derivative }),
    ...(borders.length > 0 && {
      tokenData: Array.from({ length: tokens }, (_, token) => borders.filter((border) => border <= token).length),
    }),
    ...(constants.length > 0 && { constants }),
    ...(heads && { heads }),
  } satisfies ExpressionSource;
}

const modelSizes: ModelSizes = {
  backbone: { width: 64, hidden: 64 },
  vocabulary: 512,
  expert: { width: 64, hidden: 64 },
  ...{ depth: 2, heads: 4, kvHeads: 1, headDimension: 32 },
  vision: { width: 64, depth: 1, heads: 2, hidden: 64, patch: 8, imageHeight: 64, imageWidth: 64, cameras: 1 },
  ...{ promptTokens: 16, targetTokens: 16, horizon: 16, actionDimension: 7, stateDimension: 7 },
};
const MOST_STEPS = 2;

/** The table of a system's last layer at a small size, and what this drawing of it leaves out, in words. */
export function systemTable(name: string): TableState & { readonly note: string } {
  const system = systemNamed(name);
  const whole = configurationOf(system, modelSizes);
  const { history } = whole;
  const drawn = history && { ...history, window: Math.min(history.window, MOST_STEPS) };
  const configuration = { ...whole, ...(drawn && { history: drawn }) };
  const blocks = [...imagesAsMemory(configuration), ...trainingBlocks(configuration)];
  const { layout, cells } = tableOf(configuration, blocks);
  const losses = objectivesOf(configuration).flatMap((objective) => objective.blocks);
  const asked = new Set(configuration.edges.map(({ query }) => query));
  const notes = [
    historyWords(history),
    history?.interleaved && history.window > MOST_STEPS && `${MOST_STEPS} of them are drawn.`,
    blocks.some(({ memory }) => memory) &&
      'Edges to its images are cross-attention, beside the attention of the others.',
  ];
  return {
    blocks: inSequence(configuration, blocks).map((block, i) => ({
      name: layout.blocks[i].name,
      length: block.length,
      rows: !layout.blocks[i].keys ? 'queries' : asked.has(block.name) ? 'both' : 'keys',
      loss: losses.includes(block.name),
    })),
    cells: cells.map((row) => row.map(cellOf)),
    note: [`${system.description[0].toUpperCase()}${system.description.slice(1)}.`, ...notes].filter(Boolean).join(' '),
  };
}

const { note: _, ...insulation } = systemTable('knowledge-insulation');
export const initial: State = {
  system: 'knowledge-insulation',
  ...insulation,
  selected: [insulation.blocks.length - 1, 1],
  ...{ heads: 4, kvHeads: 1, headDimension: 32 },
  expression: noExpression,
};
