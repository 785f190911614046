/** The roofline of this adapter with the dots of an op. */
import { limited, type Roof } from '../../measure/roofline.ts';
import { digits } from '../../measure/table.ts';
import type { Timing } from './trial.ts';

const [WIDTH, HEIGHT] = [420, 260];
const EDGES = { left: 46, right: 22, top: 10, bottom: 40 };

/** The decades from a number down to one up. */
const decades = (low: number, high: number): number[] => {
  const first = Math.floor(Math.log10(low));
  return Array.from({ length: Math.ceil(Math.log10(high)) - first + 1 }, (_, i) => 10 ** (first + i));
};

const text = (value: number) => String(Number(value.toPrecision(3)));

export const timingName = ({ direction, edited }: Timing): string => `${direction}${edited ? ', edited' : ''}`;

/** Both axes are logarithmic. Work without arithmetic stands at the left end, at its bandwidth. */
export function RoofFigure({ roof, timings }: { roof: Roof; timings: readonly Timing[] }) {
  const balance = roof.gigaflops / roof.gigabytesPerSecond;
  const dots = timings.map((timing) => {
    const rates = limited(timing, timing.time.median, roof);
    return { timing, ...rates, intensity: timing.flops / timing.bytes };
  });
  const xs = decades(Math.min(0.1, ...dots.map(({ intensity }) => intensity || 0.1)), Math.max(100, 4 * balance));
  const [left, right] = [xs[0], xs[xs.length - 1]];
  const placed = dots.map((dot) => {
    const x = dot.intensity || left;
    return { ...dot, x, y: dot.intensity ? dot.gigaflops : dot.gigabytesPerSecond * left };
  });
  const lowest = Math.min(left * roof.gigabytesPerSecond, ...placed.map(({ y }) => y));
  const ys = decades(lowest, Math.max(roof.gigaflops, ...placed.map(({ y }) => y)));
  const [low, high] = [ys[0], ys[ys.length - 1]];
  const across = (x: number) =>
    EDGES.left + (Math.log10(x / left) / Math.log10(right / left)) * (WIDTH - EDGES.left - EDGES.right);
  const down = (y: number) =>
    HEIGHT - EDGES.bottom - (Math.log10(y / low) / Math.log10(high / low)) * (HEIGHT - EDGES.top - EDGES.bottom);
  const middle = Math.sqrt(left * balance);
  const corners = [
    [left, left * roof.gigabytesPerSecond],
    [balance, roof.gigaflops],
    [right, roof.gigaflops],
  ];
  return (
    <svg
      role="img"
      aria-label="Roofline: GFLOP/s by FLOPs per byte"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      font-size="11"
      fill="var(--muted)"
    >
      {ys.map((y) => (
        <g key={y}>
          <line x1={EDGES.left} x2={WIDTH - EDGES.right} y1={down(y)} y2={down(y)} stroke="var(--grid)" />
          <text x={EDGES.left - 6} y={down(y) + 4} text-anchor="end">
            {text(y)}
          </text>
        </g>
      ))}
      {xs.map((x) => (
        <text key={x} x={across(x)} y={HEIGHT - EDGES.bottom + 15} text-anchor="middle">
          {text(x)}
        </text>
      ))}
      <text x={WIDTH - EDGES.right} y={HEIGHT - 6} text-anchor="end">
        FLOPs per byte
      </text>
      <text x={EDGES.left + 6} y={EDGES.top + 10}>
        GFLOP/s
      </text>
      <polyline
        points={corners.map(([x, y]) => `${across(x)},${down(y)}`).join(' ')}
        fill="none"
        stroke="var(--ink)"
        stroke-width="1.5"
      />
      <text x={across(right)} y={down(roof.gigaflops) - 6} text-anchor="end">
        {`${digits(roof.gigaflops)} GFLOP/s`}
      </text>
      <text x={across(middle) - 8} y={down(middle * roof.gigabytesPerSecond) - 4} text-anchor="end">
        {`${digits(roof.gigabytesPerSecond)} GB/s`}
      </text>
      {placed.map(({ timing, x, y, percentOfRoof }) => {
        const colour = timing.direction === 'forward' ? 'var(--line1)' : 'var(--line2)';
        const look = { fill: timing.edited ? 'var(--paper)' : colour, stroke: colour, 'stroke-width': 2 };
        const size = 5;
        return (
          <g key={timingName(timing)}>
            <title>{`${timingName(timing)}: ${digits(percentOfRoof)} % of the roof`}</title>
            {timing.direction === 'forward' ? (
              <circle cx={across(x)} cy={down(y)} r={size} {...look} />
            ) : (
              <rect x={across(x) - size} y={down(y) - size} width={2 * size} height={2 * size} {...look} />
            )}
          </g>
        );
      })}
    </svg>
  );
}

const reasons = { memory: 'memory', arithmetic: 'arithmetic', launch: 'the cost of its dispatches' } as const;

/** What limits the shipped kernel, forward and backward. */
export function limitSentence(roof: Roof, timings: readonly Timing[]): string {
  const parts = timings
    .filter(({ edited }) => !edited)
    .map((timing) => {
      const { bound, percentOfRoof } = limited(timing, timing.time.median, roof);
      return `${timing.direction} is limited by ${reasons[bound]} and reaches ${digits(percentOfRoof)} % of what the roof allows`;
    });
  const all = parts.join('; ');
  return all ? `${all[0].toUpperCase()}${all.slice(1)}.` : 'The dots appear when the op is timed.';
}
