import { useState } from 'preact/hooks';
import { mapsAt, patchMaps, sharesOf } from '../../../model/inspect/attention-maps.ts';
import { Choice, Figure } from '../parts.tsx';
import type { Lab } from './lab.ts';
import type { LiveAttention } from './live-run.ts';
import { Scene } from './scene.tsx';

/** Attention over the picture and the words of a training example, for each side. */
export function Looks({ lab, nameOf }: { lab: Lab; nameOf(index: number): string }) {
  const [layer, setLayer] = useState(0);
  const [query, setQuery] = useState('action');
  const first = lab.sides.find(({ attention }) => attention)?.attention;
  const layers = first?.maps.layers.length ?? 0;
  const queries = first ? Object.keys(first.maps.layers[0][0]) : [];
  const shownQuery = queries.includes(query) ? query : queries.at(-1);
  return (
    <section>
      <Figure
        title="Where the rows of a block look"
        unit="attention probability, mean over heads and rows"
        see="The picture and the words of the example that is trained on next: bright patches and coloured words are those that are read."
      >
        <div class="controls">
          <button type="button" onClick={() => lab.look()} disabled={lab.status !== null}>
            Read the attention now
          </button>
          {first && shownQuery && (
            <>
              <Choice label="Rows of" value={shownQuery} options={queries} onChange={setQuery} />
              <Choice
                label="Layer"
                value={String(layer)}
                options={Array.from({ length: layers }, (_, i) => String(i))}
                onChange={(own) => setLayer(Number(own))}
              />
            </>
          )}
        </div>
        <div class="row flow-looks">
          {lab.sides.map(({ attention }, index) => (
            <div key={index}>
              {attention && shownQuery && <Look {...{ attention, layer, query: shownQuery }} name={nameOf(index)} />}
            </div>
          ))}
        </div>
      </Figure>
    </section>
  );
}

function Look(props: { attention: LiveAttention; layer: number; query: string; name: string }) {
  const { attention, query, name } = props;
  const { configuration, maps, picture, words, blocks, step } = attention;
  const blockMaps = mapsAt(maps, Math.min(props.layer, maps.layers.length - 1));
  const own = blockMaps[query] ?? {};
  const shares = Object.entries(sharesOf(blockMaps)[query] ?? {});
  const patches = own[blocks.images] && patchMaps(configuration, own[blocks.images])[0];
  const ofWords = own[blocks.prompt];
  const largest = Math.max(1e-9, ...words.map(({ row }) => ofWords?.[row] ?? 0));
  return (
    <>
      <p class="small">
        {name}, after step {step}
      </p>
      <Scene label={`Where ${query} looks in the picture`} image={picture} patches={patches} />
      <p class="flow-words">
        {words.map(({ text, row }) => {
          const share = ofWords?.[row] ?? 0;
          return (
            <span
              key={row}
              title={`${(100 * share).toPrecision(2)} % of the attention`}
              style={{
                background: `color-mix(in oklab, var(--line1) ${Math.round((60 * share) / largest)}%, transparent)`,
              }}
            >
              {text}
            </span>
          );
        })}
      </p>
      <p class="small">
        {query} reads {shares.map(([block, share]) => `${block} ${(100 * share).toFixed(0)} %`).join(', ')}.
      </p>
    </>
  );
}
