/** What came of a kernel: its results beside float64, and its times. */
import { limited, type Roof } from '../../measure/roofline.ts';
import { digits } from '../../measure/table.ts';
import { Figure, Table } from '../parts.tsx';
import type { Answer } from '../work.tsx';
import { timingName } from './roof.tsx';
import { type Checked, ratioText, shareOf, type Timed } from './trial.ts';

const secondsText = (answer: { seconds: number } | null) => (answer ? ` It took ${answer.seconds.toFixed(2)} s.` : '');
const shareText = (share: number) =>
  Number.isFinite(share) ? `${share < 100 ? share.toFixed(3) : Math.round(share).toLocaleString('en')} x` : 'no number';

/** Where the largest error is, and its values there if it is too large. */
function placeOf({ worst: { name, departs }, sizes }: Checked): string {
  const place = `${name}${sizes > 1 ? `, the worst of ${sizes}` : ''}`;
  if (!departs) return place;
  const { index, expected, actual } = departs;
  return `${place}: element ${index} is ${actual.toPrecision(5)}, in float64 ${expected.toPrecision(5)}`;
}

export function CheckTable({ answer }: { answer: Answer<readonly Checked[], string> | null }) {
  const checked = answer?.value ?? [];
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
      unit="errors relative to the norm; the largest as a multiple of what is allowed"
      see={verdict + secondsText(answer)}
    >
      <Table
        head={['tensor', 'agrees', 'largest error', 'allowed']}
        rows={checked.map((own) => [
          <>
            {own.tensor}
            <span class="note">{placeOf(own)}</span>
          </>,
          own.passed ? 'yes' : <span class="alarm">no</span>,
          shareText(shareOf(own.worst)),
          own.worst.tolerance.toExponential(1),
        ])}
      />
    </Figure>
  );
}

export function TimeTable({ answer, roof }: { answer: Answer<Timed, string> | null; roof: Roof | null }) {
  const timings = answer?.value.timings ?? [];
  const isEdited = timings.some(({ edited }) => edited);
  return (
    <Figure
      title="Times"
      unit="milliseconds"
      see={
        answer
          ? `${answer.value.name}: medians of rounds${isEdited ? ', the edited kernel and the shipped one in turns' : ''}.${secondsText(answer)}`
          : 'The op at a size of a model’s step, forward and backward.'
      }
    >
      <Table
        head={[
          ...['direction', 'ms', 'GFLOP/s', 'GB/s', 'FLOPs / byte'],
          ...(roof ? ['share of the roof, limited by'] : []),
          ...(isEdited ? ['by the shipped time'] : []),
        ]}
        rows={timings.map((timing) => {
          const { time, flops, bytes, ratio } = timing;
          const limits = roof && limited(timing, time.median, roof);
          return [
            timingName(timing),
            ...[time.median, flops / time.median / 1e6, bytes / time.median / 1e6, flops / bytes].map(digits),
            ...(limits ? [`${digits(limits.percentOfRoof)} %, ${limits.bound}`] : []),
            ...(isEdited ? [ratio && ratioText(ratio)] : []),
          ];
        })}
      />
    </Figure>
  );
}
