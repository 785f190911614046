/**
 * The arms of the studies: training runs that claims share and compare, and systems that are timed in turn. All runs of a seed have the
 * same demonstrations and the same scenes.
 *
 * An arm has the recipe of `insula train`: the weights that act learn at the full rate, what is pretrained and does not act at a fifth
 * (backbone) or a tenth (vision), a flow draws 8 noises and times for each chunk. Two regimes:
 *
 * - plain: the paper's system as it is, so that what its backbone knows reaches the actions by attention alone. Success stays at its
 *   floor (a pilot of knowledge insulation for 900 steps, seed 100: none of 50 scenes), so claims are measured by the error of actions
 *   on held-out observations;
 * - places: the policy also says where object and target are before it acts, and an action expert gets these places, and the state, as
 *   numbers. It succeeds within minutes, so claims about success are measured there.
 */
import type { Preset } from '../../model/training/presets.ts';
import { recommendedSettings } from '../../model/training/recommended.ts';
import type { RunSettings } from '../../model/training/run-settings.ts';
import type { Variation } from '../tabletop/scene.ts';

/** Scenes beside the simple ones: variations, or simple scenes whose instruction names another object. */
export type OtherScenes = Exclude<Variation, 'simple' | 'rich'> | 'other object';

export interface Arm {
  readonly name: string;
  readonly meaning: string;
  readonly settings: Partial<RunSettings>;
  /** Demonstrations, where they are not the preset's. */
  readonly demonstrations?: number;
  readonly others?: readonly OtherScenes[];
  /** Linear probes are fitted to the rows of pictures before and after training. */
  readonly probes?: boolean;
}

export interface TimedArm {
  readonly name: string;
  readonly meaning: string;
  /** What is timed: a training step, or a call of a policy. */
  readonly timed: 'step' | 'call';
  readonly systems: readonly string[];
  /** Examples or observations at once. */
  readonly batch: number;
}

/** One run of an arm: everything that determines it but its start. */
export interface StudyRun {
  readonly arm: string;
  readonly settings: RunSettings;
  readonly scenes: number;
  /** Scenes of the frames that the questions are about. */
  readonly questionScenes: number;
}

export interface TimedRun {
  readonly arm: string;
  readonly seed: number;
  readonly options: {
    readonly preset: string;
    readonly timed: TimedArm['timed'];
    readonly systems: readonly string[];
    readonly batch: number;
  };
}

export type AnyRun = StudyRun | TimedRun;

type Named = readonly [name: string, meaning: string, settings: Partial<RunSettings>, extra?: Partial<Arm>];
const plain = ([name, meaning, settings, extra]: Named): Arm => ({
  ...{ name, meaning, settings: { cotrain: 0, ...settings, subtask: null } },
  ...extra,
});
const places = ([name, meaning, settings, extra]: Named): Arm => ({
  ...{ name: `${name}-places`, meaning: `${meaning}; with places` },
  settings: { cotrain: 0, ...settings, subtask: 'places' },
  ...extra,
});
/** Other scenes are for policies that succeed. */
const both = ([name, meaning, settings, extra]: Named): Arm[] => [
  plain([name, meaning, settings]),
  places([name, meaning, settings, extra]),
];

const [insulation, joint] = [{ system: 'knowledge-insulation' }, { system: 'joint-training' }];
const following = { others: ['other object', 'pairs'] } as const;
const changed = {
  others: ['pairs', 'words', 'masked', 'table', 'background', 'light', 'distractors'],
  probes: true,
} as const;
const everywhere = { ...changed, others: ['other object', ...changed.others] } as const;
/** Our choice, as in the recipe of the system. */
const questions = { cotrain: 0.25 };

/** Knowledge insulation and what its paper compares it with (arXiv 2505.23705). */
const insulated: readonly Arm[] = [
  ...both([
    'knowledge-insulation',
    'token loss on the backbone, flow loss on the expert, stop-gradient between them; no questions',
    insulation,
    everywhere,
  ]),
  ...both(['joint-training', 'the same two losses without the stop-gradient', joint, following]),
  ...both(['soft-insulation', 'a factor of 0.3 in place of the stop-gradient', { ...insulation, gradientScale: 0.3 }]),
  ...both([
    'soft-insulation-0.1',
    'a factor of 0.1 in place of the stop-gradient',
    { ...insulation, gradientScale: 0.1 },
  ]),
  ...both([
    'pi0',
    'the flow loss on backbone and expert, no action tokens; state and time as in knowledge insulation (pi05)',
    { system: 'pi05' },
    following,
  ]),
  ...both([
    'frozen-backbone',
    'knowledge insulation with vision and backbone as they begin',
    { ...insulation, freeze: ['vision', 'backbone'] },
  ]),
  ...both([
    'insulation-questions',
    'knowledge insulation with questions in a quarter of every batch',
    { ...insulation, ...questions },
    changed,
  ]),
  ...both([
    'joint-questions',
    'joint training with questions in a quarter of every batch',
    { ...joint, ...questions },
    following,
  ]),
  plain(['transfusion', 'no expert: the flow on the weights of the backbone', { system: 'transfusion' }]),
  plain(['openvla-oft', 'no expert and no flow: a chunk in one pass, L1', { system: 'openvla-oft' }]),
  plain(['pi0-fast', 'no expert: FAST tokens, decoded one by one', { system: 'pi0-fast' }]),
  plain(['pi0-fast-bins', 'the same with a bin token a number', { system: 'pi0-fast', tokens: 'bins' }]),
  plain(['pi0-fast-stride', 'the same with bins of every fifth action', { system: 'pi0-fast', tokens: 'stride' }]),
  plain(['insulation-bins', 'knowledge insulation with a bin token a number', { ...insulation, tokens: 'bins' }]),
  plain(['insulation-stride', 'the same with bins of every fifth action', { ...insulation, tokens: 'stride' }]),
  plain(['joint-bins', 'joint training with a bin token a number', { ...joint, tokens: 'bins' }]),
  plain(['hybrid-vla', 'the same, with targets that see the noisy actions', { system: 'hybrid-vla' }]),
  plain([
    'insulation-continuous-state',
    'the state as an affine token of the backbone, not as text',
    { system: 'ki-continuous-state' },
  ]),
  plain([
    'insulation-special-tokens',
    'the state as a reserved token a number, not as text',
    { system: 'ki-special-token-state' },
  ]),
  plain(['insulation-expert-state', 'the state as a token of the expert, not as text', { system: 'ki-expert-state' }]),
  plain(['pi0-continuous-state', 'pi0 as published: state and time enter the expert', { system: 'pi0' }]),
  plain(['insulation-one-draw', 'one noise and time a chunk and step, not eight', { ...insulation, draws: 1 }]),
];

const scratch: readonly Arm[] = [
  ...both(['insulation-scratch', 'knowledge insulation from random weights', { ...insulation, from: null }, following]),
  plain(['pi0-small', 'no vision-language model: encoder and cross-attention', { system: 'pi0-small' }]),
];

/** RoboVLMs (arXiv 2412.14058): no state, a chunk of ten actions. A window of eight takes minutes more for every further observation. */
const [few, window] = [{ demonstrations: 100 }, 3];
const interleaved = { system: 'robovlms-interleaved', window };
const policyHead = { system: 'robovlms-policy-head', window };
const histories: readonly Arm[] = [
  plain(['one-step-discrete', 'bin tokens from one observation', { system: 'robovlms-one-step-discrete' }]),
  plain(['one-step-continuous', 'regression from one observation', { system: 'robovlms-one-step-continuous' }]),
  plain(['interleaved', 'three observations in one sequence of the backbone', interleaved]),
  plain(['policy-head', 'three observations, joined by an LSTM behind it', policyHead]),
  plain(['interleaved-few', 'with 100 demonstrations', interleaved, few]),
  plain(['policy-head-few', 'with 100 demonstrations', policyHead, few]),
];

/**
 * GenVLA's parts (arXiv 2509.11417) on a policy that acts within few steps. D: a frozen tower beside a trained one, both copies of the
 * start's. C: questions, here as in insulation-questions-places.
 */
const dual = { system: 'knowledge-insulation-dual' };
const parts: readonly Arm[] = [
  places(['insulation-dual', 'D: a frozen tower beside the trained one', dual, changed]),
  places(['insulation-dual-questions', 'D and C', { ...dual, ...questions }, changed]),
  places([
    'insulation-paraphrased',
    'paraphrases of every instruction',
    { ...insulation, paraphrases: 'forms' },
    { others: ['words'] },
  ]),
];

/** GenVLA's policies without an expert: two actions at a time, places first. They need more steps to leave the floor. */
const generalist = (name: string, meaning: string, settings: Partial<RunSettings>): Arm =>
  places([name, meaning, { system: 'pi0-fast', horizon: 2, tokens: 'bins', steps: 900, ...settings }]);
const generalists: readonly Arm[] = [
  generalist('generalist', 'bin tokens, decoded one by one', {}),
  generalist('generalist-d', 'D: the same with a frozen tower beside the trained one', { system: 'pi0-plus' }),
  generalist('generalist-s', 'S: strings of digits', { tokens: 'string' }),
  generalist('generalist-c', 'C: questions in half of every batch', { cotrain: 0.5 }),
  generalist('generalist-sc', 'S and C', { tokens: 'string', cotrain: 0.5 }),
];

export const trainedArms: readonly Arm[] = [...insulated, ...scratch, ...parts, ...histories, ...generalists];

/** Random weights: times do not depend on them. A policy that decodes says the tokens of a smooth chunk. */
export const timedArms: readonly TimedArm[] = [
  {
    ...{ name: 'step-time', meaning: 'training steps in turn, one noise and time a chunk', timed: 'step', batch: 16 },
    systems: ['knowledge-insulation-robot-only', 'joint-training-robot-only', 'pi05'],
  },
  {
    ...{ name: 'call-time', meaning: 'calls of a policy in turn, ten steps of a flow', timed: 'call', batch: 1 },
    systems: ['knowledge-insulation-robot-only', 'pi0-fast', 'transfusion', 'openvla-oft', 'frozen-backbone'],
  },
];

/** Training steps between measurements of the error of actions. */
const LEARNING_EVERY = 50;

export interface RunSizes {
  readonly preset: Preset;
  readonly seeds: readonly number[];
  /** Steps of every run, for a trial; those of the arm by default. */
  readonly steps?: number;
  readonly scenes: number;
}

/** The run of an arm and a seed; all begin from the preset's vision-language model, but those from scratch. */
export function trainedRun(
  { name, settings, demonstrations }: Arm,
  seed: number,
  { preset, steps, scenes }: RunSizes,
): StudyRun {
  const sizes = demonstrations === undefined ? preset : { ...preset, demonstrations };
  const own = recommendedSettings({ steps: 300, ...settings, preset: sizes, seed });
  return {
    ...{ arm: name, scenes, questionScenes: Math.min(50, scenes) },
    settings: { ...own, ...(steps !== undefined && { steps }), actEvery: Math.min(LEARNING_EVERY, steps ?? own.steps) },
  };
}

export const timedRun = ({ name, timed, systems, batch }: TimedArm, seed: number, preset: Preset): TimedRun => ({
  ...{ arm: name, seed },
  options: { preset: preset.name, timed, systems, batch },
});

/** The runs of these arms, seed by seed, so that a part of them already compares all. */
export function runsOf(names: readonly string[], sizes: RunSizes): AnyRun[] {
  const all = [...trainedArms, ...timedArms].filter(({ name }) => names.includes(name));
  return sizes.seeds.flatMap((seed) =>
    all.map((arm) => ('timed' in arm ? timedRun(arm, seed, sizes.preset) : trainedRun(arm, seed, sizes))),
  );
}
