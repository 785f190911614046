/** `insula inspect --probe`. */
import { probeWorld } from '../bench/tabletop/probe.ts';
import type { Variation } from '../bench/tabletop/scene.ts';
import { probeFinding } from '../model/report/probe-section.ts';
import type { Inspected, SubjectValues } from './inspect-subject.ts';
import type { Measurement, MeasurementContext } from './measurement.ts';
import { number, type ValuesOf } from './options.ts';

/** Scenes by default. */
const SCENES = 300;

const options = {
  scenes: number(`scenes of the probes, two thirds of them to fit; ${SCENES} by default`, 3, { needs: 'probe' }),
};

export const probe = {
  help: 'what each layer knows about scenes of the built-in world, by linear probes: colour and shape of things, which is named, and its place; with --variation pairs, of colours and shapes that are new together',
  needsReal: true,
  options,
  async measure(
    { real }: Inspected,
    { scenes = SCENES, seed = 0, ...values }: SubjectValues & ValuesOf<typeof options>,
    { progress, signal }: MeasurementContext,
  ) {
    const { policy, settings } = real!;
    const variation = (values.variation ?? settings.variation ?? 'simple') as Variation;
    const onProgress = (done: number, total: number) => progress.count('scenes: seen by the model', done, total);
    const probes = await probeWorld(policy, { scenes, seed, variation, signal, onProgress });
    return {
      examples: `${scenes} scenes of the built-in world, ${variation}`,
      json: { variation, ...probes },
      findings: [probeFinding(probes)],
    };
  },
} satisfies Measurement;
