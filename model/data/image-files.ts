import decodeJpegFile, { init as startJpeg } from '@jsquash/jpeg/decode.js';
import decodeWebpFile, { init as startWebp } from '@jsquash/webp/decode.js';
import { encode } from 'fast-png';
import { unzlibSync } from 'fflate';
import { type ByteSource, readRange } from '../../engine/files/bytes.ts';
import { InputError, reasonOf } from '../../engine/files/errors.ts';
import type { Image } from './dataset.ts';
import { fileKindOf, headerOf } from './image-header.ts';
import { MemoryCache } from './memory-cache.ts';
import { decodePng, type Inflate } from './png.ts';

// The decoders are the same in node and in browsers, so that both see the same pixels.

const decoders: Record<string, (bytes: Uint8Array<ArrayBuffer>) => Promise<Image>> = {
  'image/jpeg': decodeJpeg,
  'image/png': decodePngFile,
  'image/webp': decodeWebp,
};

/** The image file types that `decodeImage` reads. */
export const imageTypes: readonly string[] = Object.keys(decoders);

/** The most pixels of an image: a frame of 7680 x 4320 fits. */
const PIXELS_LIMIT = 2 ** 25;

/**
 * Decodes an image file, `what` in errors, to RGB as PIL's convert('RGB') does: grey is repeated, alpha is dropped, an orientation in
 * Exif is not obeyed; 16 bits are cut to 8.
 */
export async function decodeImage(bytes: Uint8Array<ArrayBuffer>, type: string, what: string): Promise<Image> {
  if (!imageTypes.includes(type)) {
    const kind = type === 'unknown' ? fileKindOf(bytes) : `image type "${type}"`;
    throw new InputError(`${what}: ${kind}; JPEG, PNG and WebP are read`);
  }
  try {
    const { width, height, channels } = headerOf(bytes, type);
    if (!(width > 0 && height > 0 && width * height <= PIXELS_LIMIT))
      throw new Error(`${bytes.length} bytes say they hold ${width} x ${height} pixels`);
    if (type === 'image/jpeg' && channels === 4)
      throw new InputError(`${what}: a JPEG file in the colours of printers (CMYK), which is not read; save it as RGB`);
    const image = await decoders[type](bytes);
    if (image.width !== width || image.height !== height)
      throw new Error(`${image.width} x ${image.height} pixels, its header says ${width} x ${height}`);
    return image;
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${what}: damaged or cut-off ${type} (${reasonOf(error)})`);
  }
}

/** The complaints of the JPEG decoder about the image it is decoding. */
let complaints: string[] = [];
let jpegDecoder: Promise<void> | undefined;
/** Images are decoded one after the other, so that each complaint belongs to a known image. */
let jpegQueue: Promise<unknown> = Promise.resolve();

const isNode = () => typeof process !== 'undefined' && Boolean(process.versions?.node);

/** Starts a decoder, whose package's types leave out the WebAssembly module: node needs it, because it cannot fetch files. */
async function startDecoder(start: unknown, name: string, printErr: (line: string) => void): Promise<void> {
  const starting = start as (...settings: object[]) => Promise<void>;
  if (!isNode()) return starting({ printErr });
  const [{ readFile }, { createRequire }] = await Promise.all([import('node:fs/promises'), import('node:module')]);
  const path = createRequire(import.meta.url).resolve(name);
  return starting(await WebAssembly.compile(await readFile(path)), { printErr });
}

function decodeJpeg(bytes: Uint8Array<ArrayBuffer>): Promise<Image> {
  const image = jpegQueue.then(async () => {
    const codec = '@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm';
    jpegDecoder ??= startDecoder(startJpeg, codec, (line) => complaints.push(line));
    await jpegDecoder;
    complaints = [];
    const decoded = await decodeJpegFile(bytes.slice().buffer).catch((error) => {
      jpegDecoder = undefined; // after a failure its memory is in a state that fails on good images too
      throw complaints.length > 0 ? new Error(complaints.join('; ')) : error;
    });
    // The decoder fills missing parts with grey and only warns; extra bytes between two markers are harmless.
    const serious = complaints.filter((line) => !line.includes('extraneous bytes before marker'));
    if (serious.length > 0) throw new Error(serious.join('; '));
    return withoutAlpha(decoded);
  });
  jpegQueue = image.catch(() => {});
  return image;
}

let webpDecoder: Promise<void> | undefined;

async function decodeWebp(bytes: Uint8Array<ArrayBuffer>): Promise<Image> {
  webpDecoder ??= startDecoder(startWebp, '@jsquash/webp/codec/dec/webp_dec.wasm', () => {});
  await webpDecoder;
  return withoutAlpha(await decodeWebpFile(bytes.slice().buffer));
}

function withoutAlpha({ width, height, data }: ImageData): Image {
  const pixels = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < pixels.length; from += 4, to += 3) {
    pixels[to] = data[from];
    pixels[to + 1] = data[from + 1];
    pixels[to + 2] = data[from + 2];
  }
  return { width, height, pixels };
}

let inflate: Promise<Inflate> | undefined;

/** Chooses zlib of node, which is twice as fast, or the library's in a browser. */
async function startInflate(): Promise<Inflate> {
  // The library leaves out what does not fit: a byte more tells that there is more.
  if (!isNode()) return (packed, size) => unzlibSync(packed, { out: new Uint8Array(size + 1) });
  const { inflateSync } = await import('node:zlib');
  return (packed, size) => {
    try {
      return inflateSync(packed, { maxOutputLength: Math.max(1, size) });
    } catch (error) {
      throw error instanceof RangeError ? new Error(`more pixels than the ${size} bytes that its header says`) : error;
    }
  };
}

async function decodePngFile(bytes: Uint8Array): Promise<Image> {
  inflate ??= startInflate();
  return decodePng(bytes, await inflate);
}

export const encodePng = ({ width, height, pixels }: Image): Uint8Array<ArrayBuffer> =>
  new Uint8Array(encode({ width, height, data: pixels, channels: 3, depth: 8 }));

/** Reads an image file, or a part of a file, and closes it, so that a data set holds no file open. */
export async function readImage(opening: Promise<ByteSource>, what: string, start = 0, end?: number) {
  const source = await opening;
  try {
    return { bytes: await readRange(source, start, end ?? source.size, what), file: source.name };
  } finally {
    await source.close();
  }
}

/** A cache of decoded images that drops the least recently used when the pixels take more than `limit` bytes. */
export class ImageCache extends MemoryCache<Image> {
  constructor(limit = 64 * 2 ** 20) {
    super(limit, ({ pixels }) => pixels.length);
  }
}
