/** The editor of blocks and edges. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { edgeText } from '../../../model/systems/index.ts';
import { type Cell as CellLook, Choice, Field, Matrix, Problem, Slider, Table } from '../parts.tsx';
import { type BlockState, type Cell, cellOf, edgeOf, nextCell, problemWith, type State } from './state.ts';

export interface Editing {
  readonly state: State;
  change(part: Partial<State>): void;
}

/** A field that keeps what is typed, and hands on what `commit` takes; it returns whether it did. Else the field shows the `rule`. */
export function Typed(props: {
  label: string;
  value: string;
  commit(text: string): boolean;
  numeric?: boolean;
  rule?: string;
}) {
  const { label, value, commit, numeric, rule } = props;
  const field = useRef<HTMLInputElement>(null);
  const [text, setText] = useState(value);
  const [wrong, setWrong] = useState(false);
  const reset = () => {
    setText(value);
    setWrong(false);
  };
  useEffect(() => {
    // What is being typed may stand for the same value in other letters.
    if (document.activeElement !== field.current) reset();
  }, [value]);
  return (
    <>
      <input
        ref={field}
        inputMode={numeric ? 'numeric' : undefined}
        aria-label={label}
        aria-invalid={wrong}
        value={text}
        onInput={({ currentTarget }) => {
          setText(currentTarget.value);
          setWrong(!commit(currentTarget.value));
        }}
        onBlur={() => wrong || reset()}
      />
      {wrong && rule && <Problem text={rule} />}
    </>
  );
}

export function Blocks({ state, change }: Editing) {
  const [problem, setProblem] = useState<string | null>(null);
  const { blocks, cells } = state;
  const attempt = (part: Partial<State>) => {
    const reason = problemWith({ ...state, ...part });
    setProblem(reason);
    if (reason === null) change(part);
    return reason === null;
  };
  const set = (index: number, part: Partial<BlockState>) =>
    attempt({ blocks: blocks.map((block, i) => (i === index ? { ...block, ...part } : block)) });
  const add = () => {
    const numbers = Array.from({ length: blocks.length + 1 }, (_, i) => i + 1);
    const number = numbers.find((own) => blocks.every(({ name }) => name !== `block ${own}`));
    attempt({
      blocks: [...blocks, { name: `block ${number}`, length: 16, rows: 'both', loss: true }],
      cells: [...cells.map((row): Cell[] => [...row, 'none']), [...blocks.map((): Cell => 'none'), 'full']],
    });
  };
  const remove = (index: number) =>
    attempt({
      blocks: blocks.filter((_, i) => i !== index),
      cells: cells.filter((_, i) => i !== index).map((row) => row.filter((_, i) => i !== index)),
      selected: [0, 0],
    });
  return (
    <>
      <div class="attention-blocks">
        <Table
          label="Blocks"
          head={['block', 'tokens', 'rows', 'loss', '']}
          rows={blocks.map(({ name, length, rows, loss }, i) => [
            <Typed label={`Name of block ${i + 1}`} value={name} commit={(text) => set(i, { name: text.trim() })} />,
            <Typed
              label={`Tokens of ${name}`}
              numeric
              value={String(length)}
              commit={(text) => set(i, { length: Number(text) })}
            />,
            <select
              aria-label={`Rows of ${name}`}
              value={rows}
              onChange={({ currentTarget }) => set(i, { rows: currentTarget.value as BlockState['rows'] })}
            >
              {['both', 'keys', 'queries'].map((own) => (
                <option key={own}>{own}</option>
              ))}
            </select>,
            <input
              type="checkbox"
              aria-label={`${name} carries a loss`}
              checked={loss}
              disabled={rows === 'keys'}
              onChange={({ currentTarget }) => set(i, { loss: currentTarget.checked })}
            />,
            <button type="button" class="plain" aria-label={`Remove ${name}`} onClick={() => remove(i)}>
              ✕
            </button>,
          ])}
        />
      </div>
      <button type="button" disabled={blocks.length === 16} onClick={add}>
        Add a block
      </button>
      {problem && <Problem text={problem} />}
    </>
  );
}

/** An edge in words, and with a colour for what passes: the other one where gradient is stopped or scaled. */
function lookOf(cell: Cell): Pick<CellLook, 'text' | 'shade' | 'hatched'> {
  const own = edgeOf(cell);
  if (own.mask === 'none') return { text: '–', hatched: true };
  const stopped = 1 - (own.keyGradient + own.valueGradient) / 2;
  return { text: edgeText(own), shade: stopped > 0 ? -0.1 - stopped / 2 : own.mask === 'full' ? 0.5 : 0.3 };
}

export function EdgeTable({ state, change }: Editing) {
  const { blocks, cells, selected } = state;
  const names = blocks.map(({ name }) => name);
  const setCell = (q: number, k: number, cell: Cell) =>
    change({
      cells: cells.map((row, i) => (i === q ? row.map((own, j) => (j === k ? cell : own)) : row)),
      selected: [q, k],
    });
  const look = (query: string, key: string, q: number, k: number): CellLook => {
    if (blocks[q].rows === 'keys') return { text: '', hatched: true, title: `${query} has no queries` };
    if (blocks[k].rows === 'queries') return { text: '', hatched: true, title: `${key} has no keys` };
    const own = lookOf(cells[q][k]);
    const marked = selected[0] === q && selected[1] === k;
    return {
      ...{ ...own, marked },
      title: `${query} reads ${key}: ${own.hatched ? 'none' : own.text}`,
      onFocus: () => marked || change({ selected: [q, k] }),
      onClick: () => setCell(q, k, nextCell(cells[q][k])),
    };
  };
  const [q, k] = selected;
  return (
    <>
      <p class="see">
        A row's queries read a column's keys. A click or Enter makes a full edge of an empty cell, and stops the
        gradient of an edge or lets it pass: full or insulated. Arrow keys choose another; Mask, below, makes it none,
        full or, for a block and itself, causal.
      </p>
      <Matrix label="Attention table: rows are queries, columns keys" rows={names} columns={names} cell={look} />
      {cells[q]?.[k] && (
        <Factors query={names[q]} keys={names[k]} cell={cells[q][k]} set={(cell) => setCell(q, k, cell)} />
      )}
    </>
  );
}

/** The mask, window and gradient factors of the selected edge. */
function Factors(props: { query: string; keys: string; cell: Cell; set(cell: Cell): void }) {
  const { query, keys, set } = props;
  const edge = edgeOf(props.cell);
  const { mask, window } = edge;
  const masks = query === keys ? (['none', 'full', 'causal'] as const) : (['none', 'full'] as const);
  const put = (part: Partial<typeof edge>) => set(cellOf({ ...edge, ...part }));
  const percent = (value: number) => `${Math.round(100 * value)} %`;
  return (
    <fieldset class="box attention-edge">
      <legend>
        {query} reads {keys}
      </legend>
      <Choice label="Mask" value={mask} options={masks} onChange={(own) => put({ mask: own, window: undefined })} />
      {(['keyGradient', 'valueGradient'] as const).map((side) => (
        <Slider
          key={side}
          label={`Gradient to ${side === 'keyGradient' ? 'keys' : 'values'}`}
          {...{ value: edge[side], min: 0, max: 1, step: 0.05, text: percent(edge[side]) }}
          onChange={(value) => mask !== 'none' && put({ [side]: value })}
        />
      ))}
      {mask === 'causal' && (
        <Field label="Window, tokens (empty: all)">
          <Typed
            label="Window in tokens"
            rule="A whole number from 1, or nothing; the last good one stays in use."
            numeric
            value={window === undefined ? '' : String(window)}
            commit={(text) => {
              const tokens = Number(text);
              if (text !== '' && (!Number.isInteger(tokens) || tokens < 1)) return false;
              put({ window: text === '' ? undefined : tokens });
              return true;
            }}
          />
        </Field>
      )}
    </fieldset>
  );
}
