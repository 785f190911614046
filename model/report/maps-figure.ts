/** The page of attention maps: shares of blocks, maps over the camera's picture, and words in the strength in which they are looked at. */
import { isMemory, stepsInSequence } from '../architecture/configuration.ts';
import {
  type AttentionMaps,
  mappedBlock,
  mapsAt,
  noPictureMaps,
  type PatchMap,
  patchMaps,
  picturesOf,
  sharesOf,
  tokenTexts,
} from '../inspect/attention-maps.ts';
import type { Subject } from '../inspect/subject.ts';
import type { Finding } from './inspect-page.ts';
import { formatPercent, html, type Markup } from './markup.ts';
import type { Section } from './page.ts';
import { pictureUrl } from './sections.ts';

/** Maps of one sequence, and what of them is shown. */
export interface ShownMaps extends Pick<Subject, 'model' | 'batch' | 'real'> {
  readonly maps: AttentionMaps;
  readonly sequence: number;
  readonly layers: readonly number[];
  /** The only head that is shown; null for all, and for their mean where one number stands for all. */
  readonly head: number | null;
  /** Names of query blocks, and the row of one of them that stands for the block. */
  readonly queries: readonly string[];
  readonly row: number | null;
}

/** A word with the share of attention that falls on it. */
export interface LookedAt {
  readonly text: string;
  readonly share: number;
}

/** The words that a query block looks at in one layer, in their order; empty where it looks at none. */
export function wordsSeen(shown: ShownMaps, layer: number, query: string): LookedAt[] {
  const byKey = mapsAt(shown.maps, layer, shown.head)[query] ?? {};
  return Object.entries(byKey).flatMap(([key, map]) => {
    const { texts, rows } = textsOf(shown, key);
    return texts.map((text, i) => ({ text, share: map[rows[i]] }));
  });
}

/** The real tokens of a block of words, as texts and rows. */
function textsOf({ model, batch, real, sequence }: ShownMaps, key: string) {
  const { block, step } = mappedBlock(model.configuration, key);
  const ids = batch.ids[block.source ?? block.name];
  if ((block.input !== 'prompt' && block.input !== 'target') || !ids) return { texts: [], rows: [] };
  const at = sequence * stepsInSequence(model.configuration) + step;
  const rows = Array.from({ length: block.length }, (_, row) => row).filter(
    (row) => ids.valid[at * block.length + row],
  );
  return { texts: tokenTexts(real?.policy.encoding ?? null, ids, batch.batch, at), rows };
}

const queryWords = ({ row }: ShownMaps, query: string) => (row === null ? query : `row ${row} of ${query}`);
const headWords = ({ head }: ShownMaps) => (head === null ? 'the mean over heads' : `head ${head}`);

/** The numbers of the heads that are shown one by one. */
export const headsOf = ({ head, model }: Pick<ShownMaps, 'head' | 'model'>): number[] =>
  head === null ? Array.from({ length: model.configuration.heads }, (_, i) => i) : [head];

/** The shares of attention: a row for each query block and layer, a column for each key block. */
export function shareFinding(shown: ShownMaps): Finding {
  const { maps, layers, queries, head, real, sequence, model } = shown;
  const instruction = real?.batch.observations[sequence * stepsInSequence(model.configuration)].instruction;
  const reason = noPictureMaps(model.configuration);
  const memory = model.configuration.blocks.some((block) => isMemory(model.configuration, block));
  const shares = layers.map((layer) => sharesOf(mapsAt(maps, layer, head)));
  const columns = [...new Set(shares.flatMap((own) => queries.flatMap((query) => Object.keys(own[query] ?? {}))))];
  return {
    id: 'shares',
    title: 'Where each block looks',
    label: 'Shares of attention: rows are query blocks by layer, columns key blocks',
    about: `The share of the attention of each query block that falls on each key block, as ${headWords(shown)} and over the rows of the query block: a layer's shares have the sum 100 %${memory ? ', and those of memory, which is read by cross-attention, one of their own' : ''}.`,
    colours: 'Hatched: no edge.',
    columns,
    rows: queries.flatMap((query) =>
      layers.map((layer, i) => ({
        ...{ group: queryWords(shown, query), name: `layer ${layer}` },
        cells: columns.map((key) => {
          const share = shares[i][query]?.[key];
          return share === undefined
            ? { text: '', strength: null, title: `${query} does not see ${key}` }
            : {
                text: formatPercent(share, 1),
                strength: share,
                title: `layer ${layer}, ${query} on ${key}: ${formatPercent(share, 1)}`,
              };
        }),
      })),
    ),
    notes: [
      ...(instruction ? [`The instruction: “${instruction}”.`] : []),
      ...(reason ? [`No map lies over the picture: ${reason}.`] : []),
    ],
  };
}

/** For each query block a section with the pictures and the words that it looks at. */
export const mapSections = (shown: ShownMaps): Section[] =>
  shown.queries.flatMap((query, i) => {
    const [pictures, words] = [pictureMaps(shown, query), wordMaps(shown, query)];
    const title = `What ${queryWords(shown, query)} looks at`;
    return pictures || words ? [{ id: `query-${i + 1}`, title, body: html`${pictures}${words}` }] : [];
  });

/** For each camera a grid of its picture, layer by layer and head by head. */
function pictureMaps(shown: ShownMaps, query: string): Markup | undefined {
  const { model, batch, maps, layers, sequence } = shown;
  const { configuration } = model;
  const heads = headsOf(shown);
  const keys = Object.keys(mapsAt(maps, layers[0], 0)[query] ?? {}).filter(
    (key) => mappedBlock(configuration, key).block.input === 'images',
  );
  if (keys.length === 0 || noPictureMaps(configuration)) return undefined;
  const grids = keys.flatMap((key) => {
    const at = sequence * stepsInSequence(configuration) + mappedBlock(configuration, key).step;
    return picturesOf(configuration, batch, at).flatMap((image, camera) => {
      if (!image) return [];
      const name = shown.real?.policy.encoding.settings.cameras[camera] ?? `camera ${camera + 1}`;
      const id = `${query}-${key}-${camera}`.replace(/\W/g, '-');
      const cells = layers.flatMap((layer) =>
        heads.map((own) => {
          const map = patchMaps(configuration, mapsAt(maps, layer, own)[query][key])[camera];
          return overlay(id, image, map, `layer ${layer}, head ${own}`);
        }),
      );
      return [
        html`<h3>${key === 'image' ? name : `${key}, ${name}`}</h3>
<svg width="0" height="0" style="position:absolute;width:0;height:0" aria-hidden="true"><defs><image id="${id}" href="${pictureUrl(image)}" width="${image.width}" height="${image.height}" style="image-rendering:pixelated"/></defs></svg>
<div class="wide"><div style="display:grid;gap:.75rem;grid-template-columns:repeat(${heads.length},minmax(4.5rem,10rem))">${cells}</div></div>\n`,
      ];
    });
  });
  return html`<p>The camera's picture under the map of each head, a row for each layer: a patch is as bright as it is looked at, the brightest of each picture framed. Percents are the share of attention on the whole picture, and on the framed patch.</p>
${grids}`;
}

/** The picture, dark where it is not looked at. */
function overlay(
  id: string,
  { width, height }: { width: number; height: number },
  map: PatchMap,
  words: string,
): Markup {
  const { down, across, values } = map;
  const largest = Math.max(...values);
  const total = values.reduce((sum, value) => sum + value, 0);
  const [high, wide] = [height / down, width / across];
  const at = (patch: number) =>
    html`x="${(patch % across) * wide}" y="${Math.floor(patch / across) * high}" width="${wide}" height="${high}"`;
  const shades = Array.from(values, (value, patch) => {
    const shade = largest === 0 ? 0.8 : 0.8 * (1 - value / largest);
    return html`<rect ${at(patch)} fill-opacity="${shade.toFixed(2)}"/>`;
  });
  const most = values.indexOf(largest);
  const frame = ['#000', '#fff'].map(
    (stroke, i) =>
      html`<rect ${at(most)} fill="none" stroke="${stroke}" stroke-width="${(1.6 - 0.9 * i) * (width / 64)}"/>`,
  );
  const caption = `${words}: ${formatPercent(total)}, framed ${formatPercent(largest, 1)}`;
  return html`<figure><svg role="img" aria-label="${caption}" viewBox="0 0 ${width} ${height}" shape-rendering="crispEdges"><use href="#${id}"/>${shades}${frame}</svg><p class="small" style="margin:.2rem 0">${caption}</p></figure>`;
}

/** The words by layer, each marked as strongly as it is looked at. */
function wordMaps(shown: ShownMaps, query: string): Markup | undefined {
  const lines = shown.layers.map((layer) => ({ layer, words: wordsSeen(shown, layer, query) }));
  if (lines.every(({ words }) => words.length === 0)) return undefined;
  const rows = lines.map(({ layer, words }) => {
    const largest = Math.max(...words.map(({ share }) => share)) || 1;
    const total = words.reduce((sum, { share }) => sum + share, 0);
    const marked = words.map(({ text, share }) => {
      const strength = Math.round((55 * share) / largest);
      return html`<span title="${formatPercent(share, 2)}" style="background:color-mix(in srgb,var(--line1) ${strength}%,transparent);padding:.1em .15em;border-radius:2px;white-space:pre-wrap">${text.replace(/\n/g, '⏎')}</span>`;
    });
    return html`<dt>layer ${layer}, ${formatPercent(total)}</dt><dd>${marked}</dd>`;
  });
  return html`<h3>Words</h3>
<p>The tokens of the words that ${queryWords(shown, query)} sees, as ${headWords(shown)}: the stronger the colour, the more it looks at a token, in proportion to the most looked-at one of the layer. Percents are the share of attention on all words.</p>
<dl class="facts">${rows}</dl>`;
}
