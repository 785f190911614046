/** `insula verify`: every kernel and a training step on this adapter, compared with float64. */
import { treeText } from '../bench/measure/provenance.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { type Comparison, ulpBins } from '../bench/verify/compare.ts';
import { type VerifyResult, verify } from '../bench/verify/run.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { openDevice } from '../engine/index.ts';
import { command } from './command.ts';
import { deviceOptions, experimentalOption } from './device.ts';
import { verifyNotes } from './notes.ts';
import { flag, outputFile, texts } from './options.ts';

export const verifyCommand = command({
  options: {
    only: texts("names of ops, with * for any letters: 'attention,adaptive*'; 'training' is the training step"),
    all: flag('every variant, also on a software adapter, which compiles those made for GPUs for minutes'),
    out: outputFile('file for the report as JSON'),
    adapter: deviceOptions.adapter,
    floor: deviceOptions.floor,
    experimental: experimentalOption,
  },
  notes: verifyNotes,
  async run({ only = [], all = false, out, adapter, floor, experimental }, { progress }) {
    using device = await openDevice({ adapter, floor, experimental });
    const result = await verify(device, {
      ...{ only, every: all },
      onProgress: (what, done, total) => progress.count(what, done, total),
    });
    if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(result, null, 1)}\n`]);
    return { json: result, lines: verifyLines(result), status: result.passed ? 0 : 1 };
  },
});

/** Departing results that are written out. */
const MOST_LINES = 20;
/** Ends of bins that a table shows, in units in the last place. */
const ends = [0.5, 16, 256];

const small = (value: number) => (value === 0 ? '0' : value.toExponential(1));
const counted = (names: readonly string[]) => [...new Set(names)].join(' ');

/** The percentage of elements that are off by at most `end` units in the last place; 100 only for all of them. */
function within(own: readonly Comparison[], end: number): string {
  const sum = (histogram: readonly number[]) => histogram.reduce((total, count) => total + count, 0);
  const inside = own.reduce((total, { histogram }) => total + sum(histogram.slice(0, ulpBins.indexOf(end) + 1)), 0);
  const all = own.reduce((total, { elements }) => total + elements, 0);
  return inside === all ? '100' : (Math.floor((1000 * inside) / all) / 10).toFixed(1);
}

/** One row for all variants and storages of an op. */
function rowOf(op: string, own: readonly Comparison[]): string[] {
  const nearest = own.reduce((a, b) => (b.error * (a.tolerance || 1) > a.error * (b.tolerance || 1) ? b : a));
  const worst = own.reduce((most, { worstUlp }) => Math.max(most, worstUlp), 0);
  return [
    ...[op, counted(own.flatMap(({ storage }) => storage.split(' ').filter((word) => /\d/.test(word))))],
    ...[own.every(({ passed }) => passed) ? 'agrees' : 'DEPARTS', String(own.length)],
    ...[small(nearest.error), small(nearest.tolerance), digits(worst), ...ends.map((end) => within(own, end))],
  ];
}

function departure({ departs, error, tolerance, histogram, elements, ...own }: Comparison): string[] {
  const byUlp = histogram.flatMap((count, i) => (count > 0 ? [`${ulpBins[i] ?? 'more'}:${count}`] : []));
  return [
    `  ${own.op}, ${own.variant}, ${own.storage}: ${own.name}: ${own.tensor}`,
    `    element ${departs?.index} of ${elements}: expected ${departs?.expected}, got ${departs?.actual}`,
    `    error ${small(error)}, allowed ${small(tolerance)}; elements by ULP: ${byUlp.join(' ')}`,
  ];
}

/** Words behind a title, in lines that begin below it. */
function listed(title: string, words: readonly string[]): string[] {
  const lines = [`${title}:`];
  for (const [i, word] of words.entries()) {
    const text = i < words.length - 1 ? `${word},` : word;
    if (lines[lines.length - 1].length + text.length < 120) lines[lines.length - 1] += ` ${text}`;
    else lines.push(`  ${text}`);
  }
  return lines;
}

export function verifyLines(result: VerifyResult): string[] {
  const { results, failures, limits, adapter, omitted, seconds, subgroupSizes, platform, floor, versions } = result;
  const departing = results.filter(({ passed }) => !passed);
  const wrong = departing.length + failures.length;
  const ops = [...new Set(results.map(({ op }) => op))];
  const of = (op: string) => results.filter((own) => own.op === op);
  const chosen = ops.flatMap((op) => {
    const variants = [...new Set(of(op).map(({ variant }) => variant))].filter((name) => name !== 'shipped');
    return variants.length > 0 ? listed(`variants of ${op} beside the shipped ones`, variants) : [];
  });
  const header = ['op', 'storage', '', 'results', 'error', 'allowed', 'worst ULP', ...ends.map((end) => `% in ${end}`)];
  return [
    `adapter: ${adapter.description}${adapter.software ? ' (software adapter)' : ''}${floor ? ', opened at the floor' : ''}`,
    `system: ${platform}, node ${versions.node}, webgpu ${versions.webgpu}`,
    `insula ${versions.insula}, ${treeText(result)}; ${result.date}`,
    ...listed('features', adapter.features),
    ...(subgroupSizes ? [`lanes of a subgroup: ${[...new Set(subgroupSizes)].join(' to ')}`] : []),
    ...listed(
      'limits',
      Object.entries(limits).map(([name, value]) => `${name} ${value}`),
    ),
    ...(results.length > 0 ? ['', ...aligned([header, ...ops.map((op) => rowOf(op, of(op)))], 3), ''] : ['']),
    ...chosen,
    'error: |actual - expected| / |expected| in the L2 norm, float64 being expected, of the result nearest to what is allowed',
    '(0: equal numbers). ULP: the worst element in units in the last place of its storage; % in: elements within so many,',
    '0.5 being correctly rounded. Sums that cancel are off by many, so that the error decides. --out has all histograms.',
    ...(wrong > departing.length
      ? ['', 'could not run:', ...failures.map(({ name, variant, reason }) => `  ${name}, ${variant}: ${reason}`)]
      : []),
    ...(departing.length > 0 ? ['', 'departs:'] : []),
    ...departing.slice(0, MOST_LINES).flatMap((own) => departure(own)),
    ...(departing.length > MOST_LINES ? [`  and ${departing.length - MOST_LINES} more; --out has all`] : []),
    '',
    ...(omitted > 0
      ? [`left out: ${omitted} checks of variants made for GPUs, compiled here for minutes; --all runs them`]
      : []),
    `${wrong === 0 ? `all ${results.length} results agree with float64` : `${wrong} of ${results.length + failures.length} results depart`}; ${seconds.toFixed(0)} seconds`,
  ];
}
