// What the first bytes of an image file say, with nothing decoded.

/** Marks in the first bytes of files as Latin-1, each with its place. Those with a type of image are read. */
const marks: readonly (readonly [at: number, mark: string, name: string])[] = [
  [0, '\xff\xd8', 'image/jpeg'],
  [0, '\x89P', 'image/png'],
  [8, 'WEBP', 'image/webp'],
  [0, 'BM', 'a BMP file'],
  [0, 'GIF8', 'a GIF file'],
  [0, 'II*\0', 'a TIFF file'],
  [0, 'MM\0*', 'a TIFF file'],
  [4, 'ftypavi', 'an AVIF file'],
  [4, 'ftyphe', 'a HEIC file'],
  [4, 'ftyp', 'a video'],
  [0, '\x1a\x45\xdf\xa3', 'a video'],
  [0, '\0\0\0\x0cjP', 'a JPEG 2000 file'],
  [0, '\0\0\0\x0cJXL', 'a JPEG XL file'],
  [0, '\xff\x0a', 'a JPEG XL file'],
  [0, 'PK', 'a zip archive'],
  [0, '\x93NUMPY', 'an array of NumPy'],
];

/** Marks of what lies in place of a file after it was fetched or packed wrongly. */
const foreign: typeof marks = [
  [0, 'version https://git-lfs', 'a Git LFS pointer: run git lfs pull'],
  [0, '\x1f\x8b', 'a file compressed by gzip: unpack it'],
  [0, '<!doctype html', 'an HTML page: fetch the file again'],
  [0, '<html', 'an HTML page: fetch the file again'],
];

const kindAmong = (own: typeof marks, head: string) => own.find(([at, mark]) => head.startsWith(mark, at))?.[2];
const headOf = (bytes: Uint8Array) => String.fromCharCode(...bytes.subarray(0, 64));

/** Names what lies in place of a data file, and what to do; nothing for another file. */
export const foreignKindOf = (bytes: Uint8Array) => kindAmong(foreign, headOf(bytes).trimStart().toLowerCase());

/** Names the kind of a file by its first bytes, `image/...` if it is an image that is read. */
export function fileKindOf(bytes: Uint8Array): string {
  const empty = bytes.length === 0 ? 'an empty file' : 'no image file';
  return kindAmong(marks, headOf(bytes)) ?? foreignKindOf(bytes) ?? empty;
}

/** Recognises the type of an image file by its first bytes; "unknown" if it is neither JPEG, PNG nor WebP. */
export function imageTypeOf(bytes: Uint8Array): string {
  const kind = fileKindOf(bytes);
  return kind.startsWith('image/') ? kind : 'unknown';
}

/** The sizes that the header of an image file says. */
export interface ImageHeader {
  readonly width: number;
  readonly height: number;
  /** The bits of a sample, and the samples of a pixel with alpha; a palette has one sample. */
  readonly bits: number;
  readonly channels: number;
}

/** Reads a header. @throws RangeError if it is cut off */
export function headerOf(bytes: Uint8Array, type: string): ImageHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (type === 'image/png') {
    const channels = [1, 0, 3, 1, 2, 0, 4][view.getUint8(25)];
    return { width: view.getUint32(16), height: view.getUint32(20), bits: view.getUint8(24), channels };
  }
  if (type === 'image/jpeg') {
    const at = frameHeader(view);
    const [height, width] = [view.getUint16(at), view.getUint16(at + 2)];
    return { width, height, bits: view.getUint8(at - 1), channels: view.getUint8(at + 4) };
  }
  // The first chunk is a lossy picture, a lossless one, or the size of what follows (RFC 9649, section 2).
  const kind = String.fromCharCode(...bytes.subarray(12, 16));
  const low = (value: number, bits: number) => value & (2 ** bits - 1);
  const [width, height] =
    kind === 'VP8 '
      ? [low(view.getUint16(26, true), 14), low(view.getUint16(28, true), 14)]
      : kind === 'VP8L'
        ? [low(view.getUint32(21, true), 14) + 1, low(view.getUint32(21, true) >>> 14, 14) + 1]
        : [low(view.getUint32(24, true), 24) + 1, (view.getUint32(26, true) >>> 8) + 1];
  return { width, height, bits: 8, channels: 3 };
}

/** Whether a file is a picture of distances by its first bytes: grey of 16 bits, or TIFF, neither of which is colour. */
export function isDepthImage(bytes: Uint8Array): boolean {
  const kind = fileKindOf(bytes);
  return kind === 'a TIFF file' || (kind === 'image/png' && bytes[24] === 16 && (bytes[25] & 2) === 0);
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

/** The Exif orientation of an image file, 1 to 8; 1, as it is stored, if it has none. */
export function orientationOf(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  try {
    const at = exifOf(view, imageTypeOf(bytes));
    if (at === null) return 1;
    // Exif is a TIFF file: the order of bytes, the place of the first list of entries, and 12 bytes an entry.
    const little = view.getUint8(at) === 0x49;
    const list = at + view.getUint32(at + 4, little);
    for (let i = 0; i < view.getUint16(list, little); i++) {
      const entry = list + 2 + 12 * i;
      if (view.getUint16(entry, little) !== 0x0112) continue;
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
  } catch (error) {
    if (error instanceof RangeError) return 1; // cut off, which the decoder names
    throw error;
  }
}

/** The place of the Exif data, in a JPEG file before its picture, in the others in a chunk; null if there is none. @throws RangeError */
function exifOf(view: DataView, type: string): number | null {
  const textAt = (at: number) => String.fromCharCode(...Array.from({ length: 4 }, (_, i) => view.getUint8(at + i)));
  if (type === 'image/jpeg') {
    for (let at = 2; view.getUint8(at) === 0xff && view.getUint8(at + 1) !== 0xda; at += 2 + view.getUint16(at + 2))
      if (view.getUint8(at + 1) === 0xe1 && textAt(at + 4) === 'Exif') return at + 10;
    return null;
  }
  const png = type === 'image/png';
  for (let at = png ? 8 : 12; at + 8 < view.byteLength; ) {
    const size = png ? view.getUint32(at) : view.getUint32(at + 4, true);
    const kind = textAt(png ? at + 4 : at);
    if (kind === (png ? 'eXIf' : 'EXIF')) return textAt(at + 8) === 'Exif' ? at + 14 : at + 8;
    at += png ? 12 + size : 8 + size + (size & 1);
  }
  return null;
}

/** Whether every decoder reads the same 8-bit RGB of a whole image file: in colour, without alpha and Exif, which some obey. */
export function isPlainRgb(bytes: Uint8Array): boolean {
  const type = imageTypeOf(bytes);
  if (type !== 'image/png' && type !== 'image/jpeg') return false;
  const { bits, channels } = headerOf(bytes, type);
  return (
    bits === 8 && channels === 3 && exifOf(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), type) === null
  );
}
