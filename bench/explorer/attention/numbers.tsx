/** What the table costs, counted and measured, and the gradients that it lets through. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { AttentionTable, PlanList } from '../../../kernels/index.ts';
import type { Adapter } from '../device.ts';
import { type Cell, Figure, Matrix, Problem, useWork } from '../parts.tsx';
import type { Counts, Problem as Given, ReachingByBlock, Rival, Times } from './work.ts';
import { measuredTimes, reachingGradients } from './work.ts';

const exactly = (value: number) => value.toLocaleString('en');
const less = (own: number, other: number) =>
  own === other ? 'the same' : `${Math.abs(100 * (1 - own / other)).toFixed(1)} % ${own < other ? 'less' : 'more'}`;

const lists: readonly (readonly [PlanList, string])[] = [
  ['forward', 'forward'],
  ['dQuery', 'dQ'],
  ['dKeyValue', 'dK/dV'],
];

/** A number beside that of the same table without stops and of dense attention. */
function Row({
  name,
  value,
  text = exactly,
}: {
  name: string;
  value: Record<Rival, number>;
  text?(value: number): string;
}) {
  const { own, withoutStops, dense } = value;
  return (
    <tr>
      <th scope="row">{name}</th>
      <td class="number">{text(own)}</td>
      {[withoutStops, dense].map((other, i) => (
        <td key={i} class="number">
          {text(other)} <span class="small">{less(own, other)}</span>
        </td>
      ))}
    </tr>
  );
}

const heads = ['', 'this table', 'without stops', 'dense'];
const Head = () => (
  <thead>
    <tr>
      {heads.map((name) => (
        <th key={name} scope="col" class={name ? 'number' : undefined}>
          {name}
        </th>
      ))}
    </tr>
  </thead>
);

export function CountsTable({ compared }: { compared: Record<Rival, Counts> }) {
  const { own, withoutStops, dense } = compared;
  const of = (pick: (counts: Counts) => number) => ({
    own: pick(own),
    withoutStops: pick(withoutStops),
    dense: pick(dense),
  });
  return (
    <Figure
      title="Work"
      unit="one sample; FLOPs of all heads"
      see="A stop changes no number of forward and of dQ. It takes pairs out of dK/dV, whose share of all is what it can save."
    >
      <div class="wide">
        <table class="attention-numbers" aria-label="Work">
          <Head />
          <tbody>
            {lists.map(([list, name]) => (
              <Row key={name} name={`${name}, pairs of tiles`} value={of(({ lists }) => lists[list].live.length)} />
            ))}
            {lists.map(([list, name]) => (
              <Row key={name} name={`${name}, pairs of tokens`} value={of(({ lists }) => lists[list].tokens)} />
            ))}
            {lists.map(([list, name]) => (
              <Row key={name} name={`${name}, FLOPs`} value={of(({ lists }) => lists[list].flops)} />
            ))}
            <Row name="backward in one, FLOPs" value={of(({ backward }) => backward)} />
          </tbody>
        </table>
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
  const { answer, ask, busy, problem, old } = useAnswer<Times>(adapter, given);
  const measure = () => ask((device, signal) => measuredTimes(device, given, variant, signal));
  const of = (direction: 'forward' | 'backward') => {
    const { own, withoutStops, dense } = answer!.value;
    return { own: own[direction], withoutStops: withoutStops[direction], dense: dense[direction] };
  };
  const text = (value: number) => value.toPrecision(3);
  return (
    <Figure
      title="Time"
      unit="ms on this adapter, medians of 5 rounds"
      see="A small shape is mostly the start of its kernels: lengthen the blocks until the times follow the FLOPs."
    >
      <button type="button" class="main" disabled={busy} onClick={measure}>
        {busy ? 'Being measured …' : 'Measure the times'}
      </button>
      {problem && <Problem text={problem} />}
      <div class={`attention-times wide${old ? ' busy' : ''}`}>
        {answer && (
          <>
            <table class="attention-numbers" aria-label="Times">
              <Head />
              <tbody>
                <Row name="forward" value={of('forward')} text={text} />
                <Row name="backward" value={of('backward')} text={text} />
              </tbody>
            </table>
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
const MOST_FLOPS = 3e8;
const PAUSE_MILLISECONDS = 400;

function whyZero({ cells, layout }: AttentionTable, query: string, key: string, side: 'key' | 'value'): string {
  const [q, k] = [query, key].map((name) => layout.blocks.findIndex((block) => block.name === name));
  const { mask, keyGradient, valueGradient } = cells[q][k];
  if (mask === 'none') return 'no edge';
  return (side === 'key' ? keyGradient : valueGradient) === 0 ? 'cut' : 'masked';
}

export function Reaching(props: { adapter: Adapter; given: Given; variant: string; flops: number }) {
  const { adapter, given, variant, flops } = props;
  const { answer, ask, busy, problem, old } = useAnswer<{ table: AttentionTable; norms: ReachingByBlock }>(
    adapter,
    given,
  );
  const measure = () =>
    ask(async (device, signal) => ({
      table: given.table,
      norms: await reachingGradients(device, given, variant, signal),
    }));
  const small = flops * given.lossBlocks.length <= MOST_FLOPS;
  useEffect(() => {
    if (!small) return;
    const timer = setTimeout(measure, shown.current ? PAUSE_MILLISECONDS : 0);
    return () => clearTimeout(timer);
  }, [given, variant]);
  const shown = useRef(false);
  shown.current ||= answer !== null;
  const { table, norms } = answer?.value ?? { table: given.table, norms: {} };
  const rows = Object.keys(norms);
  const columns = rows.length > 0 ? Object.keys(norms[rows[0]]) : [];
  const most = (side: 'key' | 'value') =>
    Math.max(...rows.flatMap((row) => columns.map((column) => norms[row][column][side].norm))) || 1;
  const look =
    (side: 'key' | 'value') =>
    (row: string, column: string): Cell => {
      const { norm, zero } = norms[row][column][side];
      if (!zero)
        return {
          text: norm.toPrecision(2),
          shade: 0.15 + (0.85 * norm) / most(side),
          title: `${row} to ${column}: ${norm}`,
        };
      const why = whyZero(table, row, column, side);
      return { text: `0 ${why}`, hatched: true, title: `${row} to ${column}: all bits are zero, ${why}` };
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
        {(['key', 'value'] as const).map((side) => (
          <div key={side}>
            <h3>{side === 'key' ? 'dK' : 'dV'}</h3>
            {rows.length > 0 && (
              <Matrix label={side === 'key' ? 'dK' : 'dV'} rows={rows} columns={columns} cell={look(side)} />
            )}
          </div>
        ))}
      </div>
      <p class="small">
        {answer
          ? `Computed in ${answer.seconds.toFixed(1)} s: one pass forward and back for each block with a loss${old ? '; the table has changed since' : ''}.`
          : '\u00a0'}
      </p>
    </Figure>
  );
}
