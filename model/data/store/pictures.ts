import type { Folder } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import type { Episode, Image } from '../dataset.ts';
import { firstWhere } from '../first-where.ts';
import { decodeImage, ImageCache, readImage } from '../image-files.ts';
import { imageTypeOf, orientationOf } from '../image-header.ts';
import type { PicturePlace, Source, SourcePicture, SourcePictures } from '../import/source.ts';
import { MemoryCache } from '../memory-cache.ts';
import { explained } from './folders.ts';
import { DamagedLog, type Log, type Logs, type PartPlace, partAt } from './log.ts';

/** What is known of the pictures of a field in an episode. */
export interface KnownPictures {
  readonly kind: SourcePictures['kind'];
  /** The number of its first picture among those of the data set. */
  readonly first: number;
  readonly count: number;
  /** The control step of each, where not every step has one. */
  readonly steps?: readonly number[];
  readonly file?: string;
  readonly place?: PicturePlace;
  /** The part of the episode's record with the starts and then the ends of ranges, float64, or the paths of files, JSON. */
  readonly table?: number;
}

/**
 * Says what is known of pictures of an episode of `length` steps, and adds their table to `parts`.
 *
 * @param first the number of pictures before them
 * @throws InputError if they do not fit the episode
 */
export function knownPictures(
  pictures: SourcePictures,
  { first, length, what }: { readonly first: number; readonly length: number; readonly what: string },
  parts: Uint8Array[],
): KnownPictures {
  const { kind, steps } = pictures;
  const count = kind === 'ranges' ? pictures.starts.length : kind === 'files' ? pictures.paths.length : pictures.count;
  if (steps ? steps.length !== count : count < length)
    throw new InputError(`${what} has ${count} pictures, ${steps?.length ?? length} steps`);
  const known = { kind, first, count, ...(steps && { steps: [...steps] }) };
  if (kind === 'files')
    return { ...known, table: parts.push(new TextEncoder().encode(JSON.stringify(pictures.paths))) - 1 };
  if (kind !== 'ranges') return { ...known, place: pictures.place };
  const table = new Float64Array(2 * count);
  table.set(pictures.starts);
  table.set(pictures.ends, count);
  return { ...known, file: pictures.file, table: parts.push(new Uint8Array(table.buffer)) - 1 };
}

/** The bytes of tables, and of unpacked pictures where no cache on disk keeps them, that are held in memory. */
const TABLE_BYTES = 2 ** 26;
const UNPACKED_BYTES = 2 ** 28;

/** The directory of unpacked pictures, with what the importer noticed; pictures that are pixels have a size. */
interface Pack {
  readonly pictures: readonly { readonly part: PartPlace; readonly size?: Pick<Image, 'width' | 'height'> }[];
  readonly notes: readonly string[];
}

/** An episode, and the parts of its record. */
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
    private readonly notes: { readonly gathered: Set<string>; note(line: string): void },
  ) {}

  /** Makes the image methods of an episode. */
  of(
    episode: EpisodeRecord,
    cameras: ReadonlyMap<string, KnownPictures>,
  ): Pick<Required<Episode>, 'image' | 'imageFile'> {
    // A picture that is held must cost no more than its look-up: nothing is awaited for it.
    const at = <T>(camera: string, step: number, take: (own: KnownPictures, i: number) => Promise<T>) => {
      const own = cameras.get(camera);
      if (!own || step < 0) return Promise.resolve(null);
      const { steps, count } = own;
      const i = steps ? firstWhere(count, (k) => steps[k] > step) - 1 : Math.min(Math.floor(step), count - 1);
      return i < 0 ? Promise.resolve(null) : take(own, i);
    };
    const read = (camera: string, step: number, own: KnownPictures, i: number) => {
      const what = `the image of episode ${quote(episode.id)}, step ${Math.floor(step)}, camera ${quote(camera)}`;
      return this.#read(episode, camera, own, i, what);
    };
    return {
      image: (camera, step) =>
        at(camera, step, (own, i) =>
          this.#images.get(own.first + i, async () => {
            const { picture, what } = await read(camera, step, own, i);
            return 'pixels' in picture ? picture : decodeImage(picture, imageTypeOf(picture), what);
          }),
        ),
      imageFile: (camera, step) =>
        at(camera, step, async (own, i) => {
          const { picture } = await read(camera, step, own, i);
          return 'pixels' in picture ? null : picture;
        }),
    };
  }

  /** Reads a picture, and notes that it is to be turned, which is not done. */
  async #read(episode: EpisodeRecord, camera: string, own: KnownPictures, i: number, image: string) {
    const read = await this.#readStored(episode, own, i, image);
    const orientation = 'pixels' in read.picture ? 1 : orientationOf(read.picture);
    if (orientation !== 1)
      this.notes.note(
        `camera ${quote(camera)} has pictures with Exif orientation ${orientation}, which LeRobot obeys and this program does not: they are read as they are stored; turn their pixels and take the orientation out of the files (exiftran, mogrify -auto-orient) if they lie wrong`,
      );
    return read;
  }

  async #readStored(
    { where, parts }: EpisodeRecord,
    { kind, first, count, file, place, table }: KnownPictures,
    i: number,
    image: string,
  ): Promise<{ picture: SourcePicture; what: string }> {
    const what = `${where}: ${image}`;
    if (kind === 'pick') return { picture: await (await this.source()).picture!(place!, i), what };
    if (kind === 'unpack') return { picture: await this.#unpack(first, i, place!, count, what), what };
    const part = parts[table!];
    const bytes = await this.#tables.get(part[0], () => partAt(this.index, part));
    const places = kind === 'ranges' ? new Float64Array(bytes.buffer, bytes.byteOffset, 2 * count) : null;
    const path = file ?? JSON.parse(new TextDecoder().decode(bytes))[i];
    const read = await readImage(this.folder.open(path), image, places?.[i], places?.[count + i]);
    return { picture: read.bytes, what: `${read.file}: ${image}` };
  }

  /** Reads one of the pictures that a log keeps, which is made if it is not there, and made again if it is damaged. */
  async #unpack(first: number, i: number, place: PicturePlace, count: number, what: string): Promise<SourcePicture> {
    const name = `pictures-${this.key}-${first}`;
    const make = () =>
      this.logs.write(name, async (append): Promise<Pack> => {
        const made: Pack['pictures'][number][] = [];
        this.notes.gathered.clear();
        for await (const picture of (await this.source()).unpack!(place)) {
          const { pixels, ...size } = 'pixels' in picture ? picture : { pixels: picture };
          const [part] = await append(null, [pixels]);
          made.push({ part, ...('width' in size && { size }) });
        }
        if (made.length >= count) return { pictures: made, notes: [...this.notes.gathered] };
        throw new InputError(`${what}: ${made.length} pictures were unpacked, ${count} are needed`);
      });
    // An importer unpacks one episode at a time.
    const inTurn = (get: () => Promise<Log>): Promise<Log> => {
      const log = this.#unpacking.then(get).catch((error) => explained(this.folder, error));
      this.#unpacking = log.catch(() => {});
      return log;
    };
    const pictureIn = async (log: Log) => {
      const { pictures, notes } = log.directory as Pack;
      for (const line of notes) this.notes.note(line);
      const { part, size } = pictures[i];
      const pixels = await partAt(log, part);
      return size ? { ...size, pixels } : pixels;
    };
    const kept = await this.#unpacked.get(first, () => inTurn(async () => (await this.logs.open(name)) ?? make()));
    return pictureIn(kept).catch(async (error) => {
      if (error instanceof DamagedLog) return pictureIn(await inTurn(make));
      throw error;
    });
  }
}
