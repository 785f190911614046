import { html, type Markup, shorten } from './markup.ts';
import type { AttentionDrawing, AttentionEdge } from './report-data.ts';

/** Side of the drawn table in pixels; it is larger if many blocks need their smallest size. */
const SIDE = 300;
const SMALLEST = 22;
const NAME_LIMIT = 16;
/** Width of a character of the labels, and the angle of those above the columns in degrees. */
const CHARACTER = 7.2;
const ANGLE = 40;

/** Sizes in proportion to the lengths, but none under `smallest`. They sum to `side`, or to more if that is too little. */
export function blockSizes(lengths: number[], side: number, smallest: number): number[] {
  const small = new Set<number>();
  for (;;) {
    const rest = lengths.reduce((sum, length, i) => (small.has(i) ? sum : sum + length), 0);
    const scale = (side - smallest * small.size) / rest;
    const found = lengths.findIndex((length, i) => !small.has(i) && length * scale < smallest);
    if (found < 0) return lengths.map((length, i) => (small.has(i) ? smallest : length * scale));
    small.add(found);
  }
}

type Box = Readonly<Record<'x' | 'y' | 'width' | 'height', number>>;

/** Draws the pairs of a mask inside a cell: all of them, or those at and below the diagonal. */
function shape(mask: 'full' | 'causal', { x, y, width, height }: Box, fill: string): Markup {
  return mask === 'full'
    ? html`<rect x="${x}" y="${y}" width="${width}" height="${height}" fill="${fill}"/>`
    : html`<path d="M${x},${y}V${y + height}H${x + width}Z" fill="${fill}"/>`;
}

function cell({ mask, keyGradient, valueGradient }: Omit<AttentionEdge, 'query' | 'key'>, box: Box): Markup {
  if (mask === 'none') return html``;
  const hatched = (side: 'key' | 'value', factor: number) =>
    factor === 1 ? '' : shape(mask, box, `url(#${factor === 0 ? 'stop' : 'scale'}-${side})`);
  return html`${shape(mask, box, 'var(--pairs)')}${hatched('key', keyGradient)}${hatched('value', valueGradient)}`;
}

const hatch = (side: 'key' | 'value', angle: number) =>
  [0.9, 0.4].map(
    (width, i) =>
      html`<pattern id="${['stop', 'scale'][i]}-${side}" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(${angle})"><path d="M3.5,0V7" stroke="var(--stop)" stroke-width="${width}"/></pattern>`,
  );

/** How much gradient passes an edge, in words; nothing where all of it does. */
function gradientWords({ keyGradient, valueGradient }: Pick<AttentionEdge, 'keyGradient' | 'valueGradient'>): string {
  const into = (sides: string, factor: number) =>
    factor === 1 ? [] : [`${factor === 0 ? 'no' : `${factor} of the`} gradient into ${sides}`];
  if (keyGradient === valueGradient) return into('keys and values', keyGradient).join('');
  return [...into('keys', keyGradient), ...into('values', valueGradient)].join(', ');
}

/** The legend with the entries that the table needs: each mask, and each way of stopping or scaling gradients, that occurs. */
function legend(edges: AttentionEdge[]): Markup {
  const seen = edges.filter(({ mask }) => mask !== 'none');
  const all = { keyGradient: 1, valueGradient: 1 };
  const masks = [
    { words: 'every query of the block sees every key', mask: 'full', ...all },
    { words: 'causal: a query sees keys up to its own place', mask: 'causal', ...all },
  ] as const;
  const hatches = new Map(seen.map((edge) => [gradientWords(edge), { ...edge, mask: 'full' as const }]));
  hatches.delete('');
  const swatch = { x: 0.5, y: 0.5, width: 21, height: 15 };
  const box = html`<rect x="0.5" y="0.5" width="21" height="15" fill="none" stroke="var(--rule)"/>`;
  const entry = (drawing: Markup, words: string) =>
    html`<li><svg class="swatch" aria-hidden="true" viewBox="0 0 22 16">${drawing}${box}</svg> ${words}</li>`;
  return html`<ul class="key">${masks
    .filter(({ mask }) => seen.some((edge) => edge.mask === mask))
    .map((kind) => entry(cell(kind, swatch), kind.words))}${[...hatches].map(([words, edge]) =>
    entry(cell(edge, swatch), `hatched: ${words}`),
  )}${entry(html``, 'nothing is seen')}</ul>`;
}

/** The attention table with its legend: rows are queries, columns keys; blocks are to scale, down to a smallest size. */
export function attentionFigure({ blocks, edges }: AttentionDrawing): Markup {
  const lengths = blocks.map(({ length }) => length);
  const sizes = blockSizes(lengths, Math.max(SIDE, 2 * SMALLEST * blocks.length), SMALLEST);
  const side = sizes.reduce((a, b) => a + b, 0);
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a + b, 0));
  const place = new Map(blocks.map(({ name }, i) => [name, i]));
  const round = (value: number) => Math.round(value * 100) / 100;
  const middle = (i: number) => round(starts[i] + sizes[i] / 2);

  const cells = edges.map((edge) => {
    const row = place.get(edge.query)!;
    const column = place.get(edge.key)!;
    const [x, y, width, height] = [starts[column], starts[row], sizes[column], sizes[row]].map(round);
    return cell(edge, { x, y, width, height });
  });
  const grid = [...starts, side].map((at) => {
    const [line, end] = [round(at), round(side)];
    return html`<path d="M${line},0V${end}M0,${line}H${end}"/>`;
  });
  const text = (name: string, length: number) =>
    html`<title>${name}</title>${shorten(name, NAME_LIMIT)} <tspan fill="var(--muted)">${length}</tspan>`;
  const rows = blocks.map(
    ({ name, length }, i) =>
      html`<text x="-8" y="${middle(i)}" dy="0.35em" text-anchor="end">${text(name, length)}</text>`,
  );
  const columns = blocks.map(
    ({ name, length }, i) =>
      html`<text transform="translate(${middle(i)},-8) rotate(${-ANGLE})">${text(name, length)}</text>`,
  );

  const widths = blocks.map(
    ({ name, length }) => CHARACTER * (shorten(name, NAME_LIMIT).length + 1 + `${length}`.length),
  );
  const longest = Math.max(...widths);
  const slope = (ANGLE * Math.PI) / 180;
  const left = Math.ceil(Math.max(76, longest + 12));
  const top = Math.ceil(Math.sin(slope) * longest + 24);
  const right = Math.max(...widths.map((width, i) => middle(i) + Math.cos(slope) * width + 8));
  const width = Math.ceil(left + Math.max(side + 4, right));
  const height = Math.ceil(top + side + 4);
  const scales = sizes.map((size, i) => size / lengths[i]);
  const enlarged = Math.max(...scales) > 1.001 * Math.min(...scales);
  const label = `Attention table of ${blocks.length} blocks: rows are queries, columns keys`;
  return html`<figure class="attention"><svg role="img" aria-label="${label}" viewBox="0 0 ${width} ${height}" style="max-width:${Math.round(1.25 * width)}px">
<defs>${hatch('key', 45)}${hatch('value', -45)}</defs>
<g transform="translate(${left},${top})" font-size="12" fill="var(--ink)">
${cells}
<g stroke="var(--rule)" fill="none">${grid}</g>
${rows}${columns}
<g fill="var(--muted)" text-anchor="end"><text x="-8" y="-24">keys →</text><text x="-8" y="-8">queries ↓</text></g>
</g></svg>
<figcaption>${legend(edges)}<p class="small">Numbers are tokens. Blocks are drawn to scale${
    enlarged ? ', but none too small for its label: the smallest are enlarged' : ''
  }.</p></figcaption></figure>`;
}

/** The table in words: for each query block the keys that it sees, those under the same conditions together. */
export function attentionInWords({ blocks, edges }: AttentionDrawing): { query: string; words: string }[] {
  return blocks.map(({ name }) => {
    const keys = new Map<string, string[]>();
    for (const { query, key, mask, ...factors } of edges) {
      if (query !== name || mask === 'none') continue;
      const remarks = [mask === 'causal' && 'causal', gradientWords(factors)].filter(Boolean).join(', ');
      keys.set(remarks, [...(keys.get(remarks) ?? []), key]);
    }
    const words = [...keys].map(([remarks, names]) => `${names.join(', ')}${remarks && ` (${remarks})`}`);
    return { query: name, words: words.join('; ') || 'nothing' };
  });
}
