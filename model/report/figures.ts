import { formatNumber, type Markup, powerOfTen, shorten } from './markup.ts';
import { colour, type EndLabel, endLabels, type Layer, plot, verticalTitle } from './plot.ts';
import type { Gradients } from './report-data.ts';

interface Point {
  x: number;
  y: number;
}

/** At most `most` groups of points in a row, each as its mean with the lowest and highest. */
export function binned(points: Point[], most: number): (Point & { low: number; high: number })[] {
  const size = Math.max(1, Math.ceil(points.length / most));
  const out = [];
  for (let start = 0; start < points.length; start += size) {
    const group = points.slice(start, start + size);
    const values = group.map(({ y }) => y);
    const mean = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0) / numbers.length;
    out.push({
      x: mean(group.map(({ x }) => x)),
      y: mean(values),
      low: Math.min(...values),
      high: Math.max(...values),
    });
  }
  return out;
}

/** Steps in full, from ten thousand on as "20k". */
const stepAxis = (last: number) => ({
  tickCount: 4,
  grid: false,
  title: 'training step',
  ...(last >= 1e4 ? { labelExpr: "format(datum.value, '~s')" } : {}),
});

export interface LossFigure {
  label: string;
  unit: string;
  colour: 'token' | 'flow';
  training: Point[];
  heldOut: Point[];
  baseline?: { name: string; value: number };
}

/** Points of the drawn training line. */
export const TRAINING_BINS = 150;

/** The highest loss that is drawn: a first step far above everything would flatten all that follows. */
export function lossCeiling({ training, heldOut, baseline }: LossFigure): number {
  const values = [...training, ...heldOut].map(({ y }) => y);
  const top = values.reduce((a, b) => Math.max(a, b), baseline?.value ?? 0);
  const usual = Math.max(baseline?.value ?? 0, ...heldOut.map(({ y }) => y));
  return usual > 0 ? Math.min(top, 2 * usual) : top;
}

/** Training (mean, and the band of lowest to highest) and held-out loss over steps, with the baseline as a line. */
export function lossFigure(data: LossFigure): Promise<Markup> {
  const size = { width: 240, height: 170, margins: { left: 40, right: 106, top: 28, bottom: 40 } };
  const domain: [number, number] = [0, 1.05 * lossCeiling(data) || 1];
  const y = {
    field: 'y',
    type: 'quantitative',
    scale: { domain, nice: false, clamp: true },
    axis: { tickCount: 4, domain: false, ticks: false, ...verticalTitle(data.unit, size.margins.left) },
  };
  const x = {
    field: 'x',
    type: 'quantitative',
    scale: { nice: false, zero: true },
    axis: stepAxis(Math.max(data.training.at(-1)?.x ?? 0, data.heldOut.at(-1)?.x ?? 0)),
  };
  const layers: Layer[] = [];
  const labels: EndLabel[] = [];
  if (data.baseline) {
    const { name, value } = data.baseline;
    layers.push({
      data: { values: [{ y: value }] },
      mark: { type: 'rule', color: colour('muted'), strokeDash: [5, 4] },
      encoding: { y },
    });
    labels.push({ text: `${name} ${formatNumber(value)}`, colour: 'muted', at: value });
  }
  if (data.training.length > 0) {
    const values = binned(data.training, TRAINING_BINS);
    layers.push(
      {
        data: { values },
        mark: { type: 'area', color: colour(data.colour), opacity: 0.2 },
        encoding: { x, y: { ...y, field: 'low' }, y2: { field: 'high' } },
      },
      {
        data: { values },
        mark: { type: 'line', color: colour(data.colour), strokeWidth: 1.2, opacity: 0.75 },
        encoding: { x, y },
      },
    );
    const last = values[values.length - 1].y;
    labels.push({ text: `training ${formatNumber(last)}`, colour: data.colour, at: last });
  }
  if (data.heldOut.length > 0) {
    layers.push({
      data: { values: data.heldOut },
      mark: {
        type: 'line',
        color: colour(data.colour),
        strokeWidth: 2.2,
        point: { color: colour(data.colour), size: 28 },
      },
      encoding: { x, y },
    });
    const last = data.heldOut[data.heldOut.length - 1].y;
    labels.push({ text: `held-out ${formatNumber(last)}`, colour: data.colour, at: last });
  }
  return plot(data.label, size, [...layers, ...endLabels(labels, domain, size)]);
}

/** The logarithmic axis that all panels share: whole decades, and below them a row of its own for exact zeros. */
function logarithmicAxis(norms: number[]) {
  const exponents = norms.filter((norm) => norm > 0).map((norm) => Math.log10(norm));
  const low = Math.floor(exponents.reduce((a, b) => Math.min(a, b), exponents.length > 0 ? Infinity : 0));
  const high = Math.max(
    low + 1,
    Math.ceil(exponents.reduce((a, b) => Math.max(a, b), exponents.length > 0 ? -Infinity : 0)),
  );
  const zero = low - 0.25 * (high - low);
  const stride = Math.ceil((high - low) / 4);
  const decades = [];
  for (let exponent = high; exponent >= low; exponent -= stride) decades.push(exponent);
  return { low, high, zero, decades };
}

/** One panel for each parameter group: the norm of each loss's gradient over steps, exact zeros in a row of their own. */
export function gradientPanels({ norms, expectedZero = [] }: Gradients): Promise<{ group: string; figure: Markup }[]> {
  const groups = [...new Set(norms.map(({ group }) => group))];
  const { low, high, zero, decades } = logarithmicAxis(norms.map(({ norm }) => norm));
  const lastStep = norms.reduce((last, { step }) => Math.max(last, step), 1);
  const size = { width: 190, height: 150, margins: { left: 38, right: 46, top: 28, bottom: 40 } };
  const bottom = zero - 0.12 * (high - low);
  const names = Object.fromEntries([[zero, '0'], ...decades.map((exponent) => [exponent, powerOfTen(exponent)])]);
  const y = {
    field: 'y',
    type: 'quantitative',
    scale: { domain: [bottom, high], nice: false, zero: false },
    axis: {
      values: [zero, ...decades],
      tickCount: decades.length + 1, // Vega drops explicit ticks beyond its own count
      labelExpr: `(${JSON.stringify(names)})[datum.value]`,
      domain: false,
      ticks: false,
      ...verticalTitle('gradient norm', size.margins.left),
    },
  };
  const x = {
    field: 'x',
    type: 'quantitative',
    scale: { domain: [0, lastStep], nice: false },
    axis: stepAxis(lastStep),
  };
  const panel = async (group: string) => {
    const layers: Layer[] = [
      {
        data: { values: [{ y: bottom, top: (zero + low) / 2 }] },
        mark: { type: 'rect', color: colour('band') },
        encoding: { y, y2: { field: 'top' } },
      },
    ];
    const labels: EndLabel[] = [];
    let reasons = 0;
    for (const loss of ['token', 'flow'] as const) {
      const values = norms
        .filter((norm) => norm.group === group && norm.loss === loss)
        .map(({ step, norm }) => ({ x: step, y: norm === 0 ? zero : Math.log10(norm) }));
      if (values.length === 0) continue;
      const point = values.length <= 40 ? { color: colour(loss), size: 14 } : false;
      const mark = { type: 'line', color: colour(loss), strokeWidth: 1.8, point };
      layers.push({ data: { values }, mark, encoding: { x, y } });
      labels.push({ text: loss, colour: loss, at: values[values.length - 1].y });
      const reason = expectedZero.find((zero) => zero.group === group && zero.loss === loss)?.reason;
      if (reason === undefined || values.some((value) => value.y !== zero)) continue;
      const place = { type: 'text', align: 'left', baseline: 'bottom', dy: -4 - 13 * reasons++ };
      layers.push({
        data: { values: [{ text: shorten(`0, ${reason}`, 34) }] },
        mark: { ...place, fontSize: 11, color: colour(loss) },
        encoding: { text: { field: 'text' }, x: { value: 2 }, y: { datum: zero, type: 'quantitative' } },
      });
    }
    const figure = await plot(`Gradient norms on ${group}`, size, [
      ...layers,
      ...endLabels(labels, [bottom, high], size),
    ]);
    return { group, figure };
  };
  return Promise.all(groups.map(panel));
}
