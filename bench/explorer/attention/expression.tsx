/** A mask and a score of one's own in WGSL: tried on the device as they are typed, kept once they hold. */
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
import { Choice, Field, Problem, useWork } from '../parts.tsx';
import { documentOf, type Expression, noExpression, type State, sourceOf } from './state.ts';
import { Typed } from './table.tsx';
import { expressionMask } from './work.ts';

/** An expression that the device has taken, for blocks of these lengths. */
export interface Registered {
  readonly lengths: string;
  readonly given: Expression;
  readonly expression: AttentionExpression | null;
  /** Its mask by query and key token, as `expressionMask` gives it. */
  readonly mask: Float32Array | null;
}

export const lengthsOf = ({ blocks }: Sequence) => blocks.map(({ length }) => length).join();
const textOf = (expression: Expression) => JSON.stringify(expression);
const PAUSE_MILLISECONDS = 250;

async function register(device: Device, layout: Sequence, given: Expression): Promise<Registered> {
  const source = sourceOf(given, layout.length);
  const expression = source && (await attentionExpression(device, layout, source));
  return {
    lengths: lengthsOf(layout),
    given,
    expression,
    mask: expression && (await expressionMask(device, expression)),
  };
}

/**
 * What is typed, and the last of it that holds for `layout`. `keep` gets an expression that the device has taken; `kept` is the one
 * that it got last. Without any, null until the device has answered.
 */
export function useExpression(adapter: Adapter, layout: Sequence, kept: Expression, keep: (own: Expression) => void) {
  const [draft, setDraft] = useState(kept);
  const [registered, setRegistered] = useState<Registered | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const { run, busy, problem: broken } = useWork(adapter);
  const lengths = lengthsOf(layout);
  useEffect(() => setDraft(kept), [textOf(kept)]);
  useEffect(() => {
    const begin = () =>
      run(async (device, signal) => {
        const take = (own: Registered) => !signal.aborted && setRegistered(own);
        try {
          take(await register(device, layout, draft));
          if (signal.aborted) return;
          setProblem(null);
          if (textOf(draft) !== textOf(kept)) keep(draft);
        } catch (error) {
          if (signal.aborted) return;
          setProblem((error as Error).message);
          if (registered?.lengths !== lengths)
            take(await register(device, layout, kept).catch(() => register(device, layout, noExpression)));
        }
      });
    const timer = setTimeout(begin, textOf(draft) === textOf(kept) ? 0 : PAUSE_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [lengths, textOf(draft)]);
  return { draft, setDraft, registered, busy, problem: problem ?? broken };
}

type Ready = Readonly<Record<string, (state: State, tokens: number) => ExpressionSource>>;

const readyMasks: Ready = {
  causal: () => masks.causal(),
  'sliding window of 16': () => masks.slidingWindow(16),
  'prefix-LM of 32': () => masks.prefixLm(32),
  documents: (_, tokens) => masks.documents(Array.from({ length: tokens }, (_, i) => documentOf(bordersOf(tokens), i))),
  'runs of 16': () => masks.blockDiagonal(16),
  'dilated by 2': () => masks.dilated(2),
  'global tokens and a window': () => masks.anyOf(masks.globalTokens(4), masks.slidingWindow(16)),
};
const readyScores: Ready = {
  ALiBi: ({ heads }) => masks.alibi(heads),
  'soft cap of 5': () => masks.softCap(5),
};
const bordersOf = (tokens: number) => [Math.round(tokens / 3), Math.round((2 * tokens) / 3)];
const OWN = 'as written below';

const numbersIn = (text: string) =>
  text.trim() === '' ? [] : text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));

export function Expressions(props: {
  state: State;
  tokens: number;
  draft: Expression;
  set(own: Expression): void;
  busy: boolean;
  problem: string | null;
}) {
  const { state, tokens, draft, set, busy, problem } = props;
  const put = (part: Partial<Expression>) => set({ ...draft, ...part });
  const area = (name: 'mask' | 'score' | 'derivative', label: string) => (
    <Field label={label}>
      <textarea
        rows={2}
        spellcheck={false}
        value={draft[name]}
        onInput={({ currentTarget }) => put({ [name]: currentTarget.value })}
      />
    </Field>
  );
  const list = (name: 'borders' | 'constants', label: string) => (
    <Field label={label}>
      <Typed
        label={label}
        value={draft[name].join(', ')}
        commit={(text) => {
          const numbers = numbersIn(text);
          const fits = numbers.every((own) => Number.isFinite(own) && (name === 'constants' || Number.isInteger(own)));
          if (fits) put({ [name]: numbers, ...(name === 'constants' && { heads: undefined }) });
          return fits;
        }}
      />
    </Field>
  );
  const chooseMask = (name: string) => {
    const { mask = '', tokenData } = readyMasks[name]?.(state, tokens) ?? {};
    put({ mask, borders: tokenData ? bordersOf(tokens) : [] });
  };
  const chooseScore = (name: string) => {
    const { score = '', derivative = '', constants = [], heads } = readyScores[name]?.(state, tokens) ?? {};
    put({ score, derivative, constants: Array.from(constants), heads });
  };
  const nameOf = (ready: Ready, field: 'mask' | 'score') =>
    draft[field] === ''
      ? 'none'
      : (Object.keys(ready).find((name) => ready[name](state, tokens)[field] === draft[field]) ?? OWN);
  const options = (ready: Ready) => ['none', ...Object.keys(ready), OWN];
  return (
    <>
      <div class="controls">
        <Choice
          label="Ready-made mask"
          value={nameOf(readyMasks, 'mask')}
          options={options(readyMasks)}
          onChange={chooseMask}
        />
        <Choice
          label="Ready-made score"
          value={nameOf(readyScores, 'score')}
          options={options(readyScores)}
          onChange={chooseScore}
        />
      </div>
      {area('mask', 'Mask, a bool of q, k, queryData, keyData; ANDed with the table')}
      {area('score', 'Score, an f32 of score, q, k, head, constant(i)')}
      {area('derivative', 'Its derivative by score')}
      <div class="controls">
        {list('borders', 'Documents begin at tokens')}
        {list('constants', 'Constants')}
      </div>
      <div class="attention-answer" aria-live="polite">
        {problem ? (
          <Problem text={`${problem}. The last one that held stays.`} />
        ) : (
          <p class="small">{busy ? 'Compiled and tried …' : 'Compiled and tried on this adapter.'}</p>
        )}
      </div>
    </>
  );
}
