import { useMemo, useRef } from 'preact/hooks';
import { systems } from '../../../model/systems/index.ts';
import type { Adapter } from '../device.ts';
import { useLinked } from '../link.ts';
import { Choice, Problem } from '../parts.tsx';
import { codeOf } from './code.ts';
import { Expressions, lengthsOf, useExpression } from './expression.tsx';
import { Counted, Measured, Reaching } from './numbers.tsx';
import { Pictures } from './pictures.tsx';
import { initial, isEmpty, makeTable, noExpression, type State, sizes, stateSchema, systemTable } from './state.ts';
import { Blocks, EdgeTable } from './table.tsx';
import { comparedCounts, problemOf, visiblePairs } from './work.ts';

const OWN = 'a table of your own';

export function AttentionSection({ adapter }: { adapter: Adapter }) {
  const { state, change, problem } = useLinked('attention', stateSchema, initial);
  const { blocks, cells, heads, kvHeads, headDimension } = state;
  const table = useMemo(() => makeTable({ blocks, cells }), [JSON.stringify([blocks, cells])]);
  const { registered, ...trying } = useExpression(adapter, table.layout, state.expression);

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
  const code = codeOf({ ...state, expression: registered?.given ?? noExpression });

  const size = (name: keyof typeof sizes, label: string, fits: (size: number) => boolean = () => true) => (
    <Choice
      label={label}
      value={String(state[name])}
      options={sizes[name].filter(fits).map(String)}
      onChange={(own) => change({ [name]: Number(own) })}
    />
  );

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
          {shown ? (
            <Pictures table={shown.given.table} seen={shown.seen} live={shown.compared.own.live} />
          ) : (
            <div style={{ minHeight: '50rem' }} />
          )}
        </section>
      </div>
      <section>
        <h2>What it costs</h2>
        <div class="controls">
          {size('heads', 'Query heads', (own) => own >= kvHeads)}
          {size('kvHeads', 'Key heads', (own) => own <= heads)}
          {size('headDimension', 'Head dimension')}
        </div>
        <p class="small">
          Tiles are pieces of at most 32 tokens of one block, in all kernels. Pairs of tokens are those of whole tiles,
          and FLOPs those of the library's cost model: both include masked scores.
        </p>
        {shown && (
          <>
            <div class={`row attention-work ${waits ? 'busy' : ''}`} style={{ marginBottom: '1.5rem' }}>
              <Counted compared={shown.compared} />
              <Measured adapter={adapter} given={shown.given} />
            </div>
            <Reaching adapter={adapter} given={shown.given} counts={shown.compared.own} />
          </>
        )}
      </section>
      <div class="row">
        <section>
          <h2>Expressions of your own</h2>
          <Expressions
            {...{ heads, ...trying, tokens: table.layout.length, typed: state.expression }}
            onType={(expression) => change({ expression })}
          />
        </section>
        <section>
          <h2>As a program</h2>
          <pre class="wide">
            <code>{code}</code>
          </pre>
          <button type="button" onClick={() => navigator.clipboard.writeText(code)}>
            Copy the program
          </button>
        </section>
      </div>
    </>
  );
}

function Start({ state, change }: { state: State; change(part: Partial<State>): void }) {
  const { system, blocks, cells } = state;
  const known = systems.some(({ name }) => name === system);
  const { note, ...own } = useMemo(() => (known ? systemTable(system) : { note: '' }), [system]);
  const edited = JSON.stringify(own) !== JSON.stringify({ blocks, cells });
  const choose = (name: string) => {
    if (name === OWN) return change({ system: '' });
    const { blocks, cells } = systemTable(name);
    change({ system: name, blocks, cells, selected: [blocks.length - 1, 0] });
  };
  const unchanged = 'Losses are those of its last layer; before it, every block carries one.';
  return (
    <>
      <div class="controls">
        <Choice
          label="Start from"
          value={known ? system : OWN}
          options={[OWN, ...systems.map(({ name }) => name)]}
          onChange={choose}
        />
        <button type="button" disabled={!known || !edited} onClick={() => choose(system)}>
          Back to this system
        </button>
      </div>
      <p class="see">
        {known
          ? `${note} ${edited ? 'Changed here.' : unchanged}`
          : 'Blocks are tokens in order; a loss says whose rows have one.'}
      </p>
    </>
  );
}
