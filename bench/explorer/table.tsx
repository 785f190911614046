/** Tables of text, and of coloured cells. */
import type { ComponentChildren } from 'preact';
import { useRef, useState } from 'preact/hooks';

/** Rows of text: the first column has names, the others numbers. */
export function Table(props: {
  /** Its name, where no figure says it. */
  label?: string;
  head: readonly string[];
  rows: readonly (readonly ComponentChildren[])[];
}) {
  const { label, head, rows } = props;
  const look = (column: number) => (column ? 'number' : 'row-name');
  return (
    <div class="wide">
      <table aria-label={label}>
        <thead>
          <tr>
            {head.map((name, i) => (
              <th key={name} scope="col" class={look(i)}>
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(([name, ...cells], row) => (
            <tr key={row}>
              <th scope="row" class={look(0)}>
                {name}
              </th>
              {cells.map((cell, i) => (
                <td key={head[i + 1]} class={look(i + 1)}>
                  {cell}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export interface Cell {
  readonly text: ComponentChildren;
  /** From 0 to 1: how strong its colour is; from -1 to 0 in the other colour. */
  readonly shade?: number;
  /** With a frame: it belongs to what is selected. */
  readonly marked?: boolean;
  /** Hatched: there is nothing here, or exactly zero. */
  readonly hatched?: boolean;
  /** What a pointer and a screen reader are told beside the text. */
  readonly title: string;
  readonly onClick?: () => void;
  readonly onFocus?: () => void;
}

/** Text keeps a contrast of more than 4 to 1 on the strongest colour, in light and in dark. */
const STRONGEST = 55;

const fillOf = (shade: number) =>
  `color-mix(in oklab, var(--${shade < 0 ? 'line2' : 'line1'}) ${Math.round(STRONGEST * Math.min(1, Math.abs(shade)))}%, var(--paper))`;

/** A table of coloured cells with names; arrow keys move between those that can be clicked. */
export function Matrix(props: {
  label: string;
  rows: readonly string[];
  columns: readonly string[];
  cell(row: string, column: string, r: number, c: number): Cell | null;
}) {
  const { label, rows, columns } = props;
  const body = useRef<HTMLTableSectionElement>(null);
  const [focused, setFocused] = useState<readonly [number, number]>([0, 0]);
  const onKeyDown = (event: KeyboardEvent) => {
    const [down, across] =
      { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (down === undefined || across === undefined) return;
    event.preventDefault();
    let [row, column] = [focused[0] + down, focused[1] + across];
    for (; row >= 0 && row < rows.length && column >= 0 && column < columns.length; row += down, column += across) {
      const button = body.current?.rows[row].cells[column + 1].querySelector('button');
      if (!button) continue;
      setFocused([row, column]);
      button.focus();
      return;
    }
  };
  const cells = rows.map((row, r) => columns.map((column, c) => props.cell(row, column, r, c)));
  const clickable = cells.flatMap((own, r) => own.flatMap((cell, c) => (cell?.onClick ? [[r, c]] : [])));
  const isFocused = ([r, c]: readonly number[]) => r === focused[0] && c === focused[1];
  const [stopRow, stopColumn] = clickable.find(isFocused) ?? clickable[0] ?? [];
  return (
    <div class="wide">
      <table class="matrix" aria-label={label}>
        <thead>
          <tr>
            <td />
            {columns.map((column) => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        {/* Keys move the focus between the buttons inside. */}
        <tbody ref={body} onKeyDown={onKeyDown}>
          {rows.map((row, r) => (
            <tr key={row}>
              <th scope="row">{row}</th>
              {columns.map((column, c) => {
                const cell = cells[r][c];
                if (!cell) return <td key={column} />;
                const { shade = 0 } = cell;
                const look = {
                  class: [cell.hatched && 'hatched', cell.marked && 'marked'].filter(Boolean).join(' ') || undefined,
                  title: cell.title,
                  style: shade ? { '--fill': fillOf(shade) } : undefined,
                };
                return (
                  <td key={column}>
                    {cell.onClick ? (
                      <button
                        type="button"
                        {...look}
                        aria-label={cell.title}
                        tabIndex={stopRow === r && stopColumn === c ? 0 : -1}
                        onFocus={() => {
                          setFocused([r, c]);
                          cell.onFocus?.();
                        }}
                        onClick={cell.onClick}
                      >
                        {cell.text}
                      </button>
                    ) : (
                      <span {...look}>{cell.text}</span>
                    )}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
