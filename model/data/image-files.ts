import decodeJpegFile, { init } from '@jsquash/jpeg/decode.js';
import { encode } from 'fast-png';
import { unzlibSync } from 'fflate';
import { type ByteSource, readRange } from '../../engine/files/bytes.ts';
import { InputError, reasonOf } from '../../engine/files/errors.ts';
import type { Image } from './dataset.ts';
import { fileKindOf, headerOf, type ImageHeader } from './image-header.ts';
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

/**
 * Decodes an image file, `what` in errors, to RGB as PIL's convert('RGB') does: grey is repeated, alpha is dropped, an orientation in
 * Exif is not obeyed; 16 bits are cut to 8.
 */
export async function decodeImage(bytes: Uint8Array<ArrayBuffer>, type: string, what: string): Promise<Image> {
  const decode = Object.hasOwn(decoders, type) ? decoders[type] : undefined;
  if (!decode && type === 'unknown') throw new InputError(`${what}: ${fileKindOf(bytes)}; JPEG, PNG and WebP are read`);
  if (!decode) throw new InputError(`${what}: image type "${type}" is not one of ${imageTypes.join(', ')}`);
  try {
    const header = headerOf(bytes, type);
    checkSize(header, bytes, type);
    if (type === 'image/jpeg' && header.channels === 4)
      throw new InputError(`${what}: a JPEG file in the colours of printers (CMYK), which is not read; save it as RGB`);
    const image = await decode(bytes);
    if (image.width !== header.width || image.height !== header.height)
      throw new Error(`${image.width} x ${image.height} pixels, its header says ${header.width} x ${header.height}`);
    return image;
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${what}: damaged or cut-off ${type} (${reasonOf(error)})`);
  }
}

/** The most pixels of an image: a frame of 7680 x 4320 fits. */
const PIXELS_LIMIT = 2 ** 25;
/** No PNG or JPEG file holds more pixels per byte: 8 in an unpacked byte of PNG, of which deflate packs 1032 into one. */
const PIXELS_PER_BYTE = 8 * 1032;

/** Checks the size in the file's header, by which the decoders allocate. @throws Error if it is implausible */
function checkSize({ width, height }: ImageHeader, bytes: Uint8Array, type: string): void {
  const most = type === 'image/webp' ? PIXELS_LIMIT : Math.min(PIXELS_LIMIT, bytes.length * PIXELS_PER_BYTE);
  if (!(width > 0 && height > 0 && width * height <= most))
    throw new Error(`${bytes.length} bytes say they hold ${width} x ${height} pixels`);
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

/** Starts a decoder, whose package's types leave out the WebAssembly module: node needs it, because it cannot fetch files. */
async function startDecoder(start: unknown, name: string, options: DecoderOptions): Promise<void> {
  const starting = start as (...args: [WebAssembly.Module, DecoderOptions] | [DecoderOptions]) => Promise<void>;
  if (!isNode()) return starting(options);
  const [{ readFile }, { createRequire }] = await Promise.all([import('node:fs/promises'), import('node:module')]);
  const path = createRequire(import.meta.url).resolve(name);
  return starting(await WebAssembly.compile(await readFile(path)), options);
}

const startJpegDecoder = () =>
  startDecoder(init, '@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm', { printErr: (line) => complaints.push(line) });

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

let webpDecoder: Promise<typeof import('@jsquash/webp/decode.js')> | undefined;

async function startWebpDecoder() {
  const decoder = await import('@jsquash/webp/decode.js');
  await startDecoder(decoder.init, '@jsquash/webp/codec/dec/webp_dec.wasm', { printErr: () => {} });
  return decoder;
}

async function decodeWebp(bytes: Uint8Array<ArrayBuffer>): Promise<Image> {
  webpDecoder ??= startWebpDecoder();
  const { data, width, height } = await (await webpDecoder).default(bytes.slice().buffer);
  return { width, height, pixels: toRgb(data, 4) };
}

let inflate: Promise<Inflate> | undefined;

/** Chooses zlib of node, which is twice as fast, or the library's in a browser. */
async function startInflate(): Promise<Inflate> {
  if (!isNode()) return (packed, size) => unzlibSync(packed, { out: new Uint8Array(size) });
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
