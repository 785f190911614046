/** `insula inspect --attention`. */
import { aligned } from '../bench/measure/table.ts';
import { InputError, quote } from '../engine/index.ts';
import { stepsInSequence, windowOf } from '../model/architecture/configuration.ts';
import { mapped } from '../model/architecture/records.ts';
import { attentionMaps, mapsAt, sharesOf } from '../model/inspect/attention-maps.ts';
import { headsOf, mapSections, type ShownMaps, shareFinding, wordsSeen } from '../model/report/maps-figure.ts';
import { formatPercent } from '../model/report/markup.ts';
import type { Inspected, SubjectValues } from './inspect-subject.ts';
import type { Measurement } from './measurement.ts';
import { number, text, type ValuesOf } from './options.ts';

/** Words that a line names at most. */
const WORDS = 4;
const needs = 'attention';

const options = {
  example: number('the example whose maps are shown, from 0; 0 by default', 0, { needs }),
  layer: number('the only layer that is shown, from 0; all by default', 0, { needs }),
  head: number('the only head that is shown, from 0; all by default, as their mean in lines', 0, { needs }),
  query: text('the only block whose queries are shown; by default all but those of images', { needs }),
  row: number("the only row of --query that counts, from 0; by default the mean over the block's rows", 0, {
    needs: 'query',
  }),
};

export const attention = {
  help: 'where the rows of each block look: maps by layer and head over the camera image and the words of one example',
  options,
  async measure(inspected: Inspected, values: SubjectValues & ValuesOf<typeof options>) {
    const shown = await shownMaps(inspected, values);
    return {
      json: jsonOf(shown, values.example ?? 0),
      findings: [shareFinding(shown)],
      lines: wordLines(shown),
      sections: () => mapSections(shown),
    };
  },
} satisfies Measurement;

async function shownMaps(
  { model, inputs, batch, real }: Inspected,
  { example = 0, layer, head, query, row }: ValuesOf<typeof options>,
): Promise<ShownMaps> {
  const { configuration } = model;
  const { depth, blocks } = configuration;
  const [window, steps] = [windowOf(configuration), stepsInSequence(configuration)];
  const examples = batch.batch / window;
  if (example >= examples)
    throw new InputError(`--example ${example}: the batch has examples 0 to ${examples - 1}; give a larger --batch`);
  // The last control step of an example is the one that acts.
  const sequence = ((example + 1) * window) / steps - 1;
  if (query !== undefined && !blocks.some(({ name, memory }) => name === query && !memory))
    throw new InputError(
      `--query ${quote(query)}: this model has no such block with queries; it has ${blocks.map(({ name }) => name).join(', ')}`,
    );
  const inStep = (name: string) => (steps === 1 ? name : `${name} step ${steps}`);
  const rows = query !== undefined && row !== undefined ? { [inStep(query)]: row } : {};
  const maps = await attentionMaps(model, inputs, { sequence, rows });
  const queries = blocks
    .filter(({ name, input }) => (query === undefined ? input !== 'images' : name === query))
    .map(({ name }) => inStep(name))
    .filter((name) => maps.layers[0][0][name]);
  if (queries.length === 0)
    throw new InputError(
      `--attention: in example ${example}, ${query === undefined ? 'every block' : `'${query}'`}${row === undefined ? '' : `, row ${row},`} is padding and sees nothing: choose another --example`,
    );
  return {
    ...{ model, batch, real, maps, sequence, queries, head: head ?? null, row: row ?? null },
    layers: layer === undefined ? Array.from({ length: depth }, (_, i) => i) : [layer],
  };
}

/** The most looked-at words by query block and layer. */
function wordLines(shown: ShownMaps): string[] {
  const rows = shown.queries.flatMap((query) =>
    shown.layers.map((layer) => {
      const most = wordsSeen(shown, layer, query).toSorted((a, b) => b.share - a.share);
      const words = most.slice(0, WORDS).map(({ text, share }) => `${quote(text)} ${formatPercent(share, 1)}`);
      return [query, `layer ${layer}`, words.join(', ')];
    }),
  );
  return ['the most looked-at words:', ...aligned(rows, 3), ''];
}

function jsonOf(shown: ShownMaps, example: number) {
  const { maps, layers, queries, row } = shown;
  return {
    ...{ example, row },
    attention: layers.flatMap((layer) =>
      queries.map((query) => ({
        ...{ layer, query },
        shares: sharesOf(mapsAt(maps, layer, shown.head))[query],
        words: wordsSeen(shown, layer, query),
        heads: headsOf(shown).map((head) => ({
          head,
          keys: mapped(mapsAt(maps, layer, head)[query] ?? {}, (own) => [...own]),
        })),
      })),
    ),
  };
}
