import { useMemo, useRef, useState } from 'preact/hooks';
import { systems } from '../../../model/systems/index.ts';
import type { Adapter } from '../device.ts';
import { useLinked } from '../link.ts';
import { Choice, Legend, Problem } from '../parts.tsx';
import { codeOf } from './code.ts';
import { Expressions, lengthsOf, useExpression } from './expression.tsx';
import { CountsTable, Measured, Reaching } from './numbers.tsx';
import { Hatches, MaskPicture, TilePicture } from './pictures.tsx';
import { initial, isEmpty, makeTable, type State, stateSchema, systemTable } from './state.ts';
import { Blocks, EdgeTable } from './table.tsx';
import { comparedCounts, problemOf, variantsFor, visiblePairs } from './work.ts';

const OWN = 'a table of your own';
const stripes = (colour: string) => `repeating-linear-gradient(45deg, var(--${colour}) 0 2px, var(--band) 2px 5px)`;
const numbers = (values: readonly number[]) => values.map(String);

export function AttentionSection({ adapter }: { adapter: Adapter }) {
  const { state, change, problem } = useLinked('attention', stateSchema, initial);
  const { blocks, cells, heads, kvHeads, headDimension } = state;
  const table = useMemo(() => makeTable({ blocks, cells }), [JSON.stringify([blocks, cells])]);
  const keep = (expression: State['expression']) => change({ expression });
  const typed = useExpression(adapter, table.layout, state.expression, keep);
  const { registered } = typed;

  const fits = registered?.lengths === lengthsOf(table.layout);
  const waits = !fits && !isEmpty(state.expression);
  const [expression, mask] = fits ? [registered.expression, registered.mask] : [null, null];
  const made = useMemo(() => {
    if (waits) return null;
    const given = problemOf(state, table, expression);
    return { given, seen: visiblePairs(given, mask), compared: comparedCounts(given) };
  }, [table, waits, expression, heads, kvHeads, headDimension]);
  const last = useRef(made);
  last.current = made ?? last.current;
  const shown = last.current;
  const variants = variantsFor(adapter.device, state);
  const variant = variants.includes(state.variant) ? state.variant : '';

  return (
    <>
      {problem && <Problem text={problem} />}
      <div class="row attention-top">
        <section>
          <h2>Table</h2>
          <Start state={state} change={change} />
          <Blocks state={state} change={change} />
          <EdgeTable state={state} change={change} />
        </section>
        <section class={waits ? 'busy' : undefined}>
          <h2>What is computed</h2>
          <p class="see">All to scale: rows are queries, columns keys.</p>
          <Hatches layout={table.layout} />
          {shown ? <Pictures {...shown} /> : <div class="attention-pictures" />}
        </section>
      </div>
      <section>
        <h2>What it costs</h2>
        <div class="controls">
          <Choice
            label="Query heads"
            value={String(heads)}
            options={numbers([1, 2, 4, 8])}
            onChange={(own) =>
              change({
                heads: Number(own) as State['heads'],
                kvHeads: Math.min(kvHeads, Number(own)) as State['kvHeads'],
              })
            }
          />
          <Choice
            label="Key heads"
            value={String(kvHeads)}
            options={numbers([1, 2, 4, 8].filter((own) => own <= heads))}
            onChange={(own) => change({ kvHeads: Number(own) as State['kvHeads'] })}
          />
          <Choice
            label="Head dimension"
            value={String(headDimension)}
            options={numbers([16, 32, 64, 128, 256])}
            onChange={(own) => change({ headDimension: Number(own) as State['headDimension'] })}
          />
          <Choice
            label="Kernels"
            value={variant}
            options={[{ value: '', text: `shipped (${variants[0]})` }, ...variants]}
            onChange={(own) => change({ variant: own })}
          />
        </div>
        {state.variant !== variant && (
          <Problem text={`This adapter has no kernels '${state.variant}': those that are shipped run.`} />
        )}
        <p class="small">
          Tiles are pieces of at most 32 tokens of one block, in all kernels; FLOPs are those of the library's cost
          model, masked scores included.
        </p>
        {shown && (
          <>
            <div class={`row attention-work${waits ? ' busy' : ''}`}>
              <CountsTable compared={shown.compared} />
              <Measured adapter={adapter} given={shown.given} variant={variant} />
            </div>
            <Reaching adapter={adapter} given={shown.given} variant={variant} flops={shown.compared.own.backward} />
          </>
        )}
      </section>
      <div class="row">
        <section class="attention-expressions">
          <h2>Expressions of your own</h2>
          <Expressions
            {...{
              state,
              tokens: table.layout.length,
              draft: typed.draft,
              set: typed.setDraft,
              busy: typed.busy,
              problem: typed.problem,
            }}
          />
        </section>
        <section>
          <h2>As a program</h2>
          <Code text={codeOf(state)} />
        </section>
      </div>
    </>
  );
}

function Pictures({
  given,
  seen,
  compared,
}: {
  given: ReturnType<typeof problemOf>;
  seen: Uint8Array;
  compared: ReturnType<typeof comparedCounts>;
}) {
  const { table } = given;
  const { forward, dQuery, dKeyValue } = compared.own.lists;
  return (
    <>
      <div class="attention-pictures">
        <MaskPicture table={table} seen={seen} />
        <TilePicture
          title="Forward"
          see="Pairs in which some query sees some key."
          {...{ table, live: forward.live }}
        />
        <TilePicture title="dQ" see="Those of them whose queries carry a loss." {...{ table, live: dQuery.live }} />
        <TilePicture
          title="dK/dV"
          see="Those of them whose edge passes gradient back."
          {...{ table, live: dKeyValue.live }}
        />
      </div>
      <Legend
        items={[
          { text: 'full: every score of the pair counts', fill: 'var(--line1)' },
          {
            text: 'partial: each is tested (a causal border, an expression, or a tile of fewer keys)',
            fill: stripes('line1'),
          },
          { text: 'vanished by the last change, for a moment', fill: stripes('stop') },
        ]}
      />
    </>
  );
}

function Start({ state, change }: { state: State; change(part: Partial<State>): void }) {
  const { note, ...own } = useMemo(
    () => (systems.some(({ name }) => name === state.system) ? systemTable(state.system) : { note: '' }),
    [state.system],
  );
  const edited = JSON.stringify(own) !== JSON.stringify({ blocks: state.blocks, cells: state.cells });
  const choose = (system: string) => {
    if (system === OWN) return change({ system: '' });
    const { note: _, ...chosen } = systemTable(system);
    change({ system, ...chosen, selected: [chosen.blocks.length - 1, 0] });
  };
  const known = note !== '';
  return (
    <>
      <div class="controls">
        <Choice
          label="Start from"
          value={known ? state.system : OWN}
          options={[OWN, ...systems.map(({ name }) => name)]}
          onChange={choose}
        />
        <button type="button" disabled={!known || !edited} onClick={() => choose(state.system)}>
          Back to it
        </button>
      </div>
      <p class="see">
        {known
          ? `${note}${edited ? ' Changed here.' : ' Losses are those of its last layer; before it, every block carries one.'}`
          : 'Blocks are tokens in order; a loss says whose rows have one.'}
      </p>
    </>
  );
}

function Code({ text }: { text: string }) {
  const [copied, setCopied] = useState('');
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setCopied(text),
      () => setCopied(''),
    );
  return (
    <>
      <pre class="wide">
        <code>{text}</code>
      </pre>
      <button type="button" onClick={copy}>
        {copied === text ? 'Copied' : 'Copy'}
      </button>
    </>
  );
}
