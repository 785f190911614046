import { useMemo, useRef } from 'preact/hooks';
import {
  type ActionTokenizer,
  BinActionTokenizer,
  type FastTokenizer,
  StringActionTokenizer,
} from '../../../tokenizers/index.ts';
import { digits } from '../../measure/table.ts';
import { reportRows } from '../../tokenize/report.ts';
import { useLinked } from '../link.ts';
import { Choice, Figure, Problem, Slider, Table } from '../parts.tsx';
import { chunkOf, presets, shape, valuesOf } from './chunks.ts';
import { FastSteps } from './fast-steps.tsx';
import { BinTokens, StringTokens } from './plain-tokens.tsx';
import { ChunkPlot } from './plot.tsx';
import { idsOf, idsOfCharacters, spansAfter } from './spelling.ts';
import { errorOf, FITTED_CHUNKS, fitted, idsWithout, initial, kinds, schema, type TokensState } from './state.ts';

/** The last value that `make` gave. Where it throws, the value before stays, and `problem` is the reason. */
function useKept<T>(make: () => T, on: readonly unknown[]): { value: T | null; problem: string | null } {
  const kept = useRef<T | null>(null);
  return useMemo(() => {
    try {
      kept.current = make();
      return { value: kept.current, problem: null };
    } catch (error) {
      return { value: kept.current, problem: (error as Error).message };
    }
  }, on);
}

export function TokensSection() {
  const { state, change, problem } = useLinked('tokens', schema, initial);
  const { scale, vocabulary, bins, decimals } = state;
  const fast = useKept(() => {
    const begin = performance.now();
    const tokenizer = fitted({ scale, vocabulary });
    return { tokenizer, milliseconds: performance.now() - begin };
  }, [scale, vocabulary]);
  const refit = (part: Partial<TokensState>) => change({ ...part, token: null, merged: null, ids: null });
  return (
    <>
      {problem && <Problem text={problem} />}
      <div class="controls">
        {(Object.keys(presets) as (keyof typeof presets)[]).map((name) => (
          <button key={name} type="button" onClick={() => refit({ chunk: valuesOf(presets[name]) })}>
            {name}
          </button>
        ))}
      </div>
      <div class="grid" style={{ '--column': '12rem' }}>
        <Slider
          label="FAST scale"
          value={scale}
          min={1}
          max={40}
          text={`${scale} steps a unit`}
          onChange={(scale) => refit({ scale })}
        />
        <Slider
          label="FAST vocabulary"
          value={vocabulary}
          min={64}
          max={1024}
          step={32}
          text={`at most ${vocabulary} ids`}
          onChange={(vocabulary) => refit({ vocabulary })}
        />
        <Slider label="Bins" value={bins} min={2} max={256} onChange={(bins) => refit({ bins })} />
        <Slider label="Decimals" value={decimals} min={1} max={4} onChange={(decimals) => refit({ decimals })} />
      </div>
      <p class="small" aria-live="polite">
        {fast.value &&
          `FAST was fitted to ${FITTED_CHUNKS} chunks of ${shape.horizon} x ${shape.dimension} in ${fast.value.milliseconds.toFixed(0)} ms: reaching arms and a gripper that switches. It has ${fast.value.tokenizer.codec.symbols} coefficients and ${fast.value.tokenizer.vocabularySize - fast.value.tokenizer.codec.symbols} merges.`}
      </p>
      {fast.problem && <Problem text={fast.problem} />}
      {fast.value && <Tokenized {...{ fast: fast.value.tokenizer, state, change, refit }} />}
    </>
  );
}

/** What a policy would make of ids that a model said wrongly. */
function repairs(tokenizer: FastTokenizer, ids: readonly number[]): string {
  const { unknownAt, cut, padded } = tokenizer.decodeRelaxed(ids, shape);
  const ends = unknownAt >= 0 ? `end at position ${unknownAt}, ` : '';
  return ` Relaxed decoding would ${ends}drop ${cut} coefficients and set ${padded} to zero.`;
}

function beside(compression: number): string {
  if (compression === 1) return 'as many';
  return compression > 1 ? `${digits(compression)} × fewer` : `${digits(1 / compression)} × more`;
}

function Tokenized(props: {
  fast: FastTokenizer;
  state: TokensState;
  change(part: Partial<TokensState>): void;
  refit(part: Partial<TokensState>): void;
}) {
  const { fast, state, change, refit } = props;
  const { kind, ids, bins, decimals } = state;
  const tokenizers = useMemo(
    () => ({ bins: new BinActionTokenizer({ bins }), FAST: fast, string: new StringActionTokenizer({ decimals }) }),
    [bins, fast, decimals],
  );
  const chunk = chunkOf(state.chunk);
  const rows = useMemo(
    () => reportRows(Object.entries<ActionTokenizer>(tokenizers), [chunk], 1),
    [tokenizers, state.chunk],
  );
  const tokenizer: ActionTokenizer = tokenizers[kind];
  const own = tokenizer.encode(chunk);
  const text = ids ?? (kind === 'string' ? tokenizers.string.format(chunk) : own.join(' '));
  const read = useKept(
    () => (kind === 'string' ? idsOfCharacters(text, tokenizers.string.characters) : idsOf(text)),
    [kind, text],
  );
  const decoded = useKept(() => {
    if (read.problem !== null) throw new Error(read.problem);
    const values = tokenizer.decode(read.value!, shape);
    return { values, error: errorOf(tokenizer, Int32Array.from(read.value!), chunk) };
  }, [tokenizer, text, state.chunk]);

  const explanation = fast.explain(chunk);
  const spans = spansAfter(explanation, state.merged ?? explanation.merges.length);
  const selected = spans.find(
    ({ at, length }) => state.token !== null && at <= state.token && state.token < at + length,
  );
  const without = selected && idsWithout(fast, chunk, selected);
  return (
    <>
      <div class="row">
        <Figure
          title="The chunk"
          unit="normalised actions, -1 to 1"
          see="Draw in the plot, or use the arrow keys there. The broad pale lines are what the tokens bring back."
        >
          <ChunkPlot
            values={state.chunk}
            chosen={state.dimension}
            decoded={{ name: kind, values: decoded.value?.values ?? tokenizer.decode(own, shape) }}
            without={without ? fast.decode(without, shape) : null}
            onChoose={(dimension) => change({ dimension })}
            onDraw={(chunk) => refit({ chunk: [...chunk] })}
          />
        </Figure>
        <Figure
          title="What the tokens cost, and what they lose"
          unit="largest and root mean square error, in normalised units"
          see="FAST needs few tokens for a chunk like those that it was fitted to, in which arms reach and a gripper opens or closes at once; any other roughness costs it many. The others need as many for every chunk."
        >
          <Table
            head={['tokenizer', 'tokens', 'beside bins', 'largest', 'RMS']}
            rows={rows.map(({ name, tokensPerChunk, compression, error }) => [
              name,
              tokensPerChunk.mean,
              beside(compression),
              digits(error.largest),
              digits(error.rootMeanSquare),
            ])}
          />
          <div class="controls">
            <Choice label="Tokens of" value={kind} options={kinds} onChange={(kind) => change({ kind, ids: null })} />
            <button type="button" disabled={ids === null} onClick={() => change({ ids: null })}>
              Back to the tokens of the chunk
            </button>
          </div>
          <textarea
            rows={4}
            spellcheck={false}
            aria-label={`Tokens of ${kind}`}
            value={text}
            onInput={({ currentTarget }) => change({ ids: currentTarget.value })}
          />
          <div style={{ minHeight: '8.5rem' }} aria-live="polite">
            {decoded.problem ? (
              <Problem
                text={`${decoded.problem}. The plot keeps the last tokens that could be read.${kind === 'FAST' && !read.problem ? repairs(fast, read.value!) : ''}`}
              />
            ) : (
              <p class="small">
                {ids === null
                  ? 'Change a token, and the plot shows the chunk that the tokens then mean.'
                  : `These tokens mean a chunk with a largest error of ${digits(decoded.value!.error.largest)}.`}
              </p>
            )}
          </div>
        </Figure>
      </div>
      <div class="stack">
        <FastSteps
          {...{ tokenizer: fast, explanation, spans, selected }}
          errors={selected && without && [rows[1].error.largest, errorOf(fast, without, chunk).largest]}
          onToken={(token) => change({ token })}
          onMerged={(merged) => change({ merged })}
        />
        <BinTokens tokenizer={tokenizers.bins} chunk={chunk} />
        <StringTokens tokenizer={tokenizers.string} chunk={chunk} />
      </div>
    </>
  );
}
