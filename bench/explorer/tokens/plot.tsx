import { useRef, useState } from 'preact/hooks';
import { Choice, Legend, Plot, plot } from '../parts.tsx';
import { rounded, shape } from './chunks.ts';

const { horizon, dimension } = shape;
const dimensions = Array.from({ length: dimension }, (_, d) => d);
const names = dimensions.map((d) => `dimension ${d}`);
const dashes = [undefined, '7 3', '2 3'];
/** The values at the upper and the lower edge of the plot. */
const EDGE = 1.1;

const within = (low: number, value: number, high: number) => Math.min(high, Math.max(low, value));

/** The step and the value under a pointer over the plot's picture. */
function placeIn(picture: Element, { clientX, clientY }: PointerEvent): readonly [step: number, value: number] {
  const box = picture.getBoundingClientRect();
  const x = ((clientX - box.left) / box.width) * plot.width - plot.left;
  const y = ((clientY - box.top) / box.height) * plot.height - plot.top;
  const step = Math.round((x / (plot.width - plot.left - plot.right)) * (horizon - 1));
  return [within(0, step, horizon - 1), EDGE - (y / (plot.height - plot.top - plot.bottom)) * 2 * EDGE];
}

/** One line a dimension. A pointer that is held down draws the chosen one; arrow keys choose a step and change its value. */
export function ChunkPlot(props: {
  values: readonly number[];
  chosen: number;
  /** The chunk as its tokens say it, and without the selected token. */
  decoded: { readonly name: string; readonly values: ArrayLike<number> };
  without: ArrayLike<number> | null;
  onChoose(dimension: number): void;
  onDraw(values: readonly number[]): void;
}) {
  const { values, chosen, decoded, without, onChoose, onDraw } = props;
  const [step, setStep] = useState(0);
  const last = useRef<readonly [step: number, value: number] | null>(null);
  const drawn = values[step * dimension + chosen];
  const draw = (changes: readonly (readonly [step: number, value: number])[]) => {
    const next = [...values];
    for (const [at, value] of changes) next[at * dimension + chosen] = rounded(value);
    onDraw(next);
    setStep(changes[changes.length - 1][0]);
  };
  /** A fast pointer skips steps: those between two of its places get values between. */
  const onPointer = (event: PointerEvent & { readonly currentTarget: Element }) => {
    if (event.type === 'pointermove' && !last.current) return;
    const [at, value] = placeIn(event.currentTarget, event);
    const [from, before] = last.current ?? [at, value];
    const count = Math.max(1, Math.abs(at - from));
    draw(
      Array.from({ length: count }, (_, i) => {
        const share = (i + 1) / count;
        return [Math.round(from + share * (at - from)), before + share * (value - before)] as const;
      }),
    );
    last.current = [at, value];
    if (event.type === 'pointerdown') event.currentTarget.setPointerCapture(event.pointerId);
  };
  const end = () => {
    last.current = null;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const along = { ArrowLeft: -1, ArrowRight: 1, Home: -horizon, End: horizon }[event.key];
    const up = { ArrowUp: 0.05, ArrowDown: -0.05, PageUp: 0.25, PageDown: -0.25 }[event.key];
    if (along === undefined && up === undefined) return;
    event.preventDefault();
    if (along) setStep(within(0, step + along, horizon - 1));
    if (up) draw([[step, drawn + up]]);
  };
  const pointsOf = (of: ArrayLike<number>, d: number) =>
    Array.from({ length: horizon }, (_, at) => [at, of[at * dimension + d]] as const);
  const series = dimensions.flatMap((d) => {
    const colour = `line${d + 1}`;
    const [own, back] = [pointsOf(values, d), pointsOf(decoded.values, d)];
    const cut = without && pointsOf(without, d);
    return [
      { name: names[d], colour, dashed: dashes[d], width: d === chosen ? 2.5 : 1.5, points: own },
      { name: `${names[d]}, decoded`, colour, width: 5, opacity: 0.3, points: back },
      ...(cut && String(cut) !== String(back)
        ? [{ name: `${names[d]}, without the token`, colour: 'alarm', width: 1.25, points: cut }]
        : []),
    ];
  });
  const place = {
    name: 'step',
    colour: `line${chosen + 1}`,
    dots: 'circles' as const,
    points: [[step, drawn] as const],
  };
  return (
    <>
      <Choice label="Draw" value={names[chosen]} options={names} onChange={(name) => onChoose(names.indexOf(name))} />
      <div
        class="tokens-plot"
        role="slider"
        tabIndex={0}
        aria-label={`Dimension ${chosen} of the chunk: arrows to the sides choose a step, up and down change its value`}
        aria-valuemin={-1}
        aria-valuemax={1}
        aria-valuenow={drawn}
        aria-valuetext={`step ${step}: ${drawn}`}
        onPointerDown={onPointer}
        onPointerMove={onPointer}
        onPointerUp={end}
        onPointerCancel={end}
        onKeyDown={onKeyDown}
      >
        <Plot label="The chunk" x="control step" series={[...series, place]} low={-EDGE} high={EDGE} />
      </div>
      <Legend
        items={[
          ...names.map((text, d) => ({ text, fill: `var(--line${d + 1})` })),
          { text: `broad and pale: as ${decoded.name} decodes it` },
          { text: 'without the selected token', fill: 'var(--alarm)' },
          { text: 'vertical: normalised action' },
        ]}
      />
    </>
  );
}
