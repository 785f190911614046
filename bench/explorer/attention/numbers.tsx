/** What the table costs, counted and measured, and the gradients that it lets through. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { LivePair } from '../../../kernels/index.ts';
import type { Adapter } from '../device.ts';
import { type Cell, Figure, Matrix, Problem, useWork } from '../parts.tsx';
import {
  type Compared,
  type Counts,
  type Problem as Given,
  measuredTimes,
  type ReachingByBlock,
  reachingGradients,
} from './work.ts';

const exactly = (value: number) => value.toLocaleString('en');
const less = (own: number, other: number) =>
  own === other ? 'the same' : `${Math.abs(100 * (1 - own / other)).toFixed(1)} % ${own < other ? 'less' : 'more'}`;

/** Numbers by their names, beside those of the same table without stops and of dense attention. */
function Numbers(props: {
  label: string;
  of: Compared<Readonly<Record<string, number>>>;
  text?(value: number): string;
}) {
  const { label, of, text = exactly } = props;
  return (
    <table class="attention-numbers" aria-label={label}>
      <thead>
        <tr>
          <td />
          {['this table', 'without stops', 'dense'].map((name) => (
            <th key={name} scope="col" class="number">
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {Object.entries(of.own).map(([name, own]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td class="number">{text(own)}</td>
            {[of.withoutStops[name], of.dense[name]].map((other, i) => (
              <td key={i} class="number">
                {text(other)} <span class="small">{less(own, other)}</span>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function Counted({ compared: { own, withoutStops, dense } }: { compared: Compared<Counts> }) {
  return (
    <Figure
      title="Work"
      unit="one sample; FLOPs of all heads"
      see="A stop changes no number of forward and of dQ. It takes pairs out of dK/dV, whose share of all is what it can save."
    >
      <div class="wide">
        <Numbers label="Work" of={{ own: own.numbers, withoutStops: withoutStops.numbers, dense: dense.numbers }} />
      </div>
    </Figure>
  );
}

/** Work that is given on demand, with the time that it took; what it gave stays until the next, and is old once `of` is another. */
function useAnswer<Answer>(adapter: Adapter, of: object) {
  const [answer, setAnswer] = useState<{ value: Answer; of: object; seconds: number } | null>(null);
  const { run, busy, problem } = useWork(adapter);
  const ask = (work: Parameters<typeof run>[0]) =>
    run(async (device, signal) => {
      const begin = performance.now();
      const value = (await work(device, signal)) as Answer;
      if (!signal.aborted) setAnswer({ value, of, seconds: (performance.now() - begin) / 1000 });
    });
  return { answer, ask, busy, problem, old: busy || answer?.of !== of };
}

export function Measured({ adapter, given, variant }: { adapter: Adapter; given: Given; variant: string }) {
  const { answer, ask, busy, problem, old } = useAnswer<Awaited<ReturnType<typeof measuredTimes>>>(adapter, given);
  const measure = () => ask((device, signal) => measuredTimes(device, given, variant, signal));
  return (
    <Figure
      title="Time"
      unit="ms on this adapter, medians of 5 rounds"
      see="Stops change nothing forward. A small shape is mostly the start of its kernels: lengthen the blocks until the times follow the FLOPs."
    >
      <button type="button" class="main" disabled={busy} onClick={measure}>
        {busy ? 'Being measured …' : 'Measure the times'}
      </button>
      {problem && <Problem text={problem} />}
      <div class={`attention-times wide${old ? ' busy' : ''}`}>
        {answer && (
          <>
            <Numbers label="Times" of={answer.value} text={(value) => value.toPrecision(3)} />
            <p class="small">
              Measured in {answer.seconds.toFixed(1)} s{answer.of === given ? '' : ', for an earlier table'}.
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
function whyZero({ table: { cells, layout }, live }: Reached, names: readonly string[], side: 'key' | 'value'): string {
  const [q, k] = names.map((name) => layout.blocks.findIndex((block) => block.name === name));
  if (cells[q][k].mask === 'none') return 'no edge';
  if (cells[q][k][`${side}Gradient`] === 0) return 'cut';
  return live.some(({ query, key }) => query.block === q && key.block === k) ? 'computed' : 'masked';
}

interface Reached extends Pick<Given, 'table'> {
  readonly live: readonly LivePair[];
  readonly norms: ReachingByBlock;
}

export function Reaching(props: { adapter: Adapter; given: Given; variant: string; counts: Counts }) {
  const { adapter, given, variant, counts } = props;
  const { answer, ask, busy, problem, old } = useAnswer<Reached>(adapter, given);
  const measure = () =>
    ask(async (device, signal) => {
      const norms = await reachingGradients(device, given, variant, signal);
      return { table: given.table, live: counts.live.dKeyValue, norms };
    });
  const small = counts.numbers['backward in one, FLOPs'] * given.lossBlocks.length <= MOST_FLOPS;
  useEffect(() => {
    if (!small) return;
    const timer = setTimeout(measure, shown.current ? PAUSE_MILLISECONDS : 0);
    return () => clearTimeout(timer);
  }, [given, variant]);
  const shown = useRef(false);
  shown.current ||= answer !== null;
  const norms = answer?.value.norms ?? {};
  const rows = Object.keys(norms);
  const columns = Object.keys(norms[rows[0]] ?? {});
  const look = (side: 'key' | 'value', row: string, column: string): Cell => {
    const { norm, zero } = norms[row][column][side];
    const most = Math.max(...rows.flatMap((own) => columns.map((other) => norms[own][other][side].norm)));
    const title = `${row} to ${column}`;
    if (!zero) return { text: norm.toPrecision(2), shade: 0.1 + (0.4 * norm) / most, title: `${title}: ${norm}` };
    const why = whyZero(answer!.value, [row, column], side);
    return { text: `0 ${why}`, hatched: true, title: `${title}: all bits are zero, ${why}` };
  };
  return (
    <Figure
      title="Gradient that reaches K and V"
      unit="norms, for random operands and output gradients"
      see="A row is the loss on one block, a column the keys or values that it reaches. Hatched: every bit of the gradient is zero."
    >
      {!small && (
        <button type="button" disabled={busy} onClick={measure}>
          {busy ? 'Being computed …' : 'Compute the gradients'}
        </button>
      )}
      {problem && <Problem text={problem} />}
      <div class={`row attention-reaching${old ? ' busy' : ''}`}>
        {(
          [
            ['dK', 'key'],
            ['dV', 'value'],
          ] as const
        ).map(([name, side]) => (
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
