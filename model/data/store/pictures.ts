import { type Folder, joinBytes, readRange } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import type { Episode, Image } from '../dataset.ts';
import { firstWhere } from '../first-where.ts';
import { decodeImage, ImageCache } from '../image-files.ts';
import { imageTypeOf } from '../image-header.ts';
import type { PicturePlace, Source, SourcePicture, SourcePictures } from '../import/source.ts';
import { MemoryCache } from '../memory-cache.ts';

/** What is known of the pictures of a camera in an episode without its tables, of which each is bytes from .. to of a record's tables. */
export interface KnownPictures {
  readonly kind: SourcePictures['kind'];
  readonly count: number;
  readonly file?: string;
  readonly place?: PicturePlace;
  readonly tables: Readonly<Record<string, readonly [from: number, to: number]>>;
}

/** Splits pictures into what is known and tables, which are added to `tables`. @throws InputError if they do not fit the episode */
export function packPictures(
  pictures: SourcePictures,
  length: number,
  what: string,
  tables: Uint8Array[],
): KnownPictures {
  const { kind, steps } = pictures;
  const count = kind === 'ranges' ? pictures.starts.length : kind === 'files' ? pictures.paths.length : pictures.count;
  if (steps ? steps.length !== count : count < length)
    throw new InputError(`${what} has ${count} pictures, ${steps?.length ?? length} steps`);
  const places: Record<string, readonly [number, number]> = {};
  let end = tables.reduce((sum, own) => sum + own.length, 0);
  const add = (name: string, values: Uint8Array | Float64Array | Uint32Array) => {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    places[name] = [end, end + bytes.length];
    tables.push(bytes, new Uint8Array(-bytes.length & 7));
    end += bytes.length + (-bytes.length & 7);
  };
  if (steps) add('steps', steps);
  if (kind === 'ranges') {
    add('starts', pictures.starts);
    add('ends', pictures.ends);
    return { kind, count, file: pictures.file, tables: places };
  }
  if (kind === 'files') add('paths', new TextEncoder().encode(JSON.stringify(pictures.paths)));
  return { kind, count, tables: places, ...(kind !== 'files' && { place: pictures.place }) };
}

/** Where unpacked pictures are kept. */
export interface Packs {
  /** Returns picture `index` of a pack, which `make` makes if it is not there. */
  get(name: string, index: number, count: number, make: () => AsyncIterable<SourcePicture>): Promise<SourcePicture>;
}

// Tables begin at multiples of eight bytes.
const uint32 = ({ buffer, byteOffset, length }: Uint8Array) => new Uint32Array(buffer, byteOffset, length / 4);
const float64 = ({ buffer, byteOffset, length }: Uint8Array) => new Float64Array(buffer, byteOffset, length / 8);

/** The bytes of tables, and of unpacked pictures where no cache on disk keeps them, that are held in memory. */
const TABLE_BYTES = 2 ** 26;
const UNPACKED_BYTES = 2 ** 28;

/** The pictures of a data set, read when they are wanted. */
export class PictureStore {
  readonly #images = new ImageCache();
  readonly #tables = new MemoryCache<Uint8Array<ArrayBuffer>>(TABLE_BYTES, (bytes) => bytes.length);

  constructor(
    private readonly folder: Folder,
    private readonly source: () => Promise<Source>,
    private readonly packs: Packs,
  ) {}

  /**
   * Makes an episode's image methods.
   *
   * @param cameras the pictures by camera, with the name of their field
   * @param readTables reads the tables of the episode's record
   */
  of(
    { id, where }: { readonly id: string; readonly where: string },
    cameras: ReadonlyMap<string, { readonly field: string; readonly pictures: KnownPictures }>,
    readTables: () => Promise<Uint8Array<ArrayBuffer>>,
  ): Pick<Required<Episode>, 'image' | 'imageFile'> {
    type Own = { readonly field: string; readonly pictures: KnownPictures };
    const tablesOf = async ({ pictures }: Own) => {
      const none = Object.keys(pictures.tables).length === 0;
      const tables = none ? new Uint8Array(0) : await this.#tables.get(id, readTables);
      return (name: string) => tables.subarray(...pictures.tables[name]);
    };
    // A picture that is held must cost no more than its look-up: tables are read for it only where steps have none of their own, and the steps
    // of pictures, four bytes each, then stay.
    const known = new Map<Own, Uint32Array>();
    const indexOf = (own: Own, step: number) => {
      const { count, tables } = own.pictures;
      if (!tables.steps) return Math.min(Math.floor(step), count - 1);
      const newest = (steps: Uint32Array) => firstWhere(count, (i) => steps[i] > step) - 1;
      const held = known.get(own);
      if (held) return newest(held);
      return tablesOf(own).then((table) => {
        known.set(own, uint32(table('steps')).slice());
        return newest(known.get(own)!);
      });
    };
    const read = async (own: Own, index: number, what: string) => this.#read(own, id, index, await tablesOf(own), what);
    const nameOf = (camera: string, step: number) =>
      `the image of episode ${quote(id)}, step ${Math.floor(step)}, camera ${quote(camera)}`;
    return {
      image: async (camera, step) => {
        const own = step < 0 ? undefined : cameras.get(camera);
        if (!own) return null;
        const place = indexOf(own, step);
        const index = typeof place === 'number' ? place : await place;
        if (index < 0) return null;
        return this.#images.get(`${id}\n${own.field}\n${index}`, async () => {
          const what = nameOf(camera, step);
          const { picture, file } = await read(own, index, what);
          if ('pixels' in picture) return picture;
          return decodeImage(picture, imageTypeOf(picture), `${file ?? where}: ${what}`);
        });
      },
      imageFile: async (camera, step) => {
        const own = step < 0 ? undefined : cameras.get(camera);
        const index = own ? await indexOf(own, step) : -1;
        if (!own || index < 0) return null;
        const { picture } = await read(own, index, nameOf(camera, step));
        return 'pixels' in picture ? null : picture;
      },
    };
  }

  async #read(
    { field, pictures: { kind, count, file, place } }: { readonly field: string; readonly pictures: KnownPictures },
    id: string,
    index: number,
    table: (name: string) => Uint8Array,
    what: string,
  ): Promise<{ picture: SourcePicture; file?: string }> {
    if (kind === 'pick') return { picture: await (await this.source()).picture!(place!, index) };
    if (kind === 'unpack') {
      const unpack = async function* (this: PictureStore) {
        yield* (await this.source()).unpack!(place!);
      };
      return { picture: await this.packs.get(`${field}\n${id}`, index, count, unpack.bind(this)) };
    }
    const path = kind === 'ranges' ? file! : JSON.parse(new TextDecoder().decode(table('paths')))[index];
    const opened = await this.folder.open(path);
    try {
      const [start, end] =
        kind === 'ranges' ? [float64(table('starts'))[index], float64(table('ends'))[index]] : [0, opened.size];
      return { picture: await readRange(opened, start, end, what), file: opened.name };
    } finally {
      await opened.close();
    }
  }
}

/** Makes one value at a time. */
export function inTurn(): <T>(make: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (make) => {
    const own = last.then(make);
    last = own.catch(() => {});
    return own;
  };
}

/** @throws InputError if a pack has another number of pictures than its episode says */
export function expectCount(name: string, found: number, count: number): void {
  if (found < count)
    throw new InputError(`${name.replace('\n', ', episode ')}: ${found} pictures were unpacked, ${count} are needed`);
}

/** Packs in memory, of which the least recently used are dropped. */
export function memoryPacks(): Packs {
  const sizeOf = (own: SourcePicture) => ('pixels' in own ? own.pixels : own).length;
  const held = new MemoryCache<SourcePicture[]>(UNPACKED_BYTES, (own) =>
    own.reduce((sum, one) => sum + sizeOf(one), 0),
  );
  const turn = inTurn();
  return {
    async get(name, index, count, make) {
      const pictures = await held.get(name, () =>
        turn(async () => {
          const all: SourcePicture[] = [];
          for await (const picture of make()) all.push(picture);
          expectCount(name, all.length, count);
          return all;
        }),
      );
      return pictures[index];
    },
  };
}

const PIXELS = 0x58495052; // "RPIX", which no image file begins with

/** Pixels as bytes: a mark, width, height, [height, width, 3]. */
export function packedPicture(picture: SourcePicture): Uint8Array<ArrayBuffer> {
  if (!('pixels' in picture)) return picture;
  const head = new Uint8Array(Uint32Array.of(PIXELS, picture.width, picture.height).buffer);
  return joinBytes([head, picture.pixels]);
}

export function unpackedPicture(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | Image {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 12 || view.getUint32(0, true) !== PIXELS) return bytes;
  return { width: view.getUint32(4, true), height: view.getUint32(8, true), pixels: bytes.subarray(12) };
}
