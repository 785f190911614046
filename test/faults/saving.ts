/** Checkpoints of a run without a device, whose every number is the step that it was saved at. */

import { readSafetensors } from '../../engine/index.ts';
import type { AdamW } from '../../kernels/index.ts';
import { Architecture, type Model } from '../../model/architecture/model.ts';
import { openCheckpoint, saveCheckpoint } from '../../model/training/checkpoint.ts';
import { keepAsPrevious } from '../../model/training/kept-checkpoints.ts';

/** Saves steps to `path` with the settings of the checkpoint `source`, as a run does. */
export async function savingRun(source: string, path: string): Promise<(step: number) => Promise<void>> {
  const { settings, progress, close } = await openCheckpoint(source);
  await close();
  const { parameters } = new Architecture(settings.configuration);
  return async (step) => {
    const tensors = parameters.map(({ name, shape }) => {
      const moment = {
        ...{ name, shape, dtype: 'f32' as const },
        read: async () => new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(step),
        write() {},
      };
      return { ...moment, pieces: [moment] };
    });
    const moments = tensors.map((own) => [`firstMoment/${own.name}`, own] as const);
    const model = { parameters: tensors } as unknown as Model;
    const optimizer = {
      steps: step,
      averaged: (work: () => Promise<void>) => work(),
      state: () => ({ step, tensors: new Map(moments) }),
    } as unknown as AdamW;
    const { history } = progress;
    await saveCheckpoint(path, model, optimizer, settings, { step, history }, undefined, () => keepAsPrevious(path));
  };
}

/** The one number that all tensors of a file hold. Throws if there are two. */
export async function numberIn(path: string): Promise<number> {
  const file = await readSafetensors(path);
  const found = new Set<number>();
  for (const name of file.tensors.keys()) for (const value of await file.readFinite(name)) found.add(value);
  await file.close();
  if (found.size !== 1) throw new Error(`${path} holds ${[...found].join(', ')}`);
  return [...found][0];
}
