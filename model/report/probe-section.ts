/** The page of linear probes: what each layer knows about a picture, beside what a guess without a look has. */
import type { LayerProbes } from '../inspect/layer-probes.ts';
import { heatMap } from './heat-map.ts';
import { formatNumber, formatPercent, html } from './markup.ts';
import type { Section } from './page.ts';

/** The names of the layers: the rows before the first layer are the tower's output. */
export const layerNames = ({ place }: LayerProbes): string[] =>
  place.layers.map((_, layer) => (layer === 0 ? "the tower's output" : `after layer ${layer - 1}`));

/** How many scenes and things the probes are fitted to and measured on, in words. */
export const probedWords = ({ scenes, things }: LayerProbes): string =>
  `fitted to ${formatNumber(things.fit)} things in ${formatNumber(scenes.fit)} scenes, measured on ${formatNumber(things.heldOut)} others in ${formatNumber(scenes.heldOut)}`;

export function probeSection(probes: LayerProbes): Section {
  const { classes, place } = probes;
  const names = layerNames(probes);
  const guess = { strength: 0, title: 'without a look at the picture' };
  // The colour is the part of the way from the guess to what is perfect.
  const rows = [
    ...classes.map(({ question, baseline, layers }) => ({
      ...{ group: 'held-out accuracy', name: question },
      cells: [
        { text: formatPercent(baseline), ...guess },
        ...layers.map((accuracy, layer) => ({
          text: formatPercent(accuracy),
          strength: baseline === 1 ? 0 : Math.max(0, (accuracy - baseline) / (1 - baseline)),
          title: `${question}, ${names[layer]}: ${formatPercent(accuracy, 1)}`,
        })),
      ],
    })),
    {
      ...{ group: 'place of the named thing', name: 'mean error in pixels' },
      cells: [
        { text: place.baseline.toFixed(1), ...guess },
        ...place.layers.map(({ pixels, r2 }, layer) => ({
          text: pixels.toFixed(1),
          strength: Math.max(0, 1 - pixels / place.baseline),
          title: `${names[layer]}: ${pixels.toFixed(2)} pixels, R² ${r2.toFixed(2)}`,
        })),
      ],
    },
    {
      ...{ group: 'place of the named thing', name: 'R²' },
      cells: [
        { text: '0', ...guess },
        ...place.layers.map(({ r2 }, layer) => ({
          text: r2.toFixed(2).replace('-', '−'),
          strength: Math.max(0, r2),
          title: `${names[layer]}: R² ${r2.toFixed(3)}`,
        })),
      ],
    },
  ];
  return {
    id: 'probe',
    title: 'What each layer knows',
    body: html`<p>How well a linear map reads it from the rows of the picture's patches, after each layer of the backbone: ${probedWords(probes)}. The tower's output has seen no word: what rises behind it comes from the words by attention. The colour is the part of the way from the guess, which does not look, to what is perfect.</p>
${heatMap({ id: 'probe-map', label: 'Linear probes: rows are questions, columns layers', columns: ['guess', ...names.map((_, i) => (i === 0 ? 'tower' : `layer ${i - 1}`))], rows })}
<p class="small">The class of a thing is read from the patch that holds its centre, and the guess is the most frequent class. “named”: whether the instruction names the thing. Its place is the middle of the patch that a linear map marks most, in pixels of the model's picture, and the guess is the mean place.</p>`,
  };
}
