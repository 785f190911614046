/** A heat map: rows in groups, a number in every cell, and a colour that is stronger the larger the number is. */
import { html, type Markup } from './markup.ts';

export interface HeatCell {
  readonly text: string;
  /** The strength of the colour, from -1 to 1; null for a cell that is hatched. Below 0 it is the second colour of the palette. */
  readonly strength: number | null;
  /** The cell in words. */
  readonly title: string;
}

export interface HeatMap {
  /** Unique on its page. */
  readonly id: string;
  readonly label: string;
  readonly columns: readonly string[];
  readonly rows: readonly { readonly group: string; readonly name: string; readonly cells: readonly HeatCell[] }[];
}

const [LEFT, COLUMN, ROW] = [150, 84, 20];
/** At full strength the text still has a contrast of more than 4 to 1 on its cell, in light and in dark. */
const STRONGEST = 0.55;

/** Draws the map as SVG; each group has its name above its rows. */
export function heatMap({ id, label, columns, rows }: HeatMap): Markup {
  const width = LEFT + COLUMN * columns.length;
  let y = ROW;
  const drawn = rows.map(({ group, name, cells }, i) => {
    const isFirst = group !== rows[i - 1]?.group;
    if (isFirst) y += i === 0 ? ROW : 1.5 * ROW;
    const top = y;
    y += ROW;
    const title = isFirst ? html`<text x="0" y="${top - 6}" font-weight="600">${group}</text>` : undefined;
    return html`${title}<text x="${LEFT - 8}" y="${top + 14}" text-anchor="end">${name}</text>${cells.map(
      (cell, column) => drawnCell(cell, LEFT + COLUMN * column, top, id),
    )}\n`;
  });
  const heads = columns.map(
    (name, i) => html`<text x="${LEFT + COLUMN * (i + 0.5)}" y="14" text-anchor="middle">${name}</text>`,
  );
  return html`<div class="wide"><svg role="img" aria-label="${label}" viewBox="0 0 ${width} ${y + 2}" style="max-width:${Math.round(1.2 * width)}px;min-width:${Math.round(0.85 * width)}px">
<defs><pattern id="${id}-zero" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M3,0V6" stroke="var(--rule)" stroke-width="1.5"/></pattern></defs>
<g font-size="12" fill="var(--ink)"><g fill="var(--muted)">${heads}</g>
${drawn}</g></svg></div>`;
}

function drawnCell({ text, strength, title }: HeatCell, x: number, y: number, id: string): Markup {
  const fill =
    strength === null
      ? html`fill="url(#${id}-zero)"`
      : html`fill="var(--line${strength < 0 ? 2 : 1})" fill-opacity="${(STRONGEST * Math.min(1, Math.abs(strength))).toFixed(3)}"`;
  const edge = strength === null ? html` paint-order="stroke" stroke="var(--paper)" stroke-width="4"` : undefined;
  return html`<g><title>${title}</title><rect x="${x + 1}" y="${y + 1}" width="${COLUMN - 2}" height="${ROW - 2}" ${fill}/><text x="${x + COLUMN / 2}" y="${y + 14}" text-anchor="middle"${edge}>${text}</text></g>`;
}
