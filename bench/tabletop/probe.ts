/** How well shapes and colours of objects can be read from the features of a vision tower by a linear map. */
import { fitLinearProbe, probeAccuracy } from '../../model/inspect/linear-probe.ts';
import { towerFeatures } from '../../model/inspect/tower-features.ts';
import type { Policy } from '../../model/policy/policy.ts';
import { worldLanguage } from '../../tokenizers/index.ts';
import { type Frame, pictureOf, type SeenThing, thingsOf } from './frames.ts';
import { isHeldOut } from './scene.ts';

export type ProbeScores = Awaited<ReturnType<typeof probeTower>>;

/** A visible object, with the features of the patch that holds its centre. */
interface Seen {
  readonly thing: SeenThing;
  readonly features: Float32Array;
}

const names: Readonly<Record<'shape' | 'colour', readonly string[]>> = {
  shape: worldLanguage.objects,
  colour: worldLanguage.colours,
};

/**
 * Fits a probe to frames of rich scenes. The scores are the shares of objects of the right class, null without objects, in `rich`, other
 * such frames, and in `pairs`, of that variation, among the colour-shape pairs that no training scene has. Frames count while the gripper
 * is free: an object in the gripper is hidden by it.
 */
export async function probeTower(policy: Policy, frames: Readonly<Record<'fit' | 'rich' | 'pairs', readonly Frame[]>>) {
  const [fit, rich, pairs] = [
    await seenIn(policy, frames.fit),
    await seenIn(policy, frames.rich),
    (await seenIn(policy, frames.pairs)).filter(({ thing }) => isHeldOut(thing.name)),
  ];
  const scoreOf = (what: 'shape' | 'colour') => {
    if (fit.length === 0) return { rich: null, pairs: null };
    const labelled = (seen: readonly Seen[]) =>
      seen.map(({ thing, features }) => ({
        features,
        label: names[what].indexOf(what === 'shape' ? thing.noun : thing.colour),
      }));
    const probe = fitLinearProbe(labelled(fit), names[what].length);
    const accuracy = (seen: readonly Seen[]) => (seen.length > 0 ? probeAccuracy(probe, labelled(seen)) : null);
    return { rich: accuracy(rich), pairs: accuracy(pairs) };
  };
  // Objects that the probe is fitted to and measured on.
  const objects = { fit: fit.length, rich: rich.length, pairs: pairs.length };
  return { shape: scoreOf('shape'), colour: scoreOf('colour'), objects };
}

async function seenIn({ model, encoding }: Policy, frames: readonly Frame[]): Promise<Seen[]> {
  const free = frames.filter(({ held }) => held < 0);
  const { imageHeight, imageWidth, patch } = model.configuration.vision!;
  const [down, across] = [imageHeight / patch, imageWidth / patch];
  const pictures = await Promise.all(free.map((frame) => pictureOf(frame)()));
  const features = await towerFeatures(model, encoding, pictures);
  return free.flatMap((frame, i) =>
    thingsOf(frame).objects.map((thing) => {
      const [row, column] = [down, across].map((count, axis) =>
        Math.min(count - 1, Math.floor(thing.place[axis] * count)),
      );
      const width = features[i].length / (down * across);
      const patchNumber = row * across + column;
      return { thing, features: features[i].subarray(patchNumber * width, (patchNumber + 1) * width) };
    }),
  );
}
