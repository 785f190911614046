/** What came of a kernel: its results beside float64, and its times. */
import { limited, type Roof } from '../../measure/roofline.ts';
import { digits } from '../../measure/table.ts';
import { Figure } from '../parts.tsx';
import { timingName } from './roof.tsx';
import { type Checked, ratioText, shareOf, type Timed } from './trial.ts';

const secondsText = (seconds: number | null) => (seconds === null ? '' : ` It took ${seconds.toFixed(2)} s.`);

export function CheckTable({ checked, seconds }: { checked: readonly Checked[]; seconds: number | null }) {
  const failed = checked.filter(({ passed }) => !passed).map(({ tensor }) => tensor);
  const verdict =
    checked.length === 0
      ? 'The output and every gradient, with the largest error over all sizes.'
      : failed.length === 0
        ? 'The output and every gradient agree with float64.'
        : `Wrong: ${failed.join(', ')}.`;
  return (
    <Figure
      title="Beside float64"
      unit="errors in units of what is allowed, relative to the norm"
      see={verdict + secondsText(seconds)}
    >
      <div class="wide kernels-table">
        <table>
          <thead>
            <tr>
              {['Tensor', 'Agrees', 'Largest error', 'Allowed'].map((name, i) => (
                <th key={name} scope="col" class={i > 1 ? 'number' : undefined}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {checked.map(({ tensor, worst, sizes, passed }) => (
              <tr key={tensor}>
                <th scope="row" class="kernels-name">
                  {tensor}
                  <span class="kernels-where">
                    {worst.name}
                    {sizes > 1 && `, the worst of ${sizes}`}
                    {worst.departs && departure(worst.departs)}
                  </span>
                </th>
                <td class={passed ? undefined : 'kernels-wrong'}>{passed ? 'yes' : 'no'}</td>
                <td class="number">{shareText(shareOf(worst))}</td>
                <td class="number">{worst.tolerance.toExponential(1)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Figure>
  );
}

const departure = ({ index, expected, actual }: { index: number; expected: number; actual: number }) =>
  `: element ${index} is ${actual.toPrecision(5)}, in float64 ${expected.toPrecision(5)}`;

const shareText = (share: number) =>
  share < 100 ? share.toFixed(3) : Number.isFinite(share) ? digits(share) : 'no number';

export function TimeTable({
  timed,
  seconds,
  roof,
}: {
  timed: Timed | null;
  seconds: number | null;
  roof: Roof | null;
}) {
  const isEdited = timed?.timings.some(({ edited }) => edited) ?? false;
  return (
    <Figure
      title="Times"
      unit="milliseconds"
      see={
        timed
          ? `${timed.name}: medians of rounds${isEdited ? ', the edited kernel and the shipped one in turns' : ''}.${secondsText(seconds)}`
          : 'The op at a size of a model’s step, forward and backward.'
      }
    >
      <div class="wide kernels-table">
        <table>
          <thead>
            <tr>
              {['Direction', 'ms', 'GFLOP/s', 'GB/s', 'FLOPs / byte'].map((name, i) => (
                <th key={name} scope="col" class={i > 0 ? 'number' : undefined}>
                  {name}
                </th>
              ))}
              {roof && <th scope="col">Least time by the roof</th>}
              {isEdited && <th scope="col">By the shipped time</th>}
            </tr>
          </thead>
          <tbody>
            {timed?.timings.map((timing) => {
              const { time, flops, bytes, ratio } = timing;
              const limits = roof && limited(timing, time.median, roof);
              return (
                <tr key={timingName(timing)}>
                  <th scope="row" class="kernels-name">
                    {timingName(timing)}
                  </th>
                  <td class="number">{digits(time.median)}</td>
                  <td class="number">{digits(flops / time.median / 1e6)}</td>
                  <td class="number">{digits(bytes / time.median / 1e6)}</td>
                  <td class="number">{digits(flops / bytes)}</td>
                  {limits && <td>{`${digits(limits.percentOfRoof)} %, ${limits.bound}`}</td>}
                  {isEdited && <td>{ratio ? ratioText(ratio) : ''}</td>}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </Figure>
  );
}
