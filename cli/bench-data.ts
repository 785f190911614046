/** `insula bench data`: training examples per second that a data set gives, by itself and during training. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { besideTraining } from '../bench/data/beside-training.ts';
import { type LoadingRate, madeDataset, measureLoading } from '../bench/data/loading-rate.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { openTunedDevice } from '../bench/measure/tuning.ts';
import { InputError } from '../engine/index.ts';
import { type Dataset, openDataset, writeLeRobot } from '../model/data/index.ts';
import { command } from './command.ts';
import { cameraOptions, chooseDataset, dataOptions } from './data.ts';
import { deviceOptions } from './device.ts';
import { flag, number } from './options.ts';
import type { Progress } from './progress.ts';

const training = { needs: 'training' };

export const benchData = command({
  options: {
    ...dataOptions,
    data: { ...dataOptions.data, help: 'folder or file of a data set; without it a temporary one is written' },
    ...cameraOptions,
    batch: number('examples in a batch; 64 by default', 1),
    seconds: number('seconds of each measurement; 5 by default', 1),
    size: number('pixels that images are scaled to; 64 by default', 1),
    training: flag('also measures during training steps of the tiny preset, which needs an adapter'),
    adapter: { ...deviceOptions.adapter, ...training },
    floor: { ...deviceOptions.floor, ...training },
    tuning: { ...deviceOptions.tuning, ...training },
  },
  async run({ batch = 64, seconds = 5, size: givenSize, training, adapter, floor, tuning, ...choice }, { progress }) {
    const size = givenSize ?? 64;
    const temporary = choice.data ? null : await mkdtemp(join(tmpdir(), 'insula-data-'));
    try {
      // The temporary data set is read from disk on demand; a given data set is held in memory, as for training.
      const dataset = temporary
        ? await writtenDataset(temporary, progress)
        : await chooseDataset(choice, { episodes: 1, seed: 0, frameSize: size }, progress);
      const cameras = dataset.cameras.length;
      if (cameras === 0 && givenSize !== undefined)
        throw new InputError(`bench data: --size ${givenSize}: no images are read of "${dataset.name}"; leave it out`);
      const rows = [await measureLoading('actions and states', dataset, { batch, seconds })];
      if (cameras > 0)
        rows.push(
          await measureLoading(`and ${cameras} images of ${size} x ${size}`, dataset, { batch, seconds, size }),
        );
      if (training) {
        using device = (await openTunedDevice({ adapter, floor, tuning }, (line) => progress.note(line))).device;
        const shown = [{ ...dataset, cameras: [] }, dataset];
        for (const [i, row] of rows.entries())
          row.beside = await besideTraining(device, shown[i], { batch, seconds }, progress);
      }
      const description = dataset.description ?? dataset.name;
      return { json: { dataset: description, rows }, lines: [description, ...tableOf(rows, batch)] };
    } finally {
      if (temporary) await rm(temporary, { recursive: true, force: true });
    }
  },
});

async function writtenDataset(folder: string, progress: Progress): Promise<Dataset> {
  const onProgress = (done: number, total: number) => progress.count('writing: episode', done, total);
  await writeLeRobot(folder, madeDataset(), { onProgress });
  return openDataset(folder, undefined, { memory: 0 });
}

function tableOf(rows: readonly LoadingRate[], batch: number): string[] {
  const head = ['examples', 'a second', `batch of ${batch}: median`, '99 %', 'longest', 'mean within'];
  const beside = rows.some((row) => row.beside) ? ['beside training', 'its step, ms', 'of one batch again'] : [];
  const table = rows.map(({ what, samplesPerSecond, batch: { p50, p99, max, rme }, beside: own }) => [
    what,
    samplesPerSecond.toFixed(0),
    ...[p50, p99, max].map((milliseconds) => `${digits(milliseconds)} ms`),
    `${digits(rme)} %`,
    ...(own ? [own.samplesPerSecond, own.streamed, own.held].map((value) => value.toFixed(0)) : []),
  ]);
  return aligned([[...head, ...beside], ...table], 1);
}
