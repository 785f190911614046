/** The roofline of this adapter with the dots of an op. */
import { limited, type Roof } from '../../measure/roofline.ts';
import { digits } from '../../measure/table.ts';
import { Lines, type Series } from '../parts.tsx';
import type { Timing } from './trial.ts';

export const timingName = ({ direction, edited }: Timing): string => `${direction}${edited ? ', edited' : ''}`;

/** Both axes are logarithmic. Work without arithmetic stands at the left end, at its bandwidth. */
export function RoofFigure({ roof, timings }: { roof: Roof; timings: readonly Timing[] }) {
  const { gigaflops, gigabytesPerSecond } = roof;
  const balance = gigaflops / gigabytesPerSecond;
  const intensities = timings.map(({ flops, bytes }) => flops / bytes);
  const left = 10 ** Math.floor(Math.log10(Math.min(0.1, ...intensities.filter((own) => own > 0))));
  const right = Math.max(100, 4 * balance, ...intensities);
  const dots = timings.map((timing, i): Series => {
    const { direction, edited, time } = timing;
    const rates = limited(timing, time.median, roof);
    const y = intensities[i] ? rates.gigaflops : rates.gigabytesPerSecond * left;
    const shape = direction === 'forward' ? 'circles' : 'squares';
    return {
      name: `${timingName(timing)}: ${digits(rates.percentOfRoof)} % of the roof (${direction === 'forward' ? 'circle' : 'square'})`,
      ...{ colour: direction === 'forward' ? 'line1' : 'line2', dots: shape, hollow: edited },
      points: [[intensities[i] || left, y]],
    };
  });
  const heights = dots.map(({ points: [[, y]] }) => y);
  const limits: Series = {
    name: `roof: ${digits(gigabytesPerSecond)} GB/s up to ${digits(balance)} FLOPs per byte, then ${digits(gigaflops)} GFLOP/s`,
    colour: 'ink',
    points: [
      [left, left * gigabytesPerSecond],
      [balance, gigaflops],
      [right, gigaflops],
    ],
  };
  return (
    <Lines
      label="Roofline: GFLOP/s by FLOPs per byte"
      x="FLOPs per byte"
      y="GFLOP/s"
      series={[limits, ...dots]}
      low={Math.min(left * gigabytesPerSecond, ...heights)}
      high={Math.max(gigaflops, ...heights)}
      logarithmic
    />
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
