/** Linear probes as a heat map: what each layer knows about a picture, beside what a guess without a look has. */
import type { LayerProbes } from '../inspect/layer-probes.ts';
import type { Finding } from './inspect-page.ts';
import { formatNumber, formatPercent } from './markup.ts';

/** A row for each question, and columns for the guess and the layers. */
export function probeFinding({ scenes, things, classes, place }: LayerProbes): Finding {
  const names = place.layers.map((_, layer) => (layer === 0 ? 'tower' : `layer ${layer - 1}`));
  /** `part` is the part of the way from the guess to what is perfect. */
  const row = (
    group: string,
    name: string,
    guess: string,
    layers: { text: string; part: number; words: string }[],
  ) => ({
    ...{ group, name },
    cells: [
      { text: guess, strength: 0, title: 'without a look at the picture' },
      ...layers.map(({ text, part, words }, layer) => ({
        ...{ text, strength: Math.max(0, part) },
        title: `${name}, ${names[layer]}: ${words}`,
      })),
    ],
  });
  const places = place.layers.map(({ pixels, r2 }) => ({
    ...{ pixels, r2 },
    words: `${pixels.toFixed(2)} pixels, R² ${r2.toFixed(3)}`,
  }));
  return {
    id: 'probe',
    title: 'What each layer knows',
    label: 'Linear probes: rows are questions, columns layers',
    about: `How well a linear map reads it from the rows of the picture's patches, after each layer of the backbone: fitted to ${formatNumber(things.fit)} things in ${formatNumber(scenes.fit)} scenes, measured on ${formatNumber(things.heldOut)} others in ${formatNumber(scenes.heldOut)}. The tower's output has seen no word: what rises behind it comes from the words by attention.`,
    colours: 'The colour is the part of the way from the guess, which does not look, to what is perfect.',
    columns: ['guess', ...names],
    rows: [
      ...classes.map(({ question, baseline, layers }) =>
        row(
          'held-out accuracy',
          question,
          formatPercent(baseline, 1),
          layers.map((accuracy) => ({
            text: formatPercent(accuracy, 1),
            part: baseline === 1 ? 0 : (accuracy - baseline) / (1 - baseline),
            words: formatPercent(accuracy, 1),
          })),
        ),
      ),
      row(
        'place of the named thing',
        'error, pixels',
        place.baseline.toFixed(1),
        places.map(({ pixels, words }) => ({ text: pixels.toFixed(1), part: 1 - pixels / place.baseline, words })),
      ),
      row(
        'place of the named thing',
        'R²',
        '0',
        places.map(({ r2, words }) => ({ text: r2.toFixed(2).replace('-', '−'), part: r2, words })),
      ),
    ],
    notes: [
      'The class of a thing is read from the patch that holds its centre; the guess is the most frequent class. “named”: whether the instruction names the thing.',
      "Its place is the middle of the patch that a linear map marks most, in pixels of the model's picture; the guess is the mean place.",
    ],
  };
}
