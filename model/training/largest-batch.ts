import { type Device, InputError } from '../../engine/index.ts';
import { type ModelConfiguration, patchesPerImage, windowOf } from '../architecture/configuration.ts';

/** The largest batch, in examples, whose largest activation, in f32, fits a binding of `bytes`. */
function largestBatch(configuration: ModelConfiguration, bytes: number): number {
  const { blocks, experts, vision } = configuration;
  const rows = (weights: string) =>
    blocks.reduce(
      (sum, { length, repeats = 1, ...block }) => sum + (block.weights === weights ? repeats * length : 0),
      0,
    );
  const towers = Object.values(vision?.towers ?? {}).map(({ hidden }) => hidden);
  const widest = Math.max(
    ...Object.entries(experts).map(([name, { width, hidden }]) => rows(name) * Math.max(width, hidden)),
    vision ? vision.cameras * vision.imageHeight * vision.imageWidth * 3 : 0,
    vision ? vision.cameras * patchesPerImage(vision) * Math.max(...towers) : 0,
  );
  return Math.floor(bytes / (4 * widest * windowOf(configuration)));
}

/** @throws InputError if a batch has more examples than the bindings of a device hold */
export function expectBatch(configuration: ModelConfiguration, batch: number, { limits }: Device): void {
  const most = largestBatch(configuration, limits.maxStorageBufferBindingSize);
  if (batch > most)
    throw new InputError(`batch ${batch}: this adapter takes at most ${most} examples of this model at a time`);
}
