/** An edited kernel: as text of a link, and as the compiler finds it. */
import { deflateSync, inflateSync } from 'fflate';
import { crc32 } from '../../../engine/files/checksum.ts';
import { type Device, type Kernel, parseKernel } from '../../../engine/index.ts';

const bytesOf = (text: string) => new TextEncoder().encode(text);
const sumOf = (text: string) => (crc32(bytesOf(text)) >>> 0).toString(36);

/**
 * An edited source for a link: a checksum of the shipped one, where the edit begins in it, how many characters it replaces, and what
 * stands there now, compressed with what it replaces as the dictionary.
 */
export function packEdit(shipped: string, edited: string): string {
  const [before, after] = [Array.from(shipped), Array.from(edited)];
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && before[start] === after[start]) start++;
  let same = 0;
  while (same < shorter - start && before.at(-1 - same) === after.at(-1 - same)) same++;
  const removed = before.slice(start, before.length - same);
  const dictionary = bytesOf(removed.join(''));
  const packed = deflateSync(bytesOf(after.slice(start, after.length - same).join('')), { dictionary, level: 9 });
  const letters = btoa(Array.from(packed, (byte) => String.fromCharCode(byte)).join(''));
  const link = letters.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
  return [sumOf(shipped), start.toString(36), removed.length.toString(36), link].join('.');
}

/** @throws Error if it is damaged, or an edit of another version of the file */
export function unpackEdit(shipped: string, packed: string): string {
  const shown = 'the page shows the kernel as it is shipped';
  const [sum, at, count, link] = packed.split('.');
  if (sum !== sumOf(shipped)) throw new Error(`The link holds an edit of another version of this kernel: ${shown}.`);
  try {
    const text = Array.from(shipped);
    const start = Number.parseInt(at, 36);
    const end = start + Number.parseInt(count, 36);
    const dictionary = bytesOf(text.slice(start, end).join(''));
    const letters = atob(link.replaceAll('-', '+').replaceAll('_', '/'));
    const bytes = inflateSync(
      Uint8Array.from(letters, (own) => own.charCodeAt(0)),
      { dictionary },
    );
    return [...text.slice(0, start), new TextDecoder().decode(bytes), ...text.slice(end)].join('');
  } catch {
    throw new Error(`The edit in the link is damaged: ${shown}.`);
  }
}

/** What is wrong with a source; line and column count from 1, and 0 stands for the whole file. */
export interface Fault {
  readonly line: number;
  readonly column: number;
  readonly reason: string;
}

export const sentenceOf = ({ line, column, reason }: Fault): string =>
  `${line > 0 ? `Line ${line}${column > 0 ? `, column ${column}` : ''}: ` : ''}${reason}`;

/** The kernel of a source, or the compiler's errors, with the kernel's parameters as this device has specialised it so far. */
export async function compile(device: Device, name: string, source: string): Promise<Kernel | readonly Fault[]> {
  try {
    const kernel = parseKernel(name, source);
    const errors = await device.pipelines.compilerErrors(kernel);
    if (errors.length === 0) return kernel;
    return errors.map(({ lineNum, linePos, message }) => {
      const [reason] = message.split('\nPossible values');
      // What is missing at the end of a line is told at the start of the next one.
      const before = source
        .split('\n')
        [lineNum - 1]?.slice(0, linePos - 1)
        .trim();
      const place = before === '' && /^expected /.test(reason) ? ', here or at the end of the line before' : '';
      return { line: lineNum, column: linePos, reason: reason.trim().replaceAll('\n', '. ') + place };
    });
  } catch (error) {
    const reason = (error as Error).message;
    return [{ line: Number(/, line (\d+):/.exec(reason)?.[1] ?? 0), column: 0, reason }];
  }
}
