/** What the table costs, counted and measured, and the gradients that it lets through. */
import { useEffect } from 'preact/hooks';
import type { LivePair } from '../../../kernels/index.ts';
import { pairedRatio, spread } from '../../measure/statistics.ts';
import { digits } from '../../measure/table.ts';
import type { Adapter } from '../device.ts';
import { type Cell, Figure, Matrix, Table } from '../parts.tsx';
import { useAnswer, WorkButton } from '../work.tsx';
import {
  type Compared,
  type Counts,
  type Problem as Given,
  measuredTimes,
  type ReachingByBlock,
  ROUNDS,
  reachingGradients,
} from './work.ts';

const exactly = (value: number) => value.toLocaleString('en');
const less = (ratio: number) => `${Math.abs(100 * (1 - ratio)).toFixed(1)} % ${ratio < 1 ? 'less' : 'more'}`;

/** The times of this table beside others of the same rounds, in words; no verdict where the interval of their ratio holds 1. */
export function timeWords(own: readonly number[], others: readonly number[]): string {
  const ratio = own === others ? null : pairedRatio(own, others);
  if (!ratio) return 'the same';
  const interval = `${less(ratio.low)} to ${less(ratio.high)}`;
  return ratio.low <= 1 && ratio.high >= 1
    ? `no clear difference (${interval})`
    : `this table: ${less(ratio.ratio)} (${interval})`;
}

/** Values by their names, beside those of the same table without stops and of dense attention, and in `words` how they differ. */
function Numbers<T>(props: {
  label: string;
  of: Compared<Readonly<Record<string, T>>>;
  text(value: T): string;
  words(own: T, other: T): string;
}) {
  const { label, text, words } = props;
  const { own, withoutStops, dense } = props.of;
  return (
    <Table
      label={label}
      head={['', 'this table', 'without stops', 'dense']}
      rows={Object.entries(own).map(([name, value]) => [
        name,
        text(value),
        ...[withoutStops[name], dense[name]].map((other) => (
          <>
            {text(other)}
            <span class="note">{words(value, other)}</span>
          </>
        )),
      ])}
    />
  );
}

export function Counted({ compared: { own, withoutStops, dense } }: { compared: Compared<Counts> }) {
  return (
    <Figure
      title="Work"
      unit="one sample; FLOPs of all heads"
      see="A stop changes no number of forward and of dQ. It takes pairs out of dK/dV, whose share of all is what it can save."
    >
      <Numbers
        label="Work"
        of={{ own: own.numbers, withoutStops: withoutStops.numbers, dense: dense.numbers }}
        text={exactly}
        words={(own, other) => (own === other ? 'the same' : `this table: ${less(own / other)}`)}
      />
    </Figure>
  );
}

export function Measured({ adapter, given }: { adapter: Adapter; given: Given }) {
  const { answer, ask, busy, problem } = useAnswer<Awaited<ReturnType<typeof measuredTimes>>, Given>(adapter);
  const old = answer?.of !== given;
  return (
    <Figure
      title="Time"
      unit={`ms on this adapter, medians of ${ROUNDS} rounds; 99 % intervals in parentheses`}
      see="Stops change nothing forward. A small shape is mostly the start of its kernels: lengthen the blocks until the times follow the FLOPs."
    >
      <WorkButton
        {...{ main: true, busy, problem, text: 'Measure the times' }}
        onClick={() => ask(given, (device, signal) => measuredTimes(device, given, signal))}
      />
      <div class={busy || old ? 'busy' : undefined} style={{ minHeight: '9rem' }}>
        {answer && (
          <>
            <Numbers label="Times" of={answer.value} text={(times) => digits(spread(times).median)} words={timeWords} />
            <p class="small">
              Measured in {answer.seconds.toFixed(1)} s{old && ', for an earlier table'}.
            </p>
          </>
        )}
      </div>
    </Figure>
  );
}

/** Problems above take seconds on a software adapter, and wait for a click. */
const MOST_FLOPS = 1e8;
const PAUSE_MILLISECONDS = 400;

/** Why the loss on a block gives the keys or values of another nothing. */
function whyZero({ given, live }: Asked, names: readonly string[], side: 'key' | 'value'): string {
  const { cells, layout } = given.table;
  const [q, k] = names.map((name) => layout.blocks.findIndex((block) => block.name === name));
  if (cells[q][k].mask === 'none') return 'no edge';
  if (cells[q][k][`${side}Gradient`] === 0) return 'cut by the table';
  return live.some(({ query, key }) => query.block === q && key.block === k) ? 'computed' : 'masked';
}

interface Asked {
  readonly given: Given;
  readonly live: readonly LivePair[];
}

export function Reaching({ adapter, given, counts }: { adapter: Adapter; given: Given; counts: Counts }) {
  const { answer, ask, busy, problem } = useAnswer<ReachingByBlock, Asked>(adapter);
  const compute = () =>
    ask({ given, live: counts.live.dKeyValue }, (device, signal) => reachingGradients(device, given, signal));
  const small = counts.numbers['backward in one, FLOPs'] * given.lossBlocks.length <= MOST_FLOPS;
  useEffect(() => {
    if (!small) return;
    const timer = setTimeout(compute, answer ? PAUSE_MILLISECONDS : 0);
    return () => clearTimeout(timer);
  }, [given]);
  const old = answer?.of.given !== given;
  const norms = answer?.value ?? {};
  const rows = Object.keys(norms);
  const columns = Object.keys(norms[rows[0]] ?? {});
  const mostOf = (side: 'key' | 'value') =>
    Math.max(...rows.flatMap((own) => columns.map((other) => norms[own][other][side].norm)));
  const most = { key: mostOf('key'), value: mostOf('value') };
  const look = (side: 'key' | 'value', row: string, column: string): Cell => {
    const { norm, zero } = norms[row][column][side];
    const title = `${row} to ${column}`;
    if (!zero) return { text: norm.toPrecision(2), shade: 0.1 + (0.4 * norm) / most[side], title: `${title}: ${norm}` };
    const why = whyZero(answer!.of, [row, column], side);
    return { text: `0 ${why}`, hatched: true, title: `${title}: all bits are zero, ${why}` };
  };
  return (
    <Figure
      title="Gradient that reaches K and V"
      unit="norms, for random operands and output gradients"
      see="A row is the loss on one block, a column the keys or values that it reaches. Hatched: every bit of the gradient is zero."
    >
      {(!small || problem) && <WorkButton {...{ busy, problem, text: 'Compute the gradients' }} onClick={compute} />}
      <div class={busy || old ? 'row busy' : 'row'} style={{ minHeight: '9rem' }}>
        {Object.entries({ dK: 'key', dV: 'value' } as const).map(([name, side]) => (
          <div key={side}>
            <h3>{name}</h3>
            {rows.length > 0 && (
              <Matrix label={name} {...{ rows, columns }} cell={(row, column) => look(side, row, column)} />
            )}
          </div>
        ))}
      </div>
      {answer && rows.length === 0 && <p>No block carries a loss, so no gradient reaches anything.</p>}
      <p class="small">
        {answer
          ? `Computed in ${answer.seconds.toFixed(1)} s: one pass forward and back for each block with a loss${busy ? '; the new table is next' : old ? '; the table has changed since' : ''}.`
          : '\u00a0'}
      </p>
    </Figure>
  );
}
