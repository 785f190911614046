/** A mask and a score of one's own in WGSL: tried on the device as they are typed, used once they hold. */
import { useEffect, useState } from 'preact/hooks';
import type { Device } from '../../../engine/index.ts';
import {
  type AttentionExpression,
  attentionExpression,
  type ExpressionSource,
  masks,
  type Sequence,
} from '../../../kernels/index.ts';
import type { Adapter } from '../device.ts';
import { Choice, Field, Problem } from '../parts.tsx';
import { useWork } from '../work.tsx';
import { type Expression, noExpression, sourceOf } from './state.ts';
import { Typed } from './table.tsx';
import { expressionMask } from './work.ts';

/** An expression that the device has taken, for blocks of these lengths, and its mask as `expressionMask` gives it. */
interface Registered {
  readonly lengths: string;
  readonly given: Expression;
  readonly expression: AttentionExpression | null;
  readonly mask: Float32Array | null;
}

export const lengthsOf = ({ blocks }: Sequence) => blocks.map(({ length }) => length).join();
const PAUSE_MILLISECONDS = 250;

async function register(device: Device, layout: Sequence, given: Expression): Promise<Registered> {
  const source = sourceOf(given, layout.length);
  const expression = source && (await attentionExpression(device, layout, source));
  const mask = expression && (await expressionMask(device, expression));
  return { lengths: lengthsOf(layout), given, expression, mask };
}

/** The last expression that held, for `layout`, and what is wrong with the one that is typed. */
export function useExpression(adapter: Adapter, layout: Sequence, typed: Expression) {
  const [registered, setRegistered] = useState<Registered | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const { run, busy, problem } = useWork(adapter);
  const lengths = lengthsOf(layout);
  useEffect(() => {
    const begin = () =>
      run(async (device, signal) => {
        const attempt = async (given: Expression) => {
          const made = await register(device, layout, given);
          if (!signal.aborted) setRegistered(made);
        };
        const reason = await attempt(typed).then(
          () => null,
          (error: Error) => error.message,
        );
        if (signal.aborted) return;
        setFault(reason);
        if (reason !== null && registered?.lengths !== lengths)
          await attempt(registered?.given ?? noExpression).catch(() => attempt(noExpression));
      });
    const timer = setTimeout(begin, registered ? PAUSE_MILLISECONDS : 0);
    return () => clearTimeout(timer);
  }, [lengths, JSON.stringify(typed)]);
  return { registered, busy, problem: fault ?? problem };
}

type Ready = Readonly<Record<string, Partial<Expression>>>;
const ready = (
  sources: Readonly<Record<string, ExpressionSource>>,
  of: (source: ExpressionSource) => Partial<Expression>,
): Ready => Object.fromEntries(Object.entries(sources).map(([name, source]) => [name, of(source)]));

function readyMasks(tokens: number): Ready {
  const borders = [tokens / 3, (2 * tokens) / 3].map(Math.round);
  const sources = {
    none: {},
    causal: masks.causal(),
    'sliding window of 16': masks.slidingWindow(16),
    'prefix-LM of 32': masks.prefixLm(32),
    documents: masks.documents(borders),
    'runs of 16': masks.blockDiagonal(16),
    'dilated by 2': masks.dilated(2),
    'global tokens and a window': masks.anyOf(masks.globalTokens(4), masks.slidingWindow(16)),
  };
  return ready(sources, ({ mask = '', tokenData }) => ({ mask, borders: tokenData ? borders : [] }));
}

const readyScores = (heads: number): Ready =>
  ready(
    { none: {}, ALiBi: masks.alibi(heads), 'soft cap of 5': masks.softCap(5) },
    ({ score = '', derivative = '', constants = [], heads }) => ({
      score,
      derivative,
      constants: Array.from(constants),
      heads,
    }),
  );

const OWN = 'as written below';

const numbersIn = (text: string) =>
  text.trim() === '' ? [] : text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));

export function Expressions(props: {
  heads: number;
  tokens: number;
  typed: Expression;
  busy: boolean;
  problem: string | null;
  onType(expression: Expression): void;
}) {
  const { heads, tokens, typed, busy, problem } = props;
  const put = (part: Partial<Expression>) => props.onType({ ...typed, ...part });
  const choice = (label: string, field: 'mask' | 'score', ready: Ready) => {
    const names = Object.keys(ready);
    const name = names.find((own) => ready[own][field] === typed[field]);
    return (
      <Choice
        label={label}
        value={name ?? OWN}
        options={name === undefined ? [...names, OWN] : names}
        onChange={(own) => put(ready[own])}
      />
    );
  };
  const area = (name: 'mask' | 'score' | 'derivative', label: string) => (
    <Field label={label}>
      <textarea
        rows={2}
        spellcheck={false}
        value={typed[name]}
        onInput={({ currentTarget }) => put({ [name]: currentTarget.value })}
      />
    </Field>
  );
  const list = (name: 'borders' | 'constants', label: string, rule: string) => (
    <Field label={label}>
      <Typed
        label={label}
        value={typed[name].join(', ')}
        rule={`${rule}, with commas between them; the last good ones stay in use.`}
        commit={(text) => {
          const numbers = numbersIn(text);
          const isBorder = (own: number, i: number) =>
            Number.isInteger(own) && own > (numbers[i - 1] ?? 0) && own < tokens;
          const fits = numbers.every(name === 'borders' ? isBorder : Number.isFinite);
          if (fits) put({ [name]: numbers, ...(name === 'constants' && { heads: undefined }) });
          return fits;
        }}
      />
    </Field>
  );
  return (
    <>
      <div class="controls">
        {choice('Ready-made mask', 'mask', readyMasks(tokens))}
        {choice('Ready-made score', 'score', readyScores(heads))}
      </div>
      <div class="grid">
        {area('mask', 'Mask, a bool of q, k, queryData, keyData; ANDed with the table')}
        {area('score', 'Score, an f32 of score, q, k, head, constant(i)')}
        {area('derivative', 'Its derivative by score')}
      </div>
      <div class="controls">
        {list('borders', 'Documents begin at tokens', `Whole numbers from 1 to ${tokens - 1}, each above the last`)}
        {list('constants', 'Constants', 'Numbers')}
      </div>
      <div style={{ minHeight: '3.5rem' }} aria-live="polite">
        {problem ? (
          <Problem text={`${problem}. The last one that held, or none, stays.`} />
        ) : (
          <p class="small">{busy ? 'Compiled and tried …' : 'Compiled and tried on this adapter.'}</p>
        )}
      </div>
    </>
  );
}
