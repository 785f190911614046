import { useRef, useState } from 'preact/hooks';
import { Legend } from '../parts.tsx';
import { rounded, shape } from './chunks.ts';

const { horizon, dimension } = shape;
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [440, 250, 34, 10, 8, 34];
const dashes = [undefined, '7 3', '2 3'];

const placeX = (step: number) => LEFT + (step / (horizon - 1)) * (WIDTH - LEFT - RIGHT);
const placeY = (value: number) => TOP + ((1.1 - value) / 2.2) * (HEIGHT - TOP - BOTTOM);

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
  const plot = useRef<HTMLDivElement>(null);
  const drawn = values[step * dimension + chosen];
  const draw = (changes: readonly (readonly [step: number, value: number])[]) => {
    const next = [...values];
    for (const [at, value] of changes) next[at * dimension + chosen] = rounded(value);
    onDraw(next);
    setStep(changes[changes.length - 1][0]);
  };
  /** A fast pointer skips steps: those between two of its places get values between. */
  const onPointer = (event: PointerEvent) => {
    if (event.type === 'pointermove' && !last.current) return;
    const box = plot.current!.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    const y = ((event.clientY - box.top) / box.height) * HEIGHT;
    const at = Math.min(horizon - 1, Math.max(0, Math.round(((x - LEFT) / (WIDTH - LEFT - RIGHT)) * (horizon - 1))));
    const value = 1.1 - ((y - TOP) / (HEIGHT - TOP - BOTTOM)) * 2.2;
    const [from, before] = last.current ?? [at, value];
    const count = Math.max(1, Math.abs(at - from));
    draw(
      Array.from({ length: count }, (_, i) => {
        const share = (i + 1) / count;
        return [Math.round(from + share * (at - from)), before + share * (value - before)] as const;
      }),
    );
    last.current = [at, value];
    if (event.type === 'pointerdown') plot.current!.setPointerCapture(event.pointerId);
  };
  const end = () => {
    last.current = null;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const along = { ArrowLeft: -1, ArrowRight: 1, Home: -horizon, End: horizon }[event.key];
    const up = { ArrowUp: 0.05, ArrowDown: -0.05, PageUp: 0.25, PageDown: -0.25 }[event.key];
    if (along === undefined && up === undefined) return;
    event.preventDefault();
    if (along) setStep(Math.min(horizon - 1, Math.max(0, step + along)));
    if (up) draw([[step, drawn + up]]);
  };
  const line = (of: ArrayLike<number>, d: number) =>
    Array.from({ length: horizon }, (_, at) => `${placeX(at)},${placeY(of[at * dimension + d])}`).join(' ');
  const dimensions = Array.from({ length: dimension }, (_, d) => d);
  return (
    <>
      <fieldset class="tokens-dimensions">
        <legend>Draw</legend>
        {dimensions.map((d) => (
          <label key={d}>
            <input type="radio" name="tokens-dimension" checked={d === chosen} onChange={() => onChoose(d)} /> dimension{' '}
            {d}
          </label>
        ))}
      </fieldset>
      <div
        ref={plot}
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
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} font-size="11" fill="var(--muted)" aria-hidden="true">
          {[-1, -0.5, 0, 0.5, 1].map((value) => (
            <g key={value}>
              <line x1={LEFT} x2={WIDTH - RIGHT} y1={placeY(value)} y2={placeY(value)} stroke="var(--grid)" />
              <text x={LEFT - 6} y={placeY(value) + 4} text-anchor="end">
                {value}
              </text>
            </g>
          ))}
          {Array.from({ length: horizon }, (_, at) => (
            <text key={at} x={placeX(at)} y={HEIGHT - BOTTOM + 15} text-anchor="middle">
              {at}
            </text>
          ))}
          <text x={WIDTH - RIGHT} y={HEIGHT - 4} text-anchor="end">
            control step
          </text>
          {dimensions.map((d) => (
            <g key={d} fill="none" stroke={`var(--line${d + 1})`} stroke-dasharray={dashes[d]}>
              <polyline points={line(values, d)} stroke-width={d === chosen ? 2.5 : 1.5} />
              <polyline
                points={line(decoded.values, d)}
                stroke-width="5"
                stroke-opacity="0.3"
                stroke-dasharray="none"
              />
              {without && line(without, d) !== line(decoded.values, d) && (
                <polyline points={line(without, d)} stroke="var(--alarm)" stroke-width="1.25" stroke-dasharray="none" />
              )}
            </g>
          ))}
          <circle cx={placeX(step)} cy={placeY(drawn)} r="5" fill={`var(--line${chosen + 1})`} />
        </svg>
      </div>
      <Legend
        items={[
          ...dimensions.map((d) => ({ text: `dimension ${d}`, fill: `var(--line${d + 1})` })),
          { text: `broad and pale: as ${decoded.name} decodes it` },
          { text: 'without the selected token', fill: 'var(--alarm)' },
          { text: 'vertical: normalised action' },
        ]}
      />
    </>
  );
}
