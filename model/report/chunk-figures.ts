import { formatPercent, type Markup } from './markup.ts';
import { colour, type Layer, plot } from './plot.ts';
import { type Chunks, dimensionNames } from './report-data.ts';
import { wilsonInterval } from './wilson.ts';

/** The three chunks of a plot, in the order they are drawn, by the names of `ChunkSample` and of the style sheet. */
const series = [
  { name: 'predicted', strokeWidth: 1.2 },
  { name: 'demonstrated', strokeWidth: 2 },
  { name: 'mean', strokeWidth: 2 },
] as const;

type Domain = [number, number];

/**
 * The vertical range of each dimension, by name, over all samples, so that one dimension has one axis. No range is
 * narrower than a fifth of the widest: a dimension at rest must look at rest.
 */
function domains({ samples }: Chunks): Map<string, Domain> {
  const ranges = new Map<string, Domain>();
  for (const sample of samples) {
    const names = dimensionNames(sample.dimensions);
    for (const { name } of series) {
      for (let i = 0; i < sample[name].length; i++) {
        const dimension = names[i % names.length];
        const [low, high] = ranges.get(dimension) ?? [Infinity, -Infinity];
        ranges.set(dimension, [Math.min(low, sample[name][i]), Math.max(high, sample[name][i])]);
      }
    }
  }
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
  return Promise.all(
    chunks.samples.map((sample, place) => {
      const names = dimensionNames(sample.dimensions);
      return Promise.all(
        names.map(async (name, dimension) => {
          const values = (from: ArrayLike<number>, steps: number) =>
            Array.from({ length: steps }, (_, step) => ({ x: step / rate, y: from[step * names.length + dimension] }));
          const lines = Object.fromEntries(
            series.map(({ name: line }) => [
              line,
              values(sample[line], line === 'demonstrated' ? sample.validSteps : horizon),
            ]),
          );
          const end = sample.validSteps < horizon ? sample.validSteps / rate : undefined;
          const label = `Held-out sample ${place + 1}, ${name}: demonstrated and predicted chunk`;
          return { name, figure: await chunkPlot(label, lines, ranges.get(name)!, (horizon - 1) / rate, end) };
        }),
      );
    }),
  );
}

function chunkPlot(
  label: string,
  lines: Record<string, { x: number; y: number }[]>,
  domain: Domain,
  seconds: number,
  end: number | undefined,
): Promise<Markup> {
  const size = { width: 150, height: 84, margins: { left: 38, right: 10, top: 6, bottom: 20 } };
  const y = {
    field: 'y',
    type: 'quantitative',
    scale: { domain, nice: false, zero: false },
    axis: { tickCount: 3, title: null, domain: false, ticks: false },
  };
  const x = {
    field: 'x',
    type: 'quantitative',
    scale: { domain: [0, seconds || 1], nice: false },
    axis: { tickCount: 2, grid: false, title: null, labelExpr: "datum.label + ' s'", labelFlush: true },
  };
  const layers: Layer[] = series.map(({ name, strokeWidth }) => {
    const point = lines[name].length === 1 ? { color: colour(name) } : false;
    const mark = { type: 'line', color: colour(name), strokeWidth, point };
    return { data: { values: lines[name] }, mark, encoding: { x, y } };
  });
  if (end !== undefined) {
    layers.unshift({
      data: { values: [{ x: end, x2: seconds }] },
      mark: { type: 'rect', color: colour('band') },
      encoding: { x, x2: { field: 'x2' } },
    });
  }
  return plot(label, size, layers);
}

/** Proportions with their 95 % Wilson intervals on one axis from 0 to 100 %. */
export function proportionFigure(rows: { name: string; count: number; of: number }[]): Promise<Markup> {
  const pitch = 52;
  const size = { width: 360, height: pitch * rows.length, margins: { left: 14, right: 26, top: 4, bottom: 40 } };
  const x = {
    field: 'x',
    type: 'quantitative',
    scale: { domain: [0, 1], nice: false },
    axis: {
      values: [0, 0.25, 0.5, 0.75, 1],
      labelExpr: "100 * datum.value + ' %'",
      title: 'share of episodes',
      grid: false,
    },
  };
  const layers = rows.flatMap(({ name, count, of }, place): Layer[] => {
    const { low, high } = wilsonInterval(count, of);
    const y = { value: pitch * place + 38 };
    const text = `${name}: ${count} of ${of}, ${formatPercent(count / of)} (95 % interval ${formatPercent(low)} to ${formatPercent(high)})`;
    return [
      {
        data: { values: [{ text }] },
        mark: { type: 'text', align: 'left', baseline: 'middle', fontSize: 12, color: colour('ink') },
        encoding: { text: { field: 'text' }, x: { value: 0 }, y: { value: pitch * place + 18 } },
      },
      {
        data: { values: [{ x: 0, x2: 1 }] },
        mark: { type: 'rule', color: colour('grid'), strokeWidth: 2 },
        encoding: { x, x2: { field: 'x2' }, y },
      },
      {
        data: { values: [{ x: low, x2: high }] },
        mark: { type: 'rule', color: colour('mean'), strokeWidth: 2, strokeCap: 'round' },
        encoding: { x, x2: { field: 'x2' }, y },
      },
      {
        data: { values: [{ x: count / of }] },
        mark: { type: 'point', filled: true, opacity: 1, size: 80, color: colour('mean') },
        encoding: { x, y },
      },
    ];
  });
  return plot(rows.map(({ name, count, of }) => `${name} ${count} of ${of}`).join(', '), size, layers);
}
