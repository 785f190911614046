import type { ActionChunk, ActionTokenizer, ChunkGrammar, ChunkShape, Clamping } from './action-tokenizer.ts';
import { checkChunk, checkShape, chunkGrammar, countClamped, quote, unknownId } from './action-tokenizer.ts';

export interface StringFormat {
  /** Decimal places, 1 to 8. Default 4. */
  readonly decimals?: number;
  /** One character between the numbers of a step; default a space. */
  readonly betweenDimensions?: string;
  /** One character between steps; default `;`. */
  readonly betweenSteps?: string;
  /** Binary dimensions, each written as one digit: `1` if the value is nearer to `one`, otherwise `0`. */
  readonly gripper?: { readonly dimensions: readonly number[]; readonly zero: number; readonly one: number };
}

export interface StringTokenizerJson extends StringFormat {
  readonly type: 'string';
}

/** The numbers of a text that may be malformed. */
export interface LenientParsing {
  /** [horizon, dimension]: a number that could not be read holds its dimension's last value, 0 if it has none. */
  readonly data: Float32Array;
  /** Count of the numbers that were read, in text order; the rest are held values. */
  readonly parsed: number;
  /** Whether the text is exactly that of `format`. */
  readonly exact: boolean;
  /** The position at which reading ended, and the reason; null if all numbers could be read and nothing follows. */
  readonly problem: string | null;
}

const NUMBER_CHARACTERS = '0123456789+-.';

/**
 * Actions as decimal text, one id per character (the string actions of GenVLA): every number as `[+-]d.dddd`, one space
 * between dimensions, `;` between steps. The paper leaves sign, delimiters, gripper and range open; they are settings
 * here. Numbers round half away from zero and clamp to +-9.9999; zero is always `+0.0000`. The width is fixed, so a
 * chunk takes 8 * horizon * dimension - 1 ids by default, and the position alone determines the allowed characters. The
 * error of a round trip is half of the last digit, 5e-5.
 */
export class StringActionTokenizer implements ActionTokenizer {
  readonly vocabularySize: number;
  /** The character of each id. */
  readonly characters: string;
  private readonly settings: Required<Omit<StringFormat, 'gripper'>> & Pick<StringFormat, 'gripper'>;
  private readonly number: RegExp;

  constructor({ decimals = 4, betweenDimensions = ' ', betweenSteps = ';', gripper }: StringFormat = {}) {
    if (!Number.isInteger(decimals) || decimals < 1 || decimals > 8)
      throw new Error(`StringActionTokenizer: decimals must be an integer from 1 to 8, got ${quote(decimals)}`);
    const texts = [betweenDimensions, betweenSteps].filter((text) => typeof text === 'string');
    this.characters = NUMBER_CHARACTERS + texts.join('');
    const all = [...this.characters];
    if (
      texts.length !== 2 ||
      new Set(all).size !== NUMBER_CHARACTERS.length + 2 ||
      all.length !== NUMBER_CHARACTERS.length + 2
    )
      throw new Error(
        `StringActionTokenizer: betweenDimensions ${quote(betweenDimensions)} and betweenSteps ${quote(betweenSteps)} must be two different characters that are in no number`,
      );
    const { dimensions = [], zero = 0, one = 1 } = gripper ?? {};
    if (!Array.isArray(dimensions) || ![...dimensions, zero, one].every((value) => Number.isFinite(value)))
      throw new Error('StringActionTokenizer: gripper needs a list of dimensions and the numbers zero and one');
    this.vocabularySize = all.length;
    this.settings = { decimals, betweenDimensions, betweenSteps, gripper };
    this.number = new RegExp(`^[+-]\\d\\.\\d{${decimals}}$`);
  }

  format({ data, horizon, dimension }: ActionChunk): string {
    checkChunk({ data, horizon, dimension }, 'StringActionTokenizer');
    const { betweenDimensions, betweenSteps } = this.settings;
    return Array.from({ length: horizon }, (_, step) =>
      Array.from(data.subarray(step * dimension, (step + 1) * dimension), (value, d) => this.write(value, d)).join(
        betweenDimensions,
      ),
    ).join(betweenSteps);
  }

  /** Text -> [horizon, dimension]. Throws, naming step and dimension, on anything but the text that `format` writes. */
  parse(text: string, shape: ChunkShape): Float32Array {
    const { horizon, dimension } = shape;
    checkShape(shape, 'StringActionTokenizer');
    const steps = text.split(this.settings.betweenSteps);
    if (steps.length !== horizon) throw new Error(`the text has ${steps.length} steps, the horizon is ${horizon}`);
    const form = `[+-]d.${'d'.repeat(this.settings.decimals)}`;
    const values = steps.flatMap((words, step) => {
      const numbers = words.split(this.settings.betweenDimensions);
      if (numbers.length !== dimension)
        throw new Error(`step ${step} has ${numbers.length} numbers, the dimension is ${dimension}`);
      return numbers.map((number, d) => {
        const own = JSON.stringify(number.slice(0, 40));
        if (!(this.isGripper(d) ? /^[01]$/ : this.number).test(number))
          throw new Error(
            `step ${step}, dimension ${d}: ${own} is not of the form ${this.isGripper(d) ? '0 or 1' : form}`,
          );
        return this.read(Number(number), d);
      });
    });
    return Float32Array.from(values);
  }

  /**
   * Reads as many numbers as it can, with or without sign, with any number of digits, and with white space around
   * delimiters; then holds each dimension at its last value, so that a robot stays where the readable part led it.
   */
  parseLenient(text: string, shape: ChunkShape): LenientParsing {
    const { horizon, dimension } = shape;
    checkShape(shape, 'StringActionTokenizer');
    const data = new Float32Array(horizon * dimension);
    let [parsed, place] = [0, 0];
    let problem: string | null = null;
    while (parsed < data.length && problem === null) {
      const d = parsed % dimension;
      const delimiter = parsed === 0 ? '' : d === 0 ? this.settings.betweenSteps : this.settings.betweenDimensions;
      const found = this.nextNumber(text, place, delimiter, d);
      if (typeof found === 'string') problem = `step ${Math.floor(parsed / dimension)}, dimension ${d}: ${found}`;
      else {
        data[parsed++] = this.read(found.value, d);
        place = found.end;
      }
    }
    for (let index = Math.max(parsed, dimension); index < data.length; index++) data[index] = data[index - dimension];
    if (problem === null && text.slice(place).trim() !== '')
      problem = `${text.length - place} characters follow the chunk`;
    const exact = problem === null && text === this.format({ data, ...shape });
    return { data, parsed, exact, problem };
  }

  encode(chunk: ActionChunk): Int32Array {
    return Int32Array.from(this.format(chunk), (character) => this.characters.indexOf(character));
  }

  /** Counts values, but none of a gripper. */
  clamping(chunk: ActionChunk): Clamping {
    checkChunk(chunk, 'StringActionTokenizer.clamping');
    const largest = this.largest + 0.5 * 10 ** -this.settings.decimals;
    return countClamped(
      chunk.data,
      (value, index) => !this.isGripper(index % chunk.dimension) && Math.abs(value) >= largest,
    );
  }

  /** [horizon, dimension]. Throws on an unknown id and as `parse` does. */
  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array {
    const text = this.text(ids);
    if (text.length < ids.length) throw unknownId(ids[text.length], text.length, this.vocabularySize);
    return this.parse(text, shape);
  }

  /** Decodes the ids before the first unknown one like `parseLenient`. */
  decodeLenient(ids: ArrayLike<number>, shape: ChunkShape): LenientParsing {
    const text = this.text(ids);
    const read = this.parseLenient(text, shape);
    if (text.length === ids.length) return read;
    const problem = read.problem ?? unknownId(ids[text.length], text.length, this.vocabularySize).message;
    return { ...read, exact: false, problem };
  }

  /** The state counts characters. */
  grammar(shape: ChunkShape): ChunkGrammar {
    checkShape(shape, 'StringActionTokenizer.grammar');
    const { betweenDimensions, betweenSteps, decimals } = this.settings;
    const ids = (characters: string) => Int32Array.from(characters, (character) => this.characters.indexOf(character));
    const [digit, point, sign, bit] = ['0123456789', '.', '+-', '01'].map(ids);
    const signed = [sign, digit, point, ...new Array<Int32Array>(decimals).fill(digit)];
    const step = Array.from({ length: shape.dimension }, (_, d) => [
      ...(this.isGripper(d) ? [bit] : signed),
      ids(d + 1 < shape.dimension ? betweenDimensions : betweenSteps),
    ]).flat();
    // There is no delimiter after the last step.
    return chunkGrammar(shape.horizon * step.length - 1, (state) => step[state % step.length]);
  }

  toJSON(): StringTokenizerJson {
    return { type: 'string', ...this.settings };
  }

  /** The number after the delimiter, or a description of the text in its place. */
  private nextNumber(
    text: string,
    place: number,
    delimiter: string,
    d: number,
  ): { value: number; end: number } | string {
    const found = text.indexOf(delimiter, place);
    if (found < 0 || text.slice(place, found).trim() !== '')
      return `expected ${JSON.stringify(delimiter)} at character ${place}`;
    const number = /\s*([+-]?\d+(?:\.(\d*))?)/y;
    number.lastIndex = found + delimiter.length;
    const [whole, digits, decimals = ''] = number.exec(text) ?? [];
    const value = Math.fround(Number(digits));
    if (whole === undefined || !Number.isFinite(value))
      return `expected a number at character ${found + delimiter.length}`;
    // With fewer digits than `format` writes, the text may have ended inside the number.
    if (number.lastIndex === text.length && !this.isGripper(d) && decimals.length < this.settings.decimals)
      return `the number at character ${found + delimiter.length} is cut off`;
    return { value, end: number.lastIndex };
  }

  /** Characters of the ids before the first unknown one. */
  private text(ids: ArrayLike<number>): string {
    let text = '';
    for (let index = 0; index < ids.length && this.characters[ids[index]] !== undefined; index++)
      text += this.characters[ids[index]];
    return text;
  }

  private get largest(): number {
    return 10 - 10 ** -this.settings.decimals;
  }

  private isGripper(d: number): boolean {
    return this.settings.gripper?.dimensions.includes(d) ?? false;
  }

  private write(value: number, d: number): string {
    const { decimals, gripper } = this.settings;
    if (gripper && this.isGripper(d)) return Math.abs(value - gripper.one) < Math.abs(value - gripper.zero) ? '1' : '0';
    const digits = Math.min(Math.abs(value), this.largest).toFixed(decimals);
    return `${value < 0 && Number(digits) !== 0 ? '-' : '+'}${digits}`;
  }

  private read(number: number, d: number): number {
    const { gripper } = this.settings;
    if (gripper && this.isGripper(d)) return number >= 0.5 ? gripper.one : gripper.zero;
    return number;
  }
}
