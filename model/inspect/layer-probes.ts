/**
 * What each layer knows: linear probes of the rows of a picture's patches, before the first layer and after each, as they are when the
 * policy acts. The rows before the first layer are the vision tower's output, which no word has reached.
 */
import { InputError } from '../../engine/files/errors.ts';
import { lastSteps, type ModelConfiguration, windowOf } from '../architecture/configuration.ts';
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

/** An observation with what is true of its picture; `named` is the index in `things` of the one that the instruction names, -1 for none. */
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

export interface ProbeOptions {
  readonly signal?: AbortSignal;
  /** Gets the number of scenes that the model has seen, and that of all. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Fits a probe for every question and layer to some scenes, and measures it on others. `classes` has the number of classes by question.
 *
 * @throws InputError if the rows of a picture's patches run through no layer, or the scenes show or name nothing; the reason of an
 * aborted `signal`
 */
export async function probeLayers(
  policy: Pick<Policy, 'model' | 'encoding'>,
  scenes: Readonly<Record<'fit' | 'heldOut', readonly ProbedScene[]>>,
  classes: Readonly<Record<string, number>>,
  options: ProbeOptions = {},
): Promise<LayerProbes> {
  const grid = patchGrid(policy.model.configuration);
  const all = [...scenes.fit, ...scenes.heldOut];
  const rows = await patchRows(policy, grid, all, options);
  const seen = all.map(({ things, named }, i) =>
    things.map((own, at) => ({ ...own, rows: rows[i], patch: patchAt(grid, own.place), isNamed: at === named })),
  );
  const [fit, heldOut] = [seen.slice(0, scenes.fit.length).flat(), seen.slice(scenes.fit.length).flat()];
  if (![fit, heldOut].every((things) => things.some(({ isNamed }) => isNamed)))
    throw new InputError('the scenes show nothing that an instruction names: take more');
  return {
    scenes: { fit: scenes.fit.length, heldOut: scenes.heldOut.length },
    things: { fit: fit.length, heldOut: heldOut.length },
    classes: Object.entries(classes).map(([question, count]) => classProbe(question, count, fit, heldOut)),
    place: placeProbe(grid, fit, heldOut),
  };
}

/** The patches of a camera's picture, and its size in pixels. */
type PatchGrid = Readonly<Record<'down' | 'across' | 'height' | 'width', number>>;

/** By layer and patch: the row of a patch, [width of the expert]. */
type PatchRows = readonly (readonly Float32Array[])[];

/** A thing in a picture whose rows are known, with the number of the patch that holds its centre. */
interface SeenThing extends ProbedThing {
  readonly rows: PatchRows;
  readonly patch: number;
  readonly isNamed: boolean;
}

const isPictures = ({ input, memory }: ModelConfiguration['blocks'][number]) => input === 'images' && !memory;

function patchGrid({ vision, blocks }: ModelConfiguration): PatchGrid {
  if (!vision) throw new InputError('this model sees no pictures, so that there is nothing to probe');
  if (vision.resampler || !blocks.some(isPictures))
    throw new InputError(
      'the rows of the patches of this model run through no layer: a resampler mixes them, or blocks read them by cross-attention',
    );
  const { imageHeight: height, imageWidth: width, patch } = vision;
  return { down: height / patch, across: width / patch, height, width };
}

function patchAt({ down, across }: PatchGrid, place: PicturePlace): number {
  const [row, column] = [down, across].map((count, axis) =>
    Math.min(count - 1, Math.max(0, Math.floor(place[axis] * count))),
  );
  return row * across + column;
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

function classProbe(
  question: string,
  classes: number,
  fit: readonly SeenThing[],
  heldOut: readonly SeenThing[],
): ClassProbe {
  const labelled = (things: readonly SeenThing[], layer: number) =>
    things.map((own) => ({ features: own.rows[layer][own.patch], label: own.classes[question] }));
  const counts = Array.from(
    { length: classes },
    (_, label) => fit.filter((own) => own.classes[question] === label).length,
  );
  const frequent = counts.indexOf(Math.max(...counts));
  return {
    ...{ question, classes },
    baseline: heldOut.filter((own) => own.classes[question] === frequent).length / heldOut.length,
    layers: fit[0].rows.map((_, layer) =>
      probeAccuracy(fitLinearProbe(labelled(fit, layer), classes), labelled(heldOut, layer)),
    ),
  };
}

function placeProbe(
  { across, down, height, width }: PatchGrid,
  fit: readonly SeenThing[],
  heldOut: readonly SeenThing[],
): PlaceProbe {
  const [known, asked] = [fit, heldOut].map((things) => things.filter(({ isNamed }) => isNamed));
  const errors = (guess: (rows: PatchRows) => readonly number[]) => {
    const distances = asked.map(({ rows, place }) => {
      const [row, column] = guess(rows);
      return Math.hypot((row - place[0]) * height, (column - place[1]) * width);
    });
    return { pixels: mean(distances), squared: mean(distances.map((own) => own ** 2)) };
  };
  const middle = [0, 1].map((axis) => mean(known.map(({ place }) => place[axis])));
  const baseline = errors(() => middle);
  return {
    baseline: baseline.pixels,
    layers: fit[0].rows.map((_, layer) => {
      const marked = known.flatMap(({ rows, patch }) =>
        rows[layer].map((features, own) => ({ features, targets: [own === patch ? 1 : 0] })),
      );
      const map = fitLinearMap(marked);
      const { pixels, squared } = errors((rows) => {
        const scores = rows[layer].map((features) => mappedBy(map, features)[0]);
        const most = scores.indexOf(Math.max(...scores));
        return [(Math.floor(most / across) + 0.5) / down, ((most % across) + 0.5) / across];
      });
      return { pixels, r2: 1 - squared / baseline.squared };
    }),
  };
}

/** Observations that pass through the model at once. */
const BATCH = 32;

/** The rows of each scene in the last control step of its window, which it fills alone. */
async function patchRows(
  { model, encoding }: Pick<Policy, 'model' | 'encoding'>,
  { down, across }: PatchGrid,
  scenes: readonly ProbedScene[],
  { signal, onProgress }: ProbeOptions,
): Promise<PatchRows[]> {
  const { configuration } = model;
  const { blocks, depth } = configuration;
  const pictures = blocks.find(isPictures)!;
  const prefix = blocks.filter(
    (block) => block === pictures || (block.input === 'prompt' && block.weights === pictures.weights),
  );
  const all: PatchRows[] = [];
  for (let start = 0; start < scenes.length; start += BATCH) {
    signal?.throwIfAborted();
    const observations = scenes.slice(start, start + BATCH).map(({ observation }) => observation);
    const windows = observations.flatMap((own) => Array.from({ length: windowOf(configuration) }, () => own));
    const observed = encoding.observe(windows, configuration);
    using session = openSession(model, observed, { prefix: prefix.map(({ name }) => name), suffix: [] });
    const streams = await session.prefix((rows) =>
      Array.from({ length: depth + 1 }, (_, layer) => rows(pictures.name, { layer })),
    );
    const layers = await Promise.all(streams.map((stream) => stream.read()));
    const [, rows, width] = streams[0].shape;
    for (const stream of streams) stream.dispose();
    for (const step of lastSteps(configuration, observed.batch)) {
      const rowAt = (layer: Float32Array, row: number) => layer.slice(row * width, (row + 1) * width);
      const patches = Array.from({ length: down * across }, (_, patch) => step * rows + patch);
      all.push(layers.map((layer) => patches.map((row) => rowAt(layer, row))));
    }
    onProgress?.(all.length, scenes.length);
  }
  return all;
}
