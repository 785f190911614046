/** The editor of blocks and edges. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { type Cell as CellLook, Choice, Field, Matrix, Problem, Slider } from '../parts.tsx';
import { type BlockState, type Cell, cellOf, edgeOf, nextCell, problemWith, type State } from './state.ts';

export interface Editing {
  readonly state: State;
  change(part: Partial<State>): void;
}

/** A field that keeps what is typed, and hands on what `commit` takes; it returns whether it did. */
export function Typed(props: { label: string; value: string; commit(text: string): boolean; numeric?: boolean }) {
  const { label, value, commit, numeric } = props;
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
    const number = [...blocks.keys(), blocks.length].find((i) =>
      blocks.every(({ name }) => name !== `block ${i + 1}`),
    )!;
    attempt({
      blocks: [...blocks, { name: `block ${number + 1}`, length: 16, rows: 'both', loss: true }],
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
      <div class="wide">
        <table class="attention-blocks" aria-label="Blocks">
          <thead>
            <tr>
              {['block', 'tokens', 'rows', 'loss', ''].map((name) => (
                <th key={name} scope="col">
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {blocks.map(({ name, length, rows, loss }, i) => (
              <tr key={i}>
                <td>
                  <Typed
                    label={`Name of block ${i + 1}`}
                    value={name}
                    commit={(text) => set(i, { name: text.trim() })}
                  />
                </td>
                <td>
                  <Typed
                    label={`Tokens of ${name}`}
                    numeric
                    value={String(length)}
                    commit={(text) => set(i, { length: Number(text) })}
                  />
                </td>
                <td>
                  <select
                    aria-label={`Rows of ${name}`}
                    value={rows}
                    onChange={({ currentTarget }) => set(i, { rows: currentTarget.value as BlockState['rows'] })}
                  >
                    {['both', 'keys', 'queries'].map((own) => (
                      <option key={own}>{own}</option>
                    ))}
                  </select>
                </td>
                <td>
                  <input
                    type="checkbox"
                    aria-label={`${name} carries a loss`}
                    checked={loss}
                    disabled={rows === 'keys'}
                    onChange={({ currentTarget }) => set(i, { loss: currentTarget.checked })}
                  />
                </td>
                <td>
                  <button type="button" class="plain" aria-label={`Remove ${name}`} onClick={() => remove(i)}>
                    ✕
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <button type="button" disabled={blocks.length === 16} onClick={add}>
        Add a block
      </button>
      {problem && <Problem text={problem} />}
    </>
  );
}

/** An edge in a few letters, and how it looks. */
function lookOf(cell: Cell): Pick<CellLook, 'text' | 'shade' | 'hatched'> {
  const { mask, window, keyGradient, valueGradient } = edgeOf(cell);
  if (mask === 'none') return { text: '–', hatched: true };
  if (cell === 'insulated') return { text: 'insulated', shade: -0.5 };
  const factors = keyGradient === valueGradient ? [keyGradient] : [keyGradient, valueGradient];
  const scaled = Math.min(...factors) < 1;
  const text = `${mask}${window === undefined ? '' : ` ${window}`}${scaled ? ` ×${factors.join('/')}` : ''}`;
  const strength = mask === 'full' ? 0.5 : 0.3;
  return { text, shade: scaled ? strength * ((keyGradient + valueGradient) / 2 - 1) - 0.1 : strength };
}

export function EdgeTable({ state, change }: Editing) {
  const { blocks, cells, selected } = state;
  const names = blocks.map(({ name }) => name);
  const setCell = (q: number, k: number, cell: Cell) =>
    change({
      cells: cells.map((row, i) => (i === q ? row.map((own, j) => (j === k ? cell : own)) : row)),
      selected: [q, k],
    });
  const look = (query: string, key: string): CellLook => {
    const [q, k] = [names.indexOf(query), names.indexOf(key)];
    if (blocks[q].rows === 'keys' || blocks[k].rows === 'queries')
      return {
        text: '',
        hatched: true,
        title: blocks[q].rows === 'keys' ? `${query} has no queries` : `${key} has no keys`,
      };
    const own = lookOf(cells[q][k]);
    const isSelected = selected[0] === q && selected[1] === k;
    return {
      ...own,
      text: isSelected ? <b>{own.text}</b> : own.text,
      title: `${query} reads ${key}: ${own.text === '–' ? 'none' : own.text}`,
      onFocus: () => isSelected || change({ selected: [q, k] }),
      onClick: () => setCell(q, k, nextCell(cells[q][k], q === k)),
    };
  };
  const [q, k] = selected;
  return (
    <>
      <p class="see">
        A row's queries read a column's keys. A click or Enter takes an edge through none, full, causal (a block and
        itself) and insulated; arrow keys choose another.
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
    <fieldset class="attention-edge">
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
