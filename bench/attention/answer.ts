/** The answer of `insula bench attention`: which variant to take for each shape, mask and direction, and how sure that is. */

import type { Bound } from '../measure/roofline.ts';
import type { Timed } from '../measure/run.ts';
import { changeOf, DOUBT, pairedRatio, type Ratio } from '../measure/statistics.ts';
import { digits, groupBy } from '../measure/table.ts';
import type { RowKey } from './rows.ts';

/** The facts of a row that the answer needs. */
type AnsweredRow = RowKey & Timed & { readonly percentOfRoof: number; readonly bound: Bound };

/** A case is a row without its variant. */
const caseText = ({ shape, mask, direction, storage }: RowKey) => [shape, mask, direction, storage].join(' | ');

/** The doubt of what the answer says; the other half is that of the looks that ended the rounds. */
const ANSWER_DOUBT = DOUBT / 2;
/** Rounds before the first look. */
const FIRST_LOOK = 10;

/**
 * Whether more rounds would change no answer: in each case one variant is faster than every other, or as fast as it. It looks after
 * 10, 20, 40 rounds and so on, each time with half the doubt that is left: after every round a wrong answer would come up sooner or later.
 */
export function settledBy(keys: readonly RowKey[]): (times: readonly (readonly number[])[]) => boolean {
  const groups = [...groupBy(keys.entries(), ([, key]) => caseText(key)).values()];
  return (times) => {
    const rounds = Math.max(...times.map(({ length }) => length));
    const look = Math.log2(rounds / FIRST_LOOK);
    if (!Number.isInteger(look) || look < 0) return false;
    const doubt = ANSWER_DOUBT / 2 ** (look + 1);
    const rivals = groups.map((group) => group.map(([i]) => times[i]).filter(({ length }) => length > 0));
    const open = rivals.filter(({ length }) => length > 1);
    if (open.length === 0) return rounds >= 2 * FIRST_LOOK;
    return open.every((own) =>
      own.some((best) => own.every((other) => other === best || decided(pairedRatio(other, best, doubt)))),
    );
  };
}

const decided = (ratio: Ratio | null) => ratio !== null && (ratio.low > 1 || changeOf(ratio) === 'same');

/** The fastest variant of a case, and the next. */
interface Verdict {
  readonly best: AnsweredRow;
  /** Undefined where one variant was measured. */
  readonly next?: AnsweredRow;
  /** How many times as long the next takes; null for too few rounds. */
  readonly ratio: Ratio | null;
  /** The best is faster beyond doubt, as fast as the next, not decided, seen in too few rounds, or alone. */
  readonly outcome: 'sure' | 'equal' | 'open' | 'few' | 'alone';
}

function verdictOf(rows: readonly AnsweredRow[]): Verdict {
  const [best, next] = [...rows].sort((a, b) => a.time.median - b.time.median);
  if (!next) return { best, ratio: null, outcome: 'alone' };
  const ratio = pairedRatio(next.times, best.times, ANSWER_DOUBT);
  if (!ratio) return { best, next, ratio, outcome: 'few' };
  const undecided = changeOf(ratio) === 'same' ? 'equal' : 'open';
  return { best, next, ratio, outcome: ratio.low > 1 ? 'sure' : undecided };
}

/** One line for the whole run, and one for each shape, direction, storage and outcome. */
export function answerLines(rows: readonly AnsweredRow[]): string[] {
  const verdicts = [...groupBy(rows, caseText).values()].map(verdictOf);
  const lines = [...groupBy(verdicts, groupText).values()].map(lineOf);
  const compared = verdicts.filter(({ outcome }) => outcome !== 'alone');
  if (compared.length === 0)
    return ['one variant of each case was measured; --variant all compares those that can be:', ...lines];
  const few = compared.filter(({ outcome }) => outcome === 'few').length;
  const better = compared.filter(({ outcome }) => outcome === 'sure' || outcome === 'few');
  const wins = [...groupBy(better, ({ best }) => best.variant)].sort(([, a], [, b]) => b.length - a.length);
  const counted = wins.map(([name, own]) => `${name} in ${own.length}`).join(', ');
  const even = compared.length - better.length;
  return [
    `use ${counted === '' ? 'any variant in 0' : counted} of ${compared.length} cases${even > 0 ? `; in ${even} no variant is faster beyond doubt` : ''}${few > 0 ? `; ${few} were seen in too few rounds to be sure: give more --seconds` : ''}:`,
    ...lines,
  ];
}

/** Verdicts that differ in the mask alone share a line; where nothing is decided it does not matter which variant was ahead. */
function groupText({ best, next, outcome }: Verdict): string {
  const pair = [best.variant, next?.variant ?? ''];
  if (outcome === 'equal' || outcome === 'open') pair.sort();
  return [best.shape, best.direction, best.storage, outcome, ...pair].join(' | ');
}

function lineOf(group: readonly Verdict[]): string {
  const [{ best, next, outcome }] = group;
  const rows = group.map((own) => own.best);
  const masks = rows.map(({ mask }) => mask).join(', ');
  const storage = best.storage === 'f32' ? '' : `, ${best.storage}`;
  const bounds = [...new Set(rows.map(({ bound }) => bound))].join(' and ');
  const limits = `${rangeText(rows.map(({ percentOfRoof }) => percentOfRoof))} % of the roof, whose nearest limit is ${bounds}`;
  const line = (use: string, how: string) =>
    `  ${best.shape}, ${best.direction}${storage}: ${use} for ${masks}${how}; ${limits}`;
  if (!next) return line(best.variant, '');
  if (outcome === 'few') {
    const times = group.map((own) => own.next!.time.median / own.best.time.median);
    const rounds = `${best.times.length} rounds, not sure`;
    return line(best.variant, `: ${rangeText(times)} x as fast as ${next.variant} in ${rounds}`);
  }
  const either = [best.variant, next.variant].sort();
  // A group that is not decided is told in one direction, whichever variant was ahead for a mask.
  const ratios = group.map(({ best, ratio }) =>
    outcome === 'sure' || best.variant === either[0] ? ratio! : inverse(ratio!),
  );
  const interval = `${100 * (1 - DOUBT)} %: ${digits(Math.min(...ratios.map(({ low }) => low)))} - ${digits(Math.max(...ratios.map(({ high }) => high)))}`;
  const times = `${rangeText(ratios.map(({ ratio }) => ratio))} x`;
  if (outcome === 'sure') return line(best.variant, `: ${times} as fast as ${next.variant} (${interval})`);
  const what = outcome === 'equal' ? 'equally fast' : 'not decided';
  return line(either.join(' or '), `, ${what}: ${either[1]} takes ${times} as long as ${either[0]} (${interval})`);
}

const inverse = ({ ratio, low, high }: Ratio): Ratio => ({ ratio: 1 / ratio, low: 1 / high, high: 1 / low });

function rangeText(values: readonly number[]): string {
  const [least, most] = [digits(Math.min(...values)), digits(Math.max(...values))];
  return least === most ? least : `${least} to ${most}`;
}
