/** The mask in tokens, and the pairs of tiles that each kernel visits. */
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useMemo, useRef, useState } from 'preact/hooks';
import { type AttentionTable, type LivePair, planLists, type Sequence } from '../../../kernels/index.ts';
import { Figure, Legend } from '../parts.tsx';
import type { Counts } from './work.ts';

const SIDE = 220;
const LEFT = 62;
const TOP = 46;
/** Blocks that are drawn smaller have no name beside them. */
const SMALLEST = 9;

/** Tokens to scale: rows are queries, columns keys; borders of blocks with their names. */
function Frame({ layout, label, children }: { layout: Sequence; label: string; children: ComponentChildren }) {
  const scale = SIDE / layout.length;
  const named = layout.blocks.filter(({ length }) => length * scale >= SMALLEST);
  const middle = ({ start, length }: { start: number; length: number }) => (start + length / 2) * scale;
  const short = (name: string) => (name.length > 10 ? `${name.slice(0, 9)}…` : name);
  return (
    <svg
      role="img"
      aria-label={label}
      viewBox={`${-LEFT} ${-TOP} ${SIDE + LEFT + 26} ${SIDE + TOP + 2}`}
      font-size="11"
      fill="var(--muted)"
    >
      {named.map((block) => (
        <g key={block.name}>
          <text x={-6} y={middle(block)} dy="0.35em" text-anchor="end">
            {short(block.name)}
          </text>
          <text transform={`translate(${middle(block)},-6) rotate(-40)`}>{short(block.name)}</text>
        </g>
      ))}
      <rect width={SIDE} height={SIDE} fill="var(--band)" />
      <g transform={`scale(${scale})`}>{children}</g>
      {[...layout.blocks.map(({ start }) => start), layout.length].map((at) => (
        <path
          key={at}
          d={`M${at * scale},0V${SIDE}M0,${at * scale}H${SIDE}`}
          stroke="var(--muted)"
          stroke-width="0.6"
        />
      ))}
    </svg>
  );
}

/** Hatching that all pictures share. Lines of 1 unit are as wide as a token where nothing scales them, so they are scaled back. */
function Hatches({ layout }: { layout: Sequence }) {
  const size = (6 * layout.length) / SIDE;
  const hatch = (id: string, colour: string, width: number, angle: number) => (
    <pattern id={id} width={size} height={size} patternUnits="userSpaceOnUse" patternTransform={`rotate(${angle})`}>
      <path d={`M${size / 2},0V${size}`} stroke={`var(--${colour})`} stroke-width={size * width} />
    </pattern>
  );
  return (
    <svg style={{ position: 'absolute', width: 0, height: 0 }} aria-hidden="true">
      {hatch('attention-stop', 'stop', 0.45, 45)}
      {hatch('attention-scale', 'stop', 0.2, 45)}
      {hatch('attention-partial', 'line1', 0.45, -45)}
    </svg>
  );
}

/** `seen` is [query token, key token]. */
function MaskPicture({ table, seen }: { table: AttentionTable; seen: Uint8Array }) {
  const { layout, cells } = table;
  const { blocks, length } = layout;
  const mask = useId();
  const [pixels, setPixels] = useState('');
  useEffect(() => {
    const canvas = document.createElement('canvas');
    canvas.width = length;
    canvas.height = length;
    const context = canvas.getContext('2d')!;
    const image = context.createImageData(length, length);
    const words = new Uint32Array(image.data.buffer);
    for (let pair = 0; pair < words.length; pair++) words[pair] = -seen[pair]; // all bits, or none
    context.putImageData(image, 0, 0);
    setPixels(canvas.toDataURL());
  }, [seen, length]);
  const count = useMemo(() => seen.reduce((sum, own) => sum + own, 0), [seen]);
  const ofLength = (count / seen.length) * 100;
  return (
    <Figure title="Mask" unit="tokens" see="Coloured: seen. Hatched: no gradient passes back; thin: some.">
      <Frame layout={layout} label={`Mask of ${blocks.length} blocks`}>
        <mask id={mask}>
          <image href={pixels} width={length} height={length} preserveAspectRatio="none" class="attention-pixels" />
        </mask>
        <g mask={`url(#${mask})`}>
          <rect width={length} height={length} fill="var(--bar)" />
          {blocks.flatMap((query, q) =>
            blocks.map((key, k) => {
              const least = Math.min(cells[q][k].keyGradient, cells[q][k].valueGradient);
              if (least === 1 || cells[q][k].mask === 'none') return null;
              return (
                <rect
                  key={`${q} ${k}`}
                  x={key.start}
                  y={query.start}
                  width={key.length}
                  height={query.length}
                  fill={`url(#attention-${least === 0 ? 'stop' : 'scale'})`}
                />
              );
            }),
          )}
        </g>
      </Frame>
      <p class="small">
        {count.toLocaleString('en')} of {seen.length.toLocaleString('en')} pairs of tokens are seen (
        {ofLength.toFixed(1)} %).
      </p>
    </Figure>
  );
}

const placeOf = ({ query, key }: LivePair) => `${query.firstToken} ${key.firstToken}`;

/** The pairs of tiles that a change of the table took away and brought; none where other blocks are drawn. */
function useChanges(layout: Sequence, pairs: readonly LivePair[]) {
  const sizes = layout.blocks.map(({ length }) => length).join();
  const last = useRef({ sizes, pairs, gone: [] as readonly LivePair[], come: new Set<string>(), round: 0 });
  if (last.current.pairs !== pairs) {
    const { sizes: before, pairs: others, round } = last.current;
    const [now, then] = [pairs, others].map((own) => new Set(own.map(placeOf)));
    const same = before === sizes;
    last.current = {
      ...{ sizes, pairs, round: round + 1 },
      gone: same ? others.filter((pair) => !now.has(placeOf(pair))) : [],
      come: new Set(same ? [...now].filter((place) => !then.has(place)) : []),
    };
  }
  return last.current;
}

const range = (name: string, first: number, rows: number) => `${name} ${first} to ${first + rows - 1}`;

function TilePicture(props: { title: string; see: string; table: AttentionTable; live: readonly LivePair[] }) {
  const { title, see, table, live } = props;
  const { layout } = table;
  const { gone, come, round } = useChanges(layout, live);
  const gap = (0.6 * layout.length) / SIDE;
  const box = ({ query, key }: LivePair) => ({
    x: key.firstToken + gap,
    y: query.firstToken + gap,
    width: Math.max(gap, key.rows - 2 * gap),
    height: Math.max(gap, query.rows - 2 * gap),
  });
  const told = ({ query, key, masked }: LivePair) =>
    `queries ${range(layout.blocks[query.block].name, query.firstToken, query.rows)}, keys ${range(layout.blocks[key.block].name, key.firstToken, key.rows)}: ${masked ? 'partial' : 'full'}`;
  const partial = live.filter(({ masked }) => masked).length;
  return (
    <Figure title={title} unit="pairs of tiles" see={see}>
      <Frame layout={layout} label={`${title}: ${live.length} pairs of tiles`}>
        {live.map((pair) => (
          <rect
            key={placeOf(pair)}
            {...box(pair)}
            class={come.has(placeOf(pair)) ? 'attention-come' : undefined}
            fill={pair.masked ? 'url(#attention-partial)' : 'var(--line1)'}
          >
            <title>{told(pair)}</title>
          </rect>
        ))}
        {gone.map((pair) => (
          <rect key={`${round} ${placeOf(pair)}`} {...box(pair)} class="attention-gone" fill="url(#attention-stop)" />
        ))}
      </Frame>
      <p class="small" aria-live="polite">
        {live.length} pairs, {partial} of them partial.{' '}
        {gone.length + come.size > 0 && `The last change: ${gone.length} vanished, ${come.size} appeared.`}
      </p>
    </Figure>
  );
}

const words = {
  forward: ['Forward', 'Pairs in which some query sees some key.'],
  dQuery: ['dQ', 'Those of them whose queries carry a loss.'],
  dKeyValue: ['dK/dV', 'Those of them whose edge passes gradient back.'],
};
const stripes = (colour: string) => `repeating-linear-gradient(45deg, var(--${colour}) 0 2px, var(--band) 2px 5px)`;

export function Pictures(props: { table: AttentionTable; seen: Uint8Array; live: Counts['live'] }) {
  const { table, seen, live } = props;
  return (
    <>
      <p class="see">All to scale: rows are queries, columns keys.</p>
      <Hatches layout={table.layout} />
      <div class="grid attention-pictures" style={{ '--column': '17rem', minHeight: '22rem' }}>
        <MaskPicture table={table} seen={seen} />
        {planLists.map((list) => (
          <TilePicture key={list} title={words[list][0]} see={words[list][1]} table={table} live={live[list]} />
        ))}
      </div>
      <Legend
        items={[
          { text: 'full: every score counts', fill: 'var(--line1)' },
          {
            text: 'partial: each score is tested (causal border, expression, tile of fewer keys)',
            fill: stripes('line1'),
          },
          { text: 'vanished by the last change, for a moment', fill: stripes('stop') },
        ]}
      />
    </>
  );
}
