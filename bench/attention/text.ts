/** The results of `insula bench attention` in words, for its lines and its page. */
import { provenanceLine } from '../measure/provenance.ts';
import { aboveRoof, roofCell, roofText } from '../measure/roofline.ts';
import { courseLine } from '../measure/run.ts';
import { DOUBT } from '../measure/statistics.ts';
import { digits, groupBy, quartiles } from '../measure/table.ts';
import type { AttentionRun, ResultRow } from './run.ts';

const known = (value: number | null) => (value === null ? '-' : digits(value));

/** The numbers of a row by the names of their columns. */
const numbers: Readonly<Record<string, (row: ResultRow) => string>> = {
  ms: ({ time, unequal }) => `${digits(time.median)}${unequal ? '!' : ''}`,
  quartiles: ({ time }) => quartiles(time),
  'GFLOP/s': ({ gigaflops }) => digits(gigaflops),
  'x dense': ({ toDense }) => known(toDense.time),
  'x live work': ({ toDense }) => known(toDense.work),
  '% matmul': ({ percentOfMatmul }) => known(percentOfMatmul),
  '% roof': roofCell,
  limit: ({ bound }) => bound,
  'x unfused': ({ unfusedToThis }) => known(unfusedToThis),
  'plan ms': ({ planMilliseconds }) => (planMilliseconds === 0 ? '-' : digits(planMilliseconds)),
  MB: ({ memoryBytes }) => digits(memoryBytes / 1e6),
  workgroups: ({ workgroups }) => String(workgroups),
};
export const numberColumns = Object.keys(numbers);
export const numberCells = (row: ResultRow) => Object.values(numbers).map((cell) => cell(row));

export function byShape({ rows }: AttentionRun): { title: string; rows: ResultRow[] }[] {
  return [...groupBy(rows, ({ shape }) => shape)].map(([shape, own]) => ({
    title: shape.includes(own[0].sizes) ? shape : `${shape} (${own[0].sizes})`,
    rows: own,
  }));
}

/** The circumstances of the run: adapter, course, kernels, roof, products. */
export function factLines(run: AttentionRun): string[] {
  const { timer, rows, anchors, roof, defaults } = run;
  const products = anchors.filter(({ name }) => rows.some(({ matmul }) => matmul === name));
  const times =
    timer === 'gpu' ? 'GPU timestamps, summed over the dispatches of a repeat' : 'wall time from submission to end';
  return [
    provenanceLine(run),
    `${courseLine(run)}; times are ${times}`,
    ...defaults,
    `roof in the same rounds: ${roofText(roof)}`,
    ...products.map(({ name, time }) => `${name}: ${digits(time.median)} ms (${quartiles(time)})`),
  ];
}

export const legend = [
  'ms: time of one repeat. GFLOP/s: rate of live work, which is 2 products of each live pair of query and key forward and 5 backward (3 where the keys get no gradient),',
  'whatever a variant computes beyond it. x dense, x live work: time and live work, divided by those of the same row with a dense mask. % matmul: share of the rate of the',
  'matrix product above that has about the FLOPs of dense attention; it is no limit. % roof: the least time of live work, bytes and dispatches by the roof, divided by the',
  'time taken; limit: the resource that this least time is of. x unfused: time of matmul + mask + softmax + matmul in f32, divided by the time of this row. plan ms: time of',
  'the host for the tile lists, once a batch, not in the row. MB: memory of operands, results and intermediates. workgroups: count in one repeat. Ratios of times are',
  'medians over the rounds of the ratio within a round: on a busy machine they differ from the ratio of the medians, and are the ones to trust.',
];

export const footnotes = ({ rows, leftOut, notStarted }: AttentionRun): string[] => [
  ...rows.flatMap(({ name, unequal }) => {
    if (!unequal) return [];
    const { ratio, low, high, mask } = unequal;
    const interval = `${100 * (1 - DOUBT)} %: ${digits(low)} - ${digits(high)}`;
    return [`! ${name} takes ${digits(ratio)} x (${interval}) the time of ${mask}, which has the same live work`];
  }),
  ...aboveRoof(rows),
  ...leftOut.map((line) => `left out: ${line}`),
  ...notStarted.map((name) => `left out, because --seconds were spent: ${name}`),
];
