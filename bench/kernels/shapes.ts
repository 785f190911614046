/** The sizes of models at which kernels are measured, by name. */
import { type Device, InputError, quote } from '../../engine/index.ts';

const attention = { heads: 8, kvHeads: 1, headDimension: 256, patch: 14 };

/** PaliGemma's backbone with pi0's expert at 560 + 40 + 50 tokens, SmolVLA's sizes, and an eighth of the first for a CPU. */
export const modelShapes = [
  {
    ...{ name: 'pi', batch: 1, prefix: 560, fast: 40, action: 50, width: 2048, hidden: 16384, expertWidth: 1024 },
    ...{ expertHidden: 4096, ...attention, vocabulary: 16384, image: 224 },
  },
  {
    ...{ name: 'smol', batch: 8, prefix: 113, fast: 32, action: 50, width: 960, hidden: 2560, expertWidth: 720 },
    ...{ expertHidden: 2048, heads: 15, kvHeads: 5, headDimension: 64, vocabulary: 16384, image: 224, patch: 16 },
  },
  {
    ...{ name: 'pi-eighth', batch: 1, prefix: 128, fast: 32, action: 32, width: 256, hidden: 2048, expertWidth: 128 },
    ...{ expertHidden: 512, heads: 4, kvHeads: 1, headDimension: 64, vocabulary: 2048, image: 112, patch: 14 },
  },
];
/**
 * One step of a model with an action expert: `prefix` is image and language, `fast` the discrete action tokens; `image` and `patch` are
 * pixels along a side.
 */
export type ModelShape = Readonly<(typeof modelShapes)[number]>;

/** By default an eighth on a software adapter. @throws InputError if there is no shape of that name */
export function modelShapeOf({ software }: Device, name = software ? 'pi-eighth' : 'pi'): ModelShape {
  const found = modelShapes.find((shape) => shape.name === name);
  if (found) return found;
  throw new InputError(`--shapes ${quote(name)}: there are ${modelShapes.map((shape) => shape.name).join(', ')}`);
}
