import { InputError, quote } from '../../../engine/files/errors.ts';
import { readImage } from '../image-files.ts';
import { isDepthImage } from '../image-header.ts';
import type { EpisodePlace } from './lerobot-episodes.ts';
import { isText, type ParquetFile } from './parquet.ts';
import type { Leaf } from './parquet-pages.ts';
import type { ListedFolder, SourcePictures } from './source.ts';

/** Where the picture of a step is: in the column, or in a file of the set. */
interface Cell {
  readonly step: number;
  readonly bytes?: Uint8Array;
  /** The byte of the data file at which the bytes lie, if they are not packed. */
  readonly place?: number | null;
  readonly path?: string;
}

/** A feature of dtype "image": structs of bytes and a path, bytes, or paths. */
export class ImageColumn {
  constructor(
    private readonly folder: ListedFolder,
    private readonly key: string,
    private readonly isThere: (path: string) => Promise<boolean>,
    private readonly note?: (line: string) => void,
  ) {}

  /** The pictures of an episode; null if it has none. @throws InputError if a path names a file that is not there */
  async pictures(file: ParquetFile, place: EpisodePlace): Promise<SourcePictures | null> {
    const { key } = this;
    const { index, from, length } = place;
    const leaf = this.#leaf(file, 'bytes');
    const packed = { kind: 'unpack', place: { episode: index, field: key } } as const;
    if (leaf && file.isFull(leaf, from, from + length)) return { ...packed, count: length };
    const there: (Omit<Cell, 'bytes'> & { readonly size: number })[] = [];
    for await (const { bytes, ...cell } of this.#cells(file, place))
      if (bytes || cell.path !== undefined) there.push({ ...cell, size: bytes?.length ?? 0 });
    const lacking = length - there.length;
    if (lacking > 0) {
      const gap = there.findIndex(({ step }, i) => step !== i);
      const found = `${lacking} of ${length} steps, the first at step ${gap < 0 ? there.length : gap}`;
      this.note?.(`${file.name}: episode ${index}: no picture of ${quote(key)} at ${found}`);
    }
    if (there.length === 0) return null;
    const steps = lacking === 0 ? {} : { steps: Uint32Array.from(there, ({ step }) => step) };
    if (there.every(({ place: own }) => own != null)) {
      const starts = Float64Array.from(there, ({ place: own }) => own!);
      const ends = starts.map((start, i) => start + there[i].size);
      return { kind: 'ranges', file: place.file, starts, ends, ...steps };
    }
    const paths = there.flatMap(({ path }) => path ?? []);
    if (paths.length === there.length) return { kind: 'files', paths, ...steps };
    return { ...packed, count: there.length, ...steps };
  }

  /** The files of the pictures that an episode has, in order. */
  async *unpack(file: ParquetFile, place: EpisodePlace): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    for await (const { step, bytes, path } of this.#cells(file, place)) {
      if (bytes) yield new Uint8Array(bytes);
      else if (path !== undefined) {
        const what = `the picture of episode ${place.index}, step ${step}, camera ${quote(this.key)}`;
        yield (await readImage(this.folder.open(path), what)).bytes;
      }
    }
  }

  /** Whether the first picture of the set is one of depth by its samples: one channel of 16 bits, or a TIFF file. */
  async isDepth(file: ParquetFile, place: EpisodePlace): Promise<boolean> {
    try {
      for await (const { bytes, path } of this.#cells(file, place)) {
        if (!bytes && path === undefined) continue;
        const head = bytes ?? (await readImage(this.folder.open(path!), 'the first picture')).bytes;
        return isDepthImage(head);
      }
    } catch (error) {
      // A damaged or missing picture is named when the pictures are asked for; the numbers can be read without them.
      if (!(error instanceof InputError)) throw error;
    }
    return false;
  }

  #leaf(file: ParquetFile, field: 'bytes' | 'path'): Leaf | null {
    const leaves = file.columns.get(this.key) ?? [];
    const found = leaves.find(({ path }) => path.length === 2 && path[1] === field);
    if (found || leaves.length !== 1 || leaves[0].element.type !== 'BYTE_ARRAY') return found ?? null;
    return isText(leaves[0].element) === (field === 'path') ? leaves[0] : null;
  }

  async *#cells(file: ParquetFile, episode: EpisodePlace): AsyncGenerator<Cell> {
    const { from, length } = episode;
    const [bytes, path] = [this.#leaf(file, 'bytes'), this.#leaf(file, 'path')];
    let paths: unknown[][] | null = null;
    const other = async (step: number): Promise<Cell> => {
      if (path) paths ??= await file.lists(path, from, from + length);
      const named = paths?.[step][0];
      return named ? { step, path: await this.#find(String(named), episode, step, file) } : { step };
    };
    if (!bytes) {
      for (let step = 0; step < length; step++) yield other(step);
      return;
    }
    for await (const { row, count, definition, values, repetition, place } of file.pages(bytes, from, from + length)) {
      if (repetition)
        throw new InputError(`${file.name}: column ${quote(this.key)} holds lists, one picture a row was expected`);
      let next = 0;
      for (let i = 0; i < count; i++) {
        const there = !definition || definition[i] === bytes.full;
        const value = there ? (values[next++] as Uint8Array) : null;
        const step = row + i - from;
        if (step < 0 || step >= length) continue;
        yield value?.length ? { step, bytes: value, place: place(value) } : other(step);
      }
    }
  }

  /** The file of a path as it was written: in the set, or from `images/` on if the path is that of another machine. */
  async #find(named: string, { index, from }: EpisodePlace, step: number, file: ParquetFile): Promise<string> {
    const path = named.replaceAll('\\', '/').replace(/^(\.\/)+/, '');
    for (const candidate of [path, path.slice(Math.max(0, path.lastIndexOf('images/')))])
      if (!/^\/|^[a-z]:|(^|\/)\.\.(\/|$)/i.test(candidate) && (await this.isThere(candidate))) return candidate;
    throw new InputError(
      `${file.name}: episode ${index}: column ${quote(this.key)} names ${quote(named)} in row ${from + step}, which is not in the data set, and the column holds no bytes`,
    );
  }
}
