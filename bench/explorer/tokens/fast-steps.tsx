import type { FastExplanation, FastTokenizer } from '../../../tokenizers/index.ts';
import { digits } from '../../measure/table.ts';
import { Figure, Slider } from '../parts.tsx';
import { ChunkMatrix } from './chunk-matrix.tsx';
import { coefficientAt, type Span, shortened } from './spelling.ts';

/** The way of a chunk to FAST's ids: coefficients, integers, and the string with its merges. */
export function FastSteps(props: {
  tokenizer: FastTokenizer;
  explanation: FastExplanation;
  /** The string after the merges that are shown. */
  spans: readonly Span[];
  selected: Span | undefined;
  /** The largest error of the chunk, and without the selected token. */
  errors: readonly [own: number, without: number] | undefined;
  onToken(token: number | null): void;
  onMerged(count: number | null): void;
}) {
  const { tokenizer, explanation, spans, selected, errors, onToken, onMerged } = props;
  const { coefficients, quantised, merges, symbols } = explanation;
  const count = symbols.length - spans.length;
  const merge = merges[count - 1];
  const largest = Math.max(...coefficients.map(Math.abs)) || 1;
  const inSelected = (index: number) =>
    selected !== undefined && selected.at <= index && index < selected.at + selected.length;
  const select = (at: number) => onToken(inSelected(at) ? null : at);
  /** A cell for each coefficient, clicked to select the token that holds it. */
  const cell = (texts: readonly string[]) => (index: number) => ({
    ...{ text: texts[index], title: texts[index], onClick: () => select(index) },
    ...{ shade: (0.9 * coefficients[index]) / largest, marked: inSelected(index), hatched: quantised[index] === 0 },
  });
  const spelled = ({ at, length }: Span) => Array.from(quantised.subarray(at, at + length), (number) => number + 0);
  return (
    <>
      <Figure
        title="1. Discrete cosine transform over time"
        unit="normalised units"
        see="Each dimension becomes frequencies, slow ones to the left. A smooth movement has its weight there. Hatched: what the next step rounds to zero."
      >
        <ChunkMatrix
          label="Coefficients"
          along="frequency"
          cell={cell(Array.from(coefficients, (own) => (Math.round(100 * own) / 100 + 0).toFixed(2)))}
        />
      </Figure>
      <Figure
        title="2. Quantised"
        unit="steps of 1 / scale"
        see="The coefficients times the scale, rounded to integers. This rounding is all that FAST loses."
      >
        <ChunkMatrix
          label="Quantised coefficients"
          along="frequency"
          cell={cell(Array.from(quantised, (own) => String(own + 0)))}
        />
      </Figure>
      <Figure
        title="3. Flattened and merged"
        see="The integers in one line, all dimensions of frequency 0 first. Merges that were learned from other chunks join neighbours, the most frequent pair first, until none fits: what is left are the tokens, with the id above and its integers below."
      >
        <Slider
          label="Merges applied"
          value={count}
          min={0}
          max={merges.length}
          text={`${count} of ${merges.length}`}
          onChange={(count) => onMerged(count === merges.length ? null : count)}
        />
        <p class="small" style={{ minHeight: '1.5rem' }} aria-live="polite">
          {merge &&
            `Merge ${count}: ${merge.left} and ${merge.right} became ${merge.id}, merge ${merge.id - tokenizer.codec.symbols} of those learned.`}
        </p>
        <ol class="legend tokens-chips">
          {spans.map((span) => (
            <li key={span.at}>
              <button
                type="button"
                aria-pressed={span === selected}
                class={merge && span.at === merge.at ? 'fresh' : undefined}
                onClick={() => select(span.at)}
              >
                <b>{span.id}</b>
                <span>{shortened(spelled(span))}</span>
              </button>
            </li>
          ))}
        </ol>
        <p class="small" style={{ minHeight: '4.5rem' }} aria-live="polite">
          {selected && errors
            ? `Token ${spans.indexOf(selected)} with id ${selected.id} stands for ${spelled(selected)
                .map((number, i) => `${number} at ${coefficientAt(selected.at + i)}`)
                .join(
                  '; ',
                )}. Without it (zeros in its place, thin and red in the plot) the largest error is ${digits(errors[1])} in place of ${digits(errors[0])}.`
            : 'Click a token or a coefficient: it shows what the token says, and the chunk without it.'}
        </p>
      </Figure>
    </>
  );
}
