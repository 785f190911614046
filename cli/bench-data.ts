/** `insula bench data`: training examples per second that a data set gives. */
import { measureLoading } from '../bench/data/loading-rate.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { InputError } from '../engine/index.ts';
import { command } from './command.ts';
import { cameraOptions, chooseDataset, dataOptions } from './data.ts';
import { number } from './options.ts';

export const benchData = command({
  options: {
    ...dataOptions,
    data: { ...dataOptions.data, help: 'folder or file of a data set; required' },
    ...cameraOptions,
    batch: number('examples in a batch; 64 by default', 1),
    seconds: number('seconds of each measurement; 5 by default', 1),
    size: number('pixels that images are scaled to; 64 by default', 1, { to: 4096 }),
  },
  async run({ batch = 64, seconds = 5, size: givenSize, ...choice }, { progress }) {
    if (!choice.data)
      throw new InputError(
        'bench data: name a data set with --data FOLDER; insula convert writes one of the built-in world',
      );
    const size = givenSize ?? 64;
    const dataset = await chooseDataset(choice, { episodes: 1, seed: 0, frameSize: size }, progress);
    const cameras = dataset.cameras.length;
    if (cameras === 0 && givenSize !== undefined)
      throw new InputError(`bench data: --size ${givenSize}: no images are read of "${dataset.name}"; leave it out`);
    const rows = [await measureLoading('actions and states', dataset, { batch, seconds })];
    if (cameras > 0)
      rows.push(await measureLoading(`and ${cameras} images of ${size} x ${size}`, dataset, { batch, seconds, size }));
    const description = dataset.description ?? dataset.name;
    const table = rows.map(({ what, samplesPerSecond, batch: { p50, p99, max, rme } }) => [
      ...[what, samplesPerSecond.toFixed(0)],
      ...[p50, p99, max].map((milliseconds) => `${digits(milliseconds)} ms`),
      `${digits(rme)} %`,
    ]);
    const head = ['examples', 'a second', `batch of ${batch}: median`, '99 %', 'longest', 'mean within'];
    return { json: { dataset: description, rows }, lines: [description, ...aligned([head, ...table], 1)] };
  },
});
