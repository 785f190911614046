import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { decode } from 'fast-png';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { InputError } from '../engine/files/errors.ts';
import { attentionInWords, blockSizes } from '../model/report/attention-figure.ts';
import { writeEpisodes } from '../model/report/episodes.ts';
import { binned } from '../model/report/figures.ts';
import { formatNumber, formatRatio, formatSeconds, formatShare, formatTimes, shorten } from '../model/report/markup.ts';
import { type LossPoint, type ReportData, renderReport, writeReport } from '../model/report/report.ts';
import { wilsonInterval } from '../model/report/wilson.ts';
import { demoReport, film } from './support/demo-report.ts';

/** Every tag of a page with its attributes' names, in order; a stray `<` or quote in the data would change it. */
function tags(page: string): string[] {
  const found: string[] = [];
  for (const [tag] of page.replace(/<style>.*?<\/style>/s, '').matchAll(/<[^>]*>/g)) {
    const names = [...tag.matchAll(/\s([\w:-]+)="[^"]*"/g)].map(([, name]) => name);
    expect(tag).toMatch(/^<(!doctype html|\/?\w+(\s+[\w:-]+="[^"]*")*\s*\/?)>$/);
    found.push([/^<[!/]?\w+/.exec(tag)![0], ...names].join(' '));
  }
  return found;
}

function expectBalanced(page: string): void {
  const open: string[] = [];
  for (const tag of page.replace(/<style>.*?<\/style>/s, '').match(/<[^>]*>/g)!) {
    const name = /^<\/?(\w+)/.exec(tag)?.[1];
    if (name === undefined || tag.endsWith('/>') || name === 'meta' || name === 'img') continue;
    if (tag.startsWith('</')) expect(open.pop()).toBe(name);
    else open.push(name);
  }
  expect(open).toEqual([]);
}

/** A copy with every string changed, names of objectives among them, except the keywords of the format. */
function withStrings<T>(value: T, change: (text: string) => string): T {
  const byObjective = new Set(['losses', 'baselines', 'pictures', 'words']);
  const copy = (part: unknown, name: string): unknown => {
    if (typeof part === 'string') return name === 'mask' ? part : change(part);
    if (Array.isArray(part)) return part.map((item) => copy(item, name));
    if (typeof part !== 'object' || part === null || ArrayBuffer.isView(part)) return part;
    const entries = Object.entries(part).map(([key, item]) => [
      byObjective.has(name) ? change(key) : key,
      copy(item, key),
    ]);
    return Object.fromEntries(entries);
  };
  return copy(value, '') as T;
}

const text = (page: string) =>
  page
    .replace(/<style>.*?<\/style>/s, '')
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ');

describe('the page', () => {
  const all = [
    'notes',
    'losses',
    'gradients',
    'attention',
    'chunks',
    'open-loop',
    'closed-loop',
    'episodes',
    'swapped',
    'kept',
    'latency',
    'run',
  ];
  const sections = (page: string) => [...page.matchAll(/<section id="([\w-]+)"/g)].map(([, id]) => id);
  let page: string;
  beforeAll(async () => {
    page = await renderReport(demoReport());
  });

  test('has every section, linked, in well-formed HTML, the same bytes each time', async () => {
    expect(sections(page)).toEqual(all);
    expect([...page.matchAll(/<a href="([^"]*)"/g)].map(([, link]) => link)).toEqual(all.map((id) => `#${id}`));
    expectBalanced(page);
    const ids = [...page.matchAll(/\sid="([^"]*)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(await renderReport(demoReport())).toBe(page);
  });

  test('requests nothing and runs no script', () => {
    expect(page).not.toMatch(/https?:|<script|<link|<iframe|@import|\son\w+=/i);
    for (const [, source] of page.matchAll(/\ssrc="([^"]*)"/g)) expect(source).toMatch(/^data:image\/png;base64,/);
    for (const [, target] of page.matchAll(/url\(([^)]*)\)/g))
      expect(target).toMatch(/^#(stop-(key|value)|gradients-zero)$/);
    expect(page).toContain(`content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"`);
  });

  test('uses colours of its style sheet alone, light and dark', () => {
    const used = new Set([...page.matchAll(/var\(--([\w-]+)\)/g)].map(([, name]) => name));
    expect(used.size).toBeGreaterThan(10);
    for (const [, theme] of page.matchAll(/:root\{([^}]*)\}/g))
      for (const name of used) expect(theme).toContain(`--${name}:#`);
  });

  test('leaves out parts that are missing', async () => {
    const data = demoReport();
    for (const part of [
      'gradients',
      'attention',
      'chunks',
      'openLoop',
      'closedLoop',
      'films',
      'swapped',
      'kept',
      'latency',
    ] as const)
      delete data[part];
    data.notes = [];
    const flowAlone = <T extends LossPoint>(point: T) => ({ ...point, losses: { flow: point.losses.flow } });
    data.curves.training = data.curves.training.map(flowAlone);
    data.curves.heldOut = data.curves.heldOut.map(flowAlone);
    const short = await renderReport(data);
    expect(sections(short)).toEqual(['losses', 'run']);
    expect(text(short)).toContain('Flow loss');
    expect(text(short)).not.toContain('oken loss');
    data.curves = { training: [], heldOut: [], baselines: {} };
    expect(sections(await renderReport(data))).toEqual(['run']);
  });

  test('escapes every string', async () => {
    const hostile = `</text></svg><script>alert("1")</script>' onload="alert(2)" x='&`;
    const changed = await renderReport(withStrings(demoReport(), (string) => `${hostile}${string}`));
    expect(tags(changed)).toEqual(tags(page));
    expect(changed).toContain('&lt;script&gt;alert(&quot;1&quot;)');
  });

  test('states the ratios to the baselines', async () => {
    const data = demoReport();
    data.curves.heldOut.at(-1)!.losses = { token: 2.405, flow: 2.64 };
    const words = text(await renderReport(data));
    expect(words).toContain('2.41, 0.50 × the 4.81 of the unigram predictor.');
    expect(words).toContain('2.64, 2.00 × the 1.32 of the best constant velocity (worse).');
    expect(words).toContain('2.00 × (worse)');
    expect(words).toContain('the highest was 9.50');
    expect(words).toContain('Settings --ema 0.99 --steps 900 (others have their defaults)');
    expect(words).toContain('It sees a window of 8 control steps.');
    expect(words).toMatch(/best constant chunk 0\.372 1 × one sample 0\.214 0\.58 × mean of 8 samples 0\.161 0\.43 ×/);
  });

  test('shows whatever objectives a run has, each in its colour', async () => {
    const data = demoReport();
    const names = ['contrast', 'depth', 'reward', 'progress', 'keypoint', 'subtask', 'seventh'];
    data.objectives = names.map((name) => ({
      name,
      title: `${name} loss`,
      meaning: `nats of ${name}`,
      baseline: null,
    }));
    const losses = Object.fromEntries(names.map((name, place) => [name, 1 + place]));
    data.curves = { training: [], heldOut: [{ step: 4, losses }], baselines: {} };
    data.gradients = { norms: names.map((loss, place) => ({ step: 4, loss, group: 'all', norm: 1 + place })) };
    const shown = await renderReport(data);
    const words = text(shown);
    for (const [place, name] of names.entries()) {
      expect(words).toContain(`Held out, at step 4: ${1 + place}.`);
      expect(words).toContain(`nats of ${name}`);
      expect(words).toContain(`held-out ${name} loss ${1 + place}`);
      const colour = `var(--line${1 + (place % 6)})`;
      const figure = shown.slice(shown.indexOf(`aria-label="${name[0].toUpperCase()}${name.slice(1)} loss over`));
      expect(figure.slice(0, figure.indexOf('</svg>'))).toContain(colour);
    }
    expect(words).toMatch(/step 4 all contrast loss contrast loss on all at step 4: norm 1 1 depth loss .* norm 7 7 /);
    for (const theme of ['light', 'dark'])
      expect(shown).toMatch(new RegExp(`--line6:#\\w{6};[^}]*color-scheme:${theme}`));
  });

  test('holds the images exactly', async () => {
    const { films, ...data } = demoReport();
    const page = await renderReport(data);
    const images = data.chunks!.samples.flatMap(({ image }) => image ?? []);
    const sources = [...page.matchAll(/base64,([^"]*)"/g)].map(([, source]) => decode(Buffer.from(source, 'base64')));
    expect(sources.length).toBe(images.length);
    for (const [i, { width, height, data }] of sources.entries()) {
      expect([width, height]).toEqual([images[i].width, images[i].height]);
      expect(Buffer.compare(data as Uint8Array, images[i].pixels)).toBe(0);
    }
  });

  test('draws the smallest runs', async () => {
    const data = demoReport();
    data.curves.training.length = 1;
    data.curves.heldOut.length = 1;
    data.gradients = { norms: data.gradients!.norms.map((norm) => ({ ...norm, step: 0, norm: 0 })) };
    data.data.horizon = 1;
    const one = { dimensions: 2, demonstrated: [0, 0], predicted: [0, 0], mean: null, validSteps: 1 };
    data.chunks = { unit: 'm', samples: [one] };
    data.openLoop!.meanOfEight = null;
    data.attention = { blocks: [{ name: 'all', length: 1 }], edges: [] };
    data.closedLoop = { episodes: [{ instruction: 'a', success: false, steps: 1 }] };
    const small = await renderReport(data);
    expect(sections(small)).toEqual(all);
    expect(small).not.toMatch(/NaN|Infinity|undefined/);
    expect(text(small)).toContain('dimension 1 (m)');
    expect(text(small)).toMatch(/best constant chunk 0\.372 1 × predicted chunk 0\.214 0\.58 ×/);
    expect(text(small)).not.toMatch(/one sample|mean of 8/);
    expect(text(small)).toContain('success: 0 of 1, 0 % (95 % interval 0 % to 79 %)');
    expect(text(small)).not.toContain('right object:');
  });

  test('shows episodes call by call, failures as plainly as successes, and swapped pictures and words', () => {
    const words = text(page);
    expect(words).toMatch(
      /“push the red cube to the right” Pushed the red cube to the right\. “red cube” Call 1, step 0: gripper/,
    );
    expect(words).toContain('“push the red cube to the right” Never reached the red cube.');
    expect(words).toContain('“red cube” Call 3, step 10: gripper at x 3, y -5, z 12 cm After step 13');
    expect(words).toMatch(/with token loss flow loss .*pictures 1\.020 × 1\.610 × .*instruction 1\.300 × 0\.999 ×/i);
    const strip = page.slice(page.indexOf('<div class="strip">'), page.indexOf('Never reached'));
    expect(strip.match(/<img /g)).toHaveLength(4);
  });
});

describe('gradients', () => {
  test('an exact zero stands apart from the smallest norm, with its reason', async () => {
    const words = text(await renderReport(demoReport()));
    expect(words).toMatch(/flow loss on backbone at step [\d,]+: 0, cut by the table 0 /);
    expect(words).toMatch(/token loss on backbone at step [\d,]+: norm [\d.]+ /);
    expect(words).toContain('The flow loss sends backbone a gradient of exactly 0: cut by the table.');
    expect(words).toContain('The token loss sends action head a gradient of exactly 0: no token reads the actions.');
    expect(words).not.toContain('should be 0');
  });

  test('a gradient that should be zero and is not is marked', async () => {
    const data = demoReport();
    data.gradients!.norms.find(({ group, loss }) => group === 'backbone' && loss === 'flow')!.norm = 3.1e-9;
    const page = await renderReport(data);
    expect(page).toContain(
      '<p class="alarm">The flow loss sends backbone a gradient of up to 3.10 × 10⁻⁹, which should be 0: cut by the table.</p>',
    );
  });
});

describe('the attention table', () => {
  test('is hatched at stopped edges only, and repeated in words', async () => {
    const data = demoReport();
    const opened = data.attention!.edges.find(({ query, key }) => query === 'action' && key === 'state')!;
    Object.assign(opened, { valueGradient: 1 });
    const page = await renderReport(data);
    const drawing = /<figure class="attention"><svg.*?<\/svg>/s.exec(page)![0];
    expect(drawing.match(/fill="url\(#stop-key\)"/g)).toHaveLength(3);
    expect(drawing.match(/fill="url\(#stop-value\)"/g)).toHaveLength(2);
    expect(drawing.match(/<rect [^>]*fill="var\(--pairs\)"/g)).toHaveLength(16);
    expect(drawing.match(/<path [^>]*fill="var\(--pairs\)"/g)).toHaveLength(1);
    expect(attentionInWords(data.attention!).slice(3)).toEqual([
      { query: 'target', words: 'image, language, state; target (causal)' },
      {
        query: 'action',
        words: 'image, language (no gradient into keys and values); state (no gradient into keys); action',
      },
    ]);
  });

  test('is hatched lightly where the gradient is scaled, with the factor in words', async () => {
    const data = demoReport();
    for (const edge of data.attention!.edges)
      if (edge.query === 'action' && edge.keyGradient === 0)
        Object.assign(edge, { keyGradient: 0.1, valueGradient: 0.1 });
    const state = data.attention!.edges.find(({ query, key }) => query === 'action' && key === 'state')!;
    Object.assign(state, { keyGradient: 0, valueGradient: 0.25 });
    const page = await renderReport(data);
    const drawing = /<figure class="attention"><svg.*?<\/svg>/s.exec(page)![0];
    const hatched = (name: string) => drawing.match(new RegExp(`fill="url\\(#${name}\\)"`, 'g'))?.length ?? 0;
    expect(['scale-key', 'scale-value', 'stop-key', 'stop-value'].map(hatched)).toEqual([2, 3, 1, 0]);
    expect(page).toContain('hatched: 0.1 of the gradient into keys and values');
    expect(page).toContain('hatched: no gradient into keys, 0.25 of the gradient into values');
    expect(attentionInWords(data.attention!).at(-1)!.words).toBe(
      'image, language (0.1 of the gradient into keys and values); state (no gradient into keys, 0.25 of the gradient into values); action',
    );
  });

  test('block sizes: to scale, none under the smallest, filling the side', () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 10 });
    fc.assert(
      fc.property(lengths, (lengths) => {
        const sizes = blockSizes(lengths, 300, 30);
        expect(sizes.reduce((a, b) => a + b)).toBeCloseTo(300, 6);
        const scales = sizes.flatMap((size, i) => (size > 30.000001 ? [size / lengths[i]] : []));
        for (const scale of scales) expect(scale).toBeCloseTo(scales[0], 9);
        for (const [i, size] of sizes.entries()) {
          expect(size).toBeGreaterThanOrEqual(30);
          if (size === 30) expect(lengths[i] * (scales[0] ?? 0)).toBeLessThanOrEqual(30.000001);
        }
      }),
    );
  });
});

describe('a run that diverged', () => {
  const cases: [string, (data: ReportData) => void][] = [
    ['curves.training.3.losses.flow is NaN', (data) => (data.curves.training[3].losses = { flow: Number.NaN })],
    ['gradients.norms.2.norm is Infinity', (data) => (data.gradients!.norms[2].norm = Number.POSITIVE_INFINITY)],
    ['chunks.samples.1.mean.5 is NaN', (data) => ((data.chunks!.samples[1].mean as Float32Array)[5] = Number.NaN)],
  ];
  test.each(cases)('%s', async (message, spoil) => {
    const data = demoReport();
    spoil(data);
    await expect(renderReport(data)).rejects.toThrow(
      new InputError(`the report: ${message}, and a report needs finite numbers: did the run diverge?`),
    );
  });
});

describe('writing', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'insula-report-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test('writes the rendered page over an older one and leaves nothing else', async () => {
    const path = join(folder, 'report.html');
    await writeFile(path, 'old');
    await writeReport(path, demoReport());
    expect(await readFile(path, 'utf8')).toBe(await renderReport(demoReport()));
    const bad = demoReport();
    bad.phases[0].seconds = Number.NaN;
    await expect(writeReport(path, bad)).rejects.toThrow(InputError);
    expect(await readFile(path, 'utf8')).toContain('</html>');
    expect(await readdir(folder)).toEqual(['report.html']);
  });

  test('writes a strip for each episode with a picture for each call and the end, and a page', async () => {
    const path = join(folder, 'episodes');
    await writeEpisodes(path, [film(true), film(true), film(false)]);
    await writeEpisodes(path, [film(true), film(false)], 'Episodes');
    expect((await readdir(path)).sort()).toEqual([
      '01-success-pushed-the-red-cube-to-the-right.png',
      '02-failure-never-reached-the-red-cube.png',
      'index.html',
    ]);
    const strip = decode(await readFile(join(path, '02-failure-never-reached-the-red-cube.png')));
    expect([strip.width, strip.height]).toEqual([4 * 256, 256]);
    const pixel = (picture: number, across: number, down: number) =>
      Array.from(strip.data.slice((down * strip.width + picture * 256 + across) * 3).slice(0, 3));
    // A cross of the place that was said in each call's picture and none at the end, and the path of the gripper in all.
    const { frames } = film(false);
    for (const [i, { said }] of frames.entries())
      expect(pixel(i, Math.floor(said!.places[0][1] * 256), Math.floor(0.6 * 256))).toEqual([255, 0, 200]);
    expect(pixel(3, Math.floor(0.45 * 256), Math.floor(0.6 * 256))).toEqual([255, 255, 255]);
    expect(await readFile(join(path, 'index.html'), 'utf8')).toContain('Never reached the red cube.');
  });

  test('a folder that is not there is one line', async () => {
    const path = join(folder, 'missing', 'report.html');
    const error = await writeReport(path, demoReport()).catch((error) => error);
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toBe(`${path}: cannot write it: no such file or folder`);
  });
});

describe('numbers', () => {
  test('Wilson interval: published values, and its ends', () => {
    // Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
    for (const [successes, trials, low, high] of [
      [81, 263, 0.2553, 0.3662],
      [15, 148, 0.0624, 0.1605],
      [0, 20, 0, 0.1611],
      [1, 29, 0.0061, 0.1718],
    ]) {
      const interval = wilsonInterval(successes, trials);
      expect(interval.low).toBeCloseTo(low, 4);
      expect(interval.high).toBeCloseTo(high, 4);
    }
    expect(wilsonInterval(20, 20).high).toBe(1);
    expect(() => wilsonInterval(3, 2)).toThrow('3 successes of 2 trials');
  });

  test('formats', () => {
    expect([0, Number.NaN, 4, 1234567, 0.41236, 12.34, 3.1e-9, -0.5].map(formatNumber)).toEqual([
      '0',
      'NaN',
      '4',
      '1,234,567',
      '0.412',
      '12.3',
      '3.10 × 10⁻⁹',
      '−0.500',
    ]);
    expect([0.4649, 1, 1.294, 14.2, 250.4].map(formatRatio)).toEqual(['0.46', '1.00', '1.29', '14', '250']);
    expect([1.004, 0.998, 0.96, 1.0000004, 9.996].map(formatRatio)).toEqual([
      ...['1.004', '0.998', '0.96', '1.0000004', '10'],
    ]);
    expect([0.46, 1, 1.0004].map((ratio) => formatTimes(ratio))).toEqual([
      ...['0.46 ×', '1.00 × (no better)', '1.0004 × (worse)'],
    ]);
    expect(formatTimes(1.29, 'that of the constant')).toBe('1.29 × that of the constant (worse)');
    expect(formatShare(17, 20)).toBe('17 of 20, 85 % (64 to 95 %)');
    expect([3.14, 59.6, 252, 7500].map(formatSeconds)).toEqual(['3.1 s', '1 min 0 s', '4 min 12 s', '2 h 5 min']);
    expect([shorten('abcd', 4), shorten('abcde', 4)]).toEqual(['abcd', 'abc…']);
  });

  test('bins keep the mean and the extremes', () => {
    const points = [5, 1, 3, 7, 9].map((y, x) => ({ x, y }));
    expect(binned(points, 2)).toEqual([
      { x: 1, y: 3, low: 1, high: 5 },
      { x: 3.5, y: 8, low: 7, high: 9 },
    ]);
    expect(binned(points, 5).map(({ y }) => y)).toEqual([5, 1, 3, 7, 9]);
  });
});
