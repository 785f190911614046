import { optionalPackages } from '../../engine/files/optional-packages.ts';
import { html, Markup } from './markup.ts';

export type Layer = Record<string, unknown>;

interface PlotSize {
  width: number;
  height: number;
  margins: Record<'left' | 'right' | 'top' | 'bottom', number>;
}

/** A colour of the page's style sheet by its name, so that a figure follows light, dark and print. */
export const colour = (name: string) => `var(--${name})`;

const axis = {
  domainColor: colour('rule'),
  tickColor: colour('rule'),
  gridColor: colour('grid'),
  labelColor: colour('muted'),
  titleColor: colour('muted'),
  titleFontWeight: 'normal',
  labelFontSize: 11,
  titleFontSize: 11,
  tickSize: 4,
  labelOverlap: false,
  labelPadding: 4,
};

/** The library that draws figures. @throws InputError if it is not installed */
export async function loadVega() {
  const load = () => Promise.all([import('vega'), import('vega-lite')]);
  const [{ parse, View }, { compile }] = await optionalPackages('vega vega-lite', 'drawing figures', load);
  return { compile, parse, View };
}

/** Renders layers over one pair of axes to inline SVG that takes the width it is given. `label` is the text for screen readers. */
export async function plot(label: string, { width, height, margins }: PlotSize, layer: Layer[]): Promise<Markup> {
  const { compile, parse, View } = await loadVega();
  const spec = {
    width,
    height,
    padding: margins,
    autosize: 'none',
    background: 'transparent',
    config: { aria: false, font: 'system-ui, sans-serif', view: { stroke: null }, axis },
    layer,
  } as unknown as Parameters<typeof compile>[0];
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  const svg = await view.toSVG();
  view.finalize();
  const fullWidth = width + margins.left + margins.right;
  const fullHeight = height + margins.top + margins.bottom;
  const body = svg.slice(svg.indexOf('>') + 1);
  return html`<svg role="img" aria-label="${label}" viewBox="0 0 ${fullWidth} ${fullHeight}" style="max-width:${Math.round(fullWidth * 1.25)}px">${new Markup(body)}`;
}

/** A title of the vertical axis, horizontal and above it. */
export const verticalTitle = (title: string, left: number) => ({
  title,
  titleAngle: 0,
  titleAlign: 'left',
  titleAnchor: 'end',
  titleBaseline: 'bottom',
  titleX: 6 - left,
  titleY: -12,
});

/** A field on one of the two axes. */
export const quantitative = (field: string, scale: object, axis: object) => ({
  field,
  type: 'quantitative',
  scale,
  axis,
});

/** One text, from its left end on; `x` and `y` place it as Vega-Lite's encoding does. */
export const textLayer = (text: string, mark: object, x: object, y: object): Layer => ({
  data: { values: [{ text }] },
  mark: { type: 'text', align: 'left', baseline: 'middle', fontSize: 12, ...mark },
  encoding: { text: { field: 'text' }, x, y },
});

export interface EndLabel {
  text: string;
  colour: string;
  /** Place on the vertical axis, in data units. */
  at: number;
}

/** Labels at the right of a plot, each beside the end of its line; labels that would touch are moved apart. */
export function endLabels(labels: EndLabel[], [low, high]: [number, number], { width, height }: PlotSize): Layer[] {
  const gap = 14;
  const placed = labels
    .map((label) => ({ ...label, y: height - ((Math.min(label.at, high) - low) / (high - low)) * height }))
    .sort((a, b) => a.y - b.y);
  for (let i = 1; i < placed.length; i++) placed[i].y = Math.max(placed[i].y, placed[i - 1].y + gap);
  let bottom = height + 4;
  for (let i = placed.length - 1; i >= 0; i--) {
    placed[i].y = Math.min(placed[i].y, bottom);
    bottom = placed[i].y - gap;
  }
  return placed.map(({ text, colour: name, y }) =>
    textLayer(text, { color: colour(name) }, { value: width + 7 }, { value: y }),
  );
}
