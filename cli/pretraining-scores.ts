/** The end of a pretraining run: its model in a file of its own, what that sees, and a page about it. */
import { join } from 'node:path';
import { provenance } from '../bench/measure/provenance.ts';
import { IMAGE_SIZE } from '../bench/tabletop/camera.ts';
import { type Variation, variations } from '../bench/tabletop/scene.ts';
import { distancesOf, GROSS, placesIn } from '../bench/tabletop/seeing.ts';
import { type MarkScores, type MeasuredSet, measureMarks, measureSets } from '../bench/tabletop/seeing-sets.ts';
import { writeFileSafely, writeJson } from '../engine/files/files.ts';
import { answersTo, questionsOf, scoresByKind } from '../model/inspect/answers.ts';
import { Policy } from '../model/policy/policy.ts';
import type { SeeingReport, ShownAnswer } from '../model/report/seeing-report.ts';
import type { PretrainingResult } from '../model/training/pretrain.ts';
import { unlessAborted } from '../model/training/run-record.ts';
import { openVisionLanguageModel, saveVisionLanguageModel } from '../model/training/vision-language-file.ts';
import type { Progress } from './progress.ts';
import { namedScores, percent, SCENES, type Seeing, scoreTables, seeingOf } from './seeing.ts';

interface Run {
  /** The folder of the run. */
  readonly path: string;
  /** The command as typed. */
  readonly command: string;
  /** Held-out scenes of each set. */
  readonly scenes?: number;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

export interface Conclusion {
  /** The file to ask. */
  readonly model: string;
  /** null if the measurement was interrupted; a resumed run repeats it. */
  readonly scores: Seeing | null;
  readonly report: string | null;
}

export async function concluded(result: PretrainingResult, run: Run): Promise<Conclusion> {
  const { history, encoding, step } = result;
  const { device } = result.model;
  const model = join(run.path, 'model.safetensors');
  const { commit, modified } = provenance(device);
  const made = {
    command: run.command,
    commit: commit === 'unknown' ? null : `${commit.slice(0, 10)}${modified ? '-dirty' : ''}`,
    adapter: device.description,
    steps: step,
    seconds: history.training.at(-1)?.seconds ?? 0,
  };
  const save = (scores: Record<string, number | null>) =>
    saveVisionLanguageModel(model, result.model, encoding.settings, { ...made, scores });
  await save({});
  const begin = performance.now();
  const measured = await unlessAborted(run.signal, () => measure(model, result, run));
  if (!measured) return { model, scores: null, report: null };
  const { scores, answers } = measured;
  await save(namedScores(scores));
  await writeJson(join(run.path, 'scores.json'), scores);
  const report = join(run.path, 'report.html');
  const seconds = { ...result.seconds, scores: (performance.now() - begin) / 1000 };
  const { renderSeeingReport } = await import('../model/report/seeing-report.ts');
  await writeFileSafely(report, [await renderSeeingReport(reportOf(result, made, seconds, measured.scores, answers))]);
  return { model, scores, report };
}

interface Measured {
  readonly scores: Seeing;
  readonly answers: readonly ShownAnswer[];
}

/** The sets in which marks are measured: scenes as in pretraining. */
const marked: readonly Variation[] = ['simple', 'rich'];

/** Measures the file, which has rounded weights; marks need the head that it lacks. */
async function measure(
  path: string,
  { model: trained, encoding, settings: { run }, source }: PretrainingResult,
  { scenes = SCENES, progress, signal }: Run,
): Promise<Measured> {
  const file = await openVisionLanguageModel(path);
  try {
    using model = await file.loadModel(trained.device);
    const policy = new Policy(model, encoding);
    const onProgress = (done: number, total: number) => progress.count('questions: answered', done, total);
    const options = { signal, onProgress };
    if (run.questions !== null) {
      const questions = questionsOf(source.heldOut);
      const given = await answersTo(policy, questions, options);
      const answered = questions.map((question, i) => ({ question, answer: given[i] }));
      const wrong = answered.filter(({ question, answer }) => question.answer !== answer).slice(0, SHOWN);
      const answers = wrong.map(async ({ question: { kind, prompt, answer: right, image }, answer }) => {
        return { about: kind, image: await image(), places: [], prompt, right, answer };
      });
      const scores = { sets: {}, marks: null, answers: scoresByKind(encoding, answered) };
      return { scores, answers: await Promise.all(answers) };
    }
    const names = Object.keys(variations) as Variation[];
    progress.note(`measuring ${scenes} held-out scenes of each of ${names.length} sets; fewer --scenes take less time`);
    const measured = await measureSets(policy, { variations: names, scenes, seed: run.seed, ...options });
    const marks: Record<string, MarkScores> = {};
    for (const set of measured.filter(({ variation }) => marked.includes(variation)))
      marks[set.variation] = await measureMarks({ model: trained, encoding }, run, set, signal);
    return { scores: seeingOf(measured, marks), answers: shownAnswers(measured) };
  } finally {
    await file.close();
  }
}

/** Answers on the page, and the sets that they are from. */
const SHOWN = 12;
const shownSets: readonly Variation[] = ['simple', 'rich', 'pairs', 'distractors', 'background', 'camera'];
const WORLD_RULE = `Instructions, each asked for the places that it names: of some sets the answer that is farthest off, the worst set first, and then the median answer of each. Rings show the answer's places. More than ${GROSS} pixels off, an answer is about something else.`;
const OWN_RULE = 'The first held-out questions that were answered wrongly.';

function shownAnswers(sets: readonly MeasuredSet[]): ShownAnswer[] {
  const ofSets = sets
    .filter(({ variation }) => shownSets.includes(variation))
    .map(({ variation, answered }) => {
      const instructions = answered
        .filter(({ question: { kind, named } }) => kind === 'task' && named.length > 0)
        .map((own) => ({ own, variation, distance: Math.max(...distancesOf(own)) }));
      return instructions.sort((a, b) => (a.distance === b.distance ? 0 : b.distance - a.distance));
    })
    .filter(({ length }) => length > 0)
    .sort(([a], [b]) => (a.distance === b.distance ? 0 : b.distance - a.distance));
  const worst = ofSets.map(([own]) => ({ ...own, rank: 'the worst' }));
  const median = ofSets.map((all) => ({ ...all[Math.floor(all.length / 2)], rank: 'the median' }));
  return [...worst, ...median].map(({ own, variation, rank }, i) => {
    const { frame, question, answer } = own;
    const distances = distancesOf(own).map((distance, at) => {
      const { name } = question.named[at];
      return Number.isFinite(distance) ? `${name} ${distance.toFixed(1)} pixels off` : `no place of the ${name}`;
    });
    return {
      about: `${variation}: ${rank} of ${ofSets[i % ofSets.length].length}`,
      image: { width: IMAGE_SIZE, height: IMAGE_SIZE, pixels: frame.pixels },
      places: placesIn(answer).map((coordinates) => ({ coordinates: [...coordinates], label: '' })),
      ...{ prompt: question.prompt, right: question.answer, answer },
      remark: distances.join(', '),
    };
  });
}

function reportOf(
  { settings: { run }, history, objectives, model }: PretrainingResult,
  { command, commit, adapter, steps }: { command: string; commit: string | null; adapter: string; steps: number },
  seconds: Record<string, number>,
  scores: Seeing,
  answers: readonly ShownAnswer[],
): SeeingReport {
  const parameters = [...model.parameters].reduce((sum, { size }) => sum + size, 0);
  const { simple, rich } = scores.sets;
  const glance: [string, string][] = rich
    ? [
        [percent(rich.pointing.free.near), `of objects' places in rich scenes within ${GROSS} pixels, gripper free`],
        [percent(simple.pointing.free.near), 'in simple scenes'],
        [percent(scores.marks!.rich.all.share), 'of pictures of rich scenes with the mark on the named thing'],
        [percent(rich.others.tokens), "of other answers' tokens right in rich scenes"],
      ]
    : Object.entries(scores.answers ?? {}).map(([kind, own]) => [percent(own.answers), `of held-out ${kind} answers`]);
  return {
    title: `A vision-language model, preset ${run.preset.name}`,
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    ...{ objectives: [...objectives], curves: history, glance, answers },
    tables: scoreTables(scores),
    sets: Object.entries(variations).filter(([name]) => name in scores.sets),
    rule: rich ? WORLD_RULE : OWN_RULE,
    phases: Object.entries(seconds).map(([name, own]) => ({ name, seconds: own })),
    facts: [
      ['Command', command],
      ['Version', commit ?? 'not known'],
      ['Adapter', adapter],
      ['Questions', run.questions ?? 'about the built-in world'],
      ['Steps', `${steps} of ${run.batch} pictures, seed ${run.seed}`],
      ['Parameters', `${parameters.toLocaleString('en-US')}, with the heads of pretraining`],
    ],
  };
}
