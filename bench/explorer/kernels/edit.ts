/** An edited kernel: as text of a link, and as the compiler finds it. */
import { deflateSync, inflateSync } from 'fflate';
import { type Device, type Kernel, parseKernel } from '../../../engine/index.ts';
import { crc32 } from '../../../model/data/checksum.ts';

const bytesOf = (text: string) => new TextEncoder().encode(text);
const sumOf = (bytes: Uint8Array) => (crc32(bytes) >>> 0).toString(16).padStart(8, '0');

/** An edited source for a link: the shipped one, which both ends have, is the dictionary that it is compressed with. */
export function packEdit(shipped: string, edited: string): string {
  const dictionary = bytesOf(shipped);
  const packed = deflateSync(bytesOf(edited), { dictionary, level: 9 });
  const letters = btoa(Array.from(packed, (byte) => String.fromCharCode(byte)).join(''));
  return sumOf(dictionary) + letters.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** @throws Error if it is damaged, or an edit of another version of the file */
export function unpackEdit(shipped: string, packed: string): string {
  const dictionary = bytesOf(shipped);
  if (!packed.startsWith(sumOf(dictionary)))
    throw new Error(
      'The link holds an edit of another version of this kernel: the page shows the kernel as it is shipped.',
    );
  try {
    const letters = atob(packed.slice(8).replaceAll('-', '+').replaceAll('_', '/'));
    return new TextDecoder().decode(
      inflateSync(
        Uint8Array.from(letters, (own) => own.charCodeAt(0)),
        { dictionary },
      ),
    );
  } catch {
    throw new Error('The edit in the link is damaged: the page shows the kernel as it is shipped.');
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
    return errors.map(({ lineNum, linePos, message }) => ({ line: lineNum, column: linePos, reason: message }));
  } catch (error) {
    const reason = (error as Error).message;
    return [{ line: Number(/, line (\d+):/.exec(reason)?.[1] ?? 0), column: 0, reason }];
  }
}
