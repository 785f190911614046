import { useMemo, useRef, useState } from 'preact/hooks';
import { systems } from '../../../model/systems/index.ts';
import type { Adapter } from '../device.ts';
import { useLinked } from '../link.ts';
import { Choice, Problem } from '../parts.tsx';
import { codeOf } from './code.ts';
import { Expressions, lengthsOf, useExpression } from './expression.tsx';
import { Counted, Measured, Reaching } from './numbers.tsx';
import { Pictures } from './pictures.tsx';
import {
  headCounts,
  headDimensions,
  initial,
  isEmpty,
  makeTable,
  type State,
  stateSchema,
  systemTable,
} from './state.ts';
import { Blocks, EdgeTable } from './table.tsx';
import { comparedCounts, problemOf, variantsFor, visiblePairs } from './work.ts';

const OWN = 'a table of your own';

export function AttentionSection({ adapter }: { adapter: Adapter }) {
  const { state, change, problem } = useLinked('attention', stateSchema, initial);
  const { blocks, cells, heads, kvHeads, headDimension } = state;
  const table = useMemo(() => makeTable({ blocks, cells }), [JSON.stringify([blocks, cells])]);
  const typed = useExpression(adapter, table.layout, state.expression, (expression) => change({ expression }));
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

  const size = (name: 'heads' | 'kvHeads' | 'headDimension', label: string, values: readonly number[]) => (
    <Choice
      label={label}
      value={String(state[name])}
      options={values.map(String)}
      onChange={(own) => change({ [name]: Number(own) } as Partial<State>)}
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
            <div class="attention-pictures" />
          )}
        </section>
      </div>
      <section>
        <h2>What it costs</h2>
        <div class="controls">
          {size(
            'heads',
            'Query heads',
            headCounts.filter((own) => own >= kvHeads),
          )}
          {size(
            'kvHeads',
            'Key heads',
            headCounts.filter((own) => own <= heads),
          )}
          {size('headDimension', 'Head dimension', headDimensions)}
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
              <Counted compared={shown.compared} />
              <Measured adapter={adapter} given={shown.given} variant={variant} />
            </div>
            <Reaching adapter={adapter} given={shown.given} variant={variant} counts={shown.compared.own} />
          </>
        )}
      </section>
      <div class="row">
        <section class="attention-expressions">
          <h2>Expressions of your own</h2>
          <Expressions heads={heads} tokens={table.layout.length} typed={typed} />
        </section>
        <section>
          <h2>As a program</h2>
          <Code text={codeOf(state)} />
        </section>
      </div>
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
