/** A vision-language model measured on sets of held-out scenes of the built-in world, one set for each variation. */
import type { Device } from '../../engine/index.ts';
import type { AskOptions, StartAnswers } from '../../model/inspect/answers.ts';
import { marksOf } from '../../model/inspect/marks.ts';
import { Encoding, type EncodingSettings } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import { PackMaker } from '../../model/training/pack-maker.ts';
import type { RunSettings } from '../../model/training/run-settings.ts';
import type { VisionLanguageFile } from '../../model/training/vision-language-file.ts';
import { type Frame, framesOf } from './frames.ts';
import { worldPacks } from './packs.ts';
import { tasks, type Variation } from './scene.ts';
import { askAbout, scoresOf } from './seeing.ts';
import { STATE_DIMENSION, TabletopWorld } from './world.ts';

/** Pretraining has scenes from number 2^20 on, far fewer than lie between. */
export const MEASURED_SCENES = 2 ** 21;
/** Scenes of probes begin at this number. */
export const FITTED_SCENES = 2 ** 22;
const FRAMES_PER_SCENE = 3;

/** Whether a vision-language model was pretrained on the built-in world, whose states some questions have. */
export const knowsWorld = ({ statistics }: EncodingSettings): boolean =>
  statistics?.states?.mean.length === STATE_DIMENSION;

interface SetsOptions extends AskOptions {
  readonly variations: readonly Variation[];
  readonly scenes: number;
  readonly seed: number;
}

export type MeasuredSets = Awaited<ReturnType<typeof measureSets>>;
export type MeasuredSet = MeasuredSets[number];

/** Frames of scenes from number `from` on. Rich scenes have all tasks, the others objects to be placed. */
function framesFrom(world: TabletopWorld, variation: Variation, from: number, { seed, scenes }: SetsOptions): Frame[] {
  const kinds = (variation === 'rich' ? tasks : (['place'] as const)).map((task) => ({ task, variation }));
  const settings = { seed, from, scenes, each: FRAMES_PER_SCENE, kinds };
  return Array.from({ length: scenes }, (_, i) => framesOf(world, settings, i)).flat();
}

/** Asks a question of every kind about every frame of every set. Throws the reason of an aborted `signal`. */
export async function measureSets(policy: Policy, options: SetsOptions) {
  const { variations, seed, signal, onProgress } = options;
  const world = await TabletopWorld.create();
  try {
    const measureSet = async (variation: Variation, i: number) => {
      const frames = framesFrom(world, variation, MEASURED_SCENES, options);
      const answered = await askAbout(policy, frames, seed, {
        signal,
        onProgress: (done, total) => onProgress?.(i * total + done, variations.length * total),
      });
      return { variation, frames, answered, scores: scoresOf(answered, policy.encoding) };
    };
    const sets: Awaited<ReturnType<typeof measureSet>>[] = [];
    for (const [i, variation] of variations.entries()) sets.push(await measureSet(variation, i));
    return sets;
  } finally {
    world.delete();
  }
}

export type MarkScores = Awaited<ReturnType<typeof measureMarks>>;

/**
 * Where the marks of a model in pretraining fall in a set, and in its frames with a free gripper: the share of pictures whose most marked
 * row lies on the named thing; null without pictures.
 */
export async function measureMarks(
  { model, encoding }: Pick<Policy, 'model' | 'encoding'>,
  settings: RunSettings,
  { frames }: MeasuredSet,
  signal?: AbortSignal,
) {
  const { states } = encoding.settings.statistics!;
  const { slots, heldOut } = worldPacks([], frames, { seed: settings.seed, states: states! });
  const maker = new PackMaker(encoding, model.configuration, settings, slots);
  const marks = await marksOf(model, maker, heldOut, { signal });
  const scoreOf = (own: readonly (boolean | null)[]) => {
    const pictures = own.filter((mark) => mark !== null);
    const share = pictures.length > 0 ? pictures.filter(Boolean).length / pictures.length : null;
    return { pictures: pictures.length, share };
  };
  return { all: scoreOf(marks), free: scoreOf(marks.filter((_, i) => frames[i].held < 0)) };
}

const sameRows = (own: readonly number[], other: readonly number[]) => own.slice(1).join() === other.slice(1).join();

/**
 * Asks the start about held-out frames of rich scenes, those of pretraining; null if it was pretrained on other pictures. With
 * `trained`, its weights are those of a trained policy's model, so that a system without a token head is asked too; null if that model
 * lacks some of them.
 */
export async function askStart(
  device: Device,
  start: VisionLanguageFile,
  scenes: number,
  signal?: AbortSignal,
  trained?: Policy['model'],
): Promise<StartAnswers | null> {
  if (!knowsWorld(start.encoding)) return null;
  using model = await start.loadModel(device);
  for (const parameter of trained ? model.parameters : []) {
    const own = trained!.parameters.has(parameter.name) ? trained!.parameters.get(parameter.name) : null;
    // Rows of action tokens come after those of the start.
    const isLonger = own && own.size >= parameter.size && sameRows(own.shape, parameter.shape);
    if (!isLonger) return null;
    parameter.write((await own.read()).subarray(0, parameter.size));
  }
  const policy = new Policy(model, new Encoding(start.encoding));
  const [{ scores }] = await measureSets(policy, { variations: ['rich'], scenes, seed: 0, signal });
  const { pointing, others } = scores;
  return { objects: pointing.free.count, near: pointing.free.near, others: others.questions, tokens: others.tokens };
}
