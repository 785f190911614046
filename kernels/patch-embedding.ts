import { emptyTensor, formatShape, loadKernel, type Tensor } from '../engine/index.ts';
import { cast } from './cast.ts';
import { add } from './elementwise.ts';
import { linear } from './linear.ts';
import { expectDtype, expectShape, recordOne, sharedDevice } from './operand.ts';
import { expectStorage } from './product.ts';
import { reshape } from './reshape.ts';
import { forEachItem } from './streaming.ts';

const kernel = await loadKernel(new URL('./patch-embedding.wgsl', import.meta.url));
const CHANNELS = 3;

/**
 * Tokens of images: each patch of pixels times the weight, plus bias, plus the token's position.
 *
 * images [N, H, W, 3], weight [out, 3, patch, patch], bias [out], position [tokens, out] -> [N, tokens, out]; images f32, the others in any storage; tokens =
 * (H / patch)(W / patch), rows of patches top to bottom, each left to right. Throws where the patch does not divide H and W.
 */
export function patchEmbedding(images: Tensor, weight: Tensor, bias: Tensor, position: Tensor): Tensor {
  const op = 'patchEmbedding';
  expectDtype(op, 'images', images, 'f32');
  for (const [name, operand] of Object.entries({ weight, bias, position })) expectStorage(op, name, operand);
  expectShape(op, 'images', images, [null, null, null, CHANNELS]);
  expectShape(op, 'weight', weight, [null, CHANNELS, weight.shape.at(-1) ?? null, null]);
  const [count, height, width] = images.shape;
  const [out, , patch] = weight.shape;
  if (patch === 0 || height % patch !== 0 || width % patch !== 0)
    throw new Error(
      `${op}: images ${formatShape(images.shape)} cannot be cut into patches of ${patch} x ${patch}; height and width must be multiples of it`,
    );
  const tokens = (height / patch) * (width / patch);
  expectShape(op, 'bias', bias, [out]);
  expectShape(op, 'position', position, [tokens, out]);
  sharedDevice(op, images, weight, bias, position);
  const patches = cut(images, patch, [count, tokens, CHANNELS * patch * patch]);
  return add(linear(patches, reshape(weight, [out, CHANNELS * patch * patch]), bias), cast(position, 'f32'));
}

function cut(images: Tensor, patch: number, shape: [number, number, number]): Tensor {
  const { device } = images;
  const [, height, width] = images.shape;
  const rows = images.size / patch;
  const uniform = { rows, height, width, side: patch };
  const run = (entry: string, bindings: Record<string, Tensor>) =>
    forEachItem(device, kernel, entry, rows, { bindings, uniform });
  const patches = emptyTensor(device, shape, 'f32', 'patchEmbedding');
  run('forward', { images, patches });
  recordOne('patchEmbedding', [images], patches, (dPatches) => {
    const dImages = emptyTensor(device, images.shape, 'f32', 'patchEmbedding backward');
    run('backward', { dPatches, dImages });
    return [dImages];
  });
  return patches;
}
