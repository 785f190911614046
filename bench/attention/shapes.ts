/** The sizes that attention is measured at, by name or written out on the command line. */
import { InputError, quote } from '../../engine/index.ts';

export type AttentionShape = Readonly<ReturnType<typeof shape>>;

/** The blocks by their number, in order. */
const blockNames: Readonly<Record<number, readonly string[]>> = {
  1: ['all'],
  2: ['prefix', 'action'],
  3: ['prefix', 'fast', 'action'],
};

function shape(name: string, batch: number, lengths: number[], heads: number, kvHeads: number, headDimension: number) {
  const blocks = lengths.map((length, i) => [blockNames[lengths.length][i], length] as const);
  return { name, batch, blocks, heads, kvHeads, headDimension };
}

/** The sizes of the FlashAttention papers, at 4,096 tokens in all: hidden size 2,048, so 2048 / D heads. */
const grid = [64, 128].flatMap((dimension) =>
  [256, 512, 1024, 2048, 4096].map((tokens) =>
    shape(`grid-${tokens}-d${dimension}`, 4096 / tokens, [tokens], 2048 / dimension, 2048 / dimension, dimension),
  ),
);

/** Groups of shapes, each with the name that stands for all of them. */
export const suite: Readonly<Record<string, readonly AttentionShape[]>> = {
  grid,
  masks: [1024, 2048, 4096].map((tokens) => shape(`masks-${tokens}`, 1, [tokens], 8, 8, 64)),
  'vla-small': [shape('vla-small', 8, [256, 64, 50], 8, 8, 64)],
  smolvla: [shape('smolvla', 8, [113, 50], 15, 5, 64)],
  paligemma: [1, 4].map((batch) => shape(`paligemma-b${batch}`, batch, [816, 128, 50], 8, 1, 256)),
};

export function tokensOf({ blocks }: AttentionShape): number {
  return blocks.reduce((sum, [, length]) => sum + length, 0);
}

/** The sizes of a shape as --shape takes them. */
export function shapeText(shape: AttentionShape): string {
  const { batch, blocks, heads, kvHeads, headDimension } = shape;
  return `B=${batch},T=${blocks.map(([, length]) => length).join('+')},H=${heads}/${kvHeads},D=${headDimension}`;
}

/** The shapes in the values of --shape: names separated by commas, or one written out. @throws InputError */
export function shapesOf(values: readonly string[]): AttentionShape[] {
  return values.flatMap((value) => (value.includes('=') ? [writtenShape(value)] : value.split(',').flatMap(named)));
}

function named(name: string): readonly AttentionShape[] {
  const all = Object.values(suite).flat();
  const found = name === 'suite' ? all : (suite[name] ?? all.filter((shape) => shape.name === name));
  if (found.length > 0) return found;
  const names = [...Object.keys(suite), ...all.map((shape) => shape.name)];
  throw new InputError(
    `--shape ${quote(name)}: no shape of that name; there are suite, ${[...new Set(names)].join(', ')}, or B=1,T=1000,H=8/1,D=64`,
  );
}

function writtenShape(value: string): AttentionShape {
  const wrong = (what: string) => new InputError(`--shape ${quote(value)}: ${what}; write it as B=1,T=1000,H=8/1,D=64`);
  const parts = value.split(',').map((part) => part.trim().split('='));
  const fields = new Map(parts.map(([field, text = '']) => [field.toUpperCase(), text]));
  const unknown = [...fields.keys()].find((field) => !['B', 'T', 'H', 'D'].includes(field));
  if (unknown !== undefined) throw wrong(`no size is called ${quote(unknown)}`);
  const numbers = (field: string, separator: string, missing?: string) => {
    const text = fields.get(field) ?? missing;
    if (text === undefined) throw wrong(`${field} is missing`);
    const read = text.split(separator).map((part) => (/^[1-9]\d{0,6}$/.test(part) ? Number(part) : Number.NaN));
    if (read.some(Number.isNaN)) throw wrong(`${field}=${text} is no size`);
    return read;
  };
  const lengths = numbers('T', '+');
  if (!blockNames[lengths.length]) throw wrong('T has one block, prefix+action or prefix+fast+action');
  const [heads, kvHeads = heads, ...more] = numbers('H', '/');
  if (more.length > 0 || heads % kvHeads !== 0) throw wrong('the second number of H divides the first');
  const [batch, ...otherBatches] = numbers('B', '+', '1');
  const [headDimension, ...otherDimensions] = numbers('D', '+');
  if (otherBatches.length + otherDimensions.length > 0) throw wrong('B and D are single numbers');
  if (headDimension % 4 !== 0 || headDimension > 256) throw wrong('D is a multiple of 4 up to 256');
  const made = shape('', batch, lengths, heads, kvHeads, headDimension);
  return { ...made, name: shapeText(made) };
}

const MOST_TOKENS = 512;

/** A shape at a size for a CPU: one sample, one group of at most two query heads, and blocks that are shorter by one factor. */
export function smaller(shape: AttentionShape): AttentionShape {
  const heads = Math.min(shape.heads / shape.kvHeads, 2);
  const factor = Math.min(1, MOST_TOKENS / tokensOf(shape));
  const blocks = shape.blocks.map(([name, length]) => [name, Math.ceil(length * factor)] as const);
  const made = { ...shape, batch: 1, blocks, heads, kvHeads: 1 };
  return { ...made, name: `${shape.name} at ${shapeText(made)}` };
}
