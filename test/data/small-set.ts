import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { actionsFile } from './synthetic.ts';

/** Writes the data set `made`: two episodes of eight steps, with actions of three dimensions and states of two. */
export async function writeSmallSet(folder: string): Promise<void> {
  const rows = (width: number) =>
    Array.from({ length: 8 }, (_, step) => Array.from({ length: width }, (_, d) => step + d));
  const tables = ['a', 'b'].flatMap((id) => [
    [`${id}/action`, rows(3)],
    [`${id}/state`, rows(2)],
  ]);
  const episodes = ['a', 'b'].map((id) => ({ id, steps: 8, language: 'put the red cube in the blue bin' }));
  const datasets = { made: { control_hz: 4, actions: 'made.safetensors', episodes } };
  await mkdir(folder);
  await writeFile(join(folder, 'index.json'), JSON.stringify({ format: 1, datasets }));
  await writeFile(join(folder, 'made.safetensors'), await actionsFile(Object.fromEntries(tables)));
}
