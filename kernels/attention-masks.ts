/**
 * Masks and scores of attention, ready-made, for attentionExpression. In the formulas q and k are the tokens of query and key in the
 * layout, s is the score. What a mask does not mention it allows; it is ANDed with the table.
 */
import type { ExpressionSource } from './attention-expression.ts';

export const masks = {
  causal(): ExpressionSource {
    return { mask: 'k <= q' };
  },

  /** The last `size` tokens, itself among them: 0 <= q - k < size (Child et al. 2019, arXiv 1904.10509; Beltagy et al. 2020, arXiv 2004.05150). */
  slidingWindow(size: number): ExpressionSource {
    return { mask: `k <= q && q - k < ${whole('slidingWindow', size, 1)}` };
  },

  /** The first `prefixLength` tokens see each other and are seen by all; causal behind them (Raffel et al. 2019, arXiv 1910.10683). */
  prefixLm(prefixLength: number): ExpressionSource {
    return { mask: `k <= q || k < ${whole('prefixLm', prefixLength, 0)}` };
  },

  /** Tokens of the same document: `ids` are u32, [tokens] or [batch, tokens] (sequence packing: Krell et al. 2021, arXiv 2107.02027). */
  documents(ids: ArrayLike<number>): ExpressionSource {
    return { mask: 'queryData == keyData', tokenData: ids };
  },

  /** Tokens of the same run of `size` tokens (Qiu et al. 2019, arXiv 1911.02972). */
  blockDiagonal(size: number): ExpressionSource {
    return { mask: `q / ${whole('blockDiagonal', size, 1)} == k / ${size}` };
  },

  /** Every `step`-th token, counted from the query, on both sides (Child et al. 2019, arXiv 1904.10509; Beltagy et al. 2020, arXiv 2004.05150). */
  dilated(step: number): ExpressionSource {
    return { mask: `(q - k) % ${whole('dilated', step, 1)} == 0` };
  },

  /** The first `count` tokens see all and are seen by all; nothing else (Beltagy et al. 2020, arXiv 2004.05150): combine with a window by anyOf. */
  globalTokens(count: number): ExpressionSource {
    return { mask: `q < ${whole('globalTokens', count, 0)} || k < ${count}` };
  },

  /**
   * s - slope[head] |q - k| (Press et al. 2021, arXiv 2108.12409): for n heads, a power of two, the slopes are 2^(-8 i / n), i = 1 ... n;
   * for another number those of the next smaller power, then every second one of the next larger, as in the authors' code.
   */
  alibi(heads: number): ExpressionSource {
    const power = 2 ** Math.floor(Math.log2(whole('alibi', heads, 1)));
    const slopes = Array.from(
      { length: heads },
      (_, i) => 2 ** (i < power ? (-8 * (i + 1)) / power : (-4 * (2 * (i - power) + 1)) / power),
    );
    return { score: 'score - constant(head) * f32(abs(q - k))', derivative: '1.0', constants: slopes, heads };
  },

  /** cap tanh(s / cap) (Bello et al. 2016, arXiv 1611.09940; Gemma 2, arXiv 2408.00118). */
  softCap(cap: number): ExpressionSource {
    if (!(Number.isFinite(Math.fround(cap)) && cap > 0))
      throw new Error(`softCap: cap is ${cap}; expected a number above 0`);
    const tanh = `tanh(clamp(score / ${cap}, -10.0, 10.0))`; // beyond about 44 some drivers return NaN
    return { score: `${cap} * ${tanh}`, derivative: `1.0 - ${tanh} * ${tanh}` };
  },

  /**
   * s + values[head, clamp(k - q, -reach, reach) + reach]: a learned number for each head and distance, clipped (Shaw et al. 2018,
   * arXiv 1803.02155; as a scalar, Raffel et al. 2019, arXiv 1910.10683). `values` is [heads, 2 reach + 1].
   */
  relativeBias(values: ArrayLike<number>, reach: number): ExpressionSource {
    const width = 2 * whole('relativeBias', reach, 0) + 1;
    if (values.length === 0 || values.length % width !== 0)
      throw new Error(`relativeBias: ${values.length} values; expected [heads, ${width}]`);
    const score = `score + constant(head * ${width} + clamp(k - q, -${reach}, ${reach}) + ${reach})`;
    return { score, derivative: '1.0', constants: values, heads: values.length / width };
  },

  /** The pairs that every mask allows; scores are applied in order, each to the result of the one before. */
  allOf(...sources: ExpressionSource[]): ExpressionSource {
    return combine('allOf', sources, '&&');
  },

  /** The pairs that at least one mask allows, each source having one; scores as in allOf. */
  anyOf(...sources: ExpressionSource[]): ExpressionSource {
    sources.forEach(({ mask }, i) => {
      if (mask === undefined)
        throw new Error(`anyOf: source ${i} has no mask, and so allows all; combine scores by allOf`);
    });
    return combine('anyOf', sources, '||');
  },
};

function combine(op: string, sources: readonly ExpressionSource[], operator: '&&' | '||'): ExpressionSource {
  const constants: number[] = [];
  const conditions: string[] = [];
  const factors: string[] = [];
  let tokenData: ArrayLike<number> | undefined;
  let composed = 'score';
  let heads = Number.POSITIVE_INFINITY;
  for (const source of sources) {
    const offset = constants.length;
    const part = (text: string) =>
      shiftConstants(text.replace(/\/\/.*$/gm, ''), offset).replace(/\bscore\b/g, composed);
    if (source.mask !== undefined) conditions.push(`(${part(source.mask)})`);
    if (source.derivative !== undefined) factors.push(`(${part(source.derivative)})`);
    if (source.score !== undefined) composed = `(${part(source.score)})`;
    constants.push(...Array.from(source.constants ?? []));
    if (tokenData && source.tokenData && !sameNumbers(tokenData, source.tokenData))
      throw new Error(`${op}: two sources have different tokenData; a token has one number`);
    tokenData ??= source.tokenData;
    heads = Math.min(heads, source.heads ?? heads);
  }
  return {
    ...(conditions.length > 0 && { mask: conditions.join(` ${operator} `) }),
    ...(composed !== 'score' && { score: composed, derivative: factors.join(' * ') }), // the chain rule
    ...(tokenData && { tokenData }),
    ...(constants.length > 0 && { constants }),
    ...(heads < Number.POSITIVE_INFINITY && { heads }),
  };
}

/** The text with `offset` added to the index of every constant. */
function shiftConstants(text: string, offset: number): string {
  const call = offset === 0 ? null : /\bconstant\s*\(/.exec(text);
  if (!call) return text;
  const start = call.index + call[0].length;
  let end = start;
  for (let depth = 1; end < text.length && depth > 0; end++)
    depth += Number(text[end] === '(') - Number(text[end] === ')');
  const index = shiftConstants(text.slice(start, end - 1), offset);
  return `${text.slice(0, start)}${offset} + (${index})${shiftConstants(text.slice(end - 1), offset)}`;
}

function sameNumbers(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  return a === b || (a.length === b.length && Array.from(a).every((value, i) => value === b[i]));
}

function whole(name: string, value: number, least: number): number {
  if (!Number.isInteger(value) || value < least || value >= 2 ** 31)
    throw new Error(`${name}: ${value}; expected an integer from ${least}`);
  return value;
}
