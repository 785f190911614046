/**
 * What each layer knows: linear probes of the rows of a picture's patches, before the first layer and after each, as they are when the
 * policy acts. The rows before the first layer are the vision tower's output, which no word has reached.
 */
import { InputError } from '../../engine/files/errors.ts';
import type { Tensor } from '../../engine/index.ts';
import { lastSteps, windowOf } from '../architecture/configuration.ts';
import { openSession } from '../architecture/session.ts';
import type { RawObservation } from '../policy/encoding.ts';
import type { Policy } from '../policy/policy.ts';
import type { PicturePlace } from '../policy/subtask.ts';
import { fitLinearMap, fitLinearProbe, mappedBy, probeAccuracy } from './linear-probe.ts';

/** A thing in the first camera's picture: its place in shares of height and width, and its classes by the name of the question. */
export interface ProbedThing {
  readonly place: PicturePlace;
  readonly classes: Readonly<Record<string, number>>;
}

/** An observation with what is true of its picture; `named` is the number of the thing that the instruction names, -1 for none. */
export interface ProbedScene {
  readonly observation: RawObservation;
  readonly things: readonly ProbedThing[];
  readonly named: number;
}

/** Accuracies by layer from held-out things, read from the patch that holds a thing's centre. */
export interface ClassProbe {
  readonly question: string;
  readonly classes: number;
  /** The accuracy of the most frequent class. */
  readonly baseline: number;
  readonly layers: readonly number[];
}

/**
 * The place of the named thing by layer, in held-out scenes: the middle of the patch whose row a linear map marks most. The map is fitted
 * to give 1 at the patch that holds the thing's centre and 0 at all others.
 */
export interface PlaceProbe {
  /** Mean distance from the true place, in pixels of the model's picture; `baseline` is that of the mean place, whose R^2 is 0. */
  readonly baseline: number;
  readonly layers: readonly { readonly pixels: number; readonly r2: number }[];
}

export interface LayerProbes {
  readonly scenes: Readonly<Record<'fit' | 'heldOut', number>>;
  readonly things: Readonly<Record<'fit' | 'heldOut', number>>;
  readonly classes: readonly ClassProbe[];
  readonly place: PlaceProbe;
}

/** Observations that pass through the model at once. */
const BATCH = 32;
interface ProbeOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Fits a probe for every question and layer to some scenes, and measures it on others.
 *
 * @throws InputError if the rows of a picture's patches run through no layer; the reason of an aborted `signal`
 */
export async function probeLayers(
  policy: Policy,
  scenes: Readonly<Record<'fit' | 'heldOut', readonly ProbedScene[]>>,
  classes: Readonly<Record<string, number>>,
  { signal, onProgress }: ProbeOptions = {},
): Promise<LayerProbes> {
  const total = scenes.fit.length + scenes.heldOut.length;
  const fit = await rowsOfScenes(policy, scenes.fit, { signal, onProgress: (done) => onProgress?.(done, total) });
  const heldOut = await rowsOfScenes(policy, scenes.heldOut, {
    signal,
    onProgress: (done) => onProgress?.(scenes.fit.length + done, total),
  });
  const count = (all: readonly SceneRows[]) => all.reduce((sum, { scene }) => sum + scene.things.length, 0);
  const things = { fit: count(fit), heldOut: count(heldOut) };
  if (things.fit === 0 || things.heldOut === 0) throw new InputError('the scenes show nothing to probe: take more');
  return {
    scenes: { fit: fit.length, heldOut: heldOut.length },
    things,
    classes: Object.entries(classes).map(([question, own]) => classProbe(question, own, fit, heldOut)),
    place: placeProbe(policy, fit, heldOut),
  };
}

function classProbe(
  question: string,
  classes: number,
  fit: readonly SceneRows[],
  heldOut: readonly SceneRows[],
): ClassProbe {
  const labelled = (all: readonly SceneRows[], layer: number) =>
    all.flatMap((own) =>
      own.scene.things.map((thing) => ({
        features: patchRow(own, layer, patchOf(own, thing)),
        label: thing.classes[question],
      })),
    );
  const counts = Array.from({ length: classes }, () => 0);
  for (const { label } of labelled(fit, 0)) counts[label]++;
  const frequent = counts.indexOf(Math.max(...counts));
  const truth = labelled(heldOut, 0);
  return {
    ...{ question, classes },
    baseline: truth.filter(({ label }) => label === frequent).length / truth.length,
    layers: fit[0].layers.map((_, layer) =>
      probeAccuracy(fitLinearProbe(labelled(fit, layer), classes), labelled(heldOut, layer)),
    ),
  };
}

function placeProbe({ model }: Policy, fit: readonly SceneRows[], heldOut: readonly SceneRows[]): PlaceProbe {
  const { imageHeight, imageWidth } = model.configuration.vision!;
  const naming = (all: readonly SceneRows[]) =>
    all.flatMap((rows) => {
      const thing = rows.scene.things[rows.scene.named];
      return thing ? [{ rows, thing }] : [];
    });
  const [known, unknown] = [naming(fit), naming(heldOut)];
  if (known.length === 0 || unknown.length === 0)
    throw new InputError('the scenes name nothing that is in the picture: take more');
  const mean = [0, 1].map((axis) => known.reduce((sum, { thing }) => sum + thing.place[axis], 0) / known.length);
  const errors = (guess: (rows: SceneRows) => readonly number[]) => {
    const distances = unknown.map(({ rows, thing: { place } }) => {
      const [down, across] = guess(rows);
      return Math.hypot((down - place[0]) * imageHeight, (across - place[1]) * imageWidth);
    });
    const over = (own: readonly number[]) => own.reduce((sum, value) => sum + value, 0) / own.length;
    return { pixels: over(distances), squared: over(distances.map((own) => own ** 2)) };
  };
  const baseline = errors(() => mean);
  return {
    baseline: baseline.pixels,
    layers: fit[0].layers.map((_, layer) => {
      const marked = known.flatMap(({ rows, thing }) => {
        const own = patchOf(rows, thing);
        return Array.from({ length: rows.down * rows.across }, (_, patch) => ({
          features: patchRow(rows, layer, patch),
          targets: [patch === own ? 1 : 0],
        }));
      });
      const map = fitLinearMap(marked);
      const { pixels, squared } = errors((rows) => {
        const scores = Array.from({ length: rows.down * rows.across }, (_, patch) => {
          return mappedBy(map, patchRow(rows, layer, patch))[0];
        });
        const most = scores.indexOf(Math.max(...scores));
        return [(Math.floor(most / rows.across) + 0.5) / rows.down, ((most % rows.across) + 0.5) / rows.across];
      });
      return { pixels, r2: 1 - squared / baseline.squared };
    }),
  };
}

/** The rows of the patches of a scene's first picture by layer, each [down * across, width]. */
interface SceneRows {
  readonly scene: ProbedScene;
  readonly down: number;
  readonly across: number;
  readonly layers: readonly Float32Array[];
}

function patchRow({ down, across, layers }: SceneRows, layer: number, patch: number): Float32Array {
  const width = layers[layer].length / (down * across);
  return layers[layer].subarray(patch * width, (patch + 1) * width);
}

/** The patch that holds a thing's centre. */
function patchOf({ down, across }: SceneRows, { place }: ProbedThing): number {
  const [row, column] = [down, across].map((count, axis) =>
    Math.min(count - 1, Math.max(0, Math.floor(place[axis] * count))),
  );
  return row * across + column;
}

async function rowsOfScenes(
  { model, encoding }: Policy,
  scenes: readonly ProbedScene[],
  { signal, onProgress }: ProbeOptions,
): Promise<SceneRows[]> {
  const { configuration } = model;
  const { vision, blocks, depth } = configuration;
  const pictures = blocks.find(({ input, memory }) => input === 'images' && !memory);
  if (!vision) throw new InputError('this model sees no pictures, so that there is nothing to probe');
  if (!pictures || vision.resampler)
    throw new InputError(
      'the rows of the patches of this model run through no layer: a resampler mixes them, or blocks read them by cross-attention',
    );
  const prefix = blocks.filter(
    (block) => block === pictures || (block.input === 'prompt' && block.weights === pictures.weights),
  );
  const [down, across] = [vision.imageHeight / vision.patch, vision.imageWidth / vision.patch];
  const all: SceneRows[] = [];
  for (let start = 0; start < scenes.length; start += BATCH) {
    signal?.throwIfAborted();
    const own = scenes.slice(start, start + BATCH);
    const observation = encoding.observe(
      own.flatMap((scene) => Array(windowOf(configuration)).fill(scene.observation)),
      configuration,
    );
    using session = openSession(model, observation, { prefix: prefix.map(({ name }) => name), suffix: [] });
    const streams: Tensor[] = await session.prefix((rows) =>
      Array.from({ length: depth + 1 }, (_, layer) => rows(pictures.name, { layer })),
    );
    const layers = await Promise.all(streams.map((stream) => stream.read()));
    const [, rows, width] = streams[0].shape;
    for (const stream of streams) stream.dispose();
    const steps = lastSteps(configuration, observation.batch);
    own.forEach((scene, i) => {
      const ofPicture = (layer: Float32Array) =>
        layer.slice(steps[i] * rows * width, (steps[i] * rows + down * across) * width);
      all.push({ scene, down, across, layers: layers.map(ofPicture) });
    });
    onProgress?.(Math.min(start + BATCH, scenes.length), scenes.length);
  }
  return all;
}
