/** What each layer of a policy knows about frames of the built-in world: colour and shape of things, which is named, and where it is. */
import { InputError } from '../../engine/files/errors.ts';
import {
  type LayerProbes,
  type ProbedScene,
  type ProbeOptions,
  probeLayers,
} from '../../model/inspect/layer-probes.ts';
import type { Policy } from '../../model/policy/policy.ts';
import { type Frame, framesOf, pictureOf, thingsOf } from './frames.ts';
import { makeScene } from './make-scene.ts';
import { colours, isHeldOut, type Shape, shapes, type Variation } from './scene.ts';
import { FITTED_SCENES, knowsWorld, MEASURED_SCENES } from './seeing-sets.ts';
import { TabletopWorld } from './world.ts';

interface WorldProbeOptions extends ProbeOptions {
  readonly scenes: number;
  readonly seed: number;
  readonly variation: Variation;
}

/**
 * Fits probes to frames of two thirds of the scenes, which no training has, and measures them on the others, with an instruction that
 * names one of the objects. For the variation `pairs`, probes are fitted to rich scenes, which lack the pairs of colour and shape, and
 * measured on objects of these pairs alone; all of them are named, so that this is no question.
 *
 * @throws InputError if the policy has other states than the world's robot; the reason of an aborted `signal`
 */
export async function probeWorld(
  { model, encoding }: Policy,
  { scenes, seed, variation, ...options }: WorldProbeOptions,
): Promise<LayerProbes> {
  const [camera] = encoding.settings.cameras;
  if (!knowsWorld(encoding.settings))
    throw new InputError(
      'the probes are fitted to scenes of the built-in world, and this policy has the states of another robot: take one that was trained in the built-in world',
    );
  const arePairs = variation === 'pairs';
  const probed = async (frame: Frame, isMeasured: (name: string) => boolean): Promise<ProbedScene> => {
    const { object, instructions, paraphrase } = makeScene(frame.seed, frame.settings);
    const objects = thingsOf(frame).objects.filter(({ name }) => isMeasured(name));
    return {
      observation: {
        images: { [camera]: await pictureOf(frame)() },
        state: frame.state,
        instruction: instructions[paraphrase],
      },
      things: objects.map(({ place, colour, noun, index }) => {
        const classes = { colour: colours.indexOf(colour), shape: shapes.indexOf(noun as Shape) };
        return { place, classes: { ...classes, named: index === object ? 1 : 0 } };
      }),
      named: objects.findIndex(({ index }) => index === object),
    };
  };
  const world = await TabletopWorld.create();
  try {
    const framesFrom = (from: number, count: number, own: Variation) => {
      const settings = { seed, from, scenes: count, each: 1, kinds: [{ task: 'place', variation: own }] } as const;
      return Array.from({ length: count }, (_, i) => framesOf(world, settings, i)).flat();
    };
    const fitted = Math.ceil((2 * scenes) / 3);
    const fit = framesFrom(FITTED_SCENES, fitted, arePairs ? 'rich' : variation);
    const heldOut = framesFrom(MEASURED_SCENES, scenes - fitted, variation);
    const all = {
      fit: await Promise.all(fit.map((frame) => probed(frame, () => true))),
      heldOut: await Promise.all(heldOut.map((frame) => probed(frame, arePairs ? isHeldOut : () => true))),
    };
    const classes = { colour: colours.length, shape: shapes.length, ...(arePairs ? {} : { named: 2 }) };
    return await probeLayers({ model, encoding }, all, classes, options);
  } finally {
    world.delete();
  }
}
