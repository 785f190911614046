import { type Folder, joinBytes } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import type { Episode } from '../dataset.ts';
import { firstWhere } from '../first-where.ts';
import { decodeImage, ImageCache, readImage } from '../image-files.ts';
import { imageTypeOf } from '../image-header.ts';
import type { PicturePlace, Source, SourcePicture, SourcePictures } from '../import/source.ts';
import { MemoryCache } from '../memory-cache.ts';
import { DamagedLog, type Log, type Logs, type PartPlace, partAt } from './log.ts';

/** What is known of the pictures of a field in an episode without its tables, which are parts of the episode's record. */
export interface KnownPictures {
  readonly kind: SourcePictures['kind'];
  /** The number of its first picture among those of the data set. */
  readonly first: number;
  readonly count: number;
  readonly file?: string;
  readonly place?: PicturePlace;
  /** The number of the part with the step of each picture, uint32. */
  readonly steps?: number;
  /** The number of the part with the starts and then the ends of ranges, float64, or with the paths of files, JSON. */
  readonly places?: number;
}

/**
 * Splits the pictures of a field of an episode into what is known and tables, which are added to `parts`.
 *
 * @param first the number of pictures before them
 * @throws InputError if they do not fit the episode
 */
export function packPictures(
  pictures: SourcePictures,
  { first, length, what }: { readonly first: number; readonly length: number; readonly what: string },
  parts: Uint8Array[],
): KnownPictures {
  const { kind, steps } = pictures;
  const count = kind === 'ranges' ? pictures.starts.length : kind === 'files' ? pictures.paths.length : pictures.count;
  if (steps ? steps.length !== count : count < length)
    throw new InputError(`${what} has ${count} pictures, ${steps?.length ?? length} steps`);
  const add = (values: Float64Array | Uint32Array | Uint8Array) =>
    parts.push(new Uint8Array(values.buffer, values.byteOffset, values.byteLength)) - 1;
  const known = { kind, first, count, ...(steps && { steps: add(steps) }) };
  if (kind === 'files') return { ...known, places: add(new TextEncoder().encode(JSON.stringify(pictures.paths))) };
  if (kind !== 'ranges') return { ...known, place: pictures.place };
  const places = new Float64Array(2 * count);
  places.set(pictures.starts);
  places.set(pictures.ends, count);
  return { ...known, file: pictures.file, places: add(places) };
}

/** The bytes of tables, and of unpacked pictures where no cache on disk keeps them, that are held in memory. */
const TABLE_BYTES = 2 ** 26;
const UNPACKED_BYTES = 2 ** 28;

/** A camera in an episode. */
export interface Camera {
  readonly field: string;
  readonly pictures: KnownPictures;
  /** The step of each picture, once it is known. */
  steps?: Uint32Array;
}

interface EpisodeRecord {
  readonly id: string;
  readonly where: string;
  readonly parts: readonly PartPlace[];
}

/** The pictures of a data set, read when they are wanted. */
export class PictureStore {
  readonly #images = new ImageCache();
  readonly #tables = new MemoryCache<Uint8Array<ArrayBuffer>>(TABLE_BYTES, (bytes) => bytes.length);
  readonly #unpacked = new MemoryCache<Log>(UNPACKED_BYTES, ({ held }) => held);
  #unpacking: Promise<unknown> = Promise.resolve();

  /** @param key tells the unpacked pictures of this index from those of others */
  constructor(
    private readonly folder: Folder,
    private readonly source: () => Promise<Source>,
    private readonly index: Log,
    private readonly logs: Logs,
    private readonly key: string,
  ) {}

  /** Makes the image methods of an episode. */
  of(episode: EpisodeRecord, cameras: ReadonlyMap<string, Camera>): Pick<Required<Episode>, 'image' | 'imageFile'> {
    const none = Promise.resolve(null);
    // A picture that is held must cost no more than its look-up: nothing is awaited for it, and the steps of pictures, four bytes each, stay.
    const at = <T>(name: string, step: number, take: (own: Camera, i: number) => Promise<T>): Promise<T | null> => {
      const own = step < 0 ? undefined : cameras.get(name);
      if (!own) return none;
      const { pictures, steps } = own;
      if (pictures.steps !== undefined && !steps)
        return this.#table(episode, pictures.steps).then(({ buffer, byteOffset, length }) => {
          own.steps = new Uint32Array(buffer, byteOffset, length / 4).slice();
          return at(name, step, take);
        });
      const last = pictures.count - 1;
      const i = steps ? firstWhere(last + 1, (k) => steps[k] > step) - 1 : Math.min(Math.floor(step), last);
      return i < 0 ? none : take(own, i);
    };
    const read = (name: string, step: number, own: Camera, i: number) =>
      this.#read(
        episode,
        own,
        i,
        `the image of episode ${quote(episode.id)}, step ${Math.floor(step)}, camera ${quote(name)}`,
      );
    return {
      image: (name, step) =>
        at(name, step, (own, i) =>
          this.#images.get(own.pictures.first + i, async () => {
            const { bytes, what } = await read(name, step, own, i);
            return 'pixels' in bytes ? bytes : decodeImage(bytes, imageTypeOf(bytes), what);
          }),
        ),
      imageFile: (name, step) =>
        at(name, step, async (own, i) => {
          const { bytes } = await read(name, step, own, i);
          return 'pixels' in bytes ? null : bytes;
        }),
    };
  }

  #table({ parts }: EpisodeRecord, number: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.#tables.get(parts[number][0], () => partAt(this.index, parts[number]));
  }

  async #read(
    episode: EpisodeRecord,
    { field, pictures: { kind, first, count, file, place, places } }: Camera,
    i: number,
    what: string,
  ): Promise<{ bytes: SourcePicture; what: string }> {
    const own = `${episode.where}: ${what}`;
    if (kind === 'pick') return { bytes: await (await this.source()).picture!(place!, i), what: own };
    if (kind === 'unpack') {
      const name = `pictures-${this.key}-${first}`;
      return { bytes: await this.#unpack(name, i, place!, count, `${episode.where}: ${quote(field)}`), what: own };
    }
    const table = await this.#table(episode, places!);
    const [path, start, end] =
      kind === 'ranges'
        ? [file!, ...[i, count + i].map((k) => new Float64Array(table.buffer, table.byteOffset, 2 * count)[k])]
        : [JSON.parse(new TextDecoder().decode(table))[i]];
    const read = await readImage(this.folder.open(path), what, start, end);
    return { bytes: read.bytes, what: `${read.file}: ${what}` };
  }

  /** Reads one of the pictures that a log keeps, which is made if it is not there, and made again if it is damaged. */
  async #unpack(name: string, i: number, place: PicturePlace, count: number, what: string): Promise<SourcePicture> {
    const make = async () => {
      const { writer } = await this.logs.begin(name);
      try {
        const made: PartPlace[] = [];
        for await (const picture of (await this.source()).unpack!(place))
          made.push(...(await writer.append(null, [packedPicture(picture)])));
        if (made.length < count)
          throw new InputError(`${what}: ${made.length} pictures were unpacked, ${count} are needed`);
        return await writer.finish(made);
      } catch (error) {
        await writer.stop();
        throw error;
      }
    };
    // An importer unpacks one episode at a time.
    const inTurn = (get: () => Promise<Log>): Promise<Log> => {
      const log = this.#unpacking.then(get);
      this.#unpacking = log.catch(() => {});
      return log;
    };
    const pictureOf = async (log: Log) => unpackedPicture(await partAt(log, (log.directory as PartPlace[])[i]));
    const kept = await this.#unpacked.get(name, () => inTurn(async () => (await this.logs.open(name)) ?? make()));
    return pictureOf(kept).catch(async (error) => {
      if (error instanceof DamagedLog) return pictureOf(await inTurn(make));
      throw error;
    });
  }
}

const PIXELS = 0x58495052; // "RPIX", which no image file begins with

/** Pixels as bytes: a mark, width, height, [height, width, 3]. */
function packedPicture(picture: SourcePicture): Uint8Array<ArrayBuffer> {
  if (!('pixels' in picture)) return picture;
  const head = new Uint8Array(Uint32Array.of(PIXELS, picture.width, picture.height).buffer);
  return joinBytes([head, picture.pixels]);
}

function unpackedPicture(bytes: Uint8Array<ArrayBuffer>): SourcePicture {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 12 || view.getUint32(0, true) !== PIXELS) return bytes;
  return { width: view.getUint32(4, true), height: view.getUint32(8, true), pixels: bytes.subarray(12) };
}
