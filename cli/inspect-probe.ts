/** `insula inspect --probe` as lines, JSON and a page. */
import { aligned } from '../bench/measure/table.ts';
import { probeWorld } from '../bench/tabletop/layer-probe.ts';
import type { Variation } from '../bench/tabletop/scene.ts';
import type { LayerProbes } from '../model/inspect/layer-probes.ts';
import { formatPercent } from '../model/report/markup.ts';
import { layerNames, probedWords, probeSection } from '../model/report/probe-section.ts';
import type { Measurement } from './measurement.ts';
import { number } from './options.ts';

/** Scenes by default. */
const SCENES = 300;

export const probe = {
  help: 'what each layer knows about scenes of the built-in world, by linear probes: colour and shape of things, which is named, and its place',
  needsReal: true,
  options: {
    scenes: number(`scenes of the probes, two thirds of them to fit; ${SCENES} by default`, 3, { needs: 'probe' }),
  },
  async measure({ real }, values, { progress, signal }) {
    const { scenes = SCENES, seed = 0 } = values as { scenes?: number; seed?: number };
    const { policy, settings } = real!;
    const variation = (values.variation ?? settings.variation ?? 'simple') as Variation;
    const onProgress = (done: number, total: number) => progress.count('scenes: seen by the model', done, total);
    const probes = await probeWorld(policy, { scenes, seed, variation, signal, onProgress });
    return {
      examples: `${scenes} scenes of the built-in world, ${variation}`,
      json: { variation, ...probes },
      lines: probeLines(probes),
      sections: () => [probeSection(probes)],
    };
  },
} satisfies Measurement;

function probeLines(probes: LayerProbes): string[] {
  const { classes, place } = probes;
  const rows = [
    ...classes.map(({ question, baseline, layers }) => [
      question,
      ...[baseline, ...layers].map((share) => formatPercent(share, 1)),
    ]),
    ['place, pixels', place.baseline.toFixed(1), ...place.layers.map(({ pixels }) => pixels.toFixed(1))],
    ['place, R^2', '0', ...place.layers.map(({ r2 }) => r2.toFixed(2))],
  ];
  return [
    `linear probes of the rows of the picture's patches, ${probedWords(probes)}`,
    "guess: the most frequent class, or the mean place; the tower's output has seen no word",
    ...aligned([['', 'guess', ...layerNames(probes)], ...rows], 1),
  ];
}
