/** The figures of a training run's report. */
import { formatNumber, formatPercent, type Markup } from './markup.ts';
import { colour, type EndLabel, endLabels, type Layer, plot, quantitative, textLayer, verticalTitle } from './plot.ts';
import { type Chunks, dimensionNames } from './report-data.ts';
import { wilsonInterval } from './wilson.ts';

type Point = Readonly<Record<'x' | 'y', number>>;

type Range = [low: number, high: number];

/** The lowest and the highest of the values and of `start`. */
const extremes = (values: readonly number[], start: Range): Range =>
  values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], start);

/** Successive points in at most `most` groups: the mean of each group with its lowest and highest. */
export function binned(points: Point[], most: number): (Point & { low: number; high: number })[] {
  const size = Math.max(1, Math.ceil(points.length / most));
  const mean = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0) / numbers.length;
  return Array.from({ length: Math.ceil(points.length / size) }, (_, bin) => {
    const group = points.slice(bin * size, (bin + 1) * size);
    const values = group.map(({ y }) => y);
    return { x: mean(group.map(({ x }) => x)), y: mean(values), low: Math.min(...values), high: Math.max(...values) };
  });
}

/** Step numbers in full; from ten thousand on as "20k". */
const stepAxis = (last: number) => ({
  tickCount: 4,
  grid: false,
  title: 'training step',
  ...(last >= 1e4 ? { labelExpr: "format(datum.value, '~s')" } : {}),
});

export interface LossFigure {
  label: string;
  unit: string;
  /** A name in the style sheet. */
  colour: string;
  training: Point[];
  heldOut: Point[];
  baseline?: number;
}

/** The number of points of the drawn training line. */
export const TRAINING_BINS = 150;

/** The highest loss that is drawn: a first step far above everything would flatten all that follows. */
export function lossCeiling({ training, heldOut, baseline }: LossFigure): number {
  const values = [...training, ...heldOut].map(({ y }) => y);
  const top = values.reduce((a, b) => Math.max(a, b), baseline ?? 0);
  const usual = Math.max(baseline ?? 0, ...heldOut.map(({ y }) => y));
  return usual > 0 ? Math.min(top, 2 * usual) : top;
}

/** Training loss (mean, and a band from the lowest to the highest) and held-out loss over steps, the baseline as a line. */
export function lossFigure(data: LossFigure): Promise<Markup> {
  const size = { width: 240, height: 170, margins: { left: 40, right: 106, top: 28, bottom: 40 } };
  const domain: Range = [0, 1.05 * lossCeiling(data) || 1];
  const vertical = { tickCount: 4, domain: false, ticks: false, ...verticalTitle(data.unit, size.margins.left) };
  const y = quantitative('y', { domain, nice: false, clamp: true }, vertical);
  const lastStep = Math.max(data.training.at(-1)?.x ?? 0, data.heldOut.at(-1)?.x ?? 0);
  const x = quantitative('x', { nice: false, zero: true }, stepAxis(lastStep));
  const color = colour(data.colour);
  const layers: Layer[] = [];
  const labels: EndLabel[] = [];
  if (data.baseline !== undefined) {
    layers.push({
      data: { values: [{ y: data.baseline }] },
      mark: { type: 'rule', color: colour('muted'), strokeDash: [5, 4] },
      encoding: { y },
    });
    labels.push({ text: `baseline ${formatNumber(data.baseline)}`, colour: 'muted', at: data.baseline });
  }
  const line = (name: string, values: Point[], mark: object) => {
    layers.push({ data: { values }, mark: { type: 'line', color, ...mark }, encoding: { x, y } });
    const last = values[values.length - 1].y;
    labels.push({ text: `${name} ${formatNumber(last)}`, colour: data.colour, at: last });
  };
  if (data.training.length > 0) {
    const values = binned(data.training, TRAINING_BINS);
    layers.push({
      data: { values },
      mark: { type: 'area', color, opacity: 0.2 },
      encoding: { x, y: { ...y, field: 'low' }, y2: { field: 'high' } },
    });
    line('training', values, { strokeWidth: 1.2, opacity: 0.75 });
  }
  if (data.heldOut.length > 0) line('held-out', data.heldOut, { strokeWidth: 2.2, point: { color, size: 28 } });
  return plot(data.label, size, [...layers, ...endLabels(labels, domain, size)]);
}

/** The three chunks of a plot in the order they are drawn, by their names in `ChunkSample` and in the style sheet. */
const series = [
  { name: 'predicted', strokeWidth: 1.2 },
  { name: 'demonstrated', strokeWidth: 2 },
  { name: 'mean', strokeWidth: 2 },
] as const;

/**
 * The vertical range of each dimension, by name, over all samples, so that one dimension has one axis. No range is
 * narrower than a fifth of the widest: a dimension at rest must look at rest.
 */
function domains({ samples }: Chunks): Map<string, Range> {
  const ranges = new Map<string, Range>();
  for (const sample of samples)
    dimensionNames(sample.dimensions).forEach((dimension, d, { length }) => {
      const values = series.flatMap(({ name }) => Array.from(sample[name] ?? []).filter((_, i) => i % length === d));
      ranges.set(dimension, extremes(values, ranges.get(dimension) ?? [Infinity, -Infinity]));
    });
  const widest = [...ranges.values()].reduce((width, [low, high]) => Math.max(width, high - low), 0);
  for (const [name, [low, high]] of ranges) {
    const half = Math.max(0.53 * (high - low), widest / 10) || 1;
    ranges.set(name, [(low + high) / 2 - half, (low + high) / 2 + half]);
  }
  return ranges;
}

/** For each sample one small plot per action dimension; `rate` is in control steps a second. */
export function chunkPlots(chunks: Chunks, horizon: number, rate: number) {
  const ranges = domains(chunks);
  const size = { width: 150, height: 84, margins: { left: 38, right: 10, top: 6, bottom: 34 } };
  const seconds = (horizon - 1) / rate;
  const horizontal = { tickCount: 2, grid: false, title: 'time (s)', labelFlush: true };
  const x = quantitative('x', { domain: [0, seconds || 1], nice: false }, horizontal);
  const vertical = { tickCount: 3, title: null, domain: false, ticks: false };
  return Promise.all(
    chunks.samples.map((sample, place) => {
      const names = dimensionNames(sample.dimensions);
      return Promise.all(
        names.map(async (dimension, d) => {
          const y = quantitative('y', { domain: ranges.get(dimension), nice: false, zero: false }, vertical);
          const layers: Layer[] = series.flatMap(({ name, strokeWidth }) => {
            const own = sample[name];
            if (!own) return [];
            const length = name === 'demonstrated' ? sample.validSteps : horizon;
            const value = (step: number) => own[step * names.length + d];
            const values = Array.from({ length }, (_, step) => ({ x: step / rate, y: value(step) }));
            const point = length === 1 ? { color: colour(name) } : false;
            const mark = { type: 'line', color: colour(name), strokeWidth, point };
            return { data: { values }, mark, encoding: { x, y } };
          });
          if (sample.validSteps < horizon)
            layers.unshift({
              data: { values: [{ x: sample.validSteps / rate, x2: seconds }] },
              mark: { type: 'rect', color: colour('band') },
              encoding: { x, x2: { field: 'x2' } },
            });
          const label = `Held-out sample ${place + 1}, ${dimension}: demonstrated and predicted chunk`;
          return { name: dimension, figure: await plot(label, size, layers) };
        }),
      );
    }),
  );
}

/** Proportions with their 95 % Wilson intervals on one axis from 0 to 100 %. */
export function proportionFigure(rows: { name: string; count: number; of: number }[]): Promise<Markup> {
  const pitch = 52;
  const size = { width: 360, height: pitch * rows.length, margins: { left: 14, right: 26, top: 4, bottom: 40 } };
  const ticks = { values: [0, 0.25, 0.5, 0.75, 1], labelExpr: "100 * datum.value + ' %'" };
  const x = quantitative('x', { domain: [0, 1], nice: false }, { ...ticks, title: 'share of episodes', grid: false });
  const layers = rows.flatMap(({ name, count, of }, place): Layer[] => {
    const { low, high } = wilsonInterval(count, of);
    const y = { value: pitch * place + 38 };
    const text = `${name}: ${count} of ${of}, ${formatPercent(count / of)} (95 % interval ${formatPercent(low)} to ${formatPercent(high)})`;
    const rule = (from: number, to: number, mark: object): Layer => ({
      data: { values: [{ x: from, x2: to }] },
      mark: { type: 'rule', strokeWidth: 2, ...mark },
      encoding: { x, x2: { field: 'x2' }, y },
    });
    return [
      textLayer(text, { color: colour('ink') }, { value: 0 }, { value: pitch * place + 18 }),
      rule(0, 1, { color: colour('grid') }),
      rule(low, high, { color: colour('mean'), strokeCap: 'round' }),
      {
        data: { values: [{ x: count / of }] },
        mark: { type: 'point', filled: true, opacity: 1, size: 80, color: colour('mean') },
        encoding: { x, y },
      },
    ];
  });
  return plot(rows.map(({ name, count, of }) => `${name} ${count} of ${of}`).join(', '), size, layers);
}
