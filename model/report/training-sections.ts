import { attentionFigure, attentionInWords } from './attention-figure.ts';
import { gradientPanels, type LossFigure, lossCeiling, lossFigure, TRAINING_BINS } from './figures.ts';
import { formatNumber, formatRatio, formatSeconds, html, type Markup } from './markup.ts';
import { type Section, table } from './page.ts';
import type { Gradients, ReportData } from './report-data.ts';

/** "0.480 times the loss of the unigram predictor (4.81)". */
function comparedWith(value: number, baseline: number, name: string): string {
  const remark = value < baseline ? '' : ': no better than knowing nothing of the input';
  return `${formatRatio(value / baseline)} times that of ${name} (${formatNumber(baseline)})${remark}`;
}

const pick = <T>(points: T[], value: (point: T) => number | undefined, step: (point: T) => number) =>
  points.flatMap((point) => {
    const y = value(point);
    return y === undefined ? [] : [{ x: step(point), y }];
  });

export interface Loss extends LossFigure {
  title: string;
  /** The baseline in a sentence. */
  than: string;
}

/** The losses that the run has, token loss first. */
export function losses({ curves: { training, heldOut, baselines } }: ReportData): Loss[] {
  const points = (name: 'tokenLoss' | 'flowLoss') => ({
    training: pick(
      training,
      (point) => point[name],
      ({ step }) => step,
    ),
    heldOut: pick(
      heldOut,
      (point) => point[name],
      ({ step }) => step,
    ),
  });
  const baseline = (name: string, value: number | undefined) => (value === undefined ? undefined : { name, value });
  const all: Loss[] = [
    {
      title: 'Token loss',
      label: 'Token loss over training steps',
      unit: 'nats per token',
      colour: 'token',
      ...points('tokenLoss'),
      baseline: baseline('unigram', baselines.unigram),
      than: 'the unigram predictor',
    },
    {
      title: 'Flow loss',
      label: 'Flow loss over training steps',
      unit: 'squared velocity error (normalised actions)',
      colour: 'flow',
      ...points('flowLoss'),
      baseline: baseline('constant', baselines.constantVelocity),
      than: 'the best constant velocity',
    },
  ];
  return all.filter((loss) => loss.training.length + loss.heldOut.length > 0);
}

export async function lossSection(data: ReportData): Promise<Section | undefined> {
  const shown = losses(data);
  if (shown.length === 0) return undefined;
  const figures = await Promise.all(
    shown.map(async (loss) => {
      const last = loss.heldOut.at(-1);
      const words =
        last && loss.baseline
          ? html`<p class="small">Held out, at step ${formatNumber(last.x)}: ${formatNumber(last.y)}, ${comparedWith(last.y, loss.baseline.value, loss.than)}.</p>`
          : undefined;
      return html`<div><figure><figcaption>${loss.title}</figcaption>${await lossFigure(loss)}</figure>${words}</div>`;
    }),
  );
  const { training } = data.curves;
  const sentences: string[] = [];
  const last = training.at(-1);
  if (last && last.seconds > 0) {
    const rate = formatRatio(last.step / last.seconds);
    sentences.push(`${formatNumber(last.step)} steps in ${formatSeconds(last.seconds)}, ${rate} steps a second.`);
  }
  const size = Math.ceil(training.length / TRAINING_BINS);
  if (size > 1)
    sentences.push(
      `The training line is the mean of every ${size} points of the log, its band their lowest to highest.`,
    );
  for (const loss of shown) {
    const ceiling = lossCeiling(loss);
    const above = loss.training.filter(({ y }) => y > ceiling);
    if (above.length === 0) continue;
    const highest = formatNumber(above.reduce((most, { y }) => Math.max(most, y), 0));
    const name = loss.title.toLowerCase();
    sentences.push(`Early ${name} above the frame is drawn at its top edge; the highest was ${highest}.`);
  }
  return {
    id: 'losses',
    title: 'Losses',
    body: html`<p>${sentences.join(' ')}</p>\n<div class="losses">${figures}</div>`,
  };
}

/** The last norm of each loss on each group; an expectation that fails is marked. */
function gradientTable({ norms, expectedZero = [] }: Gradients): Markup {
  const groups = [...new Set(norms.map(({ group }) => group))];
  const columns = (['token', 'flow'] as const).filter((loss) => norms.some((norm) => norm.loss === loss));
  const cell = (group: string, loss: string): string | Markup => {
    const own = norms.filter((norm) => norm.group === group && norm.loss === loss);
    const last = own.at(-1);
    if (!last) return 'not measured';
    const reason = expectedZero.find((zero) => zero.group === group && zero.loss === loss)?.reason;
    if (reason === undefined) return last.norm === 0 ? 'exactly 0' : formatNumber(last.norm);
    const largest = own.reduce((most, { norm }) => Math.max(most, norm), 0);
    if (largest === 0) return `0, ${reason}`;
    return html`<span class="alarm">${formatNumber(largest)} at most, should be 0 (${reason})</span>`;
  };
  const head = ['parameter group', ...columns.map((loss) => `${loss} loss`)].map((name) => ({ name }));
  const steps = norms.reduce((most, { step }) => Math.max(most, step), 0);
  const rows = groups.map((group) => [group, ...columns.map((loss) => cell(group, loss))]);
  return table(head, rows, `Gradient norms at step ${formatNumber(steps)}`);
}

export async function gradientSection(gradients: Gradients): Promise<Section> {
  const panels = await gradientPanels(gradients);
  return {
    id: 'gradients',
    title: 'Gradient norms',
    body: html`<p>L2 norm of each loss's gradient on each parameter group, taken apart. A norm in the row marked 0 is zero to the last bit, not small.</p>
<div class="panels">${panels.map(({ group, figure }) => html`<figure><figcaption>${group}</figcaption>${figure}</figure>`)}</div>
${gradientTable(gradients)}`,
  };
}

export function attentionSection(attention: NonNullable<ReportData['attention']>): Section {
  const rows = attentionInWords(attention).map(({ query, words }) => [query, words]);
  return {
    id: 'attention',
    title: 'Attention table',
    body: html`${attentionFigure(attention)}\n${table([{ name: 'queries of' }, { name: 'see' }], rows)}`,
  };
}
