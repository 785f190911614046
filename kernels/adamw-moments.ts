/** How AdamW's moments lie in memory: f32, packed bfloat16, or 8 bits to an element with a scale to a block of 64. */
import {
  type Arena,
  bytesPerElement,
  type DataType,
  type Device,
  elementCount,
  type Parameters,
  persistentTensor,
  readPieces,
  type Shape,
  Tensor,
  writePieces,
} from '../engine/index.ts';

/** 4, 2 and 1 bytes to an element of each moment; 8 bits take 1/16 byte more for the scales. */
export type MomentStorage = 'f32' | 'bf16' | '8bit';

/** A moment of one parameter, as the f32 numbers it stands for: what is read, written back, is there to the last bit. */
export interface Moment {
  readonly shape: Shape;
  /** In which a file loses nothing of it. */
  readonly dtype: DataType;
  /** Itself, or the moments of the rows of a parameter that lies in pieces. */
  readonly pieces: readonly Moment[];
  read(): Promise<Float32Array>;
  write(values: Float32Array): void;
}

/** What the optimizer keeps for a parameter, of what it keeps for the pieces of it in their order. */
export function joinMoments(pieces: readonly Moment[]): Moment {
  const [first, ...others] = pieces;
  if (others.length === 0) return first;
  const rows = pieces.reduce((sum, { shape }) => sum + shape[0], 0);
  return {
    ...{ shape: [rows, ...first.shape.slice(1)], dtype: first.dtype, pieces },
    read: () => readPieces(pieces),
    write: (values) => writePieces(pieces, values),
  };
}

export interface ArenaMoments {
  readonly entry: 'update' | 'updateBlocks';
  readonly parameters: Parameters;
  readonly bindings: Readonly<Record<string, Tensor>>;
  /** Bytes of both, scales included. */
  readonly bytes: number;
  /** `firstMoment/<parameter>` and `secondMoment/<parameter>`, of the rows of it that lie in the arena. */
  readonly byName: ReadonlyMap<string, Moment>;
}

const BLOCK = 64;

export function momentsOf(device: Device, arena: Arena, kind: MomentStorage): ArenaMoments {
  const { elements } = arena;
  const make = (shape: Shape, dtype: 'f32' | 'bf16' | 'u32', what: string) =>
    persistentTensor(device, shape, dtype, `${what} of ${arena.group}`);
  const byName = new Map<string, Moment>();
  const bindings: Record<string, Tensor> = {};
  for (const which of ['first', 'second'] as const) {
    const key = (name: string) => `${which}Moment/${name}`;
    if (kind === '8bit') {
      const codes = make([elements / 4], 'u32', `${which} moments`);
      const scales = make([elements / BLOCK], 'f32', `scales of ${which} moments`);
      Object.assign(bindings, { [`${which}Codes`]: codes, [`${which}Scales`]: scales });
      for (const { name, shape, firstElement } of arena.tensors)
        byName.set(key(name), new EightBitMoment(shape, firstElement, codes, scales, numbersOf[which]));
    } else {
      const moments = make([elements], kind, `${which} moments`);
      bindings[`${which}Moment`] = moments;
      for (const { name, shape, firstElement } of arena.tensors) {
        const at = bytesPerElement[kind] * firstElement;
        byName.set(key(name), new Tensor(device, shape, kind, moments.buffer, at, key(name), 'persistent', false));
      }
    }
  }
  const bytes = Object.values(bindings).reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (kind === '8bit') {
    // Neighbouring threads of a graphics adapter read neighbouring groups together; a processor reads a block faster alone.
    const parameters = { BLOCK_THREADS: device.software ? 1 : 16, randomBits: 'drawn' };
    return { entry: 'updateBlocks', parameters, bindings, bytes, byName };
  }
  const parameters: Parameters = kind === 'f32' ? {} : { Word: kind, unpack: kind, pack: kind, randomBits: 'drawn' };
  return { entry: 'update', parameters, bindings, bytes, byName };
}

/** The number, relative to its block's scale, of every code; see adamw.wgsl. */
const numbersOf = {
  first: Float64Array.from({ length: 256 }, (_, code) => (code < 128 ? 1 : -1) * magnitude(code % 128, 15)),
  second: Float64Array.from({ length: 256 }, (_, code) => magnitude(code, 31)),
};

function magnitude(code: number, bias: number): number {
  return code < 8 ? code * 2 ** -(bias + 2) : (1 + (code % 8) / 8) * 2 ** (Math.floor(code / 8) - bias);
}

class EightBitMoment implements Moment {
  readonly dtype = 'f32';
  readonly pieces: readonly Moment[] = [this];

  constructor(
    readonly shape: Shape,
    /** The first element's place in the arena, where a block begins. */
    private readonly start: number,
    private readonly codes: Tensor,
    private readonly scales: Tensor,
    private readonly numbers: Float64Array,
  ) {}

  async read(): Promise<Float32Array> {
    const { codes, scales, device } = this.ranges();
    const [bytes, factors] = await Promise.all([
      device.read(codes, codes.byteLength),
      device.read(scales, scales.byteLength),
    ]);
    const [code, scale] = [new Uint8Array(bytes), new Float32Array(factors)];
    const values = new Float32Array(elementCount(this.shape));
    for (let i = 0; i < values.length; i++) values[i] = scale[Math.floor(i / BLOCK)] * this.numbers[code[i]];
    return values;
  }

  /** Numbers that were not read from 8 bits are rounded to nearest. */
  write(values: Float32Array): void {
    const { codes, scales, device } = this.ranges();
    const code = new Uint8Array(codes.byteLength);
    const scale = new Float32Array(scales.byteLength / 4);
    for (let block = 0; block < scale.length; block++) {
      const own = values.subarray(block * BLOCK, (block + 1) * BLOCK);
      const largest = own.reduce((most, value) => Math.max(most, Math.abs(value)), 2 ** -80);
      scale[block] = 2 ** Math.ceil(Math.log2(largest));
      own.forEach((value, i) => {
        code[block * BLOCK + i] = this.nearest(value / scale[block]);
      });
    }
    device.write(codes, code);
    device.write(scales, scale);
  }

  private nearest(value: number): number {
    const { numbers } = this;
    // In the order of magnitude: with a sign codes 0 to 127, and 128 to 255 for negative numbers; without one all.
    const signed = numbers[255] < 0;
    let [low, high] = signed ? (value < 0 ? [128, 255] : [0, 127]) : [0, 255];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const border = (Math.abs(numbers[middle]) + Math.abs(numbers[middle + 1])) / 2;
      if (Math.abs(value) > border) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private ranges() {
    const { device } = this.codes;
    const blocks = Math.ceil(elementCount(this.shape) / BLOCK);
    const range = ({ buffer }: Tensor, offset: number, byteLength: number) => ({ buffer, offset, byteLength });
    return {
      device,
      codes: range(this.codes, this.start, blocks * BLOCK),
      scales: range(this.scales, (this.start / BLOCK) * 4, blocks * 4),
    };
  }
}
