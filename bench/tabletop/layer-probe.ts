/** What each layer of a policy knows about frames of the built-in world: colour and shape of things, which is named, and where it is. */
import { InputError } from '../../engine/files/errors.ts';
import { type LayerProbes, type ProbedScene, probeLayers } from '../../model/inspect/layer-probes.ts';
import type { Policy } from '../../model/policy/policy.ts';
import { type FrameSettings, framesOf, pictureOf, thingsOf } from './frames.ts';
import { makeScene } from './make-scene.ts';
import { colours, type Shape, shapes, type Variation } from './scene.ts';
import { FITTED_SCENES, knowsWorld, MEASURED_SCENES } from './seeing-sets.ts';
import { TabletopWorld } from './world.ts';

interface ProbeSettings {
  readonly scenes: number;
  readonly seed: number;
  readonly variation: Variation;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

/** The classes of every object of a scene. */
const CLASSES = { colour: colours.length, shape: shapes.length, named: 2 };

/**
 * Fits probes to frames of two thirds of the scenes, which no training has, and measures them on the others, with an instruction that
 * names one of the objects.
 *
 * @throws InputError if the policy has other states than the world's robot
 */
export async function probeWorld(
  policy: Policy,
  { scenes, seed, variation, signal, onProgress }: ProbeSettings,
): Promise<LayerProbes> {
  const [camera] = policy.encoding.settings.cameras;
  if (!knowsWorld(policy.encoding.settings))
    throw new InputError(
      'the probes are fitted to scenes of the built-in world, and this policy has the states of another robot: take one that was trained in the built-in world',
    );
  const fitted = Math.ceil((2 * scenes) / 3);
  const world = await TabletopWorld.create();
  try {
    const scenesFrom = (from: number, count: number) => {
      const settings: FrameSettings = { seed, from, scenes: count, each: 1, kinds: [{ task: 'place', variation }] };
      return Array.from({ length: count }, (_, i) => framesOf(world, settings, i)).flat();
    };
    const [fit, heldOut] = await Promise.all(
      [scenesFrom(FITTED_SCENES, fitted), scenesFrom(MEASURED_SCENES, scenes - fitted)].map((frames) =>
        Promise.all(
          frames.map(async (frame): Promise<ProbedScene> => {
            const { object, instructions, paraphrase } = makeScene(frame.seed, frame.settings);
            const { objects } = thingsOf(frame);
            const image = await pictureOf(frame)();
            return {
              observation: { images: { [camera]: image }, state: frame.state, instruction: instructions[paraphrase] },
              things: objects.map(({ place, colour, noun, index }) => ({
                place,
                classes: {
                  colour: colours.indexOf(colour),
                  shape: shapes.indexOf(noun as Shape),
                  named: index === object ? 1 : 0,
                },
              })),
              named: objects.findIndex(({ index }) => index === object),
            };
          }),
        ),
      ),
    );
    return await probeLayers(policy, { fit, heldOut }, CLASSES, { signal, onProgress });
  } finally {
    world.delete();
  }
}
