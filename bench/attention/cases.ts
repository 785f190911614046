/** The masks of the benchmark by their names on the command line: an attention table, and for some an expression. */
import { nearest } from '../../engine/files/nearest.ts';
import { InputError, quote, Random } from '../../engine/index.ts';
import {
  type AttentionTable,
  attentionTable,
  causal,
  type Edge,
  type ExpressionSource,
  edge,
  full,
  insulated,
  masks,
  sequence,
} from '../../kernels/index.ts';
import { type AttentionShape, tokensOf } from './shapes.ts';

export interface Case {
  readonly name: string;
  readonly table: AttentionTable;
  readonly source?: ExpressionSource;
  /** The layout blocks that have queries; all by default. */
  readonly queries?: readonly string[];
  readonly lossBlocks?: readonly string[];
}

/** The mask in which every token sees every other; ratios refer to it. */
export const DENSE = 'dense';

/** Makes a mask of a shape; with a second parameter it takes a number. */
type Maker<Made> = (shape: AttentionShape, numbers: readonly number[]) => Made;

/** Ready-made expressions. Colons separate their numbers in a name; the defaults stand here. */
const expressions: Readonly<Record<string, Maker<ExpressionSource>>> = {
  causal: () => masks.causal(),
  'sliding-window': (_, [size = 256]) => masks.slidingWindow(size),
  'prefix-lm': (_, [length = 256]) => masks.prefixLm(length),
  documents: (shape, [count = 4]) => masks.documents(documentIds(tokensOf(shape), count)),
  'block-diagonal': (_, [size = 256]) => masks.blockDiagonal(size),
  dilated: (_, [step = 2]) => masks.dilated(step),
  'global-tokens': (_, [count = 16]) => masks.globalTokens(count),
  alibi: ({ heads }) => masks.alibi(heads),
  'soft-cap': (_, [cap = 50]) => masks.softCap(cap),
  'relative-bias': ({ heads }, [reach = 128]) =>
    masks.relativeBias(
      new Float32Array(heads * (2 * reach + 1)).map((_, i) => Math.sin(1.7 * i) / 4),
      reach,
    ),
};

/** Attention tables over the blocks prefix, fast and action; numbers as in expressions. */
const mixtures: Readonly<Record<string, Maker<Omit<Case, 'name'>>>> = {
  joint: (shape) => ({ table: mixture(shape, full) }),
  insulation: (shape) => ({ table: mixture(shape, insulated) }),
  'soft-insulation': (shape, [factor = 0.1]) => ({
    table: mixture(shape, edge({ mask: 'full', keyGradient: factor, valueGradient: factor })),
  }),
  'frozen-prefix': (shape) => ({ table: mixture(shape, insulated), lossBlocks: ['action'] }),
  'cached-prefix': (shape) => ({ table: mixture(shape, insulated), queries: ['action'], lossBlocks: ['action'] }),
};

const readyMade = /^[a-z][a-z-]*(:\d+(\.\d+)?)*([+|][a-z][a-z-]*(:\d+(\.\d+)?)*)*$/;

/** The masks that are measured if none is named. */
export function defaultMasks({ name, blocks }: AttentionShape): string[] {
  if (blocks.length > 1) return ['joint', 'insulation', 'soft-insulation:0.1', 'frozen-prefix', 'cached-prefix'];
  return ['causal', ...(name.startsWith('grid') ? [] : ['sliding-window:256', 'prefix-lm:256', 'documents:4'])];
}

/** The masks in the values of --mask: names separated by commas, or one expression of WGSL. */
export function maskNames(values: readonly string[]): string[] {
  return values.flatMap((value) => {
    const parts = value.split(',').map((part) => part.trim());
    return parts.every((part) => readyMade.test(part)) ? parts : [value];
  });
}

/** A mask of a shape, with the score of the options. @throws InputError if the shape has no such mask */
export function caseOf(name: string, shape: AttentionShape, score: ExpressionSource): Case {
  const scored = score.score === undefined ? {} : { source: score };
  if (name === DENSE) return { name, table: tokenTable(shape), ...scored };
  const [word] = name.split(':');
  if (word in mixtures) {
    if (shape.blocks.length === 1)
      throw new InputError(
        `--mask ${name}: shape ${shape.name} has one block; this mask is a table over prefix+action or prefix+fast+action, as in T=816+128+50`,
      );
    return { name, ...made(name, shape, mixtures[word]), ...scored };
  }
  if (name === 'causal' && score.score === undefined) return { name, table: tokenTable(shape, causal) };
  const source = readyMade.test(name) ? combined(name, shape) : { mask: name };
  return { name, table: tokenTable(shape), source: score.score === undefined ? source : masks.allOf(source, score) };
}

/** Names joined by + are combined by AND, and their scores applied in turn; names joined by | are combined by OR first. */
function combined(name: string, shape: AttentionShape): ExpressionSource {
  const terms = name.split('+').map((term) => {
    const parts = term.split('|').map((part) => single(part, shape));
    return parts.length === 1 ? parts[0] : masks.anyOf(...parts);
  });
  return terms.length === 1 ? terms[0] : masks.allOf(...terms);
}

function single(text: string, shape: AttentionShape): ExpressionSource {
  const [name] = text.split(':');
  if (!(name in expressions)) {
    const known = [DENSE, ...Object.keys(mixtures), ...Object.keys(expressions)];
    throw new InputError(
      `--mask ${quote(text)}: no mask is called ${name}; ${nearest(name, known)}; or an expression of WGSL such as 'q - k < 256 && q >= k'`,
    );
  }
  return made(text, shape, expressions[name]);
}

function made<Made>(text: string, shape: AttentionShape, make: Maker<Made>): Made {
  const [name, ...numbers] = text.split(':');
  const takesOne = make.length === 2;
  if (numbers.length > Number(takesOne))
    throw new InputError(`--mask ${quote(text)}: ${name} takes ${takesOne ? 'one' : 'no'} number`);
  try {
    return make(shape, numbers.map(Number));
  } catch (error) {
    throw new InputError(`--mask ${quote(text)}: ${(error as Error).message}`);
  }
}

function tokenTable(shape: AttentionShape, cell = full): AttentionTable {
  return attentionTable(sequence({ all: tokensOf(shape) }), { all: { all: cell } });
}

/** Image and language see each other, discrete action tokens behind them are causal, and action rows see the prefix and themselves. */
function mixture({ blocks }: AttentionShape, prefixForAction: Edge): AttentionTable {
  return attentionTable(sequence(blocks), {
    prefix: { prefix: full },
    ...(blocks.length === 3 && { fast: { prefix: full, fast: causal } }),
    action: { prefix: prefixForAction, action: full },
  });
}

/** `count` documents of uneven lengths, the same every time. */
function documentIds(tokens: number, count: number): Uint32Array {
  const random = new Random(0, 0, 0);
  const borders = Array.from({ length: Math.max(count - 1, 0) }, (_, i) => random.integer(i, tokens));
  return Uint32Array.from({ length: tokens }, (_, token) => borders.filter((border) => border <= token).length);
}
