/** The sight of a vision-language model: its scores as JSON, as lines and as tables, and `insula evaluate` of its file. */
import { aligned } from '../bench/measure/table.ts';
import type { Variation } from '../bench/tabletop/scene.ts';
import { answeredByPlaces, GROSS, type PointingScore, type SeeingScores } from '../bench/tabletop/seeing.ts';
import { knowsWorld, type MarkScores, type MeasuredSets, measureSets } from '../bench/tabletop/seeing-sets.ts';
import { InputError } from '../engine/index.ts';
import { expectDevice, openTunedDevice } from '../kernels/tuning.ts';
import type { AnswerScore } from '../model/inspect/answers.ts';
import { Encoding } from '../model/policy/encoding.ts';
import { Policy } from '../model/policy/policy.ts';
import { formatPercent } from '../model/report/markup.ts';
import type { ScoreTable } from '../model/report/seeing-report.ts';
import { openStart } from '../model/training/start.ts';
import type { PolicyValues } from './policy.ts';
import type { Progress } from './progress.ts';

/** Scenes of a set by default. */
export const SCENES = 100;

type Marks = Readonly<Record<string, MarkScores>>;

export interface Seeing {
  /** By variation; empty for a model of own questions. */
  readonly sets: Readonly<Record<string, SeeingScores>>;
  /** By set; null for a finished model, which has no marks. */
  readonly marks: Marks | null;
  /** By kind of question, for a model of own questions. */
  readonly answers: Readonly<Record<string, AnswerScore>> | null;
}

export interface SeeingResult extends Seeing {
  readonly model: string;
  readonly scenes: number;
  readonly seed: number;
  readonly adapter: string;
}

export const seeingOf = (sets: MeasuredSets, marks: Marks | null): Seeing => ({
  sets: Object.fromEntries(sets.map(({ variation, scores }) => [variation, scores])),
  ...{ marks, answers: null },
});

/** Measures the file of a vision-language model on sets of held-out scenes. */
export async function evaluateSeeing(
  { checkpoint, ...device }: PolicyValues & { readonly checkpoint: string },
  { variations, scenes = SCENES, seed = 0 }: { variations: readonly Variation[]; scenes?: number; seed?: number },
  progress: Progress,
): Promise<SeeingResult> {
  const file = await openStart(checkpoint);
  try {
    if (!knowsWorld(file.encoding))
      throw new InputError(
        `${file.name}: this model was not pretrained on the built-in world, whose states some questions have: ask it with insula act --ask`,
      );
    await expectDevice(device);
    const { device: opened } = await openTunedDevice(device, (line) => progress.note(line));
    try {
      using model = await file.loadModel(opened);
      const policy = new Policy(model, new Encoding(file.encoding));
      const onProgress = (done: number, total: number) => progress.count('questions: answered', done, total);
      const measured = await measureSets(policy, { variations, scenes, seed, onProgress });
      return { model: checkpoint, scenes, seed, ...seeingOf(measured, null), adapter: opened.description };
    } finally {
      opened.close();
    }
  } finally {
    await file.close();
  }
}

export const percent = (share: number | null) => (share === null ? '' : formatPercent(share, 1));
const counted = (share: number | null, count: number) => (share === null ? '' : `${percent(share)} of ${count}`);

/** The scores as tables, which are lines of the command line and a page's tables alike. */
export function scoreTables({ sets, marks, answers }: Seeing): ScoreTable[] {
  const tables: ScoreTable[] = [];
  const names = Object.keys(sets);
  if (names.length > 0) {
    const place = ({ near, count }: PointingScore) => counted(near, count);
    tables.push({
      title: `Places within ${GROSS} pixels, and tokens of other questions`,
      head: ['scenes', 'objects, gripper free', 'median px', 'in the gripper', 'fixtures', 'median px', 'other tokens'],
      rows: names.map((name) => {
        const { pointing, others } = sets[name];
        const median = (own: PointingScore) => own.median?.toFixed(2) ?? '';
        const { free, held, fixtures } = pointing;
        const cells = [place(free), median(free), place(held), place(fixtures), median(fixtures)];
        return [name, ...cells, percent(others.tokens)];
      }),
    });
    const kinds = Object.keys(Object.values(sets)[0].kinds).filter(
      (kind) => !answeredByPlaces.some((own) => own === kind),
    );
    tables.push({
      title: 'Answers that are right to the letter, by kind of question, in percent',
      head: ['scenes', ...kinds],
      rows: names.map((name) => [
        name,
        ...kinds.map((kind) => {
          const share = sets[name].kinds[kind]?.answers ?? null;
          return share === null ? '' : (100 * share).toFixed(0);
        }),
      ]),
    });
  }
  if (marks)
    tables.push({
      title: 'Pictures whose most marked row lies on the named thing',
      head: ['scenes', 'all', 'gripper free'],
      rows: Object.entries(marks).map(([name, { all, free }]) => [
        name,
        counted(all.share, all.pictures),
        counted(free.share, free.pictures),
      ]),
    });
  if (answers)
    tables.push({
      title: 'Held-out questions',
      head: ['kind', 'questions', 'right to the letter', 'tokens'],
      rows: Object.entries(answers).map(([kind, own]) => [
        kind,
        String(own.questions),
        percent(own.answers),
        percent(own.tokens),
      ]),
    });
  return tables;
}

export const seeingLines = (seeing: Seeing): string[] =>
  scoreTables(seeing).flatMap(({ title, head, rows }) => [
    `${title}:`,
    ...aligned([[...head], ...rows.map((row) => [...row])], 1),
  ]);

/** The scores by name, which the file of a model keeps. */
export function namedScores({ sets, marks, answers }: Seeing): Record<string, number | null> {
  const named: [string, number | null][] = [];
  for (const [set, { pointing, others, kinds }] of Object.entries(sets)) {
    for (const [sort, { near, median }] of Object.entries(pointing))
      named.push([`${set}/${sort} within ${GROSS} px`, near], [`${set}/${sort} median px`, median]);
    named.push([`${set}/other tokens`, others.tokens]);
    for (const [kind, own] of Object.entries(kinds)) named.push([`${set}/${kind} answers`, own.answers]);
  }
  for (const [set, { all, free }] of Object.entries(marks ?? {}))
    named.push([`${set}/marks`, all.share], [`${set}/marks, gripper free`, free.share]);
  for (const [kind, own] of Object.entries(answers ?? {}))
    named.push([`${kind} answers`, own.answers], [`${kind} tokens`, own.tokens]);
  return Object.fromEntries(named);
}
