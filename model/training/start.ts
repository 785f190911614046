/** The start of a run from a vision-language model: which parameters it takes from the file, and which begin anew. */
import { type ByteSource, memorySource } from '../../engine/files/bytes.ts';
import { InputError } from '../../engine/files/errors.ts';
import { type Device, elementCount, type Tensor } from '../../engine/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { ModelParameter } from '../architecture/layers.ts';
import { Architecture, Model } from '../architecture/model.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import { pretrainedNames, pretrainedUrl } from '../pretrained/index.ts';
import { type Preset, presets } from './presets.ts';
import { openPublicModel, type PublicModel, type PublicOptions } from './public-model.ts';
import { EMBEDDING } from './public-tensors.ts';
import { openVisionLanguageModel, type VisionLanguageFile } from './vision-language-file.ts';

/** What a run begins from: tensors under the names of parameters, and the model and the tokens that they belong to. */
export type Start = Pick<VisionLanguageFile, 'name' | 'configuration' | 'shapes' | 'read' | 'close'> & {
  readonly encoding: Pick<
    EncodingSettings,
    'text' | 'prompt' | 'stateBins' | 'leastRows' | 'locations' | 'statistics' | 'robots'
  >;
};

/** A published pi0, pi0.5 or pi0-FAST, PaliGemma or SigLIP as a start, with the preset of the run. @throws InputError as `openPublicModel` */
export async function openPublicStart(
  path: string,
  options: PublicOptions,
): Promise<Start & Pick<PublicModel, 'preset' | 'actionDimension'>> {
  const { tensors, encoding, preset, actionDimension, configuration } = await openPublicModel(path, options);
  const [name, own] = [tensors.name, configuration(1, 1)];
  return {
    // SigLIP takes the other sizes of a preset that is given; the sizes of whole models are compared with it.
    ...{ name, configuration: own, preset: (tensors.has(EMBEDDING) && options.preset) || preset, actionDimension },
    encoding: { ...encoding, statistics: null },
    shapes: new Map(
      Array.from(tensors.tensors, ([name, { shape }]) => [
        name,
        name === EMBEDDING ? [own.vocabulary, shape[1]] : shape,
      ]),
    ),
    read: (name, rows) => tensors.readFinite(name, { rows }),
    close: () => tensors.close(),
  };
}

/** Opens a shipped vision-language model by its name, in a browser from where the page's files lie, or any by its path (node only). */
export async function openStart(from: string): Promise<VisionLanguageFile> {
  const url = pretrainedUrl(from);
  if (url && url.protocol !== 'file:') return openVisionLanguageModel(await fetched(url, from));
  const [{ fileURLToPath }, { existsSync }] = await Promise.all([import('node:url'), import('node:fs')]);
  const path = url ? fileURLToPath(url) : from;
  if (!existsSync(path))
    throw new InputError(
      `${from}: there is no such file${url ? ': model/pretrained is incomplete' : ''}; the vision-language models that come with Insula are ${pretrainedNames.join(' and ')}`,
    );
  return openVisionLanguageModel(path);
}

async function fetched(url: URL, name: string): Promise<ByteSource> {
  const response = await fetch(url);
  if (!response.ok) throw new InputError(`${name}: ${url} answered ${response.status}`);
  return memorySource(await response.arrayBuffer(), name);
}

interface Started {
  readonly parameter: ModelParameter;
  /** The name of its values in the file. */
  readonly source: string;
  /** The file has the first of its rows, those of text and locations; the others are of state and action tokens. */
  readonly firstRows: boolean;
  /** So many towers begin from the file's only one: its projection stands side by side as often, divided by their number. */
  readonly copies: number;
}

/**
 * The parameters that begin with the file's values: those of the same name, group, meaning and shape. Those of the backbone have the same
 * meaning in the same family alone; those of vision have it in every family, below a root of its own. Several towers begin as copies of
 * the file's only one, and their projection so that its output is the file's (GenVLA, arXiv 2509.11417, leaves this open).
 */
function startedBy(file: Start, { configuration, parameters }: Architecture): Started[] {
  const { configuration: own, shapes } = file;
  const isSameFamily = familyOf(own) === familyOf(configuration);
  const theirs = new Map(new Architecture(own).parameters.map((parameter) => [withoutRoot(parameter.name), parameter]));
  const towersOf = ({ vision }: ModelConfiguration) => Object.keys(vision?.towers ?? {});
  const [ours, [only, ...others]] = [towersOf(configuration), towersOf(own)];
  const copied = others.length === 0 && ours.length > 1 ? [...ours, 'projector'] : [];
  return parameters.flatMap((parameter) => {
    const { name, shape, group, initialisation } = parameter;
    const isCopied = copied.includes(group);
    const their = theirs.get(withoutRoot(isCopied ? name.replace(`vision_tower_${group}`, 'vision_tower') : name));
    if (their?.group !== (isCopied ? only : group) || their.initialisation !== initialisation) return [];
    if (group === 'backbone' && !isSameFamily) return [];
    const theirShape = shapes.get(their.name);
    if (!theirShape) return [];
    const [rows] = theirShape;
    const firstRows = rows === own.vocabulary && shape[0] === configuration.vocabulary && rows < shape[0];
    if (!isCopied && !firstRows && theirShape.join() !== shape.join()) return [];
    return [
      {
        parameter,
        source: their.name,
        firstRows,
        copies: elementCount(shape) > elementCount(theirShape) && isCopied ? ours.length : 1,
      },
    ];
  });
}

const withoutRoot = (name: string): string => name.replace(/^.*(?=\b(vision_tower|multi_modal_projector))/, '');

const familyOf = ({ backbone, backboneVariant: { tied: _, ...own } = {} }: ModelConfiguration): string =>
  JSON.stringify([backbone, Object.entries(own).sort()]);

/** @throws InputError that names the first size in which the file's model and the preset differ */
export function expectPresetSizes({ name: file, configuration }: Start, preset: Preset): void {
  const { experts, vision, ...sizes } = configuration;
  const { towers, patch, imageHeight: image } = vision!;
  const theirs = sizesOf({
    ...sizes,
    backbone: experts.backbone,
    vision: { ...Object.values(towers)[0], patch, image },
  });
  const differing = (other: Preset) => Object.entries(sizesOf(other)).find(([name, size]) => theirs[name] !== size);
  const difference = differing(preset);
  if (!difference) return;
  const [name, size] = difference;
  const fitting = presets.find((other) => !differing(other));
  const advice = fitting ? `give --preset ${fitting.name}` : "begin from a model of the preset's sizes";
  throw new InputError(`${file}: ${name} is ${theirs[name]}, and that of preset ${preset.name} is ${size}: ${advice}`);
}

function sizesOf({
  backbone,
  vision,
  ...own
}: Pick<Preset, 'depth' | 'heads' | 'kvHeads' | 'headDimension' | 'backbone' | 'vision'>): Record<string, number> {
  return {
    ...{ depth: own.depth, heads: own.heads, kvHeads: own.kvHeads, headDimension: own.headDimension },
    ...{ 'width of the backbone': backbone.width, 'hidden of the backbone': backbone.hidden },
    ...Object.fromEntries(
      (['width', 'depth', 'heads', 'hidden', 'patch', 'image'] as const).map((name) => [
        `${name} of the tower`,
        vision[name],
      ]),
    ),
  };
}

/** Names of the parameters that begin with the file's values, or with some of them. */
export const startedNames = (file: Start, architecture: Architecture): ReadonlySet<string> =>
  new Set(startedBy(file, architecture).map(({ parameter }) => parameter.name));

/** Lines that say what a model begins from and what begins anew. @throws InputError if nothing fits */
export function startLines(file: Start, architecture: Architecture): string[] {
  const started = startedBy(file, architecture);
  const names = new Set(started.map(({ parameter }) => parameter.name));
  const { parameters, configuration } = architecture;
  if (names.size === 0) throw new InputError(`${file.name}: none of its tensors is one of this model`);
  const anew = byGroup(parameters.filter(({ name }) => !names.has(name)));
  const rows = configuration.vocabulary - file.configuration.vocabulary;
  const tables = rows > 0 ? started.filter(({ firstRows }) => firstRows) : [];
  if (tables.length > 0) anew.push(`${rows} rows of new tokens`);
  const sources = new Set(started.map(({ source }) => source));
  const unexpected = [...file.shapes.keys()].filter((name) => !sources.has(name));
  const shown = `${unexpected.slice(0, 3).join(', ')}${unexpected.length > 3 ? ` and ${unexpected.length - 3} more` : ''}`;
  return [
    `${file.name}: ${names.size} of ${parameters.length} tensors begin from it; anew begin ${anew.join(', ') || 'none'}`,
    ...(!started.some(({ parameter }) => parameter.group === 'backbone') ||
    attendsAlike([file.configuration, configuration])
      ? []
      : [
          `${file.name}: its images and prompt attend otherwise than those of this model, so that much of what it knows is lost at first`,
        ]),
    ...(tables.some(({ parameter }) => parameter.frozen)
      ? [`warning: the embeddings of ${rows} new tokens keep random values, because they are frozen`]
      : []),
    ...(unexpected.length > 0 ? [`${file.name}: this model has no place for ${shown}`] : []),
  ];
}

/** Whether the images and prompts that two models have in common attend to each other alike. */
function attendsAlike(models: readonly ModelConfiguration[]): boolean {
  const kinds = (['images', 'prompt'] as const).filter((kind) =>
    models.every(({ blocks }) => blocks.some(({ input }) => input === kind)),
  );
  const masks = models.map(({ blocks, edges }) => {
    const named = (kind: string) => blocks.find(({ input }) => input === kind)!.name;
    const maskOf = (query: string, key: string) =>
      edges.find((own) => own.query === named(query) && own.key === named(key))?.edge.mask ?? 'none';
    return kinds.flatMap((query) => kinds.map((key) => maskOf(query, key))).join();
  });
  return new Set(masks).size === 1;
}

function byGroup(parameters: readonly ModelParameter[]): string[] {
  const names = parameters.map(({ group, adapter }) => (adapter ? `low-rank matrices of ${group}` : group));
  return [...new Set(names)].map((name) => `${name} (${names.filter((own) => own === name).length})`);
}

/** The model of a run before its first step: with initial values, and those of the file that it begins from. */
export async function begunModel(
  device: Device,
  configuration: ModelConfiguration,
  seed: number,
  from?: Start,
): Promise<Model> {
  const model = new Model(device, configuration);
  model.initialise(seed);
  if (from) await beginFrom(from, model);
  return model;
}

/** Writes the file's values into an initialised model. */
export async function beginFrom(file: Start, { architecture, parameters }: Model): Promise<void> {
  for (const { parameter, source, copies } of startedBy(file, architecture)) {
    const target = parameters.get(parameter.name);
    if (copies > 1) target.write(sideBySide(await file.read(source), parameter.shape[0], copies));
    else await writeRows(file, source, target);
  }
}

/** Writes the rows that the file has, piece by piece; others of the target keep their values. */
async function writeRows(file: Start, source: string, { pieces }: Tensor): Promise<void> {
  const [rows] = file.shapes.get(source)!;
  let first = 0;
  for (const piece of pieces) {
    const end = Math.min(first + piece.shape[0], rows);
    if (end === first) return;
    const values = await file.read(source, [first, end]);
    const all = values.length < piece.size ? await piece.read() : values;
    if (all !== values) all.set(values);
    piece.write(all);
    first = end;
  }
}

/** [rows, columns] -> [rows, copies * columns], each copy divided by their number. */
function sideBySide(values: Float32Array, rows: number, copies: number): Float32Array {
  const columns = values.length / rows;
  return Float32Array.from(
    { length: copies * values.length },
    (_, i) => values[Math.floor(i / (copies * columns)) * columns + (i % columns)] / copies,
  );
}
