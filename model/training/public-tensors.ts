/**
 * The tensors of pi0, pi0.5 and pi0-FAST as openpi (PyTorch) and LeRobot publish them, and of PaliGemma and SigLIP, under the names of
 * the model's parameters: one safetensors file, or several that an index names. The names differ between versions of both programs and
 * of transformers.
 */
import * as v from 'valibot';
import { counted, InputError, quote } from '../../engine/files/errors.ts';
import { dictionary, readJsonFile } from '../../engine/files/json-schema.ts';
import { readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import { backboneOf } from '../architecture/backbones/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { SavedTensors } from './saved-model.ts';

export const PUBLIC_FILE = 'model.safetensors';
const INDEX = `${PUBLIC_FILE}.index.json`;
const indexSchema = v.looseObject({ weight_map: dictionary(v.pipe(v.string(), v.regex(/^[^/\\]+$/))) });

const { names: own } = backboneOf({ backbone: 'gemma' });
export const EMBEDDING = `${own.embedding}.weight`;
/** The matrix of the logits, which is that of the embeddings; writers keep both, or one of the two names. */
export const HEAD = `${own.head}.weight`;
/** A head that the expert's class has and nothing uses. */
export const EXPERT_HEAD = `${own.expert('expert').replace(/model$/, 'lm_head')}.weight`;

/** Tensors that nothing uses: heads and tables of the classes, a memory of LeRobot's pi0.5, the text and the pooling of SigLIP. */
const UNUSED =
  /gemma_expert\.(lm_head|model\.embed_tokens)\.|^proprio_history_proj\.|\.(inv_freq|position_ids)$|^text_model\.|^logit_(scale|bias)$|\.vision_model\.head\./;
/** Statistics of LeRobot before 0.4, which are no parameters. */
const STATISTICS = /^(un)?normalize_/;

/** The parameter that a public name means. */
export const parameterName = (name: string): string =>
  name
    .replace(/^model\./, '')
    .replace(/^vision_model\./, 'vision_tower.vision_model.')
    .replace(/^(language_model|vision_tower|multi_modal_projector|lm_head)\./, 'paligemma_with_expert.paligemma.$1.')
    .replace(/\.paligemma\.language_model\.lm_head\./, '.paligemma.lm_head.')
    .replace(/\.paligemma\.language_model\.model\./, '.paligemma.model.language_model.')
    .replace(/\.paligemma\.(language_model|vision_tower|multi_modal_projector)\./, '.paligemma.model.$1.');

interface Place {
  readonly file: SafetensorsFile;
  readonly source: string;
}

/** @throws InputError if one of the files is missing, cut off or damaged, or a tensor is there twice */
export async function openPublicTensors(path: string): Promise<PublicTensors> {
  const files: SafetensorsFile[] = [];
  try {
    const { paths, placed } = await filesOf(path);
    for (const file of paths) files.push(await readSafetensors(file));
    for (const [i, names] of placed.entries()) {
      const missing = names.filter((name) => !files[i].has(name));
      if (missing.length > 0)
        throw new InputError(`${paths[i]} lacks ${listed(missing)}, which the index places there: copy it anew`);
    }
    return new PublicTensors(path, files);
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

/** The files that a path means, and the tensors that the index places in each. */
async function filesOf(path: string): Promise<{ paths: string[]; placed: string[][] }> {
  const { kindOfPath } = await import('../../engine/files/files.ts');
  const kind = await kindOfPath(path);
  if (kind === null) throw new InputError(`${path}: there is no such file or folder`);
  if (kind === 'file' && !path.endsWith('.json')) return { paths: [path], placed: [] };
  const [folder, index] = kind === 'file' ? [path.replace(/[^/\\]*$/, ''), path] : [`${path}/`, `${path}/${INDEX}`];
  if (kind === 'folder' && (await kindOfPath(`${folder}${PUBLIC_FILE}`)) !== null)
    return { paths: [`${folder}${PUBLIC_FILE}`], placed: [] };
  if ((await kindOfPath(index)) === null)
    throw new InputError(`${path}: this folder has no ${PUBLIC_FILE} and no ${INDEX}: name the folder of a policy`);
  const { weight_map: places } = await readJsonFile(index, indexSchema, 'an index of safetensors files');
  const names = [...new Set(Object.values(places))];
  return {
    paths: names.map((name) => `${folder}${name}`),
    placed: names.map((name) => Object.keys(places).filter((tensor) => places[tensor] === name)),
  };
}

export class PublicTensors implements SavedTensors {
  readonly tensors = new Map<string, ReturnType<SafetensorsFile['entry']>>();
  private readonly places = new Map<string, Place>();

  constructor(
    readonly name: string,
    private readonly files: readonly SafetensorsFile[],
  ) {
    for (const file of files)
      for (const source of file.tensors.keys()) {
        const parameter = parameterName(source);
        if (UNUSED.test(parameter)) continue;
        const other = this.places.get(parameter)?.source;
        if (other !== undefined)
          throw new InputError(`${file.name}: tensor ${quote(parameter)} is there twice, also as ${quote(other)}`);
        this.places.set(parameter, { file, source });
      }
    const head = this.places.get(HEAD);
    if (head && !this.places.has(EMBEDDING)) {
      this.places.set(EMBEDDING, head);
      this.places.delete(HEAD);
    }
    for (const [parameter, { file, source }] of this.places)
      if (!STATISTICS.test(parameter)) this.tensors.set(parameter, file.entry(source));
  }

  /** Leaves out a head beside the embeddings. */
  tie(): void {
    this.places.delete(HEAD);
    this.tensors.delete(HEAD);
  }

  has(parameter: string): boolean {
    return this.places.has(parameter);
  }

  entry(parameter: string, expected: Parameters<SavedTensors['entry']>[1] = {}) {
    const { file, source } = this.place(parameter);
    return file.entry(source, expected);
  }

  readInto(parameter: string, target: Parameters<SavedTensors['readInto']>[1]) {
    const { file, source } = this.place(parameter);
    return file.readInto(source, target);
  }

  readFinite(parameter: string, options?: Parameters<SafetensorsFile['readFinite']>[1]) {
    const { file, source } = this.place(parameter);
    return file.readFinite(source, options);
  }

  /** A number of heads, which shapes do not tell, in a file that Insula wrote at sizes of its own; undefined in others. */
  heads(which: keyof ReturnType<typeof headsOf>): number | undefined {
    const [stated] = this.files.flatMap(({ metadata }) => metadata.get(which) ?? []);
    return stated !== undefined && /^[1-9]\d{0,2}$/.test(stated) ? Number(stated) : undefined;
  }

  verifyMetadata(): void {
    for (const file of this.files) file.verifyMetadata();
  }

  async verify(): Promise<void> {
    for (const file of this.files) await file.verify();
  }

  async close(): Promise<void> {
    for (const file of this.files) await file.close();
  }

  private place(parameter: string): Place {
    const place = this.places.get(parameter);
    if (!place) throw new InputError(`${this.name}: it has no tensor ${quote(parameter)}`);
    return place;
  }
}

/** The heads of a model, for the metadata of its file. */
export const headsOf = ({ vision, kvHeads }: ModelConfiguration) => ({
  vision_heads: String(Object.values(vision!.towers)[0].heads),
  key_value_heads: String(kvHeads),
});

/** The first names of a list, and the number of the others. */
export function listed(names: readonly string[]): string {
  const shown = names.slice(0, 3).map(quote).join(', ');
  return names.length > 3 ? `${shown} and ${counted(names.length - 3, 'more tensor')}` : shown;
}
