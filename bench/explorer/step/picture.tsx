import { useMemo, useRef, useState } from 'preact/hooks';
import type { Phase } from '../../../engine/index.ts';
import type { ArenaTensor } from '../../../model/inspect/step-reading.ts';
import { digits } from '../../measure/table.ts';
import { Legend } from '../parts.tsx';
import type { ListedStep } from './capture.ts';

const phases: readonly { readonly phase: Phase; readonly text: string; readonly fill: string }[] = [
  { phase: 'forward', text: 'forward', fill: 'var(--line1)' },
  { phase: 'backward', text: 'backward', fill: 'var(--line2)' },
  { phase: 'recompute', text: 'forward again, for backward', fill: 'var(--line4)' },
  { phase: 'update', text: 'update', fill: 'var(--line3)' },
];

const [WIDTH, LEFT, RIGHT] = [1000, 62, 8];
/** Edges of the timeline and of the arenas, downwards. */
const [BARS_TOP, BARS_END, ARENAS_TOP, ARENAS_END, HEIGHT] = [22, 120, 140, 420, 438];

const box = (x: number, y: number, width: number, height: number) =>
  `M${x.toFixed(2)} ${y.toFixed(2)}h${width.toFixed(2)}v${height.toFixed(2)}h${(-width).toFixed(2)}z`;

export const axes = ['order', 'time'] as const;

/** The operations as bars, and below them the arenas: bytes upwards, each tensor from its first to its last use. */
export function StepPicture(props: {
  step: ListedStep;
  /** The time of each operation, in any unit. */
  times: readonly number[];
  axis: (typeof axes)[number];
  selected: number;
  /** One line that says what an operation is. */
  tell(operation: number): string;
  onSelect(operation: number): void;
}) {
  const { step, times, axis, selected, tell, onSelect } = props;
  const { operations, tensors } = step;
  const { arenaBytes, lowerBoundBytes } = step.statistics;
  const [hovered, setHovered] = useState<number | null>(null);
  const root = useRef<HTMLDivElement>(null);
  const count = operations.length;
  const drawn = useMemo(() => {
    const total = times.reduce((sum, time) => sum + time, 0) || 1;
    const longest = Math.max(...times) || 1;
    const edges = [LEFT];
    for (const time of times)
      edges.push(edges[edges.length - 1] + (axis === 'time' ? time / total : 1 / count) * (WIDTH - LEFT - RIGHT));
    const y = (bytes: number) => ARENAS_END - (bytes / (step.arenaBytes || 1)) * (ARENAS_END - ARENAS_TOP);
    const bases = arenaBytes.map((_, i) => arenaBytes.slice(0, i).reduce((sum, bytes) => sum + bytes, 0));
    const rectangle = ({ arena, offset, bytes, first, last }: ArenaTensor) =>
      box(edges[first], y(bases[arena] + offset + bytes), edges[last + 1] - edges[first], y(0) - y(bytes));
    const bar = (i: number) => {
      const height = Math.max(2, (axis === 'time' ? 1 : times[i] / longest) * (BARS_END - BARS_TOP));
      return box(edges[i], BARS_END - height, edges[i + 1] - edges[i], height);
    };
    const paths = phases.map(({ phase, fill }) => ({
      ...{ phase, fill },
      bars: operations.map((operation, i) => (operation.phase === phase ? bar(i) : '')).join(''),
      tensors: tensors.map((own) => (operations[own.first].phase === phase ? rectangle(own) : '')).join(''),
      begin: operations.findIndex((operation) => operation.phase === phase),
    }));
    const thin = arenaBytes.flatMap((bytes, i) => (y(0) - y(bytes) > 12 ? [] : [i]));
    return { y, bases, edges, rectangle, paths, thin };
  }, [step, times, axis]);
  const { y, bases, edges, rectangle, paths, thin } = drawn;
  const shown = Math.min(hovered ?? selected, count - 1);
  const outlined = (access: 'read' | 'read_write') => {
    const own = operations[shown].bindings.filter((binding) => binding.access === access);
    const places = new Set(own.flatMap(({ allocation }) => allocation ?? []));
    return [...places].map((place) => rectangle(tensors[place])).join('');
  };
  const at = ({ clientX }: PointerEvent | MouseEvent) => {
    const { left, width } = root.current!.getBoundingClientRect();
    const x = ((clientX - left) / width) * WIDTH;
    const after = edges.findIndex((edge) => edge >= x);
    return after < 0 ? count - 1 : Math.max(0, after - 1);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1, PageUp: -20 };
    const by = { ...steps, PageDown: 20, Home: -count, End: count }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    setHovered(null);
    const next = Math.min(count - 1, Math.max(0, selected + by));
    onSelect(next);
    const scroller = root.current!.parentElement!;
    const x = (edges[next] / WIDTH) * root.current!.offsetWidth;
    if (x < scroller.scrollLeft || x > scroller.scrollLeft + scroller.clientWidth)
      scroller.scrollLeft = x - scroller.clientWidth / 2;
  };
  return (
    <>
      <p style={{ minHeight: '3em' }} aria-hidden="true">
        {tell(shown)}
      </p>
      <div class="wide">
        <div
          ref={root}
          class="step-picture"
          role="slider"
          tabIndex={0}
          aria-label="Operations of the step: arrow keys select one"
          aria-valuemin={1}
          aria-valuemax={count}
          aria-valuenow={selected + 1}
          aria-valuetext={tell(selected)}
          onPointerMove={(event) => setHovered(at(event))}
          onPointerLeave={() => setHovered(null)}
          onClick={(event) => onSelect(at(event))}
          onKeyDown={onKeyDown}
        >
          <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} font-size="11" fill="var(--muted)" aria-hidden="true">
            {paths.map(({ phase, begin }) =>
              begin < 0 || phase === 'recompute' ? null : (
                <text
                  key={phase}
                  x={phase === 'update' ? WIDTH - RIGHT : edges[begin]}
                  y={BARS_TOP - 8}
                  text-anchor={phase === 'update' ? 'end' : 'start'}
                >
                  {phase}
                </text>
              ),
            )}
            <text x={LEFT - 6} y={BARS_END - 40} text-anchor="end">
              {axis === 'time' ? 'each' : 'time'}
            </text>
            {paths.map(({ phase, fill, bars, tensors }) => (
              <g key={phase} fill={fill} stroke="var(--paper)" stroke-width={count > 250 ? 0.2 : 0.5}>
                <path d={bars} />
                <path d={tensors} fill-opacity="0.55" />
              </g>
            ))}
            {bases.map((base, arena) => (
              <g key={base}>
                <line x1={LEFT} x2={WIDTH - RIGHT} y1={y(base)} y2={y(base)} stroke="var(--rule)" />
                {!thin.includes(arena) && (
                  <text x={LEFT - 6} y={y(base) - 3} text-anchor="end">
                    arena {arena}
                  </text>
                )}
              </g>
            ))}
            <text x={LEFT - 6} y={ARENAS_TOP + 4} text-anchor="end">
              {digits(step.arenaBytes / 1e6)} MB
            </text>
            <line
              {...{ x1: LEFT, x2: WIDTH - RIGHT, y1: y(lowerBoundBytes), y2: y(lowerBoundBytes) }}
              stroke="var(--alarm)"
              stroke-dasharray="6 4"
            />
            <path d={outlined('read_write')} fill="var(--ink)" fill-opacity="0.75" />
            <path d={outlined('read')} fill="none" stroke="var(--ink)" stroke-width="1.75" />
            <path
              d={box(edges[shown], BARS_TOP, Math.max(1.5, edges[shown + 1] - edges[shown]), ARENAS_END - BARS_TOP)}
              fill="var(--ink)"
              fill-opacity="0.3"
            />
            <text x={WIDTH - RIGHT} y={HEIGHT - 4} text-anchor="end">
              {axis === 'time' ? 'time' : 'operations in their order'}
            </text>
          </svg>
        </div>
      </div>
      <Legend
        items={[
          ...phases.filter(({ phase }) => operations.some((own) => own.phase === phase)),
          { text: 'outlined: what the selected operation reads' },
          { text: 'filled: what it writes' },
          ...thin.map((arena) => ({
            text: `too thin for its name: arena ${arena}, ${digits(arenaBytes[arena] / 1e6)} MB`,
          })),
          { text: `dashed line: ${digits(lowerBoundBytes / 1e6)} MB, the lower bound of any plan` },
        ]}
      />
    </>
  );
}
