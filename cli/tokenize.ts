/** `insula tokenize report` and `fit`: measures action tokenizers on a data set, and fits one to it. */
import { aligned } from '../bench/measure/table.ts';
import { type ReportRow, reportedTokenizers, reportRows } from '../bench/tokenize/report.ts';
import { InputError } from '../engine/index.ts';
import { chooseHorizon, type Dataset } from '../model/data/index.ts';
import { about, readTokenizer, writePublished, writeTokenizer } from '../model/policy/tokenizer-file.ts';
import { formatPercent } from '../model/report/markup.ts';
import { splitChunks, wholeDataset } from '../model/training/tokenizer-chunks.ts';
import {
  type ActionChunk,
  type ActionTokenizer,
  type ActionTokenKind,
  actionTokenKinds,
  BinActionTokenizer,
  FastTokenizer,
  StrideTokenizer,
  StringActionTokenizer,
} from '../tokenizers/index.ts';
import { command } from './command.ts';
import { tokenizerNotes } from './notes.ts';
import { choice, decimal, number, outputFile, outputFolder, seedNumber, type ValuesOf } from './options.ts';
import { actionOptions, openActions, sceneOptions, tokenizerOption } from './tokenize-data.ts';

const ofAll = (chosen: number, total: number) => (chosen === total ? `${total}` : `${chosen} of ${total}`);

/** A note on the number of episodes that are shorter than a chunk. */
function shortEpisodes({ episodes }: Dataset, horizon: number): string {
  const count = episodes.filter(({ length }) => length < horizon).length;
  return count === 0 ? '' : `; ${count} of ${episodes.length} episodes are shorter than a chunk and left out`;
}

const forNaive = { needs: { kind: ['bins', 'stride'] } };
const forFast = { needs: { kind: ['fast', undefined] } };
const fitOptions = {
  ...actionOptions,
  ...sceneOptions,
  out: outputFile('file for the tokenizer and the statistics; required'),
  kind: choice('fast (default), bins, stride or string', actionTokenKinds),
  scale: decimal('quantisation steps per unit of a FAST coefficient; 10 by default', { above: 0, ...forFast }),
  covers: decimal('largest normalised value that FAST never clamps; by default the largest of the data', {
    above: 0,
    ...forFast,
  }),
  vocabulary: number('largest number of FAST ids; 1024 by default', 1, forFast),
  bins: number('ids of the naive tokenizers; 256 by default', 1, forNaive),
  stride: number('every how many control steps one is kept; 5 by default', 1, { needs: { kind: ['stride'] } }),
  decimals: number('decimal places of string actions; 4 by default', 1, { needs: { kind: ['string'] } }),
  format: choice('integers (default), or published, which openpi and LeRobot read', ['integers', 'published'], forFast),
  export: outputFolder('folder for the files that openpi and LeRobot read; with --format published', {
    needs: { format: ['published'] },
  }),
};

/** Fits a tokenizer to every episode of a data set and writes it with the statistics that normalise its chunks. */
export const fit = command({
  options: fitOptions,
  async run({ out, kind = 'fast', export: published, ...values }, { progress }) {
    if (out === undefined) throw new InputError('tokenize fit: name a file for the tokenizer with --out FILE');
    const dataset = await openActions(values, progress);
    const horizon = chooseHorizon(dataset, values.horizon);
    const { chunks, total, statistics } = await wholeDataset(dataset, horizon);
    const begin = performance.now();
    const tokenizer = about('tokenize fit', () => tokenizerOfKind(kind, values, chunks));
    const seconds = (performance.now() - begin) / 1000;
    if (published !== undefined) {
      if (!(tokenizer instanceof FastTokenizer))
        throw new InputError(`--export: there is no published format of ${kind}`);
      about('--export', () => tokenizer.toPublished());
      await writePublished(published, tokenizer);
    }
    const { name, rate, actionDimension: dimension } = dataset;
    await writeTokenizer(out, { tokenizer, statistics, horizon, dimension, dataset: name, rate });
    const clampings = chunks.map((chunk) => tokenizer.clamping(chunk));
    const clamped = clampings.reduce((sum, own) => sum + own.clamped, 0);
    const json = {
      out,
      kind,
      dataset: name,
      chunks: chunks.length,
      chunksInAll: total,
      horizon,
      dimension,
      vocabularySize: tokenizer.vocabularySize,
      ...(tokenizer instanceof FastTokenizer && { coefficients: [tokenizer.minimum, tokenizer.maximum] }),
      clamped,
      seconds,
    };
    const range = json.coefficients ? ` for coefficients from ${json.coefficients.join(' to ')}` : '';
    const line = `fitted on ${ofAll(chunks.length, total)} chunks of ${horizon} x ${dimension} in ${seconds.toFixed(2)} s: ${tokenizer.vocabularySize} ids${range}, written to ${out}; ${clamped} numbers are out of range, and clamped${shortEpisodes(dataset, horizon)}`;
    return { json, lines: [line] };
  },
});

function tokenizerOfKind(
  kind: ActionTokenKind,
  { format, scale, covers, vocabulary, bins, stride, decimals }: ValuesOf<typeof fitOptions>,
  chunks: readonly ActionChunk[],
): ActionTokenizer {
  switch (kind) {
    case 'fast':
      return FastTokenizer.fit(chunks, { scale, covers, vocabularySize: vocabulary, format });
    case 'bins':
      return new BinActionTokenizer({ bins });
    case 'stride':
      return new StrideTokenizer(new BinActionTokenizer({ bins }), stride);
    case 'string':
      return new StringActionTokenizer({ decimals });
  }
}

/** Compares every kind of tokenizer on the same held-out chunks. */
export const report = command({
  options: {
    ...actionOptions,
    seed: seedNumber('chooses the held-out episodes, or the scenes of the built-in world; 0 by default'),
    tokenizer: tokenizerOption,
  },
  notes: tokenizerNotes,
  async run({ tokenizer, ...values }, { progress }) {
    const dataset = await openActions(values, progress);
    const { name, rate, actionDimension: dimension } = dataset;
    const horizon = chooseHorizon(dataset, values.horizon);
    const { train, heldOut, normaliser, total, description } = await splitChunks(dataset, {
      horizon,
      seed: values.seed,
    });
    if (train.length === 0 || heldOut.length === 0)
      throw new InputError(
        `data set "${name}": ${train.length} chunks of ${horizon} steps to fit on and ${heldOut.length} held out: choose a shorter --horizon`,
      );
    const tokenizers = about('tokenize report', () => reportedTokenizers(train));
    if (tokenizer !== undefined) tokenizers.push([tokenizer, (await readTokenizer(tokenizer)).tokenizer]);
    const rows = about('tokenize report', () => reportRows(tokenizers, heldOut, rate));
    const names = dataset.actionNames ?? Array.from({ length: dimension }, (_, d) => `dimension ${d}`);
    const { low, high } = normaliser;
    const dimensions = names.map((own, d) => ({ name: own, halfRange: (high[d] - low[d]) / 2 }));
    const chunks = { train: train.length, trainInAll: total, heldOut: heldOut.length };
    const line = `${name}: ${ofAll(chunks.train, total)} chunks of ${horizon} x ${dimension} (${(horizon / rate).toFixed(2)} s) to fit on, ${chunks.heldOut} to measure; ${description}${shortEpisodes(dataset, horizon)}`;
    return {
      json: { dataset: name, rate, horizon, dimension, chunks, split: description, dimensions, rows },
      lines: [line, '', ...reportLines(rows, dimensions)],
    };
  },
});

/** `halfRange` is the value of a dimension in its own units that is 1 when normalised. */
function reportLines(
  rows: readonly ReportRow[],
  dimensions: readonly { readonly name: string; readonly halfRange: number }[],
): string[] {
  const percent = (share: number | null, decimals: number) => (share === null ? '' : formatPercent(share, decimals));
  const summary = rows.map(({ name, tokensPerChunk, tokensPerSecond, compression, error, ...row }) => [
    ...[name, tokensPerChunk.mean.toFixed(1), `${tokensPerChunk.least}`, `${tokensPerChunk.most}`],
    ...[tokensPerSecond.toFixed(1), compression.toFixed(2)],
    ...[percent(row.zeroShare, 0), percent(row.clampedShare, 2)],
    ...[error.rootMeanSquare.toFixed(5), error.largest.toFixed(5)],
    ...[`${row.use.distinct}/${row.vocabularySize}`, row.use.entropy.toFixed(2)],
  ]);
  const tokens = ['tokens/chunk', 'least', 'most', 'tokens/s', 'ratio'];
  const others = ['zeros', 'clamped', 'error', 'largest', 'ids used', 'bits/token'];
  const errors = dimensions.map(({ name, halfRange }, d) => [
    ...[name, halfRange.toPrecision(4)],
    ...rows.map(({ error }) => error.perDimension[d].toFixed(5)),
  ]);
  return [
    ...aligned([['held-out chunks', ...tokens, ...others], ...summary], 1),
    '(error, largest: root mean square and largest error of normalised values, 1 being half the usual range; ratio: compression beside the first row)',
    '',
    ...aligned([['error by dimension', '1 is', ...rows.map(({ name }) => name)], ...errors], 1),
  ];
}
