/** The finished runs of a study as one table: a row a variant, with intervals over seeds and scenes. */
import { formatNumber, formatTimes } from '../../model/report/markup.ts';
import { wilsonInterval } from '../../model/report/wilson.ts';
import { GROSS } from '../tabletop/seeing.ts';
import type { SavedRun } from './saved.ts';
import type { Study } from './study.ts';

export type StudyTable = ReturnType<typeof tableOf>;

export function tableOf({ variants }: Pick<Study, 'variants'>, runs: readonly SavedRun[]) {
  const objectives = [...new Map(runs.flatMap((run) => run.objectives.map((own) => [own.name, own]))).values()];
  const rows = variants.map(({ name }) => {
    const own = runs.filter(({ variant }) => variant === name);
    const losses = objectives.map(({ name: loss }) => {
      const last = own.map(({ heldOut }) => heldOut.at(-1)?.losses[loss]);
      const ratios = own.map(({ baselines }, i) => baselines[loss] && last[i] && last[i] / baselines[loss]);
      return [loss, { loss: spread(last), ratio: spread(ratios) }] as const;
    });
    return {
      ...{ variant: name, runs: own.length },
      success: rateOf(own, 'success'),
      rightObject: rateOf(own, 'rightObject'),
      stageScore: spread(own.map(({ episodes }) => episodes && mean(episodes.map((one) => one.stageScore)))),
      near: spread(own.map(({ questions }) => questions.trained?.near)),
      tokens: spread(own.map(({ questions }) => questions.trained?.tokens)),
      losses: Object.fromEntries(losses),
      seconds: spread(own.map(({ seconds }) => seconds.train)),
    };
  });
  /** null without finished runs. */
  const start = runs[0]?.questions.start ?? null;
  return { rows, start, objectives };
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The mean over seeds with the lowest and the highest; null unless every seed has a value. */
function spread(values: readonly (number | null | undefined)[]): { mean: number; low: number; high: number } | null {
  const known = values.filter((value): value is number => typeof value === 'number');
  if (known.length === 0 || known.length < values.length) return null;
  return { mean: mean(known), low: Math.min(...known), high: Math.max(...known) };
}

/** The scenes of all seeds together, with the 95 % interval of their share; and the shares of the seeds. */
function rateOf(runs: readonly SavedRun[], what: 'success' | 'rightObject') {
  const outcomes = runs.map(({ episodes }) => episodes?.map((own) => Number(own[what])) ?? []);
  const seeds = spread(outcomes.map((own) => (own.length > 0 ? mean(own) : null)));
  if (!seeds) return null;
  const all = outcomes.flat();
  const count = all.reduce((sum, value) => sum + value, 0);
  return { count, of: all.length, ...wilsonInterval(count, all.length), seeds };
}

/** Percent with a decimal; what is below 100 is not rounded to it. */
const percent = (share: number) => Math.min(100 * share, share < 1 ? 99.9 : 100).toFixed(1);

const MISSING = '–';

function range(own: ReturnType<typeof spread>, format: (value: number) => string): string {
  if (own === null) return MISSING;
  return own.low === own.high ? format(own.mean) : `${format(own.mean)} (${format(own.low)} to ${format(own.high)})`;
}

/** The table as texts: its head, and a line for each variant. */
export function cellsOf({ rows, start, objectives }: StudyTable): { head: string[]; lines: string[][] } {
  const ofStart = (share?: number | null) => (share == null ? '' : `, start ${percent(share)}`);
  const rate = (own: ReturnType<typeof rateOf>) =>
    own ? `${percent(own.count / own.of)} (${percent(own.low)} to ${percent(own.high)})` : MISSING;
  return {
    head: [
      ...['variant', 'runs', 'success, % (95 % interval); seeds', 'right object, % (95 % interval)', 'stages'],
      `places within ${GROSS} pixels, %${ofStart(start?.near)}`,
      `other tokens, %${ofStart(start?.tokens)}`,
      ...objectives.map(({ title, baseline }) => `held-out ${title}${baseline === null ? '' : `; × ${baseline}`}`),
      'training, s',
    ],
    lines: rows.map(({ variant, runs, success, rightObject, stageScore, near, tokens, losses, seconds }) => [
      ...[variant, String(runs)],
      `${rate(success)}${success ? `; ${percent(success.seeds.low)} to ${percent(success.seeds.high)}` : ''}`,
      ...[rate(rightObject), range(stageScore, (value) => value.toFixed(2))],
      ...[range(near, percent), range(tokens, percent)],
      ...objectives.map(({ name }) => {
        const { loss, ratio } = losses[name];
        return `${range(loss, formatNumber)}${ratio ? `; ${formatTimes(ratio.mean)}` : ''}`;
      }),
      range(seconds, (value) => value.toFixed(0)),
    ]),
  };
}

/** The meaning of the columns. */
export const legend: readonly string[] = [
  "Success and right object: the scenes of all seeds together, with Wilson's interval, which takes scenes for independent; after it the lowest and the highest seed. Stages: the mean share of the stages reached. Other figures are means over seeds, with the lowest and the highest.",
  `Places and other tokens: questions about held-out frames of rich scenes, asked of the start's own model with the weights after training, so that a system without a token head is asked too. Places are those of objects while the gripper is free.`,
  `Losses: on held-out data after the last step, and their ratio to a predictor that does not look. A token loss is that of all tokens that a variant predicts: places, actions or both. ${MISSING}: the variant has no such loss, the data have no simulated world, or no run is finished.`,
];

export function markdownOf(table: StudyTable): string[] {
  const { head, lines } = cellsOf(table);
  return [head, head.map((_, i) => (i === 0 ? '---' : '---:')), ...lines].map((cells) => `| ${cells.join(' | ')} |`);
}
