import decodeJpegFile, { init } from '@jsquash/jpeg/decode.js';
import { convertIndexedToRgb, decode as decodePngFile, encode } from 'fast-png';
import { unzlibSync } from 'fflate';
import { type ByteSource, readRange } from '../../engine/files/bytes.ts';
import { InputError, reasonOf } from '../../engine/files/errors.ts';
import type { Episode, Image } from './dataset.ts';
import { MemoryCache } from './memory-cache.ts';
import { decodePlainPng, type Inflate } from './png.ts';

// The decoders are the same in node and in browsers, so that both see the same pixels.

const decoders: Record<string, (bytes: Uint8Array<ArrayBuffer>) => Promise<Image>> = {
  'image/jpeg': decodeJpeg,
  'image/png': decodePng,
};

/** The image file types that `decodeImage` reads. */
export const imageTypes: readonly string[] = Object.keys(decoders);

/** Recognises the type of an image file by its first bytes; "unknown" if it is neither JPEG nor PNG. */
export function imageTypeOf(bytes: Uint8Array): string {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return 'image/jpeg';
  return bytes[0] === 0x89 && bytes[1] === 0x50 ? 'image/png' : 'unknown';
}

/** Decodes a JPEG or PNG file, `what` in errors, to RGB: grey is repeated, 16 bits are cut to 8, alpha is dropped. */
export async function decodeImage(bytes: Uint8Array<ArrayBuffer>, type: string, what: string): Promise<Image> {
  const decode = Object.hasOwn(decoders, type) ? decoders[type] : undefined;
  if (!decode && type === 'unknown') throw new InputError(`${what}: neither a JPEG nor a PNG file`);
  if (!decode) throw new InputError(`${what}: image type "${type}" is not one of ${imageTypes.join(', ')}`);
  try {
    checkSize(bytes, type);
    return await decode(bytes);
  } catch (error) {
    throw new InputError(`${what}: damaged or cut-off ${type} (${reasonOf(error)})`);
  }
}

const PIXELS_LIMIT = 2 ** 26;
/** No file holds more pixels per byte: a PNG has 8 per unpacked byte, and deflate unpacks a byte to at most 1032. */
const PIXELS_PER_BYTE = 8 * 1032;

/** Checks the size in the file's header, by which the decoders allocate. @throws Error if it is implausible */
function checkSize(bytes: Uint8Array, type: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const place = type === 'image/png' ? 16 : frameHeader(view);
  const size = (at: number) => (type === 'image/png' ? view.getUint32(place + 4 * at) : view.getUint16(place + 2 * at));
  const [first, second] = [size(0), size(1)];
  if (first * second > Math.min(PIXELS_LIMIT, bytes.length * PIXELS_PER_BYTE))
    throw new Error(`${bytes.length} bytes say they hold ${first} x ${second} pixels`);
}

/** Finds the height in a JPEG file, which its width follows, in the first SOF segment. @throws RangeError */
function frameHeader(view: DataView): number {
  for (let at = 2; ; ) {
    const marker = view.getUint8(at + 1);
    if (view.getUint8(at) !== 0xff || marker === 0xff || marker === 0) at += 1;
    else if ((marker & 0xf0) === 0xc0 && ![0xc4, 0xc8, 0xcc].includes(marker)) return at + 5;
    else at += 2 + view.getUint16(at + 2);
  }
}

/** Whether every decoder reads the same 8-bit RGB of an image file: in colour, without alpha and rotation. */
export function isPlainRgb(bytes: Uint8Array): boolean {
  const head = new TextDecoder('latin1').decode(bytes.subarray(0, 2 ** 16));
  if (/Exif|eXIf/.test(head)) return false; // some decoders rotate the image by its Exif orientation
  if (imageTypeOf(bytes) === 'image/png') return bytes[24] === 8 && bytes[25] === 2;
  const height = frameHeader(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
  return bytes[height - 4] <= 0xc2 && bytes[height - 1] === 8 && bytes[height + 4] === 3;
}

interface DecoderOptions {
  printErr: (line: string) => void;
}

/** The complaints of the JPEG decoder about the image it is decoding. */
let complaints: string[] = [];
let jpegDecoder: Promise<void> | undefined;
/** Images are decoded one after the other, so that each complaint belongs to a known image. */
let jpegQueue: Promise<unknown> = Promise.resolve();

const isNode = () => typeof process !== 'undefined' && Boolean(process.versions?.node);

async function startJpegDecoder(): Promise<void> {
  const options: DecoderOptions = { printErr: (line) => complaints.push(line) };
  // The package's types leave out the WebAssembly module, which node needs because it cannot fetch files.
  const start = init as unknown as (...args: [WebAssembly.Module, DecoderOptions] | [DecoderOptions]) => Promise<void>;
  if (!isNode()) return start(options);
  const [{ readFile }, { createRequire }] = await Promise.all([import('node:fs/promises'), import('node:module')]);
  const path = createRequire(import.meta.url).resolve('@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm');
  return start(await WebAssembly.compile(await readFile(path)), options);
}

function decodeJpeg(bytes: Uint8Array<ArrayBuffer>): Promise<Image> {
  const image = jpegQueue.then(async () => {
    jpegDecoder ??= startJpegDecoder();
    await jpegDecoder;
    complaints = [];
    const whole = bytes.length === bytes.buffer.byteLength ? bytes : bytes.slice();
    const decoded = await decodeJpegFile(whole.buffer).catch((error) => {
      jpegDecoder = undefined; // after a failure its memory is in a state that fails on good images too
      throw complaints.length > 0 ? new Error(complaints.join('; ')) : error;
    });
    // The decoder fills missing parts with grey and only warns; extra bytes between two markers are harmless.
    const serious = complaints.filter((line) => !line.includes('extraneous bytes before marker'));
    if (serious.length > 0) throw new Error(serious.join('; '));
    return { width: decoded.width, height: decoded.height, pixels: toRgb(decoded.data, 4) };
  });
  jpegQueue = image.catch(() => {});
  return image;
}

let inflate: Promise<Inflate> | undefined;

/** Chooses zlib of node, which is twice as fast, or the library's in a browser. */
async function startInflate(): Promise<Inflate> {
  if (!isNode()) return (packed, size) => unzlibSync(packed, { out: new Uint8Array(size) });
  const { inflateSync } = await import('node:zlib');
  return (packed, size) => inflateSync(packed, { maxOutputLength: Math.max(1, size) });
}

async function decodePng(bytes: Uint8Array<ArrayBuffer>): Promise<Image> {
  inflate ??= startInflate();
  const plain = decodePlainPng(bytes, await inflate);
  if (plain) return { width: plain.width, height: plain.height, pixels: toRgb(plain.data, plain.channels) };
  const decoded = decodePngFile(bytes, { checkCrc: true });
  const { width, height, depth, palette } = decoded;
  if (palette) return { width, height, pixels: toRgb(convertIndexedToRgb(decoded), palette[0].length) };
  const eight = depth === 16 ? Uint8Array.from(decoded.data, (value) => value >>> 8) : decoded.data;
  return { width, height, pixels: toRgb(eight, decoded.channels) };
}

export const encodePng = ({ width, height, pixels }: Image): Uint8Array<ArrayBuffer> =>
  new Uint8Array(encode({ width, height, data: pixels, channels: 3, depth: 8 }));

/** Converts pixels of 1 (grey), 2 (grey, alpha), 3 or 4 (colour, alpha) channels to RGB. */
export function toRgb(data: ArrayLike<number>, channels: number): Uint8Array {
  if (channels === 3 && data instanceof Uint8Array) return data;
  const count = data.length / channels;
  const pixels = new Uint8Array(count * 3);
  const [green, blue] = channels < 3 ? [0, 0] : [1, 2];
  for (let i = 0; i < count; i++) {
    pixels[3 * i] = data[channels * i];
    pixels[3 * i + 1] = data[channels * i + green];
    pixels[3 * i + 2] = data[channels * i + blue];
  }
  return pixels;
}

/** The location of an image in its source, which keeps it as a file or makes it, such as a frame of a video. */
export type ImagePlace = {
  /** The key in a cache of decoded images. */
  readonly key: string;
} & (
  | {
      /** The image's name in errors, after the name of the file that holds it. */
      readonly what: string;
      /** The image's type; without it the first bytes decide. */
      readonly type?: string;
      read(): ReturnType<typeof readImage>;
    }
  | { frame(): Promise<Image> }
);

/** Reads an image file, or a part of a file, and closes it, so that a data set holds no file open. */
export async function readImage(opening: Promise<ByteSource>, what: string, start = 0, end?: number) {
  const source = await opening;
  try {
    return { bytes: await readRange(source, start, end ?? source.size, what), file: source.name };
  } finally {
    await source.close();
  }
}

/** Makes an episode's image methods; `find` returns null if a camera has no image. Later steps show the last. */
export function imagesAt(
  cache: ImageCache,
  length: number,
  find: (camera: string, step: number) => ImagePlace | null,
): Pick<Required<Episode>, 'image' | 'imageFile'> {
  const placeOf = (camera: string, step: number) =>
    step < 0 ? null : find(camera, Math.min(Math.floor(step), length - 1));
  return {
    async image(camera, step) {
      const place = placeOf(camera, step);
      return place && cache.at(place);
    },
    async imageFile(camera, step) {
      const place = placeOf(camera, step);
      return place && 'read' in place ? (await place.read()).bytes : null;
    },
  };
}

/** A cache of decoded images that drops the least recently used when the pixels take more than `limit` bytes. */
export class ImageCache extends MemoryCache<Image> {
  constructor(limit = 64 * 2 ** 20) {
    super(limit, ({ pixels }) => pixels.length);
  }

  at(place: ImagePlace): Promise<Image> {
    return this.get(place.key, async () => {
      if ('frame' in place) return place.frame();
      const { bytes, file } = await place.read();
      return decodeImage(bytes, place.type ?? imageTypeOf(bytes), `${file}: ${place.what}`);
    });
  }
}
