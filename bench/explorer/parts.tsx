/** What all sections are built of: fields, figures, tables and plots. */
import type { ComponentChildren } from 'preact';

export { type Cell, Matrix, Table } from './table.tsx';

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

export function Check(props: { label: string; checked: boolean; onChange(checked: boolean): void }) {
  return (
    <label>
      <input
        type="checkbox"
        checked={props.checked}
        onChange={({ currentTarget }) => props.onChange(currentTarget.checked)}
      />{' '}
      {props.label}
    </label>
  );
}

export interface Series {
  readonly name: string;
  /** A colour of the style sheet by its name. */
  readonly colour: string;
  /** Dashes of the usual lengths, or of others. */
  readonly dashed?: boolean | string;
  readonly width?: number;
  readonly opacity?: number;
  /** Dots in place of a line. */
  readonly dots?: 'circles' | 'squares';
  readonly hollow?: boolean;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** The picture of a plot and its margins, in its own units. */
export const plot = { width: 440, height: 220, left: 46, right: 14, top: 8, bottom: 34 };

/** An axis: four to six round numbers or the powers of ten as its marks, and where along it, from 0 to 1, a value lies. */
function axisOf(low: number, high: number, logarithmic = false) {
  if (logarithmic) {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const marks = Array.from({ length: last - first + 1 }, (_, i) => Number(`1e${first + i}`));
    return { marks, share: (value: number) => (Math.log10(value) - first) / (last - first || 1) };
  }
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const marks = Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
  return { marks, share: (value: number) => (Math.min(high, Math.max(low, value)) - low) / (high - low || 1) };
}

interface PlotProps {
  readonly label: string;
  /** The name of the horizontal axis. */
  readonly x: string;
  readonly series: readonly Series[];
  readonly low?: number;
  readonly high?: number;
  readonly width?: number;
  readonly logarithmic?: boolean;
}

/**
 * Lines and dots over one pair of axes, the vertical one from `low`, or from the lowest value, to `high` or the highest. Logarithmic axes
 * go from one power of ten to another.
 */
export function Plot(props: PlotProps) {
  const { label, series, logarithmic, width = plot.width } = props;
  const [left, right, top, bottom] = [plot.left, width - plot.right, plot.top, plot.height - plot.bottom];
  const all = series.flatMap(({ points }) => points);
  const [xs, ys] = [all.length > 0 ? all.map(([x]) => x) : [0, 1], all.map(([, y]) => y)];
  const { low = Math.min(0, ...ys), high = Math.max(1e-9, ...ys) } = props;
  const across = axisOf(Math.min(...xs), Math.max(...xs), logarithmic);
  const up = axisOf(low, high, logarithmic);
  const placeX = (x: number) => left + across.share(x) * (right - left);
  const placeY = (y: number) => bottom - up.share(y) * (bottom - top);
  return (
    <svg role="img" aria-label={label} viewBox={`0 0 ${width} ${plot.height}`} font-size="11" fill="var(--muted)">
      {up.marks.map((y) => (
        <g key={y}>
          <line x1={left} x2={right} y1={placeY(y)} y2={placeY(y)} stroke="var(--grid)" />
          <text x={left - 6} y={placeY(y) + 4} text-anchor="end">
            {y}
          </text>
        </g>
      ))}
      {across.marks.map((x) => (
        <text key={x} x={placeX(x)} y={bottom + 15} text-anchor="middle">
          {x}
        </text>
      ))}
      <text x={right} y={plot.height - 4} text-anchor="end">
        {props.x}
      </text>
      {series.map(({ name, colour, points, dashed, dots, hollow, width = 1.75, opacity }) => {
        const [stroke, places] = [`var(--${colour})`, points.map(([x, y]) => [placeX(x), placeY(y)] as const)];
        if (dots)
          return places.map(([x, y]) => (
            <rect
              key={`${name} ${x}`}
              {...{ x: x - 5, y: y - 5, width: 10, height: 10, rx: dots === 'circles' ? 5 : 0 }}
              {...{ fill: hollow ? 'var(--paper)' : stroke, stroke, 'stroke-width': 2 }}
            />
          ));
        return (
          <polyline
            key={name}
            // A line to itself: a single point is drawn as a dot.
            points={[...places, ...places.slice(-1)].join(' ')}
            fill="none"
            {...{ stroke, 'stroke-width': width, 'stroke-opacity': opacity, 'stroke-linecap': 'round' }}
            stroke-dasharray={dashed === true ? '5 4' : dashed || undefined}
          />
        );
      })}
    </svg>
  );
}

/** A plot with its legend; `y` is the name of the vertical axis. */
export function Lines(props: PlotProps & { readonly y: string }) {
  const named = props.series.map(({ name, colour }) => ({ text: name, fill: `var(--${colour})` }));
  return (
    <>
      <Plot {...props} />
      <Legend items={[...named, { text: `vertical: ${props.y}` }]} />
    </>
  );
}

export function Legend({ items }: { items: readonly { text: string; fill?: string; hatched?: boolean }[] }) {
  return (
    <ul class="small legend">
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
