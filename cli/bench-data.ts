/** `insula bench data`: how many training examples a second a data set gives, numbers alone and with its images, by itself and beside training. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BesideTraining, besideTraining } from '../bench/data/beside-training.ts';
import { aligned } from '../bench/measure/table.ts';
import { openTunedDevice, type TunedDeviceOptions } from '../bench/measure/tuning.ts';
import type { Dataset, Episode } from '../model/data/dataset.ts';
import {
  chunk,
  loadSamples,
  openDataset,
  resizeWithPadding,
  TrainingSampler,
  wholeEpisodes,
  writeLeRobot,
} from '../model/data/index.ts';
import { chooseDataset } from './choose-data.ts';
import type { Progress } from './progress.ts';
import type { DataOptions } from './train-options.ts';

/** Control steps shuffled among each other, so that few episodes are read at a time. */
const WINDOW = 8192;
/** The set that is written where none is named. */
const MADE = { episodes: 60, length: 300, dimension: 14, size: 64, rate: 50 };

export const benchDataOptions = {
  batch: { type: 'number', help: 'examples to a batch; 64 by default', least: 1 },
  seconds: { type: 'number', help: 'of each measurement; 5 by default', least: 1 },
  size: { type: 'number', help: 'pixels that images are scaled to; 64 by default', least: 1 },
  training: { type: 'boolean', help: 'also beside training steps of the tiny preset, which takes an adapter' },
} as const;

interface Row {
  what: string;
  samplesPerSecond: number;
  /** The longest that a batch took, milliseconds: what a training step beside it waits at most. */
  longestBatch: number;
  beside?: BesideTraining;
}

/** The set written for it is read from disk as its numbers are needed; a named one's are in memory, as training holds them. */
export async function benchData(
  options: DataOptions & TunedDeviceOptions & { batch?: number; seconds?: number; size?: number; training?: boolean },
  progress: Progress,
): Promise<{ json: { dataset: string; rows: Row[] }; lines: string[] }> {
  const { batch = 64, seconds = 5, size = 64, data } = options;
  const temporary = data === undefined ? await mkdtemp(join(tmpdir(), 'insula-data-')) : null;
  try {
    if (temporary) {
      const onProgress = (done: number, total: number) => progress.count('writing: episode', done, total);
      await writeLeRobot(temporary, madeDataset(), { onProgress });
    }
    const dataset = temporary
      ? await openDataset(temporary, 'made', { memory: 0 })
      : await chooseDataset(options, { episodes: 1, seed: 0, frameSize: size }, progress);
    const rows = [await measure('actions and states', dataset, { batch, seconds })];
    const cameras = dataset.cameras.length;
    if (cameras > 0)
      rows.push(await measure(`and ${cameras} images of ${size} x ${size}`, dataset, { batch, seconds, size }));
    if (options.training) {
      const { device } = await openTunedDevice(options, (line) => progress.note(line));
      try {
        const shown = [{ ...dataset, cameras: [] }, dataset];
        for (const [i, row] of rows.entries())
          row.beside = await besideTraining(device, shown[i], { batch, seconds }, progress);
      } finally {
        device.close();
      }
    }
    const head = ['examples', 'a second', `longest batch of ${batch}`];
    const table = rows.map(({ what, samplesPerSecond, longestBatch, beside }) => [
      what,
      samplesPerSecond.toFixed(0),
      `${longestBatch.toFixed(0)} ms`,
      ...(beside ? [beside.samplesPerSecond, beside.streamed, beside.held].map((own) => own.toFixed(0)) : []),
    ]);
    const beside = options.training ? ['beside training', 'its step, ms', 'of one batch again'] : [];
    const lines = aligned([[...head, ...beside], ...table], 1);
    const description = dataset.description ?? dataset.name;
    return { json: { dataset: description, rows }, lines: [description, ...lines] };
  } finally {
    if (temporary) await rm(temporary, { recursive: true, force: true });
  }
}

async function measure(
  what: string,
  dataset: Dataset,
  { batch, seconds, size }: { batch: number; seconds: number; size?: number },
): Promise<Row> {
  const sampler = new TrainingSampler(wholeEpisodes(dataset.episodes), 0, { window: WINDOW });
  const horizon = Math.max(1, Math.round(dataset.rate));
  const start = performance.now();
  let [step, longest, now] = [0, 0, start];
  for (; now - start < seconds * 1000; step++) {
    const before = now;
    for (const { part, step: at } of await loadSamples(sampler.batch(step, batch))) {
      chunk(part, at, horizon);
      if (size === undefined) continue;
      for (const camera of dataset.cameras) {
        const image = await part.episode.image(camera, at);
        if (image) resizeWithPadding(image, size, size);
      }
    }
    now = performance.now();
    longest = Math.max(longest, now - before);
  }
  return { what, samplesPerSecond: (step * batch * 1000) / (now - start), longestBatch: longest };
}

/** Smooth motions, and pictures as hard to compress as a camera's. */
function madeDataset(): Dataset {
  const { episodes, length, dimension, size, rate } = MADE;
  const episode = (number: number): Episode => {
    const actions = Float32Array.from({ length: length * dimension }, (_, i) => Math.sin(number + i * 0.013));
    const image = async (_: string, step: number) => {
      const grain = (i: number) => Math.imul(i + step * 7919 + number, 0x9e3779b1) >>> 29;
      const pixels = Uint8Array.from({ length: size * size * 3 }, (_, i) => ((i * 7 + step * 3) >> 3) ^ grain(i));
      return { width: size, height: size, pixels };
    };
    return { id: `${number}`, length, actions, states: actions, instructions: ['move'], cameras: ['top'], image };
  };
  const all = Array.from({ length: episodes }, (_, number) => episode(number));
  const sizes = { actionDimension: dimension, stateDimension: dimension };
  return { name: 'made', rate, ...sizes, cameras: ['top'], episodes: all };
}
