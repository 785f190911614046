import type { ActionChunk, ActionTokenizer, ChunkShape } from './chunk.ts';
import { checkChunk, checkShape } from './chunk.ts';

const CHARACTERS = '0123456789+-. ;';
const LARGEST = 9.9999;

/** `value` as `[+-]d.dddd`, rounded half away from zero and clamped to +-9.9999; zero is always `+0.0000`. */
function formatNumber(value: number): string {
  const digits = Math.min(Math.abs(value), LARGEST).toFixed(4);
  return `${value < 0 && digits !== '0.0000' ? '-' : '+'}${digits}`;
}

/**
 * Actions as decimal text, one id per character (the string actions of GenVLA): every number as `[+-]d.dddd`, one space
 * between dimensions, `;` between steps. Fixed width, so a chunk takes 8 * horizon * dimension - 1 ids. Error of a round trip: 5e-5.
 */
export class StringActionTokenizer implements ActionTokenizer {
  readonly vocabularySize = CHARACTERS.length;

  /** The chunk as text. */
  format({ data, horizon, dimension }: ActionChunk): string {
    checkChunk({ data, horizon, dimension }, 'StringActionTokenizer');
    return Array.from({ length: horizon }, (_, step) =>
      Array.from(data.subarray(step * dimension, (step + 1) * dimension), formatNumber).join(' '),
    ).join(';');
  }

  /** Text -> [horizon, dimension]. Throws, naming step and dimension, on anything but the text that `format` writes. */
  parse(text: string, shape: ChunkShape): Float32Array {
    const { horizon, dimension } = shape;
    checkShape(shape, 'StringActionTokenizer');
    const steps = text.split(';');
    if (steps.length !== horizon) {
      throw new Error(`StringActionTokenizer: the text has ${steps.length} steps, the horizon is ${horizon}`);
    }
    const values = new Float32Array(horizon * dimension);
    steps.forEach((words, step) => {
      const numbers = words.split(' ');
      if (numbers.length !== dimension) {
        throw new Error(
          `StringActionTokenizer: step ${step} has ${numbers.length} numbers, the dimension is ${dimension}`,
        );
      }
      numbers.forEach((number, d) => {
        if (!/^[+-]\d\.\d{4}$/.test(number)) {
          throw new Error(
            `StringActionTokenizer: step ${step}, dimension ${d}: ${JSON.stringify(number)} is not of the form [+-]d.dddd`,
          );
        }
        values[step * dimension + d] = Number(number);
      });
    });
    return values;
  }

  encode(chunk: ActionChunk): Int32Array {
    return Int32Array.from(this.format(chunk), (character) => CHARACTERS.indexOf(character));
  }

  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array {
    const characters = Array.from(ids, (id, index) => {
      const character = CHARACTERS[id];
      if (character === undefined) {
        throw new Error(
          `StringActionTokenizer: id ${id} at position ${index} is unknown; ids are 0 to ${CHARACTERS.length - 1}`,
        );
      }
      return character;
    });
    return this.parse(characters.join(''), shape);
  }
}
