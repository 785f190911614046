import {
  bytesPerElement,
  type DataType,
  type Device,
  loadKernel,
  persistentTensor,
  type Tensor,
} from '../engine/index.ts';
import { forEachItem } from './streaming.ts';

const kernel = await loadKernel(new URL('./first-not-finite.wgsl', import.meta.url));
const NONE = 0xffffffff;
/** The bits of the exponents in a word; integers are finite. */
const EXPONENTS: Readonly<Partial<Record<DataType, { firstExponent: number; secondExponent: number }>>> = {
  f32: { firstExponent: 0x7f800000, secondExponent: 0 },
  bf16: { firstExponent: 0x7f80, secondExponent: 0x7f800000 },
  f16: { firstExponent: 0x7c00, secondExponent: 0x7c000000 },
};

/** Looks for numbers that are not finite in one tensor after another. What it keeps on the device lives until disposed. */
export class FirstNotFinite implements Disposable {
  private readonly found: Tensor;
  private searched = 0;

  constructor(private readonly device: Device) {
    this.found = persistentTensor(device, [2], 'u32', 'first not finite');
    this.found.write(Uint32Array.of(NONE, 0));
  }

  /** Looks at the numbers of `tensor` as they are now. Returns its index, from 0. */
  search(tensor: Tensor): number {
    const index = this.searched++;
    const exponents = EXPONENTS[tensor.dtype];
    if (!exponents) return index;
    const elements = tensor.size;
    const words = Math.ceil((elements * bytesPerElement[tensor.dtype]) / 4);
    const bindings = { numbers: tensor, found: this.found };
    const uniform = { elements, words, index, ...exponents };
    forEachItem(this.device, kernel, 'search', words, { bindings, uniform, flops: 4 * words, bytes: 4 * words });
    return index;
  }

  /** The index of the first tensor with such a number, and how many it has; null if there is none. */
  async read(): Promise<{ index: number; elements: number } | null> {
    const [index, elements] = await this.found.read('u32');
    return index === NONE ? null : { index, elements };
  }

  dispose(): void {
    this.found.dispose();
  }
  readonly [Symbol.dispose] = this.dispose;
}
