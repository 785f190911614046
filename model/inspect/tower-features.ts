/** Features of a vision tower, which probes read. */
import { InputError, tensor, withoutTape } from '../../engine/index.ts';
import type { Model } from '../architecture/model.ts';
import type { Image } from '../data/dataset.ts';
import type { Encoding } from '../policy/encoding.ts';

/** Pictures that pass through the tower at once. */
const BATCH = 64;

/** Features [patches, width] of the model's first tower for each picture. */
export async function towerFeatures(
  { architecture, configuration, parameters, device }: Model,
  encoding: Encoding,
  pictures: readonly Image[],
): Promise<Float32Array[]> {
  const { blockInputs } = architecture;
  const { vision } = configuration;
  if (!vision || !blockInputs.vision) throw new InputError('this model has no vision tower');
  const [camera] = encoding.settings.cameras;
  const [tower] = Object.keys(vision.towers);
  const features: Float32Array[] = [];
  for (let start = 0; start < pictures.length; start += BATCH) {
    const own = pictures.slice(start, start + BATCH);
    const { images } = encoding.images(
      own.map((image) => ({ images: { [camera]: image } })),
      { vision: { ...vision, cameras: 1 } },
    );
    const shape = [own.length, 1, vision.imageHeight, vision.imageWidth, 3];
    const values = await withoutTape(device, () =>
      device.step(() => blockInputs.vision!.run(parameters, tensor(device, images!, shape)).features[tower]),
    ).read();
    const size = values.length / own.length;
    features.push(...own.map((_, i) => values.slice(i * size, (i + 1) * size)));
  }
  return features;
}
