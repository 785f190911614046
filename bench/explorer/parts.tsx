/** What all sections are built of: fields, figures, matrices, and work on the adapter with its state. */
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import type { Device } from '../../engine/index.ts';
import type { Adapter } from './device.ts';

/** One clear sentence about what went wrong; what the user has set stays. */
export function Problem({ text, again }: { text: string; again?: () => void }) {
  return (
    <p class="problem" role="alert">
      {text}{' '}
      {again && (
        <button type="button" onClick={again}>
          Try again
        </button>
      )}
    </p>
  );
}

/** A titled figure with a sentence that says what to see. `unit` is that of its numbers. */
export function Figure(props: { title: string; see: string; unit?: string; children: ComponentChildren }) {
  return (
    <figure>
      <figcaption>
        {props.title}
        {props.unit && <span class="small">, {props.unit}</span>}
      </figcaption>
      <p class="see">{props.see}</p>
      {props.children}
    </figure>
  );
}

export function Field({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/noLabelWithoutControl: the control is among the children
    <label class="field">
      <span>{label}</span>
      {children}
    </label>
  );
}

export function Choice<Value extends string>(props: {
  label: string;
  value: Value;
  options: readonly (Value | { readonly value: Value; readonly text: string })[];
  onChange(value: Value): void;
}) {
  return (
    <Field label={props.label}>
      <select value={props.value} onChange={({ currentTarget }) => props.onChange(currentTarget.value as Value)}>
        {props.options.map((own) => {
          const { value, text } = typeof own === 'string' ? { value: own, text: own } : own;
          return (
            <option key={value} value={value}>
              {text}
            </option>
          );
        })}
      </select>
    </Field>
  );
}

/** A number by a slider; `text` is how it reads, with its unit. */
export function Slider(props: {
  label: string;
  value: number;
  min: number;
  max: number;
  step?: number;
  text?: string;
  onChange(value: number): void;
}) {
  const { label, value, text = String(value), onChange, ...range } = props;
  return (
    <Field label={`${label}: ${text}`}>
      <input
        type="range"
        {...{ step: 1, ...range, value }}
        aria-valuetext={text}
        onInput={({ currentTarget }) => onChange(Number(currentTarget.value))}
      />
    </Field>
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
  cell(row: string, column: string): Cell | null;
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
  const cells = rows.map((row) => columns.map((column) => props.cell(row, column)));
  const isClickable = ([row, column]: readonly [number, number]) => cells[row]?.[column]?.onClick !== undefined;
  const firstRow = cells.findIndex((own) => own.some((cell) => cell?.onClick));
  const first: readonly [number, number] = [firstRow, cells[firstRow]?.findIndex((cell) => cell?.onClick) ?? 0];
  const stop = isClickable(focused) ? focused : first;
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
                        tabIndex={stop[0] === r && stop[1] === c ? 0 : -1}
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

export interface Series {
  readonly name: string;
  /** A colour of the style sheet by its name. */
  readonly colour: string;
  readonly dashed?: boolean;
  readonly points: readonly (readonly [x: number, y: number])[];
}

const WIDTH = 440;
const HEIGHT = 200;
const EDGES = { left: 46, right: 10, top: 8, bottom: 34 };

/** Four to six round numbers from `low` to `high`. */
function ticks(low: number, high: number): number[] {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

/** Lines over one pair of axes, the vertical one from `low`, or from the lowest value, to `high` or the highest. */
export function Lines(props: {
  label: string;
  x: string;
  y: string;
  series: readonly Series[];
  low?: number;
  high?: number;
  width?: number;
}) {
  const { series, width = WIDTH } = props;
  const all = series.flatMap(({ points }) => points);
  const [xs, ys] = [all.map(([x]) => x), all.map(([, y]) => y)];
  const [left, right] = all.length > 0 ? [Math.min(...xs), Math.max(...xs)] : [0, 1];
  const [low, high] = [props.low ?? Math.min(0, ...ys), props.high ?? Math.max(1e-9, ...ys)];
  const place = ([x, y]: readonly [number, number]): [number, number] => [
    EDGES.left + ((x - left) / (right - left || 1)) * (width - EDGES.left - EDGES.right),
    HEIGHT -
      EDGES.bottom -
      ((Math.min(high, Math.max(low, y)) - low) / (high - low || 1)) * (HEIGHT - EDGES.top - EDGES.bottom),
  ];
  return (
    <>
      <svg role="img" aria-label={props.label} viewBox={`0 0 ${width} ${HEIGHT}`} font-size="11" fill="var(--muted)">
        {ticks(low, high).map((y) => {
          const [, at] = place([left, y]);
          return (
            <g key={y}>
              <line x1={EDGES.left} x2={width - EDGES.right} y1={at} y2={at} stroke="var(--grid)" />
              <text x={EDGES.left - 6} y={at + 4} text-anchor="end">
                {y}
              </text>
            </g>
          );
        })}
        {ticks(left, right).map((x) => (
          <text key={x} x={place([x, low])[0]} y={HEIGHT - EDGES.bottom + 15} text-anchor="middle">
            {x}
          </text>
        ))}
        <text x={width - EDGES.right} y={HEIGHT - 4} text-anchor="end">
          {props.x}
        </text>
        {series.map(({ name, colour, dashed, points }) => (
          <polyline
            key={name}
            // A line to itself: a single point is drawn as a dot.
            points={[...points, ...points.slice(-1)].map((point) => place(point).join(',')).join(' ')}
            stroke-linecap="round"
            fill="none"
            stroke={`var(--${colour})`}
            stroke-width="1.75"
            stroke-dasharray={dashed ? '5 4' : undefined}
          />
        ))}
      </svg>
      <Legend
        items={[
          ...series.map(({ name, colour }) => ({ text: name, fill: `var(--${colour})` })),
          { text: `vertical: ${props.y}` },
        ]}
      />
    </>
  );
}

export function Legend({ items }: { items: readonly { text: string; fill?: string; hatched?: boolean }[] }) {
  return (
    <ul class="legend">
      {items.map(({ text, fill, hatched }) => (
        <li key={text}>
          {(fill || hatched) && (
            <i class={hatched ? 'hatched' : undefined} style={fill ? { background: fill } : undefined} />
          )}
          {text}
        </li>
      ))}
    </ul>
  );
}

/** An identifier for parts of a page that refer to each other. */
export const useName = useId;

/**
 * Work on the adapter that a section starts: one piece at a time, a newer one in place of those that wait. `busy` while it runs;
 * `problem` is the last failure in one sentence, until the next success. Work ends with its section.
 */
export function useWork(adapter: Adapter) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const running = useRef<AbortController | null>(null);
  useEffect(() => () => running.current?.abort(), []);
  const run = async (work: (device: Device, signal: AbortSignal) => unknown) => {
    running.current?.abort();
    const own = new AbortController();
    running.current = own;
    setBusy(true);
    try {
      await adapter.turn((device) => work(device, own.signal), own.signal);
      if (running.current === own) setProblem(null);
    } catch (error) {
      if (!own.signal.aborted) setProblem(error instanceof Error ? error.message : String(error));
    } finally {
      if (running.current === own) setBusy(false);
    }
  };
  const stop = () => running.current?.abort();
  return { run, stop, busy, problem };
}
