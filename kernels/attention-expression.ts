/** Masks and scores of attention as WGSL expressions: checked, compiled and tried out once, when they are registered. */
import {
  type Device,
  emptyTensor,
  InputError,
  loadKernel,
  type Parameters,
  randomStream,
  roundUp,
  specialise,
  streams,
  type Tensor,
  tensor,
  zeroTensor,
} from '../engine/index.ts';
import type { Sequence } from './attention-table.ts';
import { TILE, tilesOf } from './attention-tiles.ts';

const kernel = await loadKernel(new URL('./attention-expression.wgsl', import.meta.url));
const POINTS = 256;
const HEADS = 8;
const LARGEST_SCORE = 16;
/** The step of the finite differences; a power of two, and so exact. */
const STEP = 1 / 32;

/** Expressions of WGSL. They know q, k: i32, tokens of the layout, queryData, keyData: u32, and constant(index: i32) -> f32. */
export interface ExpressionSource {
  /** A bool: whether query token q sees key token k; ANDed with the table and the validity. */
  readonly mask?: string;
  /** An f32 in the place of `score` (f32, scale * q . k). It knows score and head: i32 too. */
  readonly score?: string;
  /** An f32: the derivative of the score expression by `score`, in the same names; required with `score`. */
  readonly derivative?: string;
  /** One u32 a token, [tokens] or [batch, tokens]: queryData and keyData (document ids, bits of an f32, ...). */
  readonly tokenData?: ArrayLike<number>;
  /** f32 numbers that constant(index) reads: slopes, a bias table. */
  readonly constants?: ArrayLike<number>;
  /** Query heads that the constants are for; default: any number. */
  readonly heads?: number;
}

export interface AttentionExpression {
  readonly source: ExpressionSource;
  readonly layout: Sequence;
  /** Samples that allowedPairs and tokenData tell apart: 1 where all are the same. */
  readonly samples: number;
  /** Declarations in place of those marked in a kernel file: allowed, score, scoreDerivative, tokenData; only those that differ. */
  readonly parameters: Parameters;
  /** [samples, query tile, key tile] in the order of tilesOf(layout.blocks): token pairs that the mask allows; null without a mask. */
  readonly allowedPairs: Uint32Array | null;
}

const declarations = {
  mask: ['allowed', 'fn allowed(q: i32, k: i32, queryData: u32, keyData: u32) -> bool'],
  score: ['score', 'fn score(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32'],
  derivative: [
    'scoreDerivative',
    'fn scoreDerivative(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32',
  ],
} as const;
type Part = keyof typeof declarations;
const parts = Object.keys(declarations) as Part[];

/**
 * Registers an expression for a layout, outside of any step: compiles it, counts the pairs that its mask allows in each tile pair,
 * and compares the derivative of its score with central differences at drawn points (kinks of the score are left out).
 *
 * Throws an InputError of one line that names the expression and the line in it.
 */
export async function attentionExpression(
  device: Device,
  layout: Sequence,
  given: ExpressionSource,
): Promise<AttentionExpression> {
  const source = copyOf(given);
  const samples = checkNumbers(layout, source);
  const parameters = parametersOf(source);
  await compile(device, source, parameters);

  const { allowedPairs, values, points } = tryOut(device, layout, source, parameters, samples);
  try {
    if (values) checkDerivative(await values.read(), points);
    const counts = allowedPairs && (await allowedPairs.read('u32'));
    return { source, layout, samples, parameters, allowedPairs: counts };
  } finally {
    values?.dispose();
    allowedPairs?.dispose();
  }
}

/** Its numbers as they are now: plans are made from them later. */
function copyOf(source: ExpressionSource): ExpressionSource {
  const { tokenData, constants } = source;
  return {
    ...source,
    ...(tokenData && { tokenData: Array.from(tokenData) }),
    ...(constants && { constants: Array.from(constants) }),
  };
}

function fail(message: string): never {
  throw new InputError(`attentionExpression: ${message}`);
}

/** Returns how many samples the token data tell apart. */
function checkNumbers(
  { length }: Sequence,
  { mask, score, derivative, tokenData, constants }: ExpressionSource,
): number {
  if (length === 0) fail('the layout has no tokens');
  if (mask === undefined && score === undefined) fail('neither a mask nor a score; give at least one of them');
  if (score !== undefined && derivative === undefined)
    fail('a score without its derivative; give { derivative }, d(score expression) / d(score)');
  if (score === undefined && derivative !== undefined) fail('a derivative without a score; give { score } too');
  Array.from(constants ?? []).forEach((value, i) => {
    if (!Number.isFinite(Math.fround(value))) fail(`constants[${i}] is ${value}; expected a finite f32`);
  });
  if (!tokenData) return 1;
  if (tokenData.length === 0 || tokenData.length % length !== 0)
    fail(`tokenData has ${tokenData.length} numbers; expected one a token, [${length}] or [batch, ${length}]`);
  Array.from(tokenData).forEach((value, i) => {
    if (value !== value >>> 0) fail(`tokenData[${i}] is ${value}; expected a u32`);
  });
  return tokenData.length / length;
}

function parametersOf(source: ExpressionSource): Record<string, string> {
  const parameters: Record<string, string> = {};
  for (const part of parts) {
    const given = source[part];
    if (given === undefined) continue;
    const [name, header] = declarations[part];
    // On lines of its own, so that a comment at its end does not hide the bracket, and its lines can be counted.
    parameters[name] = `${header} { return (\n${checkedText(part, given)}\n); }`;
  }
  if (source.tokenData) parameters.tokenData = 'fn tokenData(at: u32) -> u32 { return plan[at]; }';
  return parameters;
}

/** The expression with plain line ends; throws where it is more, or less, than one expression. */
function checkedText(part: Part, given: string): string {
  const text = given.replace(/\r\n|[\v\f\r\u0085\u2028\u2029]/g, '\n'); // all that end a line in WGSL
  const open: string[] = [];
  const lines = text.split('\n').map((line) => line.replace(/\/\/.*$/, ''));
  lines.forEach((line, index) => {
    const failHere = (what: string) => fail(`${part}, line ${index + 1}: ${what}`);
    for (const [symbol] of line.matchAll(/[()[\]{};@]|\/\*|\*\//g)) {
      if (symbol === '/*' || symbol === '*/') failHere('a block comment; write // comments');
      else if ('{};@'.includes(symbol)) failHere(`'${symbol}': it is one expression of WGSL, without statements`);
      else if ('(['.includes(symbol)) open.push(symbol);
      else if (open.pop() !== (symbol === ')' ? '(' : '[')) failHere(`'${symbol}' closes nothing`);
    }
  });
  if (open.length > 0) fail(`${part}, line ${lines.length}: '${open.at(-1)}' is not closed`);
  if (lines.every((line) => line.trim() === '')) fail(`${part} is empty`);
  return text;
}

/** Throws the first error of the compiler, with the name of the expression and the line in it. */
async function compile(device: Device, source: ExpressionSource, parameters: Parameters): Promise<void> {
  const code = specialise(kernel, parameters);
  device.gpu.pushErrorScope('validation');
  const module = device.gpu.createShaderModule({ label: 'attention expression', code });
  const [{ messages }] = await Promise.all([module.getCompilationInfo(), device.gpu.popErrorScope()]);
  const error = messages.find(({ type }) => type === 'error');
  if (!error) return;
  const [message] = error.message.split('\n');
  const lines = code.split('\n');
  for (const part of parts) {
    const given = source[part];
    if (given === undefined) continue;
    const header = lines.findIndex((line) => line.startsWith(declarations[part][1])) + 1;
    const last = header + lines.slice(header).indexOf('); }');
    // An error of the result as a whole is reported at its `return`.
    if (error.lineNum >= header && error.lineNum <= last + 1)
      fail(`${part}, line ${Math.min(Math.max(error.lineNum - header, 1), last - header)}: ${message}`);
  }
  fail(message);
}

type Point = Readonly<Record<'score' | 'q' | 'k' | 'head', number>>;

function drawPoints(count: number, tokens: number, heads: number): Point[] {
  const random = randomStream(0, 0, streams.sampling);
  return Array.from({ length: count }, (_, i) => ({
    score: Math.fround((2 * random.uniform(4 * i) - 1) * LARGEST_SCORE),
    q: random.integer(4 * i + 1, tokens),
    k: random.integer(4 * i + 2, tokens),
    head: random.integer(4 * i + 3, heads),
  }));
}

function tryOut(device: Device, layout: Sequence, source: ExpressionSource, given: Parameters, samples: number) {
  const tiles = tilesOf(layout.blocks);
  const points = drawPoints(source.score === undefined ? 0 : POINTS, layout.length, source.heads ?? HEADS);
  const words: number[] = tiles.flatMap(({ firstToken, rows }) => [firstToken, rows]);
  const pointsAt = words.length;
  for (const { score, q, k, head } of points) words.push(bitsOf([score])[0], q, k, head);
  const tokenDataAt = words.length;
  for (const value of Array.from(source.tokenData ?? [])) words.push(value);
  const constantsAt = words.length;
  for (const bits of bitsOf(source.constants ?? [])) words.push(bits);
  const end = roundUp(words.length + 1, 4);
  while (words.length < end) words.push(0); // what a head beyond the constants reads, where a score has constants for fewer

  const parameters = { TILE, ...given };
  const { length: tokens } = layout;
  const uniform = { tokens, samples, points: points.length, pointsAt, tokenDataAt, constantsAt, step: STEP, width: 0 };
  return device.step(() => {
    const plan = tensor(device, words, [words.length], { dtype: 'u32' });
    const run = (entry: string, bindings: object, workgroups: [number, number?, number?]) =>
      device.dispatch({ kernel, entry, parameters, uniform, bindings: { plan, ...bindings }, workgroups });
    const op = 'attentionExpression';
    const shape = [samples, tiles.length, tiles.length];
    const allowedPairs = source.mask === undefined ? null : zeroTensor(device, shape, 'u32', op);
    if (allowedPairs) run('countAllowed', { allowedPairs }, [tiles.length, tiles.length, samples]);
    const values = source.score === undefined ? null : emptyTensor(device, [points.length, 4], 'f32', op);
    if (values) run('differentiate', { values }, [Math.ceil(points.length / TILE)]);
    return { allowedPairs, values, points };
  });
}

/**
 * The mask of an expression as numbers [width, width], for operations that add it to their scores: 0 where a query token sees a key
 * token, -1e30 elsewhere, and beyond the tokens. For one sample; a test's oracle and an unfused partner, not for models.
 */
export function maskMatrix(device: Device, { layout, source, parameters }: AttentionExpression, width: number): Tensor {
  const tokenData = Array.from(source.tokenData ?? []);
  const words = [...tokenData, ...bitsOf(source.constants ?? []), 0];
  const uniform = {
    ...{ tokens: layout.length, samples: 1, points: 0, pointsAt: 0, tokenDataAt: 0, constantsAt: tokenData.length },
    ...{ step: STEP, width },
  };
  return device.step(() => {
    const plan = tensor(device, words, [words.length], { dtype: 'u32' });
    const maskNumbers = emptyTensor(device, [width, width], 'f32', 'maskMatrix');
    const own = { TILE, ...parameters };
    const workgroups = [Math.ceil(width / TILE), width] as const;
    device.dispatch({
      kernel,
      entry: 'maskTokens',
      parameters: own,
      uniform,
      bindings: { plan, maskNumbers },
      workgroups,
    });
    return maskNumbers;
  });
}

function bitsOf(numbers: ArrayLike<number>): Uint32Array {
  return new Uint32Array(Float32Array.from(numbers).buffer);
}

/**
 * `values` are f(s - STEP), f(s), f(s + STEP) and f'(s) for each point. The central difference is as far from f' as the two
 * one-sided ones disagree, and as f is rounded, the sum of terms that may be as large as s; where they disagree by a tenth, s is at
 * a kink.
 */
function checkDerivative(values: Float32Array, points: readonly Point[]): void {
  let compared = 0;
  points.forEach(({ score, q, k, head }, i) => {
    const [below, here, above, derivative] = values.subarray(4 * i, 4 * i + 4);
    const left = (here - below) / STEP;
    const right = (above - here) / STEP;
    const central = (left + right) / 2;
    const rounding = (2 ** -21 * Math.max(Math.abs(below), Math.abs(here), Math.abs(above), Math.abs(score))) / STEP;
    const disagreement = Math.abs(right - left);
    if (!(disagreement <= 0.1 * (Math.abs(left) + Math.abs(right)) + rounding)) return;
    compared += 1;
    if (!(Math.abs(derivative - central) <= 0.01 * Math.abs(central) + disagreement / 2 + rounding))
      fail(
        `derivative: ${derivative} at score ${score}, q ${q}, k ${k}, head ${head}; finite differences of the score give ${central}`,
      );
  });
  if (compared < points.length / 2)
    fail(
      `score: its derivative can be compared at ${compared} of ${points.length} points with a score from -${LARGEST_SCORE} to ${LARGEST_SCORE}; elsewhere it is not finite or not smooth`,
    );
}
